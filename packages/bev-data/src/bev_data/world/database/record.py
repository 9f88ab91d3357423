"""Record a scene: its images, point files and map mask on disk, and its rows of the tables."""

import io
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bev_data.atomic import atomic_path
from bev_data.geometry import matrix_to_quaternion
from bev_data.world.database.rows import (
    LOCATIONS,
    JsonRow,
    TableRows,
    attribute_tokens,
    category_token,
    chain,
    sensor_token,
    token,
    visibility_token,
)
from bev_data.world.sensors.views import photograph, render, scan
from bev_data.world.street.layout import KINDS
from bev_data.world.street.mounting import LIDAR, Camera
from bev_data.world.street.scene import KEY_PERIOD, Pose, Scene, build_scene

ANNOTATED = 60.0  # metres from the ego
JPEG_QUALITY = 90
EPOCH = 1_533_000_000_000_000  # microseconds, of the first scene
SCENE_SPACING = 100_000_000  # microseconds between the starts of two scenes


@dataclass(frozen=True)
class WorldSpec:
    """What a world is made from; two worlds of one specification are the same to the last byte.

    Attributes:
        scenes: how many.
        val_scenes: how many of them belong to the validation split.
        seed: of everything.
        image_size: width and height in pixels.
        key_frames: of each scene, half a second apart.
        sweep_hz: images per second and camera, key frames included; 0 for key frames only.
        supersample: looks per pixel in each direction.
    """

    scenes: int
    val_scenes: int
    seed: int
    image_size: tuple[int, int]
    key_frames: int
    sweep_hz: int
    supersample: int

    @property
    def sweeps_between(self) -> int:
        """Images of a camera between two key frames."""
        return round(self.sweep_hz * KEY_PERIOD) - 1 if self.sweep_hz else 0


class _Recorder:
    """One scene on its way to disk."""

    def __init__(self, root: Path, spec: WorldSpec, number: int, name: str) -> None:
        self.root, self.spec, self.name = root, spec, name
        width, height = spec.image_size
        self.scene: Scene = build_scene(number, spec.seed, spec.key_frames, width, height)
        self.start = EPOCH + number * SCENE_SPACING
        self.log = f"n{spec.seed % 1000:03d}-synthetic-{name[6:]}"
        self.rows: TableRows = defaultdict(list)
        self.calibrations = {
            channel: token(spec.seed, name, "calibration", channel)
            for channel in (*(camera.channel for camera in self.scene.mounting.cameras), LIDAR)
        }

    def token(self, *words: object) -> str:
        return token(self.spec.seed, self.name, *words)

    def record(self, advance: Callable[[int], None]) -> TableRows:
        """Write all files; returns the rows of this scene."""
        scene = self.scene
        for camera in scene.mounting.cameras:
            self._calibration(camera.channel, camera.rotation, camera.translation, camera.intrinsics.tolist())
        self._calibration(LIDAR, scene.mounting.lidar_rotation, scene.mounting.lidar_translation, [])
        samples = [
            {
                "token": self.token("sample", key),
                "timestamp": self.start + round(key * KEY_PERIOD * 1e6),
                "prev": "",
                "next": "",
                "scene_token": self.token("scene"),
            }
            for key in range(self.spec.key_frames)
        ]
        chain(samples)
        self.rows["sample"] = samples
        streams: dict[str, list[JsonRow]] = defaultdict(list)
        tracks: dict[int, list[JsonRow]] = defaultdict(list)
        between = self.spec.sweeps_between
        for key in range(self.spec.key_frames):
            for sweep in range(-between if key else 0, 0):
                micros = round((key + sweep / (between + 1)) * KEY_PERIOD * 1e6)
                for camera in scene.mounting.cameras:
                    at = micros + camera.delay
                    image = photograph(scene, camera, at / 1e6, supersample=self.spec.supersample)
                    self._image(streams, image, camera, at, key, is_key=False)
                advance(len(scene.mounting.cameras))
            self._key_frame(streams, tracks, key)
            advance(len(scene.mounting.cameras))
        for rows in (*streams.values(), *tracks.values()):
            chain(rows)
        self.rows["sample_data"] = [row for rows in streams.values() for row in rows]
        self._instances(tracks)
        self._scene(samples)
        return dict(self.rows)

    def _key_frame(
        self, streams: dict[str, list[JsonRow]], tracks: dict[int, list[JsonRow]], key: int
    ) -> None:
        scene = self.scene
        micros = round(key * KEY_PERIOD * 1e6)
        views = []
        for camera in scene.mounting.cameras:
            at = micros + camera.delay
            views.append(render(scene, camera, at / 1e6, supersample=self.spec.supersample))
            self._image(streams, views[-1].image, camera, at, key, is_key=True)
        points, hit = scan(scene, micros / 1e6)
        name = f"samples/{LIDAR}/{self.log}__{LIDAR}__{self.start + micros}.pcd.bin"
        _write(self.root / name, points.tobytes())
        streams[LIDAR].append(self._sample_data(LIDAR, name, micros, key, is_key=True))
        lidar_points = np.bincount(hit[hit >= 0], minlength=len(scene.users))
        alone = np.sum([view.alone for view in views], axis=0)
        seen = np.sum([view.seen for view in views], axis=0)
        ego = scene.ego_pose(micros / 1e6).translation
        for index, user in enumerate(scene.users):
            x, y, z, cos, sin = scene.user_pose(index, micros / 1e6)
            if np.hypot(x - ego[0], y - ego[1]) > ANNOTATED:
                continue
            length, width, height = user.size
            about_z = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
            row = {
                "token": self.token("annotation", index, key),
                "sample_token": self.token("sample", key),
                "instance_token": self.token("instance", index),
                "visibility_token": visibility_token(seen[index] / max(1, alone[index])),
                "attribute_tokens": attribute_tokens(user.attribute),
                "translation": [x, y, z + 0.5 * height],
                "size": [width, length, height],
                "rotation": matrix_to_quaternion(about_z).tolist(),
                "prev": "",
                "next": "",
                "num_lidar_pts": int(lidar_points[index]),
                "num_radar_pts": 0,
            }
            self.rows["sample_annotation"].append(row)
            tracks[index].append(row)

    def _image(
        self,
        streams: dict[str, list[JsonRow]],
        image: NDArray[np.uint8],
        camera: Camera,
        micros: int,
        key: int,
        *,
        is_key: bool,
    ) -> None:
        folder = "samples" if is_key else "sweeps"
        name = f"{folder}/{camera.channel}/{self.log}__{camera.channel}__{self.start + micros}.jpg"
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "JPEG", quality=JPEG_QUALITY)
        _write(self.root / name, encoded.getvalue())
        streams[camera.channel].append(self._sample_data(camera.channel, name, micros, key, is_key=is_key))

    def _sample_data(self, channel: str, name: str, micros: int, key: int, *, is_key: bool) -> JsonRow:
        identity = self.token("data", channel, micros)
        pose: Pose = self.scene.ego_pose(micros / 1e6)
        self.rows["ego_pose"].append(
            {
                "token": identity,
                "timestamp": self.start + micros,
                "rotation": matrix_to_quaternion(pose.rotation).tolist(),
                "translation": pose.translation.tolist(),
            }
        )
        width, height = (0, 0) if channel == LIDAR else self.spec.image_size
        return {
            "token": identity,
            # As in nuScenes, a sweep belongs to the key frame that follows it.
            "sample_token": self.token("sample", key),
            "ego_pose_token": identity,
            "calibrated_sensor_token": self.calibrations[channel],
            "timestamp": self.start + micros,
            "fileformat": "pcd" if channel == LIDAR else "jpg",
            "is_key_frame": is_key,
            "height": height,
            "width": width,
            "filename": name,
            "prev": "",
            "next": "",
        }

    def _calibration(
        self,
        channel: str,
        rotation: NDArray[np.float64],
        translation: NDArray[np.float64],
        intrinsics: list[list[float]],
    ) -> None:
        self.rows["calibrated_sensor"].append(
            {
                "token": self.calibrations[channel],
                "sensor_token": sensor_token(channel),
                "translation": translation.tolist(),
                "rotation": matrix_to_quaternion(rotation).tolist(),
                "camera_intrinsic": intrinsics,
            }
        )

    def _instances(self, tracks: dict[int, list[JsonRow]]) -> None:
        self.rows["instance"] = [
            {
                "token": self.token("instance", index),
                "category_token": category_token(KINDS[self.scene.users[index].kind].category),
                "nbr_annotations": len(rows),
                "first_annotation_token": rows[0]["token"],
                "last_annotation_token": rows[-1]["token"],
            }
            for index, rows in tracks.items()
        ]

    def _scene(self, samples: list[JsonRow]) -> None:
        log, mask = self.token("log"), self.token("map")
        encoded = io.BytesIO()
        # The first row of a map mask is its northern end.
        Image.fromarray(self.scene.drivable[::-1]).save(encoded, "PNG")
        _write(self.root / f"maps/{mask}.png", encoded.getvalue())
        self.rows["scene"] = [
            {
                "token": self.token("scene"),
                "log_token": log,
                "nbr_samples": len(samples),
                "first_sample_token": samples[0]["token"],
                "last_sample_token": samples[-1]["token"],
                "name": self.name,
                "description": f"Rendered crossing, {self.scene.behaviour}",
            }
        ]
        self.rows["log"] = [
            {
                "token": log,
                "logfile": self.log,
                "vehicle": self.log[:4],
                "date_captured": "2018-07-31",
                "location": LOCATIONS[self.scene.number % len(LOCATIONS)],
            }
        ]
        self.rows["map"] = [
            {"token": mask, "log_tokens": [log], "category": "semantic_prior", "filename": f"maps/{mask}.png"}
        ]


def record_scene(
    root: Path, spec: WorldSpec, number: int, name: str, advance: Callable[[int], None]
) -> TableRows:
    """Render a scene to disk.

    Of the arguments:
        number: index of the scene; decides with the seed what is in it.
        name: official name of the scene.
        advance: called with the number of images since the last call.

    Returns:
        The scene's rows of all tables that differ from scene to scene.
    """
    return _Recorder(root, spec, number, name).record(advance)


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
