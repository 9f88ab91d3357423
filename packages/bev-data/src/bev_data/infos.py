"""Infos: the key frames of one split, built from the nuScenes tables and read from one memory-mapped file."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from bev_data import infos_io
from bev_data.errors import InputError
from bev_data.geometry import pose
from bev_data.info import Annotations, CameraFrame, Info, LidarFrame
from bev_data.infos_io import Columns, Header
from bev_data.tables import find_version, fingerprint, load_tables, scenes_of_split

__all__ = [
    "Annotations",
    "CameraFrame",
    "Info",
    "Infos",
    "LidarFrame",
    "build_infos",
    "find_version",
    "open_infos",
]

# The rig of nuScenes, front and back, each from left to right; other cameras follow by name.
_CAMERA_ORDER = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)


class Infos(Sequence[Info]):
    """The key frames of a split: scene by scene, in the order of time.

    An `Infos` that was saved or loaded lives in a memory-mapped file: it opens at once, pickles as its path,
    and all processes share one copy of its pages.

    Attributes:
        header: version, split, cameras and number of sweeps.
        path: the file; None for an `Infos` that was only built.
    """

    def __init__(self, batch: pa.RecordBatch, path: Path | None = None) -> None:
        self._batch = batch
        self._columns = Columns(batch)
        self.header = infos_io.read_header(batch)
        self.path = path

    @classmethod
    def from_list(
        cls, infos: Sequence[Info], *, version: str, split: str, cameras: Sequence[str] | None = None
    ) -> "Infos":
        """Infos of one's own data.

        Args:
            infos: key frames; `prev` indexes this sequence.
            version: a name for the data, such as v1.0-mini.
            split: a name for the part of it.
            cameras: names in order; those of the first key frame where it is None.

        Raises:
            ValueError: if key frames have other cameras than these, or `prev` does not point back in the same
                scene.
        """
        names = tuple(cameras if cameras is not None else (infos[0].cameras if infos else ()))
        for i, info in enumerate(infos):
            if set(info.cameras) != set(names):
                raise InputError(
                    f"every key frame must have an image of each of {list(names)}, "
                    f"got {sorted(info.cameras)} for {info.token} of {info.scene}"
                )
            if info.prev is not None and not (0 <= info.prev < i and infos[info.prev].scene == info.scene):
                raise InputError(
                    f"prev of key frame {i} must be an earlier index of the same scene, got {info.prev}"
                )
        num_sweeps = max((len(info.sweeps) for info in infos), default=0)
        header = Header(version, split, names, num_sweeps)
        return cls(infos_io.join([infos_io.to_batch(infos, header)], header))

    @classmethod
    def load(cls, path: Path | str) -> "Infos":
        """Open a file.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged, no infos file, or one of another format.
        """
        # Absolute, so that it is found from a worker with another working directory.
        return cls(infos_io.map_file(Path(path)), Path(path).absolute())

    def save(self, path: Path | str) -> "Infos":
        """Write the file, whole or not at all, and return the `Infos` that lives in it."""
        infos_io.write_file(self._batch, Path(path))
        return Infos.load(path)

    @property
    def version(self) -> str:
        """Version of the tables, such as v1.0-mini."""
        return self.header.version

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.header.split

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in order."""
        return self.header.cameras

    @property
    def tokens(self) -> list[str]:
        """Sample tokens of all key frames."""
        return self._columns.tokens()

    @property
    def prev(self) -> NDArray[np.int32]:
        """Index of each key frame's predecessor in its scene; -1 at a scene's start."""
        return self._columns.prev

    def has_sweep(self, index: int, cameras: Sequence[str]) -> NDArray[np.bool_]:
        """By key frame: whether all these cameras have the sweep of this index (0 = the nearest)."""
        images = self._columns.images
        ids = [self.cameras.index(name) for name in cameras]
        wanted = (images.field("step") == index + 1) & np.isin(images.field("camera"), ids)
        found: NDArray[np.bool_] = np.bincount(images.row_of_entry[wanted], minlength=len(self)) == len(ids)
        return found

    def boxes_per_category(self) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str], NDArray[np.int64]]:
        """All boxes: index of key frame, index of category, names of categories, lidar + radar points."""
        rows = self._columns.annotations
        encoded = rows.field("category").dictionary_encode()
        points = rows.field("num_lidar_pts").astype(np.int64) + rows.field("num_radar_pts")
        names = encoded.dictionary.to_pylist()
        return rows.row_of_entry, encoded.indices.to_numpy().astype(np.int64), names, points

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @overload
    def __getitem__(self, index: int) -> Info: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Info]: ...
    def __getitem__(self, index: int | slice) -> Info | Sequence[Info]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"the index of a key frame must be below {len(self)}, got {index}")
        return self._columns.info(row, self.header)

    def __iter__(self) -> Iterator[Info]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Infos, (self._batch,)) if self.path is None else (Infos.load, (self.path,))

    def __repr__(self) -> str:
        return (
            f"Infos({self.version}, {self.split}, {len(self)} key frames, cameras {', '.join(self.cameras)})"
        )


def build_infos(
    root: Path | str, version: str, split: str, *, num_sweeps: int = 6, progress: bool = True
) -> Infos:
    """Collect the key frames of a split from the nuScenes tables.

    Args:
        root: data root.
        version: such as v1.0-mini.
        split: one of the devkit's splits that fit the version, or one of the version's `splits.json`.
        num_sweeps: the most images before each key frame to note per camera.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if the root, the version, a table or a map mask is missing.
        ValueError: if the version does not have the split, a key frame lacks a camera, a table is damaged, or
            there are to be more than 127 sweeps.
    """
    if not 0 <= num_sweeps <= 127:
        raise InputError(f"the number of sweeps must be in 0 to 127, got {num_sweeps}")
    root = Path(root)
    names = scenes_of_split(root, version, split)
    tables = load_tables(root, version)
    builder = _Builder(tables, names, num_sweeps)
    header = Header(version, split, builder.cameras, num_sweeps, fingerprint(root, version))
    batches: list[pa.RecordBatch] = []
    start = 0
    for scene in tqdm(builder.scenes, desc=f"infos of {split}", unit="scene", disable=not progress):
        infos = builder.scene_infos(scene, start)
        start += len(infos)
        batches.append(infos_io.to_batch(infos, header))
    return Infos(infos_io.join(batches, header))


class _Builder:
    """Reads Infos out of the devkit's tables."""

    def __init__(self, tables: Any, scene_names: Sequence[str], num_sweeps: int) -> None:
        self._tables = tables
        self._num_sweeps = num_sweeps
        self._attributes = {row["token"]: row["name"] for row in tables.attribute}
        self._calibrations: dict[str, NDArray[np.float64]] = {}
        by_name = {scene["name"]: scene for scene in tables.scene}
        self.scenes = [by_name[name] for name in scene_names]
        modality = {row["channel"]: row["modality"] for row in tables.sensor}
        tokens = {scene["token"] for scene in self.scenes}
        used = {channel for row in tables.sample if row["scene_token"] in tokens for channel in row["data"]}
        cameras = sorted(channel for channel in used if modality[channel] == "camera")
        known = [name for name in _CAMERA_ORDER if name in cameras]
        self.cameras = tuple(known + [name for name in cameras if name not in known])
        lidars = sorted(channel for channel in used if modality[channel] == "lidar")
        self._lidar = "LIDAR_TOP" if "LIDAR_TOP" in lidars else (lidars[0] if lidars else None)

    def scene_infos(self, scene: dict[str, Any], start: int) -> list[Info]:
        """Key frames of one scene; the first one has index `start`."""
        infos: list[Info] = []
        token = scene["first_sample_token"]
        while token:
            sample = self._get("sample", token)
            prev = start + len(infos) - 1 if infos else None
            infos.append(self._info(sample, scene["name"], prev))
            token = sample["next"]
        return infos

    def _info(self, sample: dict[str, Any], scene: str, prev: int | None) -> Info:
        missing = [name for name in self.cameras if name not in sample["data"]]
        if missing:
            raise InputError(
                f"every key frame must have an image of each camera, got none of {', '.join(missing)} for "
                f"the sample {sample['token']} of {scene}"
            )
        lidar = None
        if self._lidar is not None and self._lidar in sample["data"]:
            lidar = LidarFrame(*self._frame(self._get("sample_data", sample["data"][self._lidar])))
        return Info(
            token=sample["token"],
            scene=scene,
            timestamp=sample["timestamp"],
            prev=prev,
            cameras={
                name: self._camera(self._get("sample_data", sample["data"][name])) for name in self.cameras
            },
            sweeps=self._sweeps(sample),
            lidar=lidar,
            annotations=self._annotations(sample["anns"]),
        )

    def _sweeps(self, sample: dict[str, Any]) -> tuple[dict[str, CameraFrame], ...]:
        steps: list[dict[str, CameraFrame]] = [{} for _ in range(self._num_sweeps)]
        for name in self.cameras:
            record = self._get("sample_data", sample["data"][name])
            for frames in steps:
                if not record["prev"]:
                    break
                record = self._get("sample_data", record["prev"])
                frames[name] = self._camera(record)
        return tuple(frames for frames in steps if frames)

    def _frame(self, record: dict[str, Any]) -> tuple[str, int, NDArray[np.float64], NDArray[np.float64]]:
        ego = self._get("ego_pose", record["ego_pose_token"])
        token = record["calibrated_sensor_token"]
        if token not in self._calibrations:
            calibration = self._get("calibrated_sensor", token)
            self._calibrations[token] = pose(calibration["rotation"], calibration["translation"])
        ego2global = pose(ego["rotation"], ego["translation"])
        return record["filename"], record["timestamp"], self._calibrations[token], ego2global

    def _camera(self, record: dict[str, Any]) -> CameraFrame:
        calibration = self._get("calibrated_sensor", record["calibrated_sensor_token"])
        intrinsics = np.array(calibration["camera_intrinsic"], dtype=np.float64)
        return CameraFrame(*self._frame(record), intrinsics, record["width"], record["height"])

    def _annotations(self, tokens: Sequence[str]) -> Annotations:
        if not tokens:
            return Annotations.empty()
        records = [self._get("sample_annotation", token) for token in tokens]
        return Annotations(
            tokens=tuple(tokens),
            categories=tuple(record["category_name"] for record in records),
            centers=np.array([record["translation"] for record in records]),
            sizes=np.array([record["size"] for record in records])[:, [1, 0, 2]],
            rotations=np.array([record["rotation"] for record in records]),
            velocities=np.array([self._tables.box_velocity(token)[:2] for token in tokens]),
            num_lidar_pts=np.array([record["num_lidar_pts"] for record in records], dtype=np.int64),
            num_radar_pts=np.array([record["num_radar_pts"] for record in records], dtype=np.int64),
            attributes=tuple(self._attribute(record["attribute_tokens"]) for record in records),
        )

    def _attribute(self, tokens: Sequence[str]) -> str:
        return self._attributes[tokens[0]] if tokens else ""

    def _get(self, table: str, token: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = self._tables.get(table, token)
        except KeyError:
            raise InputError(
                f"the table {table}.json of {self._tables.table_root} must hold every record that others "
                f"link to, got none with the token {token}; unpack the metadata archive again"
            ) from None
        return record


def infos_path(root: Path, version: str, split: str) -> Path:
    """Where `open_infos` keeps its file: in the data root, or in the user's cache if that is not writable."""
    folder = root / "infos"
    existing = folder if folder.is_dir() else root
    if not os.access(existing, os.W_OK):
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        folder = base / "bev-data" / key
    return folder / f"{version}_{split}.arrow"


def open_infos(
    root: Path | str, version: str, split: str, cache: Path | str | None = None, *, progress: bool = True
) -> Infos:
    """Infos of a split: from the file where it is up to date, else built and kept.

    Args:
        root: data root.
        version: such as v1.0-mini.
        split: such as mini_train.
        cache: folder of the file; None for `infos/` in the data root, or, where that cannot be written,
            `~/.cache/bev-data/`.
        progress: show a progress bar while building.

    Raises:
        FileNotFoundError: if the root, the version, a table or a map mask is missing.
        ValueError: if the version does not have the split or a table is damaged.
    """
    root = Path(root)
    path = infos_path(root, version, split) if cache is None else Path(cache) / f"{version}_{split}.arrow"
    num_sweeps = 6
    try:
        infos = Infos.load(path)
        if infos.header.tables == fingerprint(root, version):
            return infos
        num_sweeps = infos.header.num_sweeps
    except (FileNotFoundError, ValueError):
        # None yet, or one of another format: made anew below.
        pass
    return build_infos(root, version, split, num_sweeps=num_sweeps, progress=progress).save(path)
