"""Pickles of strangers: nothing runs, nothing crashes, and memory is bounded."""

import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from bev_data.infos.plain_pickle import load_plain_pickle


def dtype_of(code, state=(3, "<", None, None, None, -1, -1, 0)):
    """A data type as a pickle names it, with any state."""
    return Call("numpy", "dtype", (code, False, True), state)


class Call:
    """Any call of any name, with any state, to write pickles that no honest object has."""

    def __init__(self, module, name, arguments, state=None):
        self.module, self.name, self.arguments, self.state = module, name, arguments, state


class CallPickler(pickle._Pickler):
    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Call):
            return super().save(obj, save_persistent_id)
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.save(obj.arguments)
        self.write(pickle.REDUCE)
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)
        return None


def write(path, content):
    with path.open("wb") as file:
        CallPickler(file, 2).dump(content)
    return path


def array(shape, dtype, content, version=1):
    state = (version, shape, dtype, False, content)
    return Call("numpy.core.multiarray", "_reconstruct", (np.ndarray, (0,), b"b"), state)


RECORD = (3, "|", None, ("a",), {"a": (dtype_of("f8"), 1_000_000)}, 8, 1, 16)


@pytest.mark.parametrize(
    "content",
    [
        # NumPy's own functions end the process over these two.
        array((1000,), dtype_of("O8", (3, "|", None, None, None, -1, -1, 63)), [None]),
        array((1,), dtype_of("V8", RECORD), b"12345678"),
        array((1000,), dtype_of("f8"), b"12345678"),
        array((-1,), dtype_of("f8"), b""),
        array((2**40, 2**40), dtype_of("f8"), b""),
        array((True,), dtype_of("b1"), b"1"),
        array((1,), dtype_of("f8", (3, "<", (None, (2,)), None, None, -1, -1, 0)), b"12345678"),
        array((1,), dtype_of("M8[ns]"), b"12345678"),
        array((1,), dtype_of("f8"), ["text"]),
        array((1,), "f8", b"12345678"),
        Call("numpy.core.multiarray", "scalar", (dtype_of("O8"), b"12345678")),
        Call("numpy.core.multiarray", "scalar", (dtype_of("f8"), b"1234")),
        Call("numpy.core.multiarray", "scalar", (dtype_of("U999999"), b"")),
        Call("numpy.core.numeric", "_frombuffer", (b"1234", dtype_of("f4"), (7,), "C")),
        Call("numpy.core.multiarray", "_reconstruct", (OrderedDict, (0,), b"b")),
        Call("numpy.core.multiarray", "_reconstruct", (1, 2, 3, 4)),
        Call("numpy", "dtype", (3,)),
    ],
)
def test_arrays_of_impossible_pieces_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"x\.pkl"):
        load_plain_pickle(write(tmp_path / "x.pkl", content))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_honest_arrays_come_through(tmp_path, protocol):
    content = {
        "numbers": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))],
        "other": [np.arange(3, dtype=">i4"), np.array(["a", "bc"]), np.array([True, False]), np.array(2.5)],
        "scalars": [np.float64(1.5), np.int32(-4)],
        "sorted": OrderedDict(a=1),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    content, loaded = pickle.loads(path.read_bytes()), load_plain_pickle(path)
    for part in ("numbers", "other", "scalars"):
        for ours, theirs in zip(loaded[part], content[part], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert np.asarray(ours).dtype == np.asarray(theirs).dtype
    assert loaded["sorted"] == {"a": 1}


@pytest.mark.parametrize(
    "content",
    [
        # An index of the memo, and a length, that stand for gigabytes.
        b"\x80\x04N" + pickle.LONG_BINPUT + struct.pack("<I", 2**31 - 1) + b".",
        b"\x80\x05" + pickle.BYTEARRAY8 + struct.pack("<Q", 2**40) + b"abc.",
        b"\x80\x04" + pickle.BINBYTES8 + struct.pack("<Q", 2**62) + b"abc.",
        b"\x80\x04" + pickle.LONG4 + struct.pack("<i", 2**31 - 1) + b"abc.",
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
def test_a_small_pickle_takes_little_memory(tmp_path, content):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    program = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from bev_data.infos.plain_pickle import load_plain_pickle\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_plain_pickle(Path(sys.argv[1]))\n"
        "except ValueError as error:\n    print(error)\n"
        "else:\n    sys.exit('taken')\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "damaged file" in done.stdout
