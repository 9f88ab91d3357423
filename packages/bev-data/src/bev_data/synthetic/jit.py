"""The one way this package compiles a scalar function."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
T = TypeVar("T")


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile to machine code that runs without the interpreter lock.

    The code is kept on disk beside the source, or in the user's cache folder where that is read-only; where
    neither can be written it is compiled anew in every process.
    """
    try:
        compiled: Callable[P, T] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        compiled = numba.njit(nogil=True)(function)
    return compiled
