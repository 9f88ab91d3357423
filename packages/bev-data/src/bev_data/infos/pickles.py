"""Infos of BEVDepth and BEVStereo: their pickles in and out.

`nuscenes_12hz_infos_*.pkl` and `nuscenes_infos_*.pkl` hold a list of key frames, each a dictionary of table
records: `cam_infos`, `cam_sweeps`, `lidar_infos`, `ann_infos`.
"""

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from bev_data.atomic import atomic_path
from bev_data.errors import InputError
from bev_data.geometry import matrix_to_quaternion, pose
from bev_data.infos.build import order_cameras
from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame
from bev_data.infos.infos import Infos
from bev_data.infos.plain_pickle import load_plain_pickle
from bev_data.memory import bounded_memory

Record = Mapping[str, Any]

# Bytes in memory that a byte of a pickle may become here.
_GROWTH = 100
_POSE_TIME = 50_000  # microseconds that a pose may be from its recording


class Imported(NamedTuple):
    """Infos of a pickle.

    Attributes:
        infos: its key frames.
        dropped_sweeps: images that were left out because the pickle gives them the pose of another moment.
    """

    infos: Infos
    dropped_sweeps: int


def import_pickle(path: Path, root: Path, *, version: str, split: str) -> Imported:
    """Infos of a pickle that BEVDepth or BEVStereo made.

    Some releases of their script write the key frame's pose into sweeps; such images are left out.

    Args:
        path: the pickle.
        root: data root, where images tell their size if the pickle does not.
        version: name of the tables it was made from, such as v1.0-trainval.
        split: name of the split.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds anything but plain data and arrays, or other data than these infos.
    """
    entries = load_plain_pickle(path)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and "cam_infos" in entry for entry in entries
    ):
        raise InputError(
            f"the pickle must be a list of key frames with cam_infos, as BEVDepth and BEVStereo write it, "
            f"got something else in {path}; make infos from the tables instead with `bev-data prepare`"
        )
    reader = _Reader(root)
    infos: list[Info] = []
    try:
        # Lists that hold each other many times over are short in a file and endless as an array.
        with bounded_memory(_GROWTH * path.stat().st_size):
            for entry in entries:
                infos.append(reader.info(entry, infos))
    # Whatever comes out of a damaged file is about that file.
    except Exception as error:
        raise InputError(
            f"key frame {len(infos)} must have the records of a BEVDepth pickle, got another one in {path}: "
            f"{type(error).__name__} {error}"
        ) from error
    cameras = order_cameras(infos[0].cameras) if infos else ()
    return Imported(
        Infos.from_list(infos, version=version, split=split, cameras=cameras), reader.dropped_sweeps
    )


class _Reader:
    """Turns the dictionaries of a pickle into infos."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sizes: dict[str, tuple[int, int]] = {}
        self.dropped_sweeps = 0

    def info(self, entry: Record, before: list[Info]) -> Info:
        scene = entry.get("scene_name") or entry["scene_token"]
        prev = len(before) - 1 if before and before[-1].scene == scene else None
        cameras = {name: self._camera(name, record) for name, record in entry["cam_infos"].items()}
        sweeps = tuple(dict(self._sweep(step)) for step in entry.get("cam_sweeps", entry.get("sweeps", [])))
        lidars = entry.get("lidar_infos") or {}
        lidar = lidars.get("LIDAR_TOP")
        return Info(
            token=entry["sample_token"],
            scene=scene,
            timestamp=entry["timestamp"],
            prev=prev,
            cameras=cameras,
            sweeps=sweeps,
            lidar=LidarFrame(*_frame(lidar)) if lidar else None,
            annotations=_annotations(entry.get("ann_infos") or [], entry["sample_token"]),
        )

    def _sweep(self, step: Record) -> Iterator[tuple[str, CameraFrame]]:
        for name, record in step.items():
            moment = record["ego_pose"].get("timestamp", record["timestamp"])
            if abs(moment - record["timestamp"]) > _POSE_TIME:
                self.dropped_sweeps += 1
            else:
                yield name, self._camera(name, record)

    def _camera(self, name: str, record: Record) -> CameraFrame:
        if "width" in record:
            width, height = record["width"], record["height"]
        else:
            width, height = self._size(name, record["filename"])
        intrinsics = np.array(record["calibrated_sensor"]["camera_intrinsic"], dtype=np.float64).reshape(3, 3)
        return CameraFrame(*_frame(record), intrinsics, width, height)

    def _size(self, camera: str, file: str) -> tuple[int, int]:
        if camera not in self._sizes:
            try:
                with Image.open(self._root / file) as image:
                    self._sizes[camera] = image.size
            except OSError as error:
                raise InputError(f"the image {self._root / file} must tell the size of {camera}") from error
        return self._sizes[camera]


def _frame(record: Record) -> tuple[str, int, NDArray[np.float64], NDArray[np.float64]]:
    mount, ego = record["calibrated_sensor"], record["ego_pose"]
    return (
        record["filename"],
        record["timestamp"],
        pose(mount["rotation"], mount["translation"]),
        pose(ego["rotation"], ego["translation"]),
    )


def _annotations(records: list[Record], sample: str) -> Annotations:
    def numbers(name: str, width: int) -> NDArray[np.float64]:
        return np.array([record[name] for record in records], dtype=np.float64).reshape(-1, width)

    def counts(name: str) -> NDArray[np.int64]:
        return np.array([record[name] for record in records], dtype=np.int64)

    velocities = np.array([np.asarray(record["velocity"])[:2] for record in records], dtype=np.float64)
    return Annotations(
        tokens=tuple(record.get("token", f"{sample}-{i}") for i, record in enumerate(records)),
        categories=tuple(record["category_name"] for record in records),
        centers=numbers("translation", 3),
        sizes=numbers("size", 3)[:, [1, 0, 2]],
        rotations=numbers("rotation", 4),
        velocities=velocities.reshape(-1, 2),
        num_lidar_pts=counts("num_lidar_pts"),
        num_radar_pts=counts("num_radar_pts"),
        attributes=tuple(record.get("attribute_name", "") for record in records),
    )


def split_of_pickle(path: Path) -> str | None:
    """The split that the name of a pickle tells, as in nuscenes_infos_val.pkl."""
    found = re.fullmatch(r"nuscenes_(?:12hz_)?infos_(\w+)", path.stem)
    return found[1] if found else None


def export_pickle(infos: Infos, path: Path) -> None:
    """Write infos as a pickle that BEVDepth and BEVStereo read, whole or not at all.

    Unknown velocities become 0, as there.

    Raises:
        OSError: if it cannot be written.
    """
    entries = [_entry(info) for info in infos]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        pickle.dump(entries, file, protocol=4)


def _entry(info: Info) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "sample_token": info.token,
        "timestamp": info.timestamp,
        "scene_token": info.scene,
        "cam_infos": {name: _camera_record(info, frame, True) for name, frame in info.cameras.items()},
        "cam_sweeps": [
            {name: _camera_record(info, frame, False) for name, frame in step.items()} for step in info.sweeps
        ],
        "lidar_infos": {},
        "lidar_sweeps": [],
        "ann_infos": [_annotation_record(info.annotations, i) for i in range(len(info.annotations))],
    }
    if info.lidar is not None:
        entry["lidar_infos"]["LIDAR_TOP"] = _record(info, info.lidar)
    return entry


def _record(info: Info, frame: CameraFrame | LidarFrame) -> dict[str, Any]:
    return {
        "sample_token": info.token,
        "timestamp": frame.timestamp,
        "filename": frame.file,
        "ego_pose": {"timestamp": frame.timestamp, **_pose_record(frame.ego2global)},
        "calibrated_sensor": {**_pose_record(frame.sensor2ego), "camera_intrinsic": []},
    }


def _camera_record(info: Info, frame: CameraFrame, is_key: bool) -> dict[str, Any]:
    record = _record(info, frame)
    record["calibrated_sensor"]["camera_intrinsic"] = frame.intrinsics.tolist()
    return {**record, "is_key_frame": is_key, "width": frame.width, "height": frame.height}


def _pose_record(matrix: Float[NDArray[np.float64], "4 4"]) -> dict[str, Any]:
    return {
        "rotation": matrix_to_quaternion(matrix[:3, :3]).tolist(),
        "translation": matrix[:3, 3].tolist(),
    }


def _annotation_record(annotations: Annotations, i: int) -> dict[str, Any]:
    return {
        "token": annotations.tokens[i],
        "category_name": annotations.categories[i],
        "attribute_name": annotations.attributes[i],
        "translation": annotations.centers[i].tolist(),
        "size": annotations.sizes[i][[1, 0, 2]].tolist(),
        "rotation": annotations.rotations[i].tolist(),
        "velocity": np.append(np.nan_to_num(annotations.velocities[i]), 0.0),
        "num_lidar_pts": int(annotations.num_lidar_pts[i]),
        "num_radar_pts": int(annotations.num_radar_pts[i]),
    }
