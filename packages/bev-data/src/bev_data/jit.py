"""The one way this package compiles scalar functions."""

import inspect
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
    return _compile(function, part=False)


def inlined(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a small function into its callers; a call would copy every array's shape and strides."""
    return _compile(function, part=True)


def _compile(function: Callable[P, T], part: bool) -> Callable[P, T]:
    # Where annotations are checked at run time, the function arrives wrapped in its checks.
    plain = inspect.unwrap(function)
    try:
        return _jit(plain, part, cache=True)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return _jit(plain, part, cache=False)


def _jit(function: Callable[P, T], part: bool, cache: bool) -> Callable[P, T]:
    decorate = numba.njit(nogil=True, error_model="numpy", forceinline=part, cache=cache)
    compiled: Callable[P, T] = decorate(function)
    return compiled
