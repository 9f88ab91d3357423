"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from bev_data.errors import WriteError
from bev_data.locks import is_free, lock

# Reading the mask of rights means setting it, for all threads.
_MASK = Lock()


@contextmanager
def atomic_path(path: Path, flush: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error.

    A process that is killed within the block leaves the temporary file behind; `remove_leftovers` knows it.

    Args:
        path: of the file.
        flush: let the disk hold all of it before it takes its name, so that a machine that loses its power
            keeps the file that was there before: for what cannot be made anew.

    Raises:
        WriteError: if the disk does not take the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(path)
    except OSError as error:
        raise _write_error(path, error) from error
    try:
        yield temporary
        # mkstemp makes files private; the result gets the rights of any new file.
        with _MASK:
            umask = os.umask(0)
            os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if flush:
            _flush(temporary)
        temporary.replace(path)
        if flush:
            _flush(path.parent)
    except BaseException as error:
        with suppress(FileNotFoundError):
            temporary.unlink()
        # An error that names a file is about that file, which the block may have read.
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise _write_error(path, error) from error
        raise
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> int:
    """Remove what processes that were killed left half-written in a folder.

    Files that a living process writes are locked by it, and stay.

    Args:
        folder: that need not be there.

    Returns:
        How many bytes became free.
    """
    freed = 0
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            if is_free(path):
                size = path.stat().st_size
                path.unlink()
                freed += size
    return freed


def _temporary(path: Path) -> tuple[int, Path]:
    """A new file beside `path` that this process holds a lock on."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        lock(handle)
        # Before the lock it looked like a leftover, which another process may have removed.
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_error(path: Path, error: OSError) -> WriteError:
    # NumPy and Arrow do not always pass on the reason that the system gave.
    reason = os.strerror(error.errno) if error.errno else "the disk took only a part of it"
    return WriteError(
        f"{path} must be written, but cannot be: {reason}; free space or make the folder writable, then run "
        f"the same command again"
    )
