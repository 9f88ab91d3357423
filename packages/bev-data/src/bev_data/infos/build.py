"""The key frames of a split as rows of an infos file, straight from the columns of the tables."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from bev_data.errors import InputError
from bev_data.geometry import quaternion_to_matrix
from bev_data.infos import arrow
from bev_data.infos.arrow import Header, Incomplete
from bev_data.nuscenes.columns import BROKEN_LINK, NO_LINK, TableColumns
from bev_data.nuscenes.rows import SceneRow

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

# The rig of nuScenes, front and back, each from left to right; other cameras follow by name.
_CAMERA_ORDER = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)


def build_record_batch(
    tables: TableColumns,
    version: str,
    split: str,
    members: Collection[str],
    num_sweeps: int,
    made_from: str,
    incomplete: Incomplete = "refuse",
) -> pa.RecordBatch:
    """Rows of all key frames of a split, scene by scene in the order of time.

    Args:
        tables: of the version.
        version: its name.
        split: a name for the result.
        members: names or tokens of scenes, or tokens of single key frames. A key frame whose predecessor is
            not among them starts anew: its history is that of a scene's start.
        num_sweeps: the most images before each key frame to note per camera.
        made_from: fingerprint of the tables.
        incomplete: what to do with key frames that lack a camera. Where they are left out, `prev` reaches
            over them.

    Raises:
        ValueError: if a key frame lacks a camera and that is to be refused, none is left, the tables lack
            records, or there are to be more than 127 sweeps.
    """
    if not 0 <= num_sweeps <= 127:
        raise InputError(f"the number of sweeps must be in 0 to 127, got {num_sweeps}")
    samples, prev, scenes = _key_frames(tables, frozenset(members))
    key = tables.key_recordings[samples]
    used = {name for i, name in enumerate(tables.channels) if (key[:, i] >= 0).any()}
    cameras = order_cameras([name for name in used if tables.modality[name] == "camera"])
    if len(samples) and not cameras:
        raise InputError(
            f"the tables in {tables.folder} must have camera images of the key frames, got none in {split}; "
            f"unpack the metadata archive again"
        )
    header = Header(version, split, cameras, num_sweeps, made_from, incomplete)
    ids = np.array([tables.channels.index(name) for name in cameras], dtype=np.int64)
    there = tables.files_there() if incomplete == "available" else None
    if there is not None:
        key = np.where((key >= 0) & there[key], key, NO_LINK)
    if incomplete == "refuse":
        _check_cameras(tables, samples, key[:, ids], cameras, scenes)
    elif incomplete != "keep":
        needed = [tables.channels.index(name) for name in used] if there is not None else ids
        whole = (key[:, needed] >= 0).all(axis=1)
        if len(samples) and not whole.any():
            raise InputError(
                f"one key frame of {split} at least must have all of {', '.join(sorted(used))}, got none in "
                f"{tables.folder.parent}"
            )
        samples, key, scenes = samples[whole], key[whole], [scenes[i] for i in np.flatnonzero(whole)]
        prev = _reach_over(prev, whole)
    timestamps = np.array([tables.samples[i].timestamp for i in samples], dtype=np.int64)
    columns = [
        tables.sample_tokens.take(pa.array(samples)),
        pa.array(scenes, pa.string()),
        pa.array(timestamps),
        pa.array(prev.astype(np.int32)),
        _images(tables, key[:, ids], num_sweeps, there),
        _lidar(tables, key, used),
        _annotations(tables, samples),
    ]
    return arrow.join([pa.RecordBatch.from_arrays(columns, schema=arrow.SCHEMA)], header)


def _key_frames(tables: TableColumns, members: frozenset[str]) -> tuple[I64, I64, list[str]]:
    """Sample, previous row and name of the scene of each key frame of a split."""
    row_of = {token: i for i, token in enumerate(tables.sample_tokens.to_pylist())}
    samples: list[int] = []
    prev: list[int] = []
    names: list[str] = []
    for scene in tables.scenes:
        whole = scene.name in members or scene.token in members
        last = NO_LINK
        for i in _chain(tables, scene, row_of):
            if whole or tables.samples[i].token in members:
                samples.append(i)
                prev.append(last)
                names.append(scene.name)
                last = len(samples) - 1
            else:
                last = NO_LINK
    return np.array(samples, dtype=np.int64), np.array(prev, dtype=np.int64), names


def _chain(tables: TableColumns, scene: SceneRow, row_of: dict[str, int]) -> list[int]:
    """Samples of a scene in the order of time."""
    found: dict[int, None] = {}
    token = scene.first_sample_token
    while token:
        if token not in row_of or row_of[token] in found:
            what = "none" if token not in row_of else "a circle"
            raise InputError(
                f"the table sample.json of {tables.folder} must chain the samples of {scene.name}, got "
                f"{what} at the token {token}; unpack the metadata archive again"
            )
        found[row_of[token]] = None
        token = tables.samples[row_of[token]].next
    return list(found)


def order_cameras(names: Collection[str]) -> tuple[str, ...]:
    """Cameras in the order of the rig of nuScenes, others behind them by name."""
    known = [name for name in _CAMERA_ORDER if name in names]
    return tuple(known + sorted(name for name in names if name not in known))


def _reach_over(prev: Int64[I64, "k"], kept: NDArray[np.bool_]) -> Int64[I64, "j"]:
    """Previous rows among those that are kept."""
    row_of = np.cumsum(kept) - 1
    reached: list[int] = []
    for before in prev[kept].tolist():
        while before >= 0 and not kept[before]:
            before = int(prev[before])
        reached.append(int(row_of[before]) if before >= 0 else NO_LINK)
    return np.array(reached, dtype=np.int64)


def _check_cameras(
    tables: TableColumns, samples: I64, key: Int64[I64, "k n"], cameras: tuple[str, ...], scenes: list[str]
) -> None:
    for row in np.flatnonzero((key < 0).any(axis=1))[:1]:
        missing = ", ".join(name for name, i in zip(cameras, key[row], strict=True) if i < 0)
        raise InputError(
            f"every key frame must have an image of each camera, got none of {missing} for the sample "
            f"{tables.samples[samples[row]].token} of {scenes[row]}; `bev-data prepare --incomplete drop` "
            f"leaves such key frames out"
        )


def _images(
    tables: TableColumns, key: Int64[I64, "k n"], num_sweeps: int, files_there: NDArray[np.bool_] | None
) -> pa.ListArray:
    data = tables.recordings
    steps = [key]
    for _ in range(num_sweeps):
        before = steps[-1]
        earlier = np.where(before >= 0, data.prev[before], NO_LINK)
        if files_there is not None:
            # What lies before a sweep whose file is not there is left out too.
            earlier = np.where((earlier >= 0) & ~files_there[earlier], NO_LINK, earlier)
        steps.append(earlier)
    images = np.stack(steps, axis=1)
    for row, step, camera in np.argwhere(images == BROKEN_LINK)[:1]:
        after = data.tokens[int(images[row, step - 1, camera])].as_py()
        raise InputError(
            f"the table sample_data.json of {tables.folder} must hold every record that others link to, got "
            f"none before {after}; unpack the metadata archive again"
        )
    there = images >= 0
    flat = images[there]
    _, step_of, camera_of = np.nonzero(there)
    matrices, intrinsics = _calibration_matrices(tables)
    calibration = data.calibration[flat]
    arrays = [
        pa.array(camera_of.astype(np.int8)),
        pa.array(step_of.astype(np.int8)),
        *_frame_columns(tables, flat, matrices),
        arrow.vectors(intrinsics[calibration], 9),
        pa.array(data.size[flat, 0].astype(np.int32)),
        pa.array(data.size[flat, 1].astype(np.int32)),
    ]
    return arrow.lists(there.sum(axis=(1, 2)), pa.StructArray.from_arrays(arrays, fields=list(arrow.IMAGE)))


def _lidar(tables: TableColumns, key: Int64[I64, "k c"], used: set[str]) -> pa.ListArray:
    lidars = sorted(name for name in used if tables.modality[name] == "lidar")
    rows = np.full(len(key), NO_LINK, dtype=np.int64)
    if lidars:
        name = "LIDAR_TOP" if "LIDAR_TOP" in lidars else lidars[0]
        rows = key[:, tables.channels.index(name)]
    matrices, _ = _calibration_matrices(tables)
    arrays = _frame_columns(tables, rows[rows >= 0], matrices)
    return arrow.lists(rows >= 0, pa.StructArray.from_arrays(arrays, fields=arrow.FRAME_FIELDS))


def _frame_columns(tables: TableColumns, rows: I64, sensor2ego: Float[F64, "q 4 4"]) -> list[pa.Array]:
    data = tables.recordings
    for i in rows[~data.has_pose[rows]][:1]:
        raise InputError(
            f"the table ego_pose.json of {tables.folder} must hold every record that others link to, got "
            f"none for the recording {data.tokens[int(i)].as_py()}; unpack the metadata archive again"
        )
    return [
        data.files.take(pa.array(rows)),
        pa.array(data.timestamp[rows]),
        arrow.vectors(sensor2ego[data.calibration[rows]], 16),
        arrow.vectors(_poses(data.rotation[rows], data.translation[rows]), 16),
    ]


def _calibration_matrices(tables: TableColumns) -> tuple[Float[F64, "q 4 4"], Float[F64, "q 3 3"]]:
    calibrations = tables.calibrations
    sensor2ego = _poses(
        np.array([row.rotation for row in calibrations]).reshape(-1, 4),
        np.array([row.translation for row in calibrations]).reshape(-1, 3),
    )
    intrinsics = np.zeros((len(calibrations), 3, 3))
    for i, row in enumerate(calibrations):
        if row.camera_intrinsic:
            if [len(line) for line in row.camera_intrinsic] != [3, 3, 3]:
                raise InputError(
                    f"camera_intrinsic must be a 3x3 matrix in pixels, got {row.camera_intrinsic} for the "
                    f"calibrated_sensor {row.token} of {tables.folder}"
                )
            intrinsics[i] = row.camera_intrinsic
    return sensor2ego, intrinsics


def _poses(rotations: Float[F64, "k 4"], translations: Float[F64, "k 3"]) -> Float[F64, "k 4 4"]:
    matrices = np.zeros((len(rotations), 4, 4))
    matrices[:, :3, :3] = quaternion_to_matrix(rotations)
    matrices[:, :3, 3] = translations
    matrices[:, 3, 3] = 1
    return matrices


def _annotations(tables: TableColumns, samples: I64) -> pa.ListArray:
    boxes = tables.boxes
    row_of_sample = np.full(len(tables.samples), NO_LINK, dtype=np.int64)
    row_of_sample[samples] = np.arange(len(samples))
    row_of_box = row_of_sample[boxes.sample]
    chosen = np.flatnonzero(row_of_box >= 0)
    # The boxes of a key frame stay in the order of the table.
    chosen = chosen[np.argsort(row_of_box[chosen], kind="stable")]
    picked = pa.array(chosen)
    arrays = [
        boxes.tokens.take(picked),
        boxes.categories.take(picked),
        boxes.attributes.take(picked),
        arrow.vectors(boxes.centers[chosen], 3),
        arrow.vectors(boxes.sizes[chosen], 3),
        arrow.vectors(boxes.rotations[chosen], 4),
        arrow.vectors(boxes.velocities[chosen], 2),
        pa.array(boxes.num_lidar_pts[chosen].astype(np.int32)),
        pa.array(boxes.num_radar_pts[chosen].astype(np.int32)),
    ]
    counts = np.bincount(row_of_box[chosen], minlength=len(samples))
    return arrow.lists(counts, pa.StructArray.from_arrays(arrays, fields=list(arrow.ANNOTATION)))
