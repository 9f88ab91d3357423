"""Pickles that hold plain data and NumPy arrays, read without trusting them.

A pickle can name any function, which then runs while it is read, and NumPy's own functions for pickles trust
what they are told of shapes and offsets. Here every name is answered by an object of this module, which
checks its arguments, and memory is bounded by the size of the file.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bev_data.errors import InputError, MissingFileError
from bev_data.memory import bounded_memory

# Booleans, numbers, bytes and text; no objects, records or times.
_PLAIN_TYPE = re.compile(r"[<>|=]?(?:[biufc][0-9]{1,2}|[SU][0-9]{1,6})")
# Bytes in memory that a byte of a pickle may become: an empty dictionary takes one there and 64 here.
_GROWTH = 100


def load_plain_pickle(path: Path) -> Any:
    """Contents of a pickle of plain data and NumPy arrays; nothing else in it is looked up or run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or holds anything else.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"the pickle {path} does not exist") from None
    try:
        with bounded_memory(_GROWTH * len(content)):
            return _PlainUnpickler(io.BytesIO(content)).load()
    except InputError as error:
        raise InputError(
            f"the pickle {path} is not read: {error}; make infos from the tables with `bev-data prepare`"
        ) from error
    # Whatever comes out of a damaged file is about that file.
    except Exception as error:
        raise InputError(
            f"the pickle must be whole, got a damaged file: {path} ({error or type(error).__name__}); make "
            f"infos from the tables with `bev-data prepare`"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 moved its core; both names mean the same functions.
        found = _NAMES.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise InputError(
                f"it must hold plain data and NumPy arrays only, got {module}.{name}, which may run code"
            )
        return found()


class _Latin1:
    """`_codecs.encode`, by which old protocols write bytes. Without attributes, so that none can be set."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise InputError(f"bytes in a pickle must be encoded as latin1, got {encoding!r}")
        return text.encode("latin1")


class _NdarrayName:
    """`numpy.ndarray`, which is only ever named."""

    __slots__ = ()


class _OrderedDict:
    """`collections.OrderedDict`."""

    __slots__ = ()

    def __call__(self, *items: Any) -> Any:
        return OrderedDict(*items)


class _DtypeMaker:
    """`numpy.dtype`."""

    __slots__ = ()

    def __call__(self, code: str, *_: bool) -> "_Dtype":
        return _Dtype(code)


class _Dtype:
    """A plain data type; its state can change the order of bytes, and nothing else."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or not _PLAIN_TYPE.fullmatch(code):
            raise InputError(f"arrays must hold plain numbers or text, got the type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, *parts = state[1:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in parts):
            raise InputError(f"arrays must hold plain numbers or text, got a type with the state {state!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """An array that takes its contents where type, shape and number of bytes agree."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        checked = _checked(content, dtype, shape)
        super().__setstate__((1, checked.shape, checked.dtype, bool(fortran), bytes(content)))


class _Reconstruct:
    """`numpy.core.multiarray._reconstruct`: an empty array, which its state will fill."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> NDArray[Any]:
        if not isinstance(kind, _NdarrayName):
            raise InputError(f"arrays must be plain NumPy arrays, got {type(kind).__name__}")
        return np.ndarray.__new__(_Array, (0,), np.int8)


class _Scalar:
    """`numpy.core.multiarray.scalar`."""

    __slots__ = ()

    def __call__(self, dtype: Any, content: Any) -> Any:
        return _checked(content, dtype, ())[()]


class _FromBuffer:
    """`numpy.core.numeric._frombuffer`, by which protocol 5 writes arrays."""

    __slots__ = ()

    def __call__(self, content: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
        flat = _checked(content, dtype, shape).reshape(-1)
        return flat.reshape(shape, order="F" if order == "F" else "C")


def _checked(content: Any, dtype: Any, shape: Any) -> NDArray[Any]:
    """Bytes as an array.

    Raises:
        InputError: if they are not as many as type and shape say.
    """
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
        raise InputError("arrays must hold plain numbers or text, got objects")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"arrays must have a shape of whole numbers, got {shape!r}")
    expected = math.prod(shape) * dtype.dtype.itemsize
    if expected != len(content):
        raise InputError(f"an array of {shape} {dtype.dtype} must have {expected} bytes, got {len(content)}")
    if not content:
        return np.zeros(shape, dtype.dtype)
    return np.frombuffer(content, dtype.dtype).reshape(shape)


_NAMES: dict[tuple[str, str], type[Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy", "ndarray"): _NdarrayName,
    ("numpy", "dtype"): _DtypeMaker,
    ("_codecs", "encode"): _Latin1,
    ("collections", "OrderedDict"): _OrderedDict,
}
