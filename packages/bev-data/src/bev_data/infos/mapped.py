"""Rows of an infos file: mapped into memory, and known to be whole before they are used."""

from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bev_data.errors import InputError, MissingFileError
from bev_data.infos.arrow import FORMAT, FORMAT_KEY, SCHEMA, Header, read_header
from bev_data.infos.blocks import CheckedFile
from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame

# What of a file is checked before Arrow reads how it is laid out, at its beginning and its end.
_LAYOUT = 1 << 16


def map_file(path: Path) -> tuple[pa.RecordBatch, CheckedFile]:
    """Map a file into memory; nothing is read before it is used.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an infos file, damaged, or one of another format.
    """
    if not path.is_file():
        raise MissingFileError(f"the infos file {path} does not exist; make it with `bev-data prepare`")
    try:
        file = CheckedFile(path)
        length = len(file.contents)
        file.check(0, _LAYOUT)
        file.check(length - _LAYOUT, length)
        reader = pa.ipc.open_file(pa.py_buffer(file.contents))
        number = (reader.schema.metadata or {}).get(FORMAT_KEY)
        if number is None or number.decode() != FORMAT:
            got = "none" if number is None else number.decode()
            raise InputError(
                f"the infos file must have format {FORMAT}, got {got} in {path}; "
                f"make it again with `bev-data prepare`"
            )
        if reader.num_record_batches != 1 or not reader.schema.equals(SCHEMA):
            raise InputError(
                f"the infos file must have the columns of format {FORMAT}, got others in {path}; make it "
                f"again with `bev-data prepare`"
            )
        batch = reader.get_batch(0)
        batch.validate()
        read_header(batch)
    except (pa.ArrowException, OSError, KeyError, TypeError, UnicodeDecodeError, JSONDecodeError) as error:
        raise InputError(
            f"the infos file must be an Arrow file that bev-data wrote, got {path} ({error}); "
            f"make it again with `bev-data prepare`"
        ) from error
    return batch, file


class _Rows:
    """A list column as NumPy views: `bounds(i)` are the entries of row i."""

    def __init__(self, column: pa.ListArray, file: CheckedFile | None) -> None:
        self._file = file
        _check_buffers(file, column.buffers()[:2])
        self._offsets = column.offsets.to_numpy()
        self._values = column.values
        _check_offsets(file, self._offsets, len(self._values))
        self._fields: dict[str, Any] = {}

    def __len__(self) -> int:
        return int(self._offsets[-1] - self._offsets[0])

    def bounds(self, row: int) -> range:
        return range(int(self._offsets[row]), int(self._offsets[row + 1]))

    @property
    def row_of_entry(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self._offsets) - 1), np.diff(self._offsets))

    def field(self, name: str) -> Any:
        """A field of the entries: an array of numbers [entries, ...], or an Arrow array of strings.

        Only what was checked of it may be read.
        """
        if name not in self._fields:
            array = self._values.field(name)
            if pa.types.is_fixed_size_list(array.type):
                self._fields[name] = array.values.to_numpy().reshape(-1, array.type.list_size)
            else:
                self._fields[name] = array if pa.types.is_string(array.type) else array.to_numpy()
        return self._fields[name]

    def whole_field(self, name: str) -> Any:
        """A field of which all is checked."""
        if self._file is not None:
            self._check_field(name, 0, len(self._values))
        return self.field(name)

    def check(self, entries: range) -> None:
        """Check some entries.

        Raises:
            InputError: if they are damaged.
        """
        for field in self._values.type:
            self._check_field(field.name, entries.start, entries.stop)

    def _check_field(self, name: str, start: int, stop: int) -> None:
        file = self._file
        if file is None or start == stop:
            return
        field = self.field(name)
        if not isinstance(field, pa.StringArray):
            width = field.strides[0]
            address = field.ctypes.data
            file.check_memory(address + start * width, address + stop * width)
            return
        _, offsets, text = field.buffers()
        file.check_memory(offsets.address + 4 * start, offsets.address + 4 * (stop + 1))
        bounds = np.frombuffer(offsets, np.int32)[start : stop + 1]
        size = 0 if text is None else text.size
        _check_offsets(file, bounds, size)
        if text is not None:
            file.check_memory(text.address + int(bounds[0]), text.address + int(bounds[-1]))


class Columns:
    """The columns of a batch, and rows of it as `Info`.

    Args:
        batch: rows.
        file: that the batch is mapped from; None for one in memory.
    """

    def __init__(self, batch: pa.RecordBatch, file: CheckedFile | None = None) -> None:
        self._file = file
        for name in ("token", "scene", "timestamp", "prev"):
            _check_buffers(file, batch.column(name).buffers())
        self._tokens, self._scenes = batch.column("token"), batch.column("scene")
        self.timestamps: NDArray[np.int64] = batch.column("timestamp").to_numpy()
        self.prev: NDArray[np.int32] = batch.column("prev").to_numpy()
        self.images = _Rows(batch.column("images"), file)
        self.lidar = _Rows(batch.column("lidar"), file)
        self.annotations = _Rows(batch.column("annotations"), file)
        if file is not None:
            self._check_links(file)
        self._whole = np.zeros(len(self.prev), dtype=np.bool_)

    def _check_links(self, file: CheckedFile) -> None:
        try:
            self._tokens.validate(full=True)
            self._scenes.validate(full=True)
        except pa.ArrowInvalid as error:
            raise file.error(str(error)) from error
        if not ((self.prev >= -1) & (self.prev < np.arange(len(self.prev)))).all():
            raise file.error("its key frames do not follow each other")

    def _check_row(self, row: int) -> None:
        """Make sure that a row is what was written."""
        if self._file is None:
            return
        self._file.check_length()
        if not self._whole[row]:
            for rows in (self.images, self.lidar, self.annotations):
                rows.check(rows.bounds(row))
            self._whole[row] = True

    def info(self, row: int, header: Header) -> Info:
        """One row.

        Raises:
            InputError: if it is damaged.
        """
        self._check_row(row)
        try:
            return self._info(row, header)
        except (IndexError, UnicodeDecodeError) as error:
            if self._file is None:
                raise
            raise self._file.error(str(error)) from error

    def _info(self, row: int, header: Header) -> Info:
        steps: list[dict[str, CameraFrame]] = [{}]
        for step, camera, frame in self._images(row):
            while len(steps) <= step:
                steps.append({})
            steps[step][header.cameras[camera]] = frame
        lidars = [LidarFrame(*self._frame(self.lidar, i)) for i in self.lidar.bounds(row)]
        prev = int(self.prev[row])
        return Info(
            token=self._tokens[row].as_py(),
            scene=self._scenes[row].as_py(),
            timestamp=int(self.timestamps[row]),
            prev=None if prev < 0 else prev,
            cameras=steps[0],
            sweeps=tuple(steps[1:]),
            lidar=lidars[0] if lidars else None,
            annotations=self._annotations(row),
        )

    def _images(self, row: int) -> Iterator[tuple[int, int, CameraFrame]]:
        images = self.images
        for i in images.bounds(row):
            step, camera = int(images.field("step")[i]), int(images.field("camera")[i])
            if step < 0 or camera < 0:
                raise IndexError("an image of no camera")
            yield (
                step,
                camera,
                CameraFrame(
                    *self._frame(images, i),
                    intrinsics=images.field("intrinsics")[i].reshape(3, 3),
                    width=int(images.field("width")[i]),
                    height=int(images.field("height")[i]),
                ),
            )

    @staticmethod
    def _frame(rows: _Rows, i: int) -> tuple[str, int, NDArray[np.float64], NDArray[np.float64]]:
        return (
            rows.field("file")[i].as_py(),
            int(rows.field("timestamp")[i]),
            rows.field("sensor2ego")[i].reshape(4, 4),
            rows.field("ego2global")[i].reshape(4, 4),
        )

    def _annotations(self, row: int) -> Annotations:
        rows, bounds = self.annotations, self.annotations.bounds(row)
        part = slice(bounds.start, bounds.stop)

        def strings(name: str) -> tuple[str, ...]:
            return tuple(rows.field(name)[part].to_pylist())

        return Annotations(
            tokens=strings("token"),
            categories=strings("category"),
            centers=rows.field("center")[part],
            sizes=rows.field("size")[part],
            rotations=rows.field("rotation")[part],
            velocities=rows.field("velocity")[part],
            num_lidar_pts=rows.field("num_lidar_pts")[part].astype(np.int64),
            num_radar_pts=rows.field("num_radar_pts")[part].astype(np.int64),
            attributes=strings("attribute"),
        )

    def tokens(self) -> list[str]:
        """Sample tokens of all rows."""
        return list(self._tokens.to_pylist())


def _check_buffers(file: CheckedFile | None, buffers: list[pa.Buffer | None]) -> None:
    """Check all of some buffers of a file."""
    for buffer in buffers:
        if file is not None and buffer is not None:
            file.check_memory(buffer.address, buffer.address + buffer.size)


def _check_offsets(file: CheckedFile | None, offsets: NDArray[np.int32], size: int) -> None:
    """Check that offsets rise and end within what they point into: Arrow and NumPy trust them.

    Raises:
        InputError: if not.
    """
    if file is not None and len(offsets):
        rising = bool((offsets[1:] >= offsets[:-1]).all())
        if not (rising and offsets[0] >= 0 and int(offsets[-1]) <= size):
            raise file.error("entries of its rows overlap")
