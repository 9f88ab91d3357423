"""Work in several processes that ends, with all of them, when one fails or the first one is killed."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from bev_data.errors import InputError

A = TypeVar("A")
B = TypeVar("B")


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(function: Callable[[A], B], items: Sequence[A], workers: int) -> Iterator[B]:
    """Results of a function in the order of the items; its first error ends everything.

    Args:
        function: can be pickled.
        items: its arguments.
        workers: number of processes; with 1 it is called here.

    Raises:
        ValueError: if a process was killed.
    """
    if workers == 1:
        yield from map(function, items)
        return
    # Fresh processes: a fork would copy the threads' locks of the libraries loaded here.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield from pool.map(function, items, chunksize=4)
        except BrokenProcessPool as error:
            raise InputError(
                f"each of the {workers} workers must have memory enough, but one was killed; run the same "
                f"again with fewer workers (a program of your own must call this below "
                f"`if __name__ == '__main__':`)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when the one that started it is gone, even if that was killed."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
