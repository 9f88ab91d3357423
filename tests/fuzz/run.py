"""Damage files by chance and read them: `python -m tests.fuzz.run --cases 2000 --seed 0` prints a table.

Every case runs in a child process with a limit on memory and time. Allowed are: the same result as before,
one sentence (an input error), and, for formats that carry no checksum, another result (`may_differ`).
"""

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.readers import READERS

SECONDS, MEMORY = 20, 4 << 30
OUTCOMES = ("same", "refused", "other result", "foreign error", "crash", "hang")


class Reader(NamedTuple):
    """A file and what reads it; what it gives back is compared as text."""

    path: Path
    read: Callable[[Path], str]
    may_differ: bool


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with one fault: a bit, some bytes, a cut, a part doubled or left out."""
    data = bytearray(content)
    place, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64))
    kind = rng.randrange(6)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place : place + length] = rng.randbytes(length)
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        del data[place : place + length]
    elif kind == 4:
        data[place:place] = data[place : place + length]
    else:
        data[place : place + length] = rng.choice((b"\0", b"\xff", b"9", b"[", b"{")) * length
    return bytes(data)


def outcome(reader: Reader, content: bytes, expected: str) -> str:
    """Read a file in a child process and say how that ended."""
    path = reader.path.with_name("damaged" + reader.path.suffix)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    child = os.fork()
    if child == 0:
        os._exit(_in_child(reader, path, expected))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "hang" if os.WTERMSIG(status) == signal.SIGALRM else "crash"
    code = os.waitstatus_to_exitcode(status)
    if code == 2 and not reader.may_differ:
        return "WRONG"
    return {0: "same", 1: "refused", 2: "other result"}.get(code, "foreign error")


def _in_child(reader: Reader, path: Path, expected: str) -> int:
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        return 0 if reader.read(path) == expected else 2
    except (ValueError, FileNotFoundError) as error:
        # A sentence that names the file; a bare ValueError from elsewhere does not.
        return 1 if "damaged" in str(error) else 3
    except BaseException:
        return 3


def main() -> int:
    """Run, print, and say by the exit code whether all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="of each reader (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    print(f"| reader | {' | '.join(OUTCOMES)} | silently wrong |\n|{'---|' * (len(OUTCOMES) + 2)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (write, read, may_differ) in READERS.items():
            rng = random.Random(f"{options.seed} {name}")
            reader = Reader(write(Path(folder)), read, may_differ)
            content, expected = reader.path.read_bytes(), read(reader.path)
            counts = Counter(outcome(reader, damaged(content, rng), expected) for _ in range(options.cases))
            print(
                f"| {name} | {' | '.join(str(counts[o]) for o in OUTCOMES)} | {counts['WRONG']} |", flush=True
            )
            bad += sum(counts[o] for o in ("foreign error", "crash", "hang", "WRONG"))
    print(f"\n{options.cases * len(READERS)} cases, seed {options.seed}: {bad} that must not be")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
