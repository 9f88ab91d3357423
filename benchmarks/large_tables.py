"""Write nuScenes tables of the size of trainval, without files: `python benchmarks/large_tables.py OUT`.

850 scenes of 40 key frames with six cameras at 12 Hz, a lidar at 20 Hz, five radars at 13 Hz and some thirty
boxes per key frame make 2.6 million recordings and 1.2 million annotations, as the real release has, in
tables laid out like the real ones, line by line.
"""

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from nuscenes.utils import splits
from tqdm import tqdm

from bev_data.nuscenes.versions import TABLES
from bev_data.world.database.rows import attribute_tokens, category_token, fixed_tables, sensor_token
from bev_data.world.street.mounting import CAMERAS, LIDAR

RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
# Recordings per key frame interval of half a second.
RATES = {**dict.fromkeys(CAMERAS, 6), LIDAR: 10, **dict.fromkeys(RADARS, 6.5)}
KINDS = (
    ("vehicle.car", "vehicle.parked", (1.9, 4.6, 1.7)),
    ("human.pedestrian.adult", "pedestrian.moving", (0.7, 0.7, 1.8)),
    ("movable_object.trafficcone", "", (0.4, 0.4, 1.0)),
    ("vehicle.truck", "vehicle.moving", (2.5, 7.0, 3.0)),
    ("movable_object.barrier", "", (2.4, 0.6, 1.0)),
)
SPEED = 6.0  # of the vehicle, m/s


class Tokens:
    """Different tokens that look random: a count, multiplied by an odd number modulo 2^128."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def __call__(self) -> str:
        """The next one."""
        return f"{next(self._count) * 0x9E3779B97F4A7C15F39CC0605CEDC835 & (1 << 128) - 1:032x}"


def ego(seconds: float, scene: int) -> tuple[list[float], list[float]]:
    """Rotation and translation of the vehicle, which drives in a circle."""
    turn = 0.05 * seconds + scene
    radius = SPEED / 0.05
    return (
        [math.cos(turn / 2), 0.001, -0.002, math.sin(turn / 2)],
        [1000 + radius * math.sin(turn), 1200 - radius * math.cos(turn), 0.0],
    )


class Writer:
    """The thirteen tables, written row by row."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, TextIO] = {
            name: stack.enter_context((folder / f"{name}.json").open("w")) for name in TABLES
        }
        self._empty = dict.fromkeys(TABLES, True)
        self.token = Tokens()

    def row(self, table: str, text: str) -> None:
        """Write a row that is JSON already."""
        self._files[table].write("[\n" if self._empty[table] else ",\n")
        self._empty[table] = False
        self._files[table].write(text)

    def rows(self, table: str, rows: list[dict[str, object]]) -> None:
        """Write rows."""
        for row in rows:
            self.row(table, json.dumps(row, indent=0))

    def close(self) -> None:
        """End the tables."""
        for name, file in self._files.items():
            file.write("[]" if self._empty[name] else "\n]")


def write_scene(writer: Writer, number: int, name: str, log: str, key_frames: int, boxes: int) -> None:
    """All rows of one scene."""
    token, start = writer.token, 1_530_000_000_000_000 + number * 60_000_000
    scene, samples = token(), [token() for _ in range(key_frames)]
    for k, (before, here, after) in enumerate(around(samples)):
        writer.rows(
            "sample",
            [
                {
                    "token": here,
                    "timestamp": start + k * 500_000,
                    "prev": before,
                    "next": after,
                    "scene_token": scene,
                }
            ],
        )
    ends = {"first_sample_token": samples[0], "last_sample_token": samples[-1]}
    writer.rows(
        "scene",
        [
            {
                "token": scene,
                "log_token": log,
                "nbr_samples": key_frames,
                **ends,
                "name": name,
                "description": "A drive",
            }
        ],
    )
    for channel, rate in RATES.items():
        write_recordings(writer, number, channel, rate, samples, start)
    for i in range(boxes):
        write_track(writer, number, i, samples)


def around(tokens: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each token with the one before it and the one after it."""
    return zip(["", *tokens[:-1]], tokens, [*tokens[1:], ""], strict=True)


def write_recordings(
    writer: Writer, number: int, channel: str, rate: float, samples: list[str], start: int
) -> None:
    """What one sensor recorded in a scene, with its calibration and the poses."""
    camera, calibration = channel in CAMERAS, writer.token()
    yaw = math.radians({"CAM_FRONT": 0, "CAM_FRONT_LEFT": 55, "CAM_FRONT_RIGHT": -55}.get(channel, 180))
    mount = {
        "token": calibration,
        "sensor_token": sensor_token(channel),
        "translation": [1.5, 0.1, 1.5],
        # Of a camera: x right, y down, z forward, then turned about the vertical.
        "rotation": [
            0.5 * (math.cos(yaw / 2) + math.sin(yaw / 2)),
            -0.5 * (math.cos(yaw / 2) + math.sin(yaw / 2)),
            0.5 * (math.cos(yaw / 2) - math.sin(yaw / 2)),
            -0.5 * (math.cos(yaw / 2) - math.sin(yaw / 2)),
        ],
        "camera_intrinsic": [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]] if camera else [],
    }
    writer.rows("calibrated_sensor", [mount])
    count = math.floor((len(samples) - 1) * rate) + 1
    height, width = (900, 1600) if camera else (0, 0)
    ending, form = ("jpg", "jpg") if camera else ("pcd.bin" if channel == LIDAR else "pcd", "pcd")
    for k, (before, here, after) in enumerate(around([writer.token() for _ in range(count)])):
        moment = k / rate
        key = abs(moment - round(moment)) < 0.5 / rate and (moment - round(moment)) >= 0
        stamp = start + round(moment * 500_000)
        folder = "samples" if key else "sweeps"
        # As in nuScenes, a sweep belongs to the key frame that follows it.
        sample = samples[round(moment) if key else math.ceil(moment)]
        file = f"{folder}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{stamp}.{ending}"
        writer.row(
            "sample_data",
            f'{{\n"token": "{here}",\n"sample_token": "{sample}",\n"ego_pose_token": "{here}",'
            f'\n"calibrated_sensor_token": "{calibration}",\n"timestamp": {stamp},\n"fileformat": "{form}",'
            f'\n"is_key_frame": {str(key).lower()},\n"height": {height},\n"width": {width},'
            f'\n"filename": "{file}",\n"prev": "{before}",\n"next": "{after}"\n}}',
        )
        rotation, translation = ego(moment / 2, number)
        writer.row(
            "ego_pose",
            f'{{\n"token": "{here}",\n"timestamp": {stamp},\n"rotation": {lines(rotation)},'
            f'\n"translation": {lines(translation)}\n}}',
        )


def lines(values: list[float] | tuple[float, ...]) -> str:
    """Numbers as a JSON list, one on a line."""
    return "[\n" + ",\n".join(map(repr, values)) + "\n]"


def write_track(writer: Writer, number: int, i: int, samples: list[str]) -> None:
    """One object through a scene."""
    category, attribute, size = KINDS[i % len(KINDS)]
    instance, tokens = writer.token(), [writer.token() for _ in samples]
    row = {"token": instance, "category_token": category_token(category), "nbr_annotations": len(samples)}
    ends = {"first_annotation_token": tokens[0], "last_annotation_token": tokens[-1]}
    writer.rows("instance", [{**row, **ends}])
    attributes = json.dumps(attribute_tokens(attribute))
    _, center = ego(0.0, number)
    for k, (before, here, after) in enumerate(around(tokens)):
        place = (center[0] + 3.1 * (i % 7) + 0.3 * k, center[1] + 4.7 * (i // 7), 0.9)
        writer.row(
            "sample_annotation",
            f'{{\n"token": "{here}",\n"sample_token": "{samples[k]}",\n"instance_token": "{instance}",'
            f'\n"visibility_token": "4",\n"attribute_tokens": {attributes},\n"translation": {lines(place)},'
            f'\n"size": {lines(size)},\n"rotation": {lines([0.924, 0.0, 0.0, 0.3826])},\n"prev": "{before}",'
            f'\n"next": "{after}",\n"num_lidar_pts": {i + 1},\n"num_radar_pts": {i % 3}\n}}',
        )


def write_tables(root: Path, *, scenes: int, key_frames: int = 40, boxes: int = 34) -> Path:
    """Write the tables of a v1.0-trainval with this many scenes, a sixth of them for validation."""
    validation = max(1, scenes * 150 // 850)
    names = [*splits.train[: scenes - validation], *splits.val[:validation]]
    with ExitStack() as stack:
        writer = Writer(root / "v1.0-trainval", stack)
        for table, rows in fixed_tables().items():
            writer.rows(table, rows)
        radars = [{"token": sensor_token(name), "channel": name, "modality": "radar"} for name in RADARS]
        writer.rows("sensor", radars)
        log = writer.token()
        place = {"logfile": "n015", "vehicle": "n015", "date_captured": "2018-07-24", "location": "here"}
        writer.rows("log", [{"token": log, **place}])
        mask = {"category": "semantic_prior", "filename": "maps/mask.png", "log_tokens": [log]}
        writer.rows("map", [{"token": writer.token(), **mask}])
        (root / "maps").mkdir(exist_ok=True)
        (root / "maps" / "mask.png").write_bytes(b"")
        for number, name in enumerate(tqdm(names, desc="tables", unit="scene")):
            write_scene(writer, number, name, log, key_frames, boxes)
        writer.close()
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=850)
    options = parser.parse_args()
    write_tables(options.out, scenes=options.scenes)
