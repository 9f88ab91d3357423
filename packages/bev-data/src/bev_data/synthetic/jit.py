"""The one way this package compiles scalar functions."""

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
    return _compile(function, "never")


def inlined(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a small function into its callers: a call by itself would copy every array's shape and strides."""
    return _compile(function, "always")


def _compile(function: Callable[P, T], inline: str) -> Callable[P, T]:
    options = {"nogil": True, "error_model": "numpy", "inline": inline}
    try:
        compiled: Callable[P, T] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        compiled = numba.njit(**options)(function)
    return compiled
