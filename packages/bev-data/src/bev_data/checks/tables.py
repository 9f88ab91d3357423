"""Checks of the tables: links, the order of time, poses, calibrations, boxes.

Limits are wide: they catch mixed-up units, frames and records, not bad calibration.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy.typing import NDArray

from bev_data.checks.problem import Problem
from bev_data.geometry import quaternion_to_matrix
from bev_data.nuscenes.columns import BROKEN_LINK, NO_LINK, TableColumns
from bev_data.nuscenes.rows import CalibratedSensorRow

F64 = NDArray[np.float64]

_UNIT = 1e-3  # by which the length of a quaternion may differ from 1
_KEY_TIME = 0.3  # seconds between a key frame and its sample
_POSE_TIME = 0.05  # seconds between a recording and its pose
_SPEED = 70.0  # of the vehicle, m/s
_MOUNT = 20.0  # metres from the vehicle's origin to a sensor
_BOX = 60.0  # metres, of a box's longest side


def check_tables(tables: TableColumns, *, whole: bool = True) -> list[Problem]:
    """All problems of the tables of a version.

    Args:
        tables: to check.
        whole: every sample must have a recording of each sensor.
    """
    parts = (_unique, _samples, _recordings, *([_missing_recordings] if whole else []))
    parts += (_poses, _calibrations, _boxes)
    return [problem for part in parts for problem in part(tables)]


def _unique(tables: TableColumns) -> Iterator[Problem]:
    columns = {
        "sample": tables.sample_tokens,
        "sample_data": tables.recordings.tokens,
        "sample_annotation": tables.boxes.tokens,
        "scene": pa.array([scene.token for scene in tables.scenes], pa.string()),
    }
    for table, tokens in columns.items():
        twice = len(tokens) - len(tokens.unique())
        if twice:
            yield Problem("link", f"tokens of {table}.json must be different, got {twice} that occur again")


def _samples(tables: TableColumns) -> Iterator[Problem]:
    row_of = {token: i for i, token in enumerate(tables.sample_tokens.to_pylist())}
    for scene in tables.scenes:
        token, before, count = scene.first_sample_token, None, 0
        while token and count <= len(tables.samples):
            if token not in row_of:
                yield Problem("link", f"sample.json must hold {token} of {scene.name}, but does not")
                break
            sample = tables.samples[row_of[token]]
            if before is not None and sample.timestamp <= before.timestamp:
                yield Problem(
                    "time",
                    f"samples must go forward in time, got {sample.timestamp} us after {before.timestamp} us "
                    f"for {token} of {scene.name}",
                )
            if sample.prev != (before.token if before else "") or sample.scene_token != scene.token:
                yield Problem("link", f"the sample {token} must link back within {scene.name}, but does not")
            before, token, count = sample, sample.next, count + 1
        if count != scene.nbr_samples:
            yield Problem("link", f"{scene.name} must have {scene.nbr_samples} samples, got {count}")


def _recordings(tables: TableColumns) -> Iterator[Problem]:
    data = tables.recordings

    def each(wrong: NDArray[np.bool_], kind: str, what: str) -> Iterator[Problem]:
        for i in np.flatnonzero(wrong):
            name = f"{data.files[int(i)].as_py()} ({data.tokens[int(i)].as_py()})"
            yield Problem("time" if kind == "time" else "link", f"{name} {what}")

    yield from each(data.sample < 0, "link", "must belong to a sample, but sample.json has none such")
    yield from each(data.prev == BROKEN_LINK, "link", "must follow a recording that sample_data.json has")
    linked = data.prev >= 0
    before = np.where(linked, data.prev, 0)
    backward = linked & (data.timestamp <= data.timestamp[before])
    yield from each(backward, "time", "must be later than the recording before it, but is not")
    other = linked & (data.channel != data.channel[before])
    yield from each(other, "link", "must follow a recording of the same sensor, but does not")
    stamps = np.array([sample.timestamp for sample in tables.samples], dtype=np.int64)
    keys = np.flatnonzero(data.is_key & (data.sample >= 0))
    late = np.zeros(len(data.is_key), dtype=bool)
    late[keys] = np.abs(data.timestamp[keys] - stamps[data.sample[keys]]) > _KEY_TIME * 1e6
    yield from each(
        late, "time", f"is a key frame and must be within {_KEY_TIME} s of its sample, but is not"
    )


def _missing_recordings(tables: TableColumns) -> Iterator[Problem]:
    key = tables.key_recordings
    used = (key >= 0).any(axis=0)
    for row, channel in np.argwhere((key == NO_LINK) & used):
        yield Problem(
            "link",
            f"every sample must have a key frame of each sensor, got none of {tables.channels[channel]} for "
            f"{tables.samples[row].token}",
        )


def _poses(tables: TableColumns) -> Iterator[Problem]:
    data = tables.recordings

    def each(wrong: NDArray[np.bool_], what: str) -> Iterator[Problem]:
        for i in np.flatnonzero(wrong):
            yield Problem("pose", f"the pose of {data.files[int(i)].as_py()} {what}")

    yield from each(~data.has_pose, "must be in ego_pose.json, but is missing")
    there = data.has_pose
    yield from each(there & ~_is_unit(data.rotation), "must have a quaternion of length 1, but has not")
    apart = np.abs(data.pose_timestamp - data.timestamp) > _POSE_TIME * 1e6
    yield from each(
        there & apart, f"must be that of its own moment, within {_POSE_TIME} s, but is of another one"
    )
    linked = np.flatnonzero((data.prev >= 0) & there)
    linked = linked[there[data.prev[linked]]]
    seconds = np.maximum((data.timestamp[linked] - data.timestamp[data.prev[linked]]) * 1e-6, 1e-6)
    moved = np.linalg.norm(data.translation[linked] - data.translation[data.prev[linked]], axis=1)
    fast = np.zeros(len(there), dtype=bool)
    fast[linked] = moved > _SPEED * seconds + 0.5
    yield from each(fast, f"must be within reach of the one before it at {_SPEED:g} m/s, but is farther off")


def _is_unit(quaternions: Float[F64, "k 4"]) -> NDArray[np.bool_]:
    fine: NDArray[np.bool_] = np.abs(np.linalg.norm(quaternions, axis=1) - 1) < _UNIT
    return fine


def _calibrations(tables: TableColumns) -> Iterator[Problem]:
    data = tables.recordings
    # One recording of each calibration tells the size of its images.
    used, first = np.unique(data.calibration, return_index=True)
    for i, example in zip(used, first, strict=True):
        row = tables.calibrations[i]
        channel = tables.channels[data.channel[example]]
        camera = tables.modality[channel] == "camera"
        for fault in _mount_faults(row, camera):
            yield Problem("calibration", f"the calibration {row.token} of {channel} {fault}")
        if camera:
            for fault in _lens_faults(row, *(int(v) for v in data.size[example])):
                yield Problem("calibration", f"the calibration {row.token} of {channel} {fault}")


def _mount_faults(row: CalibratedSensorRow, camera: bool) -> Iterator[str]:
    rotation = np.array([row.rotation])
    if not _is_unit(rotation)[0]:
        yield f"must have a quaternion of length 1, got {np.linalg.norm(rotation):.4g}"
        return
    distance = float(np.linalg.norm(row.translation))
    if distance > _MOUNT:
        yield f"must be within {_MOUNT:g} m of the vehicle's origin, got {distance:.4g} m"
    if camera and quaternion_to_matrix(rotation)[0, 2, 1] > 0.5:
        yield "must turn the camera's y axis downward (x right, y down, z forward), got one that points up"


def _lens_faults(row: CalibratedSensorRow, width: int, height: int) -> Iterator[str]:
    if [len(line) for line in row.camera_intrinsic] != [3, 3, 3]:
        yield f"must have a 3x3 camera_intrinsic in pixels, got {row.camera_intrinsic}"
        return
    (fx, skew, cx), (_, fy, cy), last = row.camera_intrinsic
    if last != [0, 0, 1] or not (fx > 0 and fy > 0) or abs(skew) > 0.02 * fx or not 0.7 < fx / fy < 1.4:
        yield f"must have intrinsics [[f, 0, cx], [0, f, cy], [0, 0, 1]], got {row.camera_intrinsic}"
        return
    if width <= 0 or height <= 0:
        yield f"must go with images of a known size, got {width}x{height} pixels"
        return
    angle = np.rad2deg(2 * np.arctan(width / 2 / fx))
    if not 10 < angle < 170:
        yield f"must see 10 to 170 degrees, got {angle:.0f} from f = {fx:.5g} for {width} pixels"
    # A quarter is what an image of half the size leaves.
    if not (0.3 < cx / width < 0.7 and 0.3 < cy / height < 0.7):
        yield f"must have its principal point near the middle of {width}x{height}, got ({cx:.5g}, {cy:.5g})"


def _boxes(tables: TableColumns) -> Iterator[Problem]:
    boxes = tables.boxes

    def each(wrong: NDArray[np.bool_], what: str) -> Iterator[Problem]:
        for i in np.flatnonzero(wrong):
            yield Problem("box", f"the annotation {boxes.tokens[int(i)].as_py()} {what}")

    sized = (boxes.sizes > 0).all(axis=1) & (boxes.sizes < _BOX).all(axis=1)
    yield from each(~sized, f"must have sides of 0 to {_BOX:g} m, but has not")
    yield from each(~_is_unit(boxes.rotations), "must have a quaternion of length 1, but has not")
    negative = (boxes.num_lidar_pts < -1) | (boxes.num_radar_pts < -1)
    yield from each(negative, "must have 0 or more points, or -1 where that is not known, but has fewer")
    yield from each(
        boxes.tied, "must be at another moment than the one before or after it, or its velocity is infinite"
    )
    known = ~np.isnan(boxes.velocities[:, 0])
    fast = np.zeros(len(known), dtype=bool)
    fast[known] = np.linalg.norm(boxes.velocities[known], axis=1) > _SPEED
    yield from each(fast, f"must move at up to {_SPEED:g} m/s, but is faster")
