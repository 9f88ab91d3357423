"""Checksums of a file that is mapped into memory: each block is compared with its own when it is first used.

Behind the contents of such a file lie the CRC-32 of each of its blocks, and behind those 20 bytes: the length
of the contents, the CRC-32 of the checksums, and eight bytes that tell the format.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bev_data.errors import InputError

_END = struct.Struct("<QI8s")
_MAGIC = b"bevcrc32"
# Small, so that a row whose columns lie apart is soon checked; a call of zlib costs as much as 1 kB.
_BLOCK = 1 << 15


def append_checksums(file: BinaryIO) -> None:
    """Write the checksums behind the contents of a file.

    Args:
        file: open for reading and writing.
    """
    file.seek(0)
    sums = bytearray()
    length = 0
    while block := file.read(_BLOCK):
        length += len(block)
        sums += struct.pack("<I", zlib.crc32(block))
    file.seek(length)
    file.write(sums)
    file.write(_END.pack(length, zlib.crc32(sums), _MAGIC))


class CheckedFile:
    """A mapped file whose contents are taken block by block, each once it is known to be whole."""

    def __init__(self, path: Path) -> None:
        """Map a file and check its checksums' own.

        Args:
            path: of a file with checksums.

        Raises:
            InputError: if it has none, or its end is damaged.
            OSError: if it cannot be read.
        """
        self.path = path
        with path.open("rb") as file:
            self._handle = os.dup(file.fileno())
            self._size = os.fstat(self._handle).st_size
            if self._size < _END.size:
                raise self.error("it ends too early")
            self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        length, total, magic = _END.unpack_from(self._map, self._size - _END.size)
        if magic != _MAGIC:
            raise self.error("it has no checksums at its end")
        count = -(-length // _BLOCK)
        if self._size != length + 4 * count + _END.size:
            raise self.error("it has another length than it says")
        sums = self._map[length : length + 4 * count]
        if zlib.crc32(sums) != total:
            raise self.error("its checksums are damaged")
        self._sums = np.frombuffer(sums, "<u4")
        self._whole = np.zeros(count, dtype=np.bool_)
        self.contents = memoryview(self._map)[:length]
        self.address = np.frombuffer(self.contents, np.uint8).ctypes.data

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def check(self, start: int, stop: int) -> None:
        """Make sure that some bytes are those that were written.

        Args:
            start: first of them.
            stop: behind the last of them.

        Raises:
            InputError: if a block is damaged, or the file was cut short meanwhile.
        """
        first, last = max(start, 0) // _BLOCK, -(-min(stop, len(self.contents)) // _BLOCK)
        if self._whole[first:last].all():
            return
        self.check_length()
        for i in range(first, last):
            if not self._whole[i]:
                block = self.contents[i * _BLOCK : (i + 1) * _BLOCK]
                if zlib.crc32(block) != self._sums[i]:
                    raise self.error(f"its bytes from {i * _BLOCK} on are damaged")
                self._whole[i] = True

    def check_memory(self, start: int, stop: int) -> None:
        """`check` for addresses in memory.

        Raises:
            InputError: if they are not those of the file, or it is damaged there.
        """
        if start == stop:
            return  # Arrow keeps what is empty anywhere
        first, last = start - self.address, stop - self.address
        if not 0 <= first <= last <= len(self.contents):
            raise self.error("its parts lie outside of it")
        self.check(first, last)

    def check_length(self) -> None:
        """Make sure that the file was not cut short since it was mapped, which would end the process.

        Raises:
            InputError: if it was.
        """
        if os.fstat(self._handle).st_size != self._size:
            raise self.error("it was changed while it was in use")

    def error(self, what: str) -> InputError:
        """The error that says what is damaged."""
        return InputError(
            f"the infos file must be whole, got a damaged one: {self.path} ({what}); make it again with "
            f"`bev-data prepare`"
        )
