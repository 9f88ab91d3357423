"""The folder of a run: writable, with room, and of this run alone."""

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bev_data.errors import InputError

if sys.platform != "win32":
    import fcntl

# What a run writes beside its checkpoints: logs, pictures, settings.
_SLACK = 20_000_000


def check_room(folder: Path, size: int, names: Sequence[str]) -> None:
    """Try whether a folder takes the checkpoints of a run before hours go into it.

    Args:
        folder: of the checkpoints; made if it is not there.
        size: of one checkpoint, bytes.
        names: of the checkpoints that will lie there in the end; one more is there while it replaces another.

    Raises:
        InputError: if the folder cannot be written into, or its disk is too full.
    """
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"the checkpoints folder {folder} must be writable, but is not: {error.strerror}; choose another "
            "with --output, or train without checkpoints with --trainer.enable_checkpointing false"
        ) from error
    there = sum(path.stat().st_size for path in (folder / name for name in names) if path.is_file())
    needed = size * (len(names) + 1) + _SLACK - there
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} must have room for {len(names) + 1} checkpoints of {size / 1e6:,.0f} MB at once, that "
            f"is {needed / 1e6:,.0f} MB more, but its disk has {free / 1e6:,.0f} MB: free space, or choose "
            "another folder with --output"
        )


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep a folder to this process, so that two runs do not mix their files.

    The system takes the lock back when the process ends, in whatever way.

    Raises:
        InputError: if another process writes there; it says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take(handle, folder)
        yield
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        # Not flock: forked data workers would inherit that, and outlive a process that is killed.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        other = os.pread(handle, 500, 0).decode("utf-8", "replace").strip() or "another process"
        raise InputError(
            f"a folder takes one run at a time, but {other} writes into {folder}: wait for it, stop it, or "
            "choose another folder with --output"
        ) from error
    except OSError:
        return  # a file system without locks
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}, since {since},\n".encode(), 0)
