"""A bound on the memory that reading a file may take."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "linux":
    import resource

# What a process takes besides: caches of allocators, stacks of threads that others start meanwhile.
_SPARE = 1 << 30


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Let asking for more than `size` bytes beyond what is in use now end in a MemoryError.

    Holds for the whole process while the block runs, with a gigabyte to spare; on Linux alone.

    Args:
        size: bytes.
    """
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = pages * resource.getpagesize() + size + _SPARE
    limits = [limit for limit in (bound, before, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
