"""The nuScenes tables as columns: what infos are made of, linked by row numbers instead of tokens.

Shape shorthand: f recordings of cameras and lidars, s samples, c channels, b boxes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from bev_data.errors import InputError
from bev_data.nuscenes import rows
from bev_data.nuscenes.versions import require_tables

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

# Instead of a row number: the link is empty; the table has no such record.
NO_LINK, BROKEN_LINK = -1, -2

# Absolute paths, and those that go up.
_OUTSIDE = r"^/|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)"

# Seconds between two annotations of an object beyond which they tell no velocity (source: the devkit).
_MAX_VELOCITY_TIME = 1.5


@dataclass(frozen=True)
class Recordings:
    """Rows of sample_data that cameras and lidars recorded.

    Attributes:
        tokens: of the rows.
        files: relative to the data root.
        timestamp: microseconds.
        size: width and height in pixels.
        is_key: whether it belongs to a key frame.
        sample: row of its sample.
        channel: index of its sensor in the names of channels.
        calibration: row of its calibration.
        prev: row of the recording before it.
        rotation: of the vehicle, quaternions (w, x, y, z).
        translation: of the vehicle, metres.
        has_pose: whether ego_pose has a record of it.
        pose_timestamp: microseconds, of that record.
    """

    tokens: pa.StringArray
    files: pa.StringArray
    timestamp: Int64[I64, "f"]
    size: Int64[I64, "f 2"]
    is_key: NDArray[np.bool_]
    sample: Int64[I64, "f"]
    channel: Int64[I64, "f"]
    calibration: Int64[I64, "f"]
    prev: Int64[I64, "f"]
    rotation: Float[F64, "f 4"]
    translation: Float[F64, "f 3"]
    has_pose: NDArray[np.bool_]
    pose_timestamp: Int64[I64, "f"]


@dataclass(frozen=True)
class BoxColumns:
    """Rows of sample_annotation; sizes are length, width, height, velocities NaN where unknown.

    `tied` boxes have no velocity because the ones before and after them are at one moment.
    """

    tokens: pa.StringArray
    categories: pa.StringArray
    attributes: pa.StringArray
    sample: Int64[I64, "b"]
    centers: Float[F64, "b 3"]
    sizes: Float[F64, "b 3"]
    rotations: Float[F64, "b 4"]
    velocities: Float[F64, "b 2"]
    num_lidar_pts: Int64[I64, "b"]
    num_radar_pts: Int64[I64, "b"]
    tied: NDArray[np.bool_]


class TableColumns:
    """The tables of one version, for all of its splits.

    Args:
        root: data root.
        version: such as v1.0-mini.

    Attributes:
        folder: with the tables.
        channels: names of the cameras and lidars.
        modality: of each of them.

    Raises:
        FileNotFoundError: if the root, the version or a table is missing.
        ValueError: if a table is damaged or links to records that are missing.
    """

    def __init__(self, root: Path, version: str) -> None:
        require_tables(root, version)
        self.folder = root / version
        self.scenes = rows.read_rows(self.folder, "scene", rows.SceneRow)
        self.samples = rows.read_rows(self.folder, "sample", rows.SampleRow)
        self.sample_tokens = strings([sample.token for sample in self.samples])
        sensors = {row.token: row for row in rows.read_rows(self.folder, "sensor", rows.SensorRow)}
        self.calibrations = rows.read_rows(self.folder, "calibrated_sensor", rows.CalibratedSensorRow)
        seeing = sorted(
            (row.channel, row.modality) for row in sensors.values() if row.modality in ("camera", "lidar")
        )
        self.channels = tuple(channel for channel, _ in seeing)
        self.modality = dict(seeing)
        number = {channel: i for i, channel in enumerate(self.channels)}
        self._channel_of_calibration = np.array(
            [number.get(self._sensor(sensors, row).channel, NO_LINK) for row in self.calibrations],
            dtype=np.int64,
        )

    def _sensor(
        self, sensors: dict[str, rows.SensorRow], calibration: rows.CalibratedSensorRow
    ) -> rows.SensorRow:
        if calibration.sensor_token not in sensors:
            raise self._missing("sensor", calibration.sensor_token)
        return sensors[calibration.sensor_token]

    def _missing(self, table: str, token: str) -> InputError:
        return InputError(
            f"the table {table}.json of {self.folder} must hold every record that others link to, got none "
            f"with the token {token}; unpack the metadata archive again"
        )

    @cached_property
    def recordings(self) -> Recordings:
        """What cameras and lidars recorded."""
        every = rows.read_rows(self.folder, "sample_data", rows.SampleDataRow)
        calibration = rows_of(
            strings([row.calibrated_sensor_token for row in every]),
            strings([row.token for row in self.calibrations]),
        )
        for i in np.flatnonzero(calibration < 0)[:1]:
            raise self._missing("calibrated_sensor", every[i].calibrated_sensor_token)
        channel = self._channel_of_calibration[calibration]
        # Radars are left out here, which no later step needs, and stand-ins for recordings that were dropped.
        valid = np.array([row.is_valid for row in every], dtype=bool)
        before_dropped = {row.token: row.prev for row in every if not row.is_valid}
        kept = [row for row, chosen in zip(every, valid & (channel >= 0), strict=True) if chosen]
        calibration, channel = calibration[valid & (channel >= 0)], channel[valid & (channel >= 0)]
        del every
        files = strings([row.filename for row in kept])
        for i in np.flatnonzero(pc.match_substring_regex(files, _OUTSIDE).to_numpy(zero_copy_only=False))[:1]:
            raise InputError(
                f"a filename in the table sample_data.json of {self.folder} must lead to a file within the "
                f"data root, got {files[int(i)].as_py()!r}"
            )
        tokens = strings([row.token for row in kept])
        poses = strings([row.ego_pose_token for row in kept])
        rotation, translation, has_pose, pose_timestamp = self._poses(poses)
        return Recordings(
            tokens=tokens,
            files=files,
            timestamp=np.array([row.timestamp for row in kept], dtype=np.int64),
            size=np.array([(row.width, row.height) for row in kept], dtype=np.int64).reshape(-1, 2),
            is_key=np.array([row.is_key_frame for row in kept], dtype=bool),
            sample=rows_of(strings([row.sample_token for row in kept]), self.sample_tokens),
            channel=channel,
            calibration=calibration,
            prev=rows_of(strings([_last_kept(row.prev, before_dropped) for row in kept]), tokens),
            rotation=rotation,
            translation=translation,
            has_pose=has_pose,
            pose_timestamp=pose_timestamp,
        )

    def _poses(self, tokens: pa.StringArray) -> tuple[F64, F64, NDArray[np.bool_], I64]:
        poses = rows.read_rows(self.folder, "ego_pose", rows.EgoPoseRow)
        found = rows_of(tokens, strings([pose.token for pose in poses]))
        there = found >= 0
        rotation, translation = np.zeros((len(found), 4)), np.zeros((len(found), 3))
        timestamp = np.zeros(len(found), dtype=np.int64)
        rotation[:, 0] = 1
        if there.any():
            timestamp[there] = [poses[i].timestamp for i in found[there]]
            rotation[there] = [poses[i].rotation for i in found[there]]
            translation[there] = [poses[i].translation for i in found[there]]
        return rotation, translation, there, timestamp

    @cached_property
    def key_recordings(self) -> Int64[I64, "s c"]:
        """Row of each sample's key frame by channel; negative where there is none."""
        table = np.full((len(self.samples), len(self.channels)), NO_LINK, dtype=np.int64)
        data = self.recordings
        chosen = np.flatnonzero(data.is_key & (data.sample >= 0))
        table[data.sample[chosen], data.channel[chosen]] = chosen
        return table

    def files_there(self) -> NDArray[np.bool_]:
        """Whether the file of each recording is in the data root."""
        root = self.folder.parent
        files = self.recordings.files.to_pylist()
        folders = {file.rpartition("/")[0] for file in files}
        present = {
            f"{folder}/{name}" if folder else name
            for folder in folders
            if (root / folder).is_dir()
            for name in os.listdir(root / folder)  # noqa: PTH208 - names are enough, for millions of files
        }
        return np.array([file in present for file in files], dtype=bool)

    def sweeps_between(self) -> int:
        """The most images of one camera between two key frames, at most 127."""
        data = self.recordings
        cameras = [i for i, name in enumerate(self.channels) if self.modality[name] == "camera"]
        current = self.key_recordings[:, cameras]
        current = current[current >= 0]
        for steps in range(127):
            current = data.prev[current]
            current = current[current >= 0]
            current = current[~data.is_key[current]]
            if not len(current):
                return steps
        return 127

    @cached_property
    def boxes(self) -> BoxColumns:
        """The annotations."""
        every = rows.read_rows(self.folder, "sample_annotation", rows.AnnotationRow)
        names = {row.token: row.name for row in rows.read_rows(self.folder, "category", rows.NamedRow)}
        categories = {
            row.token: names.get(row.category_token)
            for row in rows.read_rows(self.folder, "instance", rows.InstanceRow)
        }
        attributes = {row.token: row.name for row in rows.read_rows(self.folder, "attribute", rows.NamedRow)}
        attributes[""] = ""
        sample = rows_of(strings([row.sample_token for row in every]), self.sample_tokens)
        for i in np.flatnonzero(sample < 0)[:1]:
            raise self._missing("sample", every[i].sample_token)
        category = [categories.get(row.instance_token) for row in every]
        if None in category:
            raise self._missing("instance", every[category.index(None)].instance_token)
        first = [row.attribute_tokens[0] if row.attribute_tokens else "" for row in every]
        unknown = next((token for token in first if token not in attributes), None)
        if unknown is not None:
            raise self._missing("attribute", unknown)
        tokens = strings([row.token for row in every])
        centers = np.array([row.translation for row in every]).reshape(-1, 3)
        before = rows_of(strings([row.prev for row in every]), tokens)
        after = rows_of(strings([row.next for row in every]), tokens)
        velocities, tied = self._velocities(centers, sample, before, after, tokens)
        return BoxColumns(
            tokens=tokens,
            categories=strings(category),
            attributes=strings([attributes[token] for token in first]),
            sample=sample,
            centers=centers,
            sizes=np.array([row.size for row in every]).reshape(-1, 3)[:, [1, 0, 2]],
            rotations=np.array([row.rotation for row in every]).reshape(-1, 4),
            velocities=velocities,
            tied=tied,
            num_lidar_pts=np.array([row.num_lidar_pts for row in every], dtype=np.int64),
            num_radar_pts=np.array([row.num_radar_pts for row in every], dtype=np.int64),
        )

    def _velocities(
        self,
        centers: Float[F64, "b 3"],
        sample: Int64[I64, "b"],
        before: Int64[I64, "b"],
        after: Int64[I64, "b"],
        tokens: pa.StringArray,
    ) -> tuple[Float[F64, "b 2"], NDArray[np.bool_]]:
        """From the annotations before and after, as the devkit's `box_velocity`, to the last bit.

        Returns:
            Velocities, and which boxes have none because both annotations are of one moment.
        """
        for i in np.flatnonzero((before == BROKEN_LINK) | (after == BROKEN_LINK))[:1]:
            raise InputError(
                f"the table sample_annotation.json of {self.folder} must hold the annotations before and "
                f"after {tokens[i].as_py()}, got none; unpack the metadata archive again"
            )
        here = np.arange(len(centers))
        first, last = np.where(before >= 0, before, here), np.where(after >= 0, after, here)
        seconds = 1e-6 * np.array([row.timestamp for row in self.samples], dtype=np.int64)[sample]
        time = seconds[last] - seconds[first]
        longest = np.where((before >= 0) & (after >= 0), 2 * _MAX_VELOCITY_TIME, _MAX_VELOCITY_TIME)
        tied = (first != last) & (time <= 0)
        known = (first != last) & (time <= longest) & ~tied
        moved = (centers[last] - centers[first])[:, :2]
        velocities: F64 = np.where(known, moved.T, np.nan).T / np.where(known, time, 1.0)[:, None]
        return velocities, tied


def _last_kept(token: str, before_dropped: dict[str, str]) -> str:
    """The recording of this token, or the nearest one before it that was not dropped."""
    while token in before_dropped:
        token = before_dropped[token]
    return token


def strings(values: Sequence[str | None]) -> pa.StringArray:
    """Values as an Arrow array of strings."""
    return pa.array(values, pa.string())


def rows_of(values: pa.StringArray, tokens: pa.StringArray) -> Int64[I64, "k"]:
    """Row of each value among the tokens; `NO_LINK` for "", `BROKEN_LINK` for a token that is not there."""
    found = pc.index_in(values, value_set=tokens)
    numbered: I64 = pc.fill_null(found, BROKEN_LINK).to_numpy(zero_copy_only=False).astype(np.int64)
    numbered[pc.equal(values, "").to_numpy(zero_copy_only=False)] = NO_LINK
    return numbered
