"""Locks on files, which the system takes back from a process that ends in whatever way."""

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def lock(handle: int) -> bool:
    """Lock an open file for as long as the handle, or a copy of it in a forked process, is open.

    Returns:
        Whether it is locked by us now: False where another process holds the lock, or nothing can be locked.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_free(path: Path) -> bool:
    """Whether no living process holds the lock of a file; False where that cannot be told."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return lock(handle)
    finally:
        os.close(handle)
