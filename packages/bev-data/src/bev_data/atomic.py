"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from bev_data.errors import WriteError

# Reading the mask of rights means setting it, for all threads.
_MASK = Lock()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error.

    Raises:
        WriteError: if the disk does not take the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise _write_error(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; the result gets the rights of any new file.
        with _MASK:
            umask = os.umask(0)
            os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            temporary.unlink()
        # An error that names a file is about that file, which the block may have read.
        if isinstance(error, OSError) and error.filename in (None, name):
            raise _write_error(path, error) from error
        raise


def _write_error(path: Path, error: OSError) -> WriteError:
    # NumPy and Arrow do not always pass on the reason that the system gave.
    reason = os.strerror(error.errno) if error.errno else "the disk took only a part of it"
    return WriteError(
        f"{path} must be written, but cannot be: {reason}; free space or make the folder writable, then run "
        f"the same command again"
    )
