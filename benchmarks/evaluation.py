"""The fast evaluation against the devkit's: `python benchmarks/evaluation.py`.

Writes tables of 6,000 key frames with random boxes (once, into `--data`) and scores random detections, near
the boxes and elsewhere, with both engines in one process. Tables and infos are open before the clock starts;
reading the truth, checking the results and matching count. The scores must agree to nine decimals.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes.utils import splits
from PIL import Image

from bev_data.infos.infos import Infos, open_infos
from bev_data.nuscenes.taxonomy import CATEGORY_TO_CLASS
from bev_data.nuscenes.versions import load_devkit
from bev_data.scores.official import evaluate_detections
from bev_data.scores.results import Results, attribute_of
from bev_data.world.database.rows import (
    attribute_tokens,
    category_token,
    fixed_tables,
    link,
    sensor_token,
    token,
)
from harness import processor

VERSION, SPLIT = "v1.0-trainval", "val"
KEY_FRAMES, TRACKS, RANGE = 40, 35, 55.0
CATEGORIES = tuple(name for name in CATEGORY_TO_CLASS if "." in name)
Rows = dict[str, list[dict[str, Any]]]


def write_tables(root: Path, samples: int, rng: np.random.Generator) -> None:
    """Tables of as many samples, in scenes of the validation split; the vehicle stands still."""
    rows: Rows = {name: [] for name in ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor")}
    rows |= {"instance": [], "sample_annotation": []} | fixed_tables()
    rows["log"] = [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": "here"}]
    mask = {"category": "", "filename": "maps/mask.png", "log_tokens": ["log"]}
    rows["map"] = [{"token": "map", **mask}]
    for channel in ("CAM_FRONT", "LIDAR_TOP"):
        intrinsics = np.eye(3).tolist() if channel == "CAM_FRONT" else []
        where = {"translation": [0, 0, 0], "rotation": [1, 0, 0, 0], "camera_intrinsic": intrinsics}
        rows["calibrated_sensor"].append({"token": channel, "sensor_token": sensor_token(channel), **where})
    for number in range(-(-samples // KEY_FRAMES)):
        add_scene(rows, splits.val[number], min(KEY_FRAMES, samples - number * KEY_FRAMES), rng)
    (root / "maps").mkdir(parents=True)
    Image.new("L", (1, 1)).save(root / "maps" / "mask.png")
    (root / VERSION).mkdir()
    for name, table in rows.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(table))


def add_scene(rows: Rows, name: str, frames: int, rng: np.random.Generator) -> None:
    """A scene with tracks that wander at random."""
    samples = [token(name, k) for k in range(frames)]
    chain = [
        {"token": here, "timestamp": k * 500_000, "scene_token": name, "prev": "", "next": ""}
        for k, here in enumerate(samples)
    ]
    link(chain)
    rows["sample"] += chain
    scene = {"token": name, "name": name, "log_token": "log", "nbr_samples": frames, "description": ""}
    rows["scene"].append({**scene, "first_sample_token": samples[0], "last_sample_token": samples[-1]})
    for channel in ("CAM_FRONT", "LIDAR_TOP"):
        for sample in chain:
            add_recording(rows, channel, sample)
    for track in range(TRACKS):
        category = CATEGORIES[track % len(CATEGORIES)]
        attribute = attribute_of(CATEGORY_TO_CLASS[category], rng.choice([0.0, 1.0]))
        path = rng.uniform(-RANGE, RANGE, 2) + rng.normal(0, 0.5, (frames, 2)).cumsum(axis=0)
        size, turn = rng.uniform(0.5, 5, 3).tolist(), rng.uniform(0, np.pi)
        boxes = [
            {
                "token": token(name, track, k),
                "sample_token": sample,
                "instance_token": token(name, "track", track),
                "visibility_token": "4",
                "attribute_tokens": attribute_tokens(attribute),
                "translation": [*path[k].tolist(), 1.0],
                "size": size,
                "rotation": [np.cos(turn), 0.0, 0.0, np.sin(turn)],
                "num_lidar_pts": int(rng.integers(0, 20)),
                "num_radar_pts": 0,
                "prev": "",
                "next": "",
            }
            for k, sample in enumerate(samples)
        ]
        link(boxes)
        ends = {"first_annotation_token": boxes[0]["token"], "last_annotation_token": boxes[-1]["token"]}
        row = {"token": token(name, "track", track), "category_token": category_token(category)}
        rows["instance"].append({**row, "nbr_annotations": frames, **ends})
        rows["sample_annotation"] += boxes


def add_recording(rows: Rows, channel: str, sample: dict[str, Any]) -> None:
    """One sensor's key frame."""
    key = token(sample["token"], channel)
    moment = {"token": key, "timestamp": sample["timestamp"]}
    rows["ego_pose"].append({**moment, "translation": [0, 0, 0], "rotation": [1, 0, 0, 0]})
    size = (900, 1600) if channel == "CAM_FRONT" else (0, 0)
    ending = "jpg" if channel == "CAM_FRONT" else "pcd.bin"
    rows["sample_data"].append(
        {
            **moment,
            "sample_token": sample["token"],
            "ego_pose_token": key,
            "calibrated_sensor_token": channel,
            "fileformat": ending[-3:],
            "is_key_frame": True,
            "height": size[0],
            "width": size[1],
            "filename": f"samples/{channel}/{key}.{ending}",
            "prev": "",
            "next": "",
        }
    )


def random_results(infos: Infos, per_sample: int, rng: np.random.Generator) -> Results:
    """Detections, half of them near a box of any class, the others anywhere."""
    results: Results = {}
    for info in infos:
        truth, entries = info.annotations, []
        for which in rng.integers(0, len(truth), per_sample):
            near = rng.random() < 0.5
            center = truth.centers[which] + rng.normal(0, 1, 3) if near else rng.uniform(-RANGE, RANGE, 3)
            name = CATEGORY_TO_CLASS[truth.categories[which]]
            velocity = rng.normal(0, 1, 2)
            entries.append(
                {
                    "sample_token": info.token,
                    "translation": center.tolist(),
                    "size": (truth.sizes[which] * rng.uniform(0.7, 1.4, 3))[[1, 0, 2]].tolist(),
                    "rotation": (truth.rotations[which] + rng.normal(0, 0.1, 4)).tolist(),
                    "velocity": velocity.tolist(),
                    "detection_name": name,
                    "detection_score": float(rng.random()),
                    "attribute_name": attribute_of(name, float(np.hypot(*velocity))),
                }
            )
        results[info.token] = entries
    return results


def main() -> None:
    """Make tables and detections, and run both engines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/evaluation"))
    parser.add_argument("--samples", type=int, default=6000, help="at most 6000, 150 scenes")
    parser.add_argument("--detections", type=int, default=100, help="of each sample, at most 500")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    root = options.data / str(options.samples)
    if not (root / VERSION).is_dir():
        write_tables(root, options.samples, rng)
    infos = open_infos(root, VERSION, SPLIT)
    load_devkit(root, VERSION)
    results = random_results(infos, options.detections, rng)
    print(
        f"# Evaluation of {len(infos)} samples, {infos.num_boxes} boxes, {options.detections} detections each"
    )
    print(f"{processor()}\n\n| engine | s | mAP | NDS |\n|---|---|---|---|")
    # The first call reads compiled code from disk.
    first = infos[0].token
    evaluate_detections(results, root, VERSION, SPLIT, tokens=[first], engine="fast")
    seconds, summaries = {}, {}
    for engine in ("fast", "devkit"):
        began = time.perf_counter()
        summary = evaluate_detections(results, root, VERSION, SPLIT, engine=engine).summary()
        seconds[engine], summaries[engine] = time.perf_counter() - began, summary
        print(
            f"| {engine} | {seconds[engine]:.2f} | {summary['mAP']:.6f} | {summary['NDS']:.6f} |", flush=True
        )
    furthest = max(abs(summaries["fast"][name] - value) for name, value in summaries["devkit"].items())
    if not furthest < 1e-9:
        raise SystemExit(f"the engines disagree by {furthest:.1e}, at most 1e-9 is allowed")
    print(f"\ndevkit / fast: {seconds['devkit'] / seconds['fast']:.1f}; largest difference {furthest:.1e}")


if __name__ == "__main__":
    main()
