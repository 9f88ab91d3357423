"""Detections as nuScenes results: boxes of keyego -> entries of the submission format, and its files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from bev_data.atomic import atomic_path
from bev_data.errors import InputError
from bev_data.geometry import boxes_to_frame, invert, matrix_to_quaternion, transform_points
from bev_data.infos.infos import Infos
from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.samples.dataset import select_boxes
from bev_data.scores.entries import LENGTHS, check_entry, is_sound, read_entries

Results = dict[str, list[dict[str, Any]]]

MAX_BOXES = 500  # per sample; the official evaluation refuses more

_MODALITIES = {
    "use_camera": True,
    "use_lidar": False,
    "use_radar": False,
    "use_map": False,
    "use_external": False,
}

# Attribute of a class when slow and when fast.
_ATTRIBUTES: dict[str, tuple[str, str]] = {
    "car": ("vehicle.parked", "vehicle.moving"),
    "truck": ("vehicle.parked", "vehicle.moving"),
    "construction_vehicle": ("vehicle.parked", "vehicle.moving"),
    "bus": ("vehicle.stopped", "vehicle.moving"),
    "trailer": ("vehicle.parked", "vehicle.moving"),
    "barrier": ("", ""),
    "motorcycle": ("cycle.without_rider", "cycle.with_rider"),
    "bicycle": ("cycle.without_rider", "cycle.with_rider"),
    "pedestrian": ("pedestrian.standing", "pedestrian.moving"),
    "traffic_cone": ("", ""),
}


def attribute_of(class_name: str, speed: float, *, moving_speed: float = 0.2) -> str:
    """The attribute that goes with a class and a speed; "" where the class has none.

    A detector without an attribute branch can only go by speed: above the threshold a vehicle moves, a cycle
    has a rider, a pedestrian walks; below it each class has what is most frequent among its resting objects.

    Args:
        class_name: detection class.
        speed: in m/s; NaN counts as slow.
        moving_speed: threshold in m/s.

    Source: the attribute rule of the published evaluation.
    """
    slow, fast = _ATTRIBUTES[class_name]
    return fast if speed > moving_speed else slow


def to_nuscenes_results(
    token: str,
    keyego2global: Float[NDArray[np.float64], "4 4"],
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str] = CLASSES,
    *,
    moving_speed: float = 0.2,
) -> list[dict[str, Any]]:
    """Boxes of one sample as entries of a results file, best first, at most 500.

    Args:
        token: sample token.
        keyego2global: pose of the frame that the boxes stand in.
        boxes: [m,9] rows x y z l w h yaw vx vy; z at the centre of the box. Arrays, or tensors on the CPU.
        scores: [m] in 0 to 1.
        labels: [m] indices of `classes`.
        classes: class names.
        moving_speed: threshold of the attribute rule, m/s.

    Raises:
        ValueError: if the numbers of boxes, scores and labels differ, or a value is not finite.
    """
    box_rows = np.asarray(boxes, dtype=np.float64).reshape(-1, 9)
    score_row, label_row = np.asarray(scores, dtype=np.float64).reshape(-1), np.asarray(labels).reshape(-1)
    if not len(box_rows) == len(score_row) == len(label_row):
        raise ValueError(
            f"there must be as many scores and labels as boxes, got {len(box_rows)} boxes, "
            f"{len(score_row)} scores and {len(label_row)} labels for {token}"
        )
    if not (np.isfinite(box_rows).all() and np.isfinite(score_row).all()):
        raise ValueError(f"boxes and scores must be finite numbers, got NaN or infinity for {token}")
    order = np.argsort(-score_row, kind="stable")[:MAX_BOXES]
    box_rows, rotation = box_rows[order], keyego2global[:3, :3]
    centers = transform_points(keyego2global, box_rows[:, 0:3])
    velocities = box_rows[:, 7:9] @ rotation[:2, :2].T
    entries = []
    for box, center, velocity, score, label in zip(
        box_rows, centers, velocities, score_row[order], label_row[order], strict=True
    ):
        name = classes[int(label)]
        entries.append(
            {
                "sample_token": token,
                "translation": center.tolist(),
                "size": [box[4], box[3], box[5]],
                "rotation": matrix_to_quaternion(rotation @ _about_z(box[6])).tolist(),
                "velocity": velocity.tolist(),
                "detection_name": name,
                "detection_score": float(score),
                "attribute_name": attribute_of(name, float(np.hypot(*velocity)), moving_speed=moving_speed),
            }
        )
    return entries


def from_nuscenes_results(
    entries: Sequence[Mapping[str, Any]],
    keyego2global: Float[NDArray[np.float64], "4 4"],
    classes: Sequence[str] = CLASSES,
) -> tuple[Float[NDArray[np.float64], "m 9"], Float[NDArray[np.float64], "m"], NDArray[np.int64]]:
    """Entries of one sample as boxes of keyego, scores and labels; entries of other classes are left out."""
    known = [entry for entry in entries if entry["detection_name"] in classes]
    fields = {
        name: np.array([entry[name] for entry in known], dtype=np.float64).reshape(-1, length)
        for name, length in LENGTHS.items()
    }
    boxes = boxes_to_frame(
        invert(keyego2global),
        fields["translation"],
        fields["size"][:, [1, 0, 2]],
        fields["rotation"],
        fields["velocity"],
    )
    labels = np.array([classes.index(entry["detection_name"]) for entry in known], dtype=np.int64)
    return boxes, fields["detection_score"][:, 0], labels


def _about_z(yaw: float) -> Float[NDArray[np.float64], "3 3"]:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def ground_truth_results(infos: Infos, classes: Sequence[str] = CLASSES) -> Results:
    """The annotations as if a detector had found them all with score 1; boxes without points are left out."""
    results: Results = {}
    for info in infos:
        a = info.annotations
        chosen, labels = select_boxes(a, classes, min_points=1)
        results[info.token] = [
            {
                "sample_token": info.token,
                "translation": a.centers[i].tolist(),
                "size": a.sizes[i][[1, 0, 2]].tolist(),
                "rotation": a.rotations[i].tolist(),
                "velocity": np.nan_to_num(a.velocities[i], nan=0.0).tolist(),
                "detection_name": classes[label],
                "detection_score": 1.0,
                "attribute_name": a.attributes[i],
            }
            for i, label in zip(chosen, labels, strict=True)
        ]
    return results


def check_results(results: Mapping[str, Sequence[Any]], tokens: Sequence[str] | None = None) -> None:
    """Check what the official evaluation would refuse.

    Args:
        results: by sample token.
        tokens: the samples that there must be, no more and no fewer; None to leave that open.

    Raises:
        ValueError: naming the sample and what is wrong.
    """
    if tokens is not None and set(results) != set(tokens):
        missing, extra = set(tokens) - set(results), set(results) - set(tokens)
        example = next(iter(sorted(missing) or sorted(extra)))
        raise InputError(
            f"results must have an entry for every sample of the split and for no other, "
            f"got {len(missing)} missing and {len(extra)} unknown ones, such as {example}"
        )
    for token, entries in results.items():
        if len(entries) > MAX_BOXES:
            raise InputError(f"a sample must have at most {MAX_BOXES} boxes, got {len(entries)} for {token}")
        if not is_sound(token, entries, _ATTRIBUTES, _ATTRIBUTE_NAMES):
            for entry in entries:
                check_entry(token, entry, _ATTRIBUTES, _ATTRIBUTE_NAMES)


_ATTRIBUTE_NAMES = {name for pair in _ATTRIBUTES.values() for name in pair} | {
    "pedestrian.sitting_lying_down"
}


def write_results(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path | str,
    *,
    tokens: Sequence[str] | None = None,
) -> None:
    """Write a results file that the devkit and the evaluation server accept, whole or not at all.

    Args:
        results: by sample token.
        path: the JSON file.
        tokens: the samples of the split; None to leave open which they are.

    Raises:
        ValueError: if the official evaluation would refuse the results.
    """
    check_results(results, tokens)
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(json.dumps({"meta": _MODALITIES, "results": results}), encoding="utf-8")


def read_results(path: Path | str) -> Results:
    """Results of a file, by sample token.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no results file.
    """
    results = read_entries(Path(path))
    try:
        check_results(results)
    except InputError as error:
        raise InputError(f"{error}, in {path}") from None
    return results
