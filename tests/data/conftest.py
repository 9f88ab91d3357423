"""A tiny nuScenes database, made by hand: cameras, one lidar, a few boxes, an ego that drives and turns."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

# Camera axes (x right, y down, z forward) in ego axes (x forward, y left, z up).
CAMERA_IN_EGO = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
CATEGORIES = (
    "vehicle.car",
    "human.pedestrian.adult",
    "movable_object.trafficcone",
    "animal",
    "vehicle.bicycle",
)
ATTRIBUTES = {"vehicle.car": "vehicle.moving", "human.pedestrian.adult": "pedestrian.standing"}
SPEED, TURN = 4.0, 0.1  # of the ego: m/s, rad/s


# Width, height, yaw in degrees.
TWO_CAMERAS = {"CAM_FRONT": (64, 48, 0.0), "CAM_BACK": (80, 40, 180.0)}


def yaw_quaternion(yaw):
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def matrix_quaternion(matrix):
    from pyquaternion import Quaternion

    return [float(v) for v in Quaternion(matrix=matrix).elements]


def ego_pose(seconds):
    """Position and yaw of the ego."""
    yaw = 0.3 + TURN * seconds
    return [100.0 + SPEED * seconds, 200.0 + 0.5 * seconds, 0.0], yaw


def car_position(seconds):
    """Centre of the moving car: 2 m/s along the map's x axis."""
    return [112.0 + 2.0 * seconds, 204.0, 0.8]


class _Writer:
    """Collects the rows of the 13 tables."""

    def __init__(self, root, version, cameras, sweeps, annotations):
        self.root, self.version, self.cameras = root, version, cameras
        self.sweeps, self.annotations = sweeps, annotations
        self.rng = np.random.default_rng(0)
        self.tables = {
            "attribute": [
                {"token": name, "name": name, "description": ""} for name in set(ATTRIBUTES.values())
            ],
            "category": [{"token": name, "name": name, "description": ""} for name in CATEGORIES],
            "visibility": [{"token": "4", "level": "v80-100", "description": ""}],
            "map": [
                {
                    "token": "map",
                    "category": "semantic_prior",
                    "filename": "maps/map.png",
                    "log_tokens": ["log"],
                }
            ],
            "log": [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": "here"}],
        }
        for name in ("sensor", "calibrated_sensor", "ego_pose", "instance", "sample", "sample_annotation"):
            self.tables[name] = []
        self.tables["sample_data"], self.tables["scene"] = [], []
        self._sensors()

    def _sensors(self):
        for name, (width, height, yaw) in self.cameras.items():
            angle = np.deg2rad(yaw)
            turn = np.array(
                [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
            )
            intrinsics = [
                [width * 0.6, 0.0, width / 2 - 0.5],
                [0.0, width * 0.6, height / 2 - 0.5],
                [0, 0, 1],
            ]
            position = [1.5 * float(np.cos(angle)), 0.5 * float(np.sin(angle)), 1.5]
            self._sensor(name, "camera", position, matrix_quaternion(turn @ CAMERA_IN_EGO), intrinsics)
        self._sensor("LIDAR_TOP", "lidar", [0.9, 0.0, 1.8], yaw_quaternion(-np.pi / 2), [])

    def _sensor(self, name, modality, translation, rotation, intrinsics):
        self.tables["sensor"].append({"token": name, "channel": name, "modality": modality})
        self.tables["calibrated_sensor"].append(
            {
                "token": name,
                "sensor_token": name,
                "translation": translation,
                "rotation": rotation,
                "camera_intrinsic": intrinsics,
            }
        )

    def scene(self, name, frames, start):
        tokens = [f"{name}-{i}" for i in range(frames)]
        self.tables["scene"].append(
            {
                "token": name,
                "log_token": "log",
                "nbr_samples": frames,
                "first_sample_token": tokens[0],
                "last_sample_token": tokens[-1],
                "name": name,
                "description": "",
            }
        )
        for i, token in enumerate(tokens):
            around = {"prev": tokens[i - 1] if i else "", "next": tokens[i + 1] if i + 1 < frames else ""}
            stamp = start + i * 500_000
            self.tables["sample"].append({"token": token, "timestamp": stamp, "scene_token": name, **around})
            if self.annotations:
                self._boxes(name, i, frames, token, 0.5 * i)
        for channel, delay in [*((c, 1000 * n) for n, c in enumerate(self.cameras)), ("LIDAR_TOP", 5000)]:
            self._recordings(name, channel, tokens, start + delay)

    def _recordings(self, scene, channel, tokens, start):
        """Key frames and, for cameras, sweeps between them."""
        is_camera = channel in self.cameras
        parts = self.sweeps + 1 if is_camera else 1
        count = (len(tokens) - 1) * parts + 1
        names = [f"{scene}-{channel}-{k}" for k in range(count)]
        for k, token in enumerate(names):
            stamp = start + k * 500_000 // parts
            key = k % parts == 0
            folder = "samples" if key else "sweeps"
            file = f"{folder}/{channel}/{token}.{'jpg' if is_camera else 'pcd.bin'}"
            position, yaw = ego_pose(k * 0.5 / parts + (start % 1_000_000) * 1e-6)
            pose = {
                "token": token,
                "timestamp": stamp,
                "translation": position,
                "rotation": yaw_quaternion(yaw),
            }
            self.tables["ego_pose"].append(pose)
            width, height = self.cameras[channel][:2] if is_camera else (0, 0)
            self.tables["sample_data"].append(
                {
                    "token": token,
                    "sample_token": tokens[-(-k // parts)],
                    "ego_pose_token": token,
                    "calibrated_sensor_token": channel,
                    "timestamp": stamp,
                    "fileformat": "jpg" if is_camera else "pcd",
                    "is_key_frame": key,
                    "height": height,
                    "width": width,
                    "filename": file,
                    "prev": names[k - 1] if k else "",
                    "next": names[k + 1] if k + 1 < count else "",
                }
            )
            self._file(self.root / file, (width, height))

    def _file(self, path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jpg":
            pixels = self.rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path, quality=90)
        else:
            points = self.rng.uniform([-20, -20, -1.8, 0, 0], [20, 20, 3, 255, 31], (600, 5))
            points.astype(np.float32).tofile(path)

    def _boxes(self, scene, i, frames, sample, seconds):
        still = {
            "human.pedestrian.adult": ([106.0, 200.0, 0.9], [0.6, 0.7, 1.8], 5),
            "movable_object.trafficcone": ([109.0, 197.0, 0.4], [0.4, 0.4, 0.8], 2),
            "animal": ([103.0, 205.0, 0.3], [0.3, 0.6, 0.6], 4),
            "vehicle.bicycle": ([95.0, 198.0, 0.6], [0.6, 1.7, 1.2], 0),
        }
        boxes = {"vehicle.car": (car_position(seconds), [1.9, 4.6, 1.6], 20), **still}
        for category, (position, size, points) in boxes.items():
            token = f"{scene}-{category}"
            if i == 0:
                instance = {
                    "first_annotation_token": f"{token}-0",
                    "last_annotation_token": f"{token}-{frames - 1}",
                }
                self.tables["instance"].append(
                    {"token": token, "category_token": category, "nbr_annotations": frames, **instance}
                )
            attribute = ATTRIBUTES.get(category)
            self.tables["sample_annotation"].append(
                {
                    "token": f"{token}-{i}",
                    "sample_token": sample,
                    "instance_token": token,
                    "visibility_token": "4",
                    "attribute_tokens": [attribute] if attribute else [],
                    "translation": position,
                    "size": size,
                    "rotation": yaw_quaternion(0.5),
                    "prev": f"{token}-{i - 1}" if i else "",
                    "next": f"{token}-{i + 1}" if i + 1 < frames else "",
                    "num_lidar_pts": points,
                    "num_radar_pts": 0,
                }
            )

    def save(self):
        folder = self.root / self.version
        folder.mkdir(parents=True)
        for name, rows in self.tables.items():
            (folder / f"{name}.json").write_text(json.dumps(rows))
        (self.root / "maps").mkdir()
        Image.new("L", (8, 8)).save(self.root / "maps" / "map.png")


def build_database(
    root: Path,
    *,
    version: str = "v1.0-mini",
    scenes: dict[str, int] | None = None,
    cameras: dict[str, tuple[int, int, float]] = TWO_CAMERAS,
    sweeps: int = 2,
    annotations: bool = True,
) -> Path:
    """Write a database: scenes by name with their number of key frames, and sweeps between two key frames."""
    writer = _Writer(root, version, cameras, sweeps, annotations)
    names = scenes if scenes is not None else {"scene-0061": 2, "scene-0103": 3, "scene-0916": 1}
    for i, (name, frames) in enumerate(names.items()):
        writer.scene(name, frames, 1_000_000_000 * (i + 1))
    writer.save()
    return root


@pytest.fixture(scope="session")
def write_database():
    """The function that writes a database."""
    return build_database


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """A database that tests must leave as it is: mini_train with 2 key frames, mini_val with 3 + 1."""
    return build_database(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="session")
def mini_val(database):
    """Infos of its mini_val split, in a file."""
    from bev_data.infos.infos import open_infos

    return open_infos(database, "v1.0-mini", "mini_val", progress=False)


class Goldens(NamedTuple):
    """Numbers of the published implementation."""

    arrays: dict[str, np.ndarray]
    folder: Path

    def json(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def goldens():
    """Numbers of the published implementation for the transforms of the data path."""
    folder = Path(__file__).parent / "goldens"
    with np.load(folder / "units.npz") as arrays:
        return Goldens(dict(arrays), folder)
