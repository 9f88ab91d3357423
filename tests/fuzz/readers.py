"""What the fuzzer damages: how each file is made and read, and whether its format leaves changes unseen."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bev_data.infos.info import Annotations, CameraFrame, Info
from bev_data.infos.infos import Infos
from bev_data.infos.plain_pickle import load_plain_pickle
from bev_data.samples.images import read_pixels
from bev_data.samples.lidar_depth import depth_file, read_depth_file, write_depth_file
from bev_data.scores.results import read_results, to_nuscenes_results, write_results

SIZE = (64, 48)


def _camera(file: str) -> CameraFrame:
    return CameraFrame(file, 5, np.eye(4), np.eye(4), np.diag([50.0, 50.0, 1.0]), *SIZE)


def _write_infos(folder: Path) -> Path:
    boxes = Annotations(
        ("a", "b"),
        ("vehicle.car", "human.pedestrian.adult"),
        np.ones((2, 3)),
        np.ones((2, 3)),
        np.tile([1.0, 0, 0, 0], (2, 1)),
        np.zeros((2, 2)),
        np.array([3, 4]),
        np.array([0, 1]),
        ("vehicle.moving", ""),
    )
    infos = [
        Info(f"t{i}", "s", i, i - 1 if i else None, {"A": _camera(f"{i}.jpg")}, (), None, boxes)
        for i in range(40)
    ]
    made = Infos.from_list(infos, version="own", split="all").save(folder / "infos.arrow")
    assert made.path is not None
    return made.path


def _read_infos(path: Path) -> str:
    infos = Infos.load(path)
    frames = [(i.token, i.prev, *map(vars, i.cameras.values()), vars(i.annotations)) for i in infos]
    return repr((infos.header, infos.tokens, frames))


def _write_depth(folder: Path) -> Path:
    path = depth_file(folder, _camera("x.jpg"))
    points = np.random.default_rng(0).uniform(1, 40, (50, 3)).astype(np.float32)
    write_depth_file(path, points)
    return path


def _read_depth(path: Path) -> str:
    return repr(read_depth_file(path.parent.parent, _camera(path.stem)).tolist())


def _write_pickle(folder: Path) -> Path:
    path = folder / "x.pkl"
    path.write_bytes(pickle.dumps([{"token": "a", "velocity": np.arange(3.0), "n": np.float64(2)}] * 5, 4))
    return path


def _write_results(folder: Path) -> Path:
    boxes = np.array([[1.0, 2, 3, 4, 2, 1.5, 0.3, 1, 0]] * 4)
    results = {
        t: to_nuscenes_results(t, np.eye(4), boxes, [0.9, 0.5, 0.3, 0.1], [0, 1, 8, 7]) for t in ("a", "b")
    }
    write_results(results, folder / "results.json")
    return folder / "results.json"


def _write_image(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "x.jpg")
    return folder / "x.jpg"


def _read_image(path: Path) -> str:
    return str(hash(read_pixels(path.parent, _camera(path.name)).tobytes()))


Write, Read = Callable[[Path], Path], Callable[[Path], str]

READERS: dict[str, tuple[Write, Read, bool]] = {
    "infos": (_write_infos, _read_infos, False),
    "depth files": (_write_depth, _read_depth, False),
    "pickles": (_write_pickle, lambda path: repr(load_plain_pickle(path)), True),
    "results": (_write_results, lambda path: json.dumps(read_results(path)), True),
    "images": (_write_image, _read_image, True),
}
