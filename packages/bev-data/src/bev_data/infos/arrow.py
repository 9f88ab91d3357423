"""The file of an `Infos`: Apache Arrow IPC, memory-mapped, no executable content.

One row per key frame, in one record batch, so that every column is one block of memory that all workers
share:

| column | type |
|---|---|
| token, scene | string |
| timestamp | int64, microseconds |
| prev | int32, row of the scene's previous key frame; -1 at its start |
| images | list of (camera int8, step int8, *frame*, intrinsics 9 x float64, width int32, height int32) |
| lidar | list (none or one) of *frame* |
| annotations | list of (token, category, attribute string, center 3, size 3, rotation 4, |
| | velocity 2 x float64, num_lidar_pts, num_radar_pts int32) |

*frame* is (file string, timestamp int64, sensor2ego 16 x float64, ego2global 16 x float64), matrices row by
row. `camera` indexes the camera names of the metadata; `step` is 0 for the key frame and k for the k-th image
before it. The schema's metadata: `bev_data.infos` (the format's number), `version`, `split`, `cameras` and
`num_sweeps` as JSON; `tables`, `incomplete`. Behind the Arrow file come checksums (`bev_data.infos.blocks`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from bev_data.atomic import atomic_path
from bev_data.infos.blocks import append_checksums
from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame

# What to do with key frames that lack an image or a lidar sweep of the tables: end with an error, leave them
# out, leave out those whose files are not there as well, or keep them for what needs no images.
Incomplete = Literal["refuse", "drop", "available", "keep"]

FORMAT = "2"
FORMAT_KEY = b"bev_data.infos"


def _vector(n: int) -> pa.DataType:
    return pa.list_(pa.float64(), n)


_FRAME = [
    ("file", pa.string()),
    ("timestamp", pa.int64()),
    ("sensor2ego", _vector(16)),
    ("ego2global", _vector(16)),
]
IMAGE = pa.struct(
    [
        ("camera", pa.int8()),
        ("step", pa.int8()),
        *_FRAME,
        ("intrinsics", _vector(9)),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
ANNOTATION = pa.struct(
    [
        ("token", pa.string()),
        ("category", pa.string()),
        ("attribute", pa.string()),
        ("center", _vector(3)),
        ("size", _vector(3)),
        ("rotation", _vector(4)),
        ("velocity", _vector(2)),
        ("num_lidar_pts", pa.int32()),
        ("num_radar_pts", pa.int32()),
    ]
)
FRAME_FIELDS = [pa.field(name, kind) for name, kind in _FRAME]
SCHEMA = pa.schema(
    [
        ("token", pa.string()),
        ("scene", pa.string()),
        ("timestamp", pa.int64()),
        ("prev", pa.int32()),
        ("images", pa.list_(IMAGE)),
        ("lidar", pa.list_(pa.struct(_FRAME))),
        ("annotations", pa.list_(ANNOTATION)),
    ]
)


@dataclass(frozen=True)
class Header:
    """What holds for all rows of a file.

    Attributes:
        version: of the tables, such as v1.0-mini.
        split: name of the split.
        cameras: names of the cameras in order.
        num_sweeps: the most images before a key frame that were collected.
        tables: fingerprint of the tables the file was made from; "" where it was made from other data.
        incomplete: what was done with key frames that lack an image; see `Incomplete`.
    """

    version: str
    split: str
    cameras: tuple[str, ...]
    num_sweeps: int
    tables: str = ""
    incomplete: Incomplete = "refuse"


def to_record_batch(infos: Sequence[Info], header: Header) -> pa.RecordBatch:
    """Infos as rows of the file."""
    camera_ids = {name: i for i, name in enumerate(header.cameras)}
    images = []
    for info in infos:
        steps = (info.cameras, *info.sweeps)
        images.append(
            [
                (camera_ids[name], step, frame)
                for step, frames in enumerate(steps)
                for name, frame in sorted(frames.items(), key=lambda item: camera_ids[item[0]])
            ]
        )
    flat = [image for row in images for image in row]
    lidars = [[info.lidar] if info.lidar is not None else [] for info in infos]
    columns = [
        pa.array([info.token for info in infos], pa.string()),
        pa.array([info.scene for info in infos], pa.string()),
        pa.array([info.timestamp for info in infos], pa.int64()),
        pa.array([-1 if info.prev is None else info.prev for info in infos], pa.int32()),
        lists([len(row) for row in images], _image_array(flat)),
        lists(
            [len(row) for row in lidars],
            pa.StructArray.from_arrays(
                _frame_arrays([f for row in lidars for f in row]), fields=FRAME_FIELDS
            ),
        ),
        lists(
            [len(info.annotations) for info in infos],
            _annotation_array([info.annotations for info in infos]),
        ),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def lists(lengths: ArrayLike, values: pa.Array) -> pa.ListArray:
    """A column of lists: one length per row, and the entries of all rows in order."""
    offsets = np.cumsum(np.concatenate([[0], np.asarray(lengths, dtype=np.int64)]))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def vectors(values: NDArray[np.float64], n: int) -> pa.Array:
    """A column of vectors or matrices of n numbers."""
    flat = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), n)


def _vectors(blocks: Sequence[NDArray[np.float64]], n: int) -> pa.Array:
    parts = [np.asarray(block, dtype=np.float64).reshape(-1) for block in blocks]
    return vectors(np.concatenate(parts or [np.zeros(0)]), n)


def _frame_arrays(frames: Sequence[CameraFrame | LidarFrame]) -> list[pa.Array]:
    return [
        pa.array([frame.file for frame in frames], pa.string()),
        pa.array([frame.timestamp for frame in frames], pa.int64()),
        _vectors([frame.sensor2ego for frame in frames], 16),
        _vectors([frame.ego2global for frame in frames], 16),
    ]


def _image_array(images: Sequence[tuple[int, int, CameraFrame]]) -> pa.StructArray:
    frames = [frame for _, _, frame in images]
    arrays = [
        pa.array([camera for camera, _, _ in images], pa.int8()),
        pa.array([step for _, step, _ in images], pa.int8()),
        *_frame_arrays(frames),
        _vectors([frame.intrinsics for frame in frames], 9),
        pa.array([frame.width for frame in frames], pa.int32()),
        pa.array([frame.height for frame in frames], pa.int32()),
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(IMAGE))


def _annotation_array(rows: Sequence[Annotations]) -> pa.StructArray:
    arrays = [
        pa.array([token for row in rows for token in row.tokens], pa.string()),
        pa.array([category for row in rows for category in row.categories], pa.string()),
        pa.array([attribute for row in rows for attribute in row.attributes], pa.string()),
        _vectors([row.centers for row in rows], 3),
        _vectors([row.sizes for row in rows], 3),
        _vectors([row.rotations for row in rows], 4),
        _vectors([row.velocities for row in rows], 2),
        pa.array([n for row in rows for n in row.num_lidar_pts.tolist()], pa.int32()),
        pa.array([n for row in rows for n in row.num_radar_pts.tolist()], pa.int32()),
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(ANNOTATION))


def join(batches: Sequence[pa.RecordBatch], header: Header) -> pa.RecordBatch:
    """Rows of several batches in one, with the header as metadata."""
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    joined = table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=SCHEMA)
    metadata = {
        FORMAT_KEY: FORMAT,
        "version": header.version,
        "split": header.split,
        "cameras": json.dumps(list(header.cameras)),
        "num_sweeps": json.dumps(header.num_sweeps),
        "tables": header.tables,
        "incomplete": header.incomplete,
    }
    return joined.replace_schema_metadata(metadata)


def read_header(batch: pa.RecordBatch) -> Header:
    """The header of a batch that `join` made."""
    meta = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()}
    return Header(
        version=meta["version"],
        split=meta["split"],
        cameras=tuple(json.loads(meta["cameras"])),
        num_sweeps=json.loads(meta["num_sweeps"]),
        tables=meta["tables"],
        incomplete=cast(Incomplete, meta.get("incomplete", "refuse")),
    )


def write_file(batch: pa.RecordBatch, path: Path) -> None:
    """Write a batch with checksums behind it, whole or not at all."""
    with atomic_path(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        with temporary.open("r+b") as file:
            append_checksums(file)
