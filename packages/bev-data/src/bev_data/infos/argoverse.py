"""Infos of the Argoverse 2 sensor data set: its logs of feather files, read as they are.

A log is a folder of that layout:

| file | what |
|---|---|
| calibration/egovehicle_SE3_sensor.feather, intrinsics.feather | mounting and lens of every sensor |
| city_SE3_egovehicle.feather | pose of the vehicle at every recording |
| annotations.feather | boxes in the frame of the vehicle at each lidar sweep; not in the test set |
| sensors/cameras/CAMERA/NANOSECONDS.jpg | images, 20 a second, published without distortion |
| sensors/lidar/NANOSECONDS.feather | sweeps, 10 a second, in the frame of the vehicle at their time |

k1, k2 and k3 of the intrinsics are those of the raw images and not applied.

Source: Wilson et al., "Argoverse 2: next generation datasets for self-driving perception and forecasting"
(2021), and the files that are published with it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from bev_data.errors import InputError, MissingFileError
from bev_data.geometry import matrix_to_quaternion, pose, quaternion_to_matrix, transform_points
from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame
from bev_data.infos.infos import Infos

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Front to rear, left to right; the stereo pair sees what ring_front_center sees.
CAMERAS = (
    "ring_front_left",
    "ring_front_center",
    "ring_front_right",
    "ring_side_left",
    "ring_side_right",
    "ring_rear_left",
    "ring_rear_right",
)

# Category -> detection class. Others stay in the infos under their own names and are not detected: riders
# have boxes of their own beside their vehicles, and signs, animals and wheelchairs have no class.
CLASS_OF: dict[str, str] = {
    "REGULAR_VEHICLE": "car",
    "LARGE_VEHICLE": "truck",
    "BOX_TRUCK": "truck",
    "TRUCK": "truck",
    "TRUCK_CAB": "truck",
    "BUS": "bus",
    "ARTICULATED_BUS": "bus",
    "SCHOOL_BUS": "bus",
    "VEHICULAR_TRAILER": "trailer",
    "MESSAGE_BOARD_TRAILER": "trailer",
    "TRAFFIC_LIGHT_TRAILER": "trailer",
    "MOTORCYCLE": "motorcycle",
    "BICYCLE": "bicycle",
    "PEDESTRIAN": "pedestrian",
    "OFFICIAL_SIGNALER": "pedestrian",
    "CONSTRUCTION_CONE": "traffic_cone",
}

_POSE_GAP = 200_000_000  # nanoseconds that poses around a recording may be apart
_IMAGE_GAP = 60_000_000  # nanoseconds from a sweep to the nearest image of a camera
_VELOCITY_TIME = 1.5  # seconds between two boxes of an object beyond which they tell no velocity


def import_argoverse(
    source: Path, root: Path, *, version: str = "av2", split: str, stride: int = 5, num_sweeps: int = 6
) -> Infos:
    """Infos of one log, or of all logs of a folder.

    Args:
        source: the log or the folder.
        root: data root that holds it; files are relative to it.
        version: a name for the data.
        split: a name for the part of it.
        stride: every so many lidar sweeps is a key frame; 5 of 10 a second are the 2 of nuScenes.
        num_sweeps: the most images before each key frame to note per camera.

    Raises:
        FileNotFoundError: if there is no log, or a file of one is missing.
        ValueError: if a file is damaged, or a number is out of its range.
    """
    if stride < 1 or not 0 <= num_sweeps <= 127:
        raise InputError(f"stride must be 1 or more and num_sweeps 0 to 127, got {stride} and {num_sweeps}")
    if not source.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"the logs must lie in the data root {root}, got {source}; give the folder above them"
        )
    infos: list[Info] = []
    for log in _logs(source):
        infos += _Log(log, root).key_frames(stride, num_sweeps, first=len(infos))
    cameras = [name for name in CAMERAS if all(name in info.cameras for info in infos)]
    if not infos or not cameras:
        raise InputError(
            f"the logs of {source} must have key frames with images of the same ring cameras, got none"
        )
    return Infos.from_list(
        [_with_cameras(info, cameras) for info in infos], version=version, split=split, cameras=cameras
    )


def _with_cameras(info: Info, cameras: Sequence[str]) -> Info:
    sweeps = tuple({name: step[name] for name in cameras if name in step} for step in info.sweeps)
    return Info(
        info.token,
        info.scene,
        info.timestamp,
        info.prev,
        {name: info.cameras[name] for name in cameras},
        sweeps,
        info.lidar,
        info.annotations,
    )


def _logs(source: Path) -> list[Path]:
    if (source / "city_SE3_egovehicle.feather").is_file():
        return [source]
    logs = sorted(path.parent for path in source.glob("*/city_SE3_egovehicle.feather"))
    if not logs:
        raise MissingFileError(
            f"{source} must be a log of the Argoverse 2 sensor data set, or a folder of them, got neither: "
            f"there is no city_SE3_egovehicle.feather"
        )
    return logs


class _Log:
    """One log."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._prefix = folder.resolve().relative_to(root.resolve()).as_posix()
        poses = _read(folder / "city_SE3_egovehicle.feather").sort_by("timestamp_ns")
        self._pose_times: I64 = _numbers(poses, "timestamp_ns")
        self._rotations, self._places = _quaternions(poses), _translations(poses)
        mounts = _read(folder / "calibration" / "egovehicle_SE3_sensor.feather")
        matrices = [pose(*mount) for mount in zip(_quaternions(mounts), _translations(mounts), strict=True)]
        self._mounts = dict(zip(mounts.column("sensor_name").to_pylist(), matrices, strict=True))
        lenses = _read(folder / "calibration" / "intrinsics.feather").to_pylist()
        self._lenses = {row["sensor_name"]: row for row in lenses if row["fx_px"] is not None}
        self._images = {name: self._times(f"sensors/cameras/{name}", "jpg") for name in CAMERAS}
        if not any(len(times) for times in self._images.values()):
            raise MissingFileError(
                f"the log {folder} must have images in sensors/cameras/ring_*/, got none; download them too"
            )
        self._boxes = self._read_boxes()

    def key_frames(self, stride: int, num_sweeps: int, first: int) -> list[Info]:
        """Every so-many-th sweep of which the cameras have images; `first` is the row of the first one."""
        infos: list[Info] = []
        for time in self._times("sensors/lidar", "feather")[::stride]:
            steps = self._steps(int(time), num_sweeps)
            if not steps:
                continue
            infos.append(
                Info(
                    token=f"{self._folder.name}-{time}",
                    scene=self._folder.name,
                    timestamp=_micros(time),
                    prev=first + len(infos) - 1 if infos else None,
                    cameras=steps[0],
                    sweeps=tuple(steps[1:]),
                    # Sweeps are published in the frame of the vehicle.
                    lidar=LidarFrame(
                        f"{self._prefix}/sensors/lidar/{time}.feather",
                        _micros(time),
                        np.eye(4),
                        self._pose(int(time)),
                    ),
                    annotations=self._annotations(int(time)),
                )
            )
        return infos

    def _times(self, folder: str, suffix: str) -> I64:
        names = (path.stem for path in (self._folder / folder).glob(f"*.{suffix}"))
        return np.sort(np.array([int(name) for name in names if name.isdecimal()], dtype=np.int64))

    def _steps(self, time: int, num_sweeps: int) -> list[dict[str, CameraFrame]]:
        """The images nearest to a sweep, and those before them; empty where a camera has none near."""
        steps: list[dict[str, CameraFrame]] = [{} for _ in range(num_sweeps + 1)]
        for name, times in self._images.items():
            if not len(times) or name not in self._lenses:
                continue
            nearest = int(np.abs(times - time).argmin())
            if abs(int(times[nearest]) - time) > _IMAGE_GAP:
                return []
            for step, image in enumerate(times[nearest::-1][: num_sweeps + 1]):
                steps[step][name] = self._camera(name, int(image))
        while steps and not steps[-1]:
            steps.pop()
        return steps

    def _camera(self, name: str, time: int) -> CameraFrame:
        lens = self._lenses[name]
        intrinsics = np.array(
            [[lens["fx_px"], 0, lens["cx_px"]], [0, lens["fy_px"], lens["cy_px"]], [0, 0, 1.0]]
        )
        return CameraFrame(
            f"{self._prefix}/sensors/cameras/{name}/{time}.jpg",
            _micros(time),
            self._mounts[name],
            self._pose(time),
            intrinsics,
            int(lens["width_px"]),
            int(lens["height_px"]),
        )

    def _pose(self, time: int) -> Float[F64, "4 4"]:
        """Pose of the vehicle at a moment, between those that are known."""
        times = self._pose_times
        after = int(np.searchsorted(times, time))
        if after < len(times) and times[after] == time:
            return pose(self._rotations[after], self._places[after])
        if not 0 < after < len(times) or times[after] - times[after - 1] > _POSE_GAP:
            raise InputError(
                f"poses of {self._folder} must lie around each recording, {_POSE_GAP * 1e-9} s apart at "
                f"most, got none around {time} ns"
            )
        share = (time - times[after - 1]) / (times[after] - times[after - 1])
        one, other = self._rotations[after - 1], self._rotations[after]
        other = other if one @ other >= 0 else -other
        place = (1 - share) * self._places[after - 1] + share * self._places[after]
        return pose((1 - share) * one + share * other, place)

    def _read_boxes(self) -> dict[int, tuple[Any, F64, F64, F64]]:
        """By sweep: rows of the annotations, and centres, rotations and velocities in the city's frame."""
        path = self._folder / "annotations.feather"
        if not path.is_file():
            return {}
        table = _read(path).sort_by([("track_uuid", "ascending"), ("timestamp_ns", "ascending")])
        times: I64 = _numbers(table, "timestamp_ns")
        poses = {int(time): self._pose(int(time)) for time in np.unique(times)}
        centers, rotations = _translations(table), quaternion_to_matrix(_quaternions(table))
        for time, ego2city in poses.items():
            rows = times == time
            centers[rows] = transform_points(ego2city, centers[rows])
            rotations[rows] = ego2city[:3, :3] @ rotations[rows]
        tracks = np.array(table.column("track_uuid").to_pylist())
        velocities = _velocities(centers, times, tracks)
        quaternions = np.array([matrix_to_quaternion(rotation) for rotation in rotations]).reshape(-1, 4)
        of_sweep = {}
        for time in poses:
            rows = np.flatnonzero(times == time)
            of_sweep[time] = (table.take(pa.array(rows)), centers[rows], quaternions[rows], velocities[rows])
        return of_sweep

    def _annotations(self, time: int) -> Annotations:
        if time not in self._boxes:
            return Annotations.empty()
        table, centers, rotations, velocities = self._boxes[time]
        categories = table.column("category").to_pylist()
        return Annotations(
            tokens=tuple(f"{track}-{time}" for track in table.column("track_uuid").to_pylist()),
            categories=tuple(CLASS_OF.get(name, name) for name in categories),
            centers=centers,
            sizes=np.stack([_numbers(table, f"{side}_m") for side in ("length", "width", "height")], axis=-1),
            rotations=rotations,
            velocities=velocities,
            num_lidar_pts=_numbers(table, "num_interior_pts").astype(np.int64),
            num_radar_pts=np.zeros(len(categories), dtype=np.int64),
            attributes=("",) * len(categories),
        )


def _velocities(
    centers: Float[F64, "m 3"], times: Int64[I64, "m"], tracks: NDArray[Any]
) -> Float[F64, "m 2"]:
    """From the boxes before and after, of rows that are sorted by track and time; NaN where there is none."""
    here = np.arange(len(times))
    same = np.zeros(len(times) + 1, dtype=bool)
    same[1:-1] = tracks[1:] == tracks[:-1]
    first, last = np.where(same[:-1], here - 1, here), np.where(same[1:], here + 1, here)
    seconds = (times[last] - times[first]) * 1e-9
    known = (seconds > 0) & (seconds <= _VELOCITY_TIME * (last - first))
    moved = (centers[last] - centers[first])[:, :2]
    velocities: F64 = np.where(known[:, None], moved, np.nan) / np.where(known, seconds, 1.0)[:, None]
    return velocities


def _read(path: Path) -> pa.Table:
    try:
        return pyarrow.feather.read_table(path, memory_map=False)
    except FileNotFoundError:
        raise MissingFileError(f"the file {path} is missing; download the log again") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"the file must be feather, got a damaged one: {path} ({error})") from error


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    try:
        values: NDArray[Any] = table.column(name).to_numpy()
        return values
    except KeyError:
        raise InputError(
            f"a table of Argoverse 2 must have the column {name}, got {', '.join(table.column_names)}"
        ) from None


def _quaternions(table: pa.Table) -> Float[F64, "m 4"]:
    return np.stack([_numbers(table, name) for name in ("qw", "qx", "qy", "qz")], axis=-1)


def _translations(table: pa.Table) -> Float[F64, "m 3"]:
    return np.stack([_numbers(table, name) for name in ("tx_m", "ty_m", "tz_m")], axis=-1)


def _micros(nanoseconds: int | np.int64) -> int:
    return round(int(nanoseconds) / 1000)
