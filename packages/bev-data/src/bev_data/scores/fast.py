"""The detection metrics of nuScenes on whole arrays: the devkit's numbers, many times as fast.

Shape shorthand: m boxes, k classes, d matching distances, e errors, g truth boxes of a sample and class.

Source: Caesar et al., "nuScenes: a multimodal dataset for autonomous driving" (CVPR 2020), section 3.1, and
the details that the devkit's evaluation settles.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from bev_data.geometry import quaternion_to_matrix
from bev_data.infos.info import Annotations, Info
from bev_data.jit import kernel
from bev_data.nuscenes.taxonomy import CATEGORY_TO_CLASS

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")

_RACK = "static_object.bicycle_rack"
_IN_RACKS = ("bicycle", "motorcycle")  # not counted inside a rack
_RECALLS = np.linspace(0, 1, 101)


class Boxes(NamedTuple):
    """Boxes of all samples in the map frame, sample by sample; lengths in metres.

    Attributes:
        sample: index of each box's sample.
        label: index of the class.
        centers: in the map.
        sizes: width, length, height.
        rotations: quaternions (w, x, y, z).
        velocities: x and y in m/s; NaN where unknown.
        attributes: index of the attribute; 0 for none.
        scores: of detections.
    """

    sample: Int64[I64, "m"]
    label: Int64[I64, "m"]
    centers: Float[F64, "m 3"]
    sizes: Float[F64, "m 3"]
    rotations: Float[F64, "m 4"]
    velocities: Float[F64, "m 2"]
    attributes: Int64[I64, "m"]
    scores: Float[F64, "m"]

    def choose(self, chosen: Bools | I64) -> "Boxes":
        """Some of the boxes."""
        columns: Any = (values[chosen] for values in self)
        return Boxes(*columns)


class Truth(NamedTuple):
    """What detections are compared with.

    Attributes:
        boxes: annotated boxes with lidar or radar points.
        positions: of the vehicle at each sample, in the map.
        racks: bicycle racks, of all samples.
    """

    boxes: Boxes
    positions: Float[F64, "s 2"]
    racks: Boxes


def number_attributes() -> dict[str, int]:
    """Numbers for names of attributes, given as they are met; 0 is that of no attribute."""
    numbers: dict[str, int] = defaultdict(itertools.count().__next__)
    numbers[""]
    return numbers


def true_boxes(infos: Sequence[Info], classes: Sequence[str], attributes: dict[str, int]) -> Truth:
    """The annotations of key frames.

    Args:
        infos: the key frames.
        classes: names that labels index.
        attributes: of `number_attributes`.
    """
    label_of = {name: i for i, name in enumerate(classes)}
    labels = {category: label_of.get(name, -1) for category, name in CATEGORY_TO_CLASS.items()}
    labels[_RACK] = len(classes)
    found = [info.annotations for info in infos] or [Annotations.empty()]
    every = Boxes(
        sample=np.repeat(np.arange(len(found)), [len(a) for a in found]),
        label=np.array([labels.get(name, -1) for a in found for name in a.categories], dtype=np.int64),
        centers=np.concatenate([a.centers for a in found]),
        sizes=np.concatenate([a.sizes for a in found])[:, [1, 0, 2]],
        rotations=np.concatenate([a.rotations for a in found]),
        velocities=np.concatenate([a.velocities for a in found]),
        attributes=np.array([attributes[name] for a in found for name in a.attributes], dtype=np.int64),
        scores=np.zeros(sum(len(a) for a in found)),
    )
    # As the devkit: a sum of -1, not known, counts.
    points = np.concatenate([a.num_lidar_pts + a.num_radar_pts for a in found])
    known = (every.label >= 0) & (every.label < len(classes)) & (points != 0)
    positions = np.array([info.keyego2global[:2, 3] for info in infos]).reshape(-1, 2)
    return Truth(every.choose(known), positions, every.choose(every.label == len(classes)))


def found_boxes(
    results: Sequence[Sequence[Mapping[str, Any]]], classes: Sequence[str], attributes: dict[str, int]
) -> Boxes:
    """Entries of the results format, sample by sample.

    Args:
        results: of each sample.
        classes: names that labels index.
        attributes: of `number_attributes`.
    """
    entries = list(itertools.chain.from_iterable(results))
    label_of = {name: i for i, name in enumerate(classes)}

    def numbers(field: str, length: int) -> F64:
        values = itertools.chain.from_iterable(entry[field] for entry in entries)
        return np.fromiter(values, np.float64, len(entries) * length).reshape(-1, length)

    return Boxes(
        sample=np.repeat(np.arange(len(results)), [len(of_sample) for of_sample in results]),
        label=np.array([label_of[entry["detection_name"]] for entry in entries], dtype=np.int64),
        centers=numbers("translation", 3),
        sizes=numbers("size", 3),
        rotations=numbers("rotation", 4),
        velocities=numbers("velocity", 2),
        attributes=np.array([attributes[entry["attribute_name"]] for entry in entries], dtype=np.int64),
        scores=np.array([entry["detection_score"] for entry in entries], dtype=np.float64),
    )


def score(truth: Truth, found: Boxes, config: Any) -> tuple[Float[F64, "k d"], Float[F64, "k e"]]:
    """Average precision by class and matching distance, and errors by class in the order of `ERRORS`.

    Args:
        truth: the annotations.
        found: the detections.
        config: a `DetectionConfig` of the devkit; labels index its class names.
    """
    names = list(config.class_names)
    limits = np.array([config.class_range[name] for name in names], dtype=np.float64)
    racked = np.array([name in _IN_RACKS for name in names])
    true = truth.boxes.choose(_counted(truth.boxes, truth, limits, racked))
    found = found.choose(_counted(found, truth, limits, racked))
    # Boxes of one sample and class side by side, in the order they came in.
    true = true.choose(np.argsort(true.sample * len(names) + true.label, kind="stable"))
    starts = np.searchsorted(
        true.sample * len(names) + true.label, np.arange(len(truth.positions) * len(names) + 1)
    )
    # By class, best first; of equal scores the last one, as the devkit sorts.
    found = found.choose(np.lexsort((-np.arange(len(found.label)), -found.scores, found.label)))
    matched = np.full((len(config.dist_ths), len(found.label)), -1, dtype=np.int64)
    group = found.sample * len(names) + found.label
    _match(found.centers, group, true.centers, starts, np.array(config.dist_ths, dtype=np.float64), matched)
    precision = np.zeros((len(names), len(config.dist_ths)))
    errors = np.ones((len(names), len(ERRORS)))
    strict = list(config.dist_ths).index(config.dist_th_tp)
    for label, name in enumerate(names):
        of_class = np.flatnonzero(found.label == label)
        positives = int((true.label == label).sum())
        for i, partner in enumerate(matched[:, of_class]):
            precision[label, i] = _average_precision(partner >= 0, positives, config)
        partner = matched[strict, of_class]
        if (partner >= 0).any():
            hits = found.choose(of_class[partner >= 0])
            period = np.pi if name == "barrier" else 2 * np.pi
            values = _errors(hits, true.choose(partner[partner >= 0]), period)
            errors[label] = _mean_errors(
                values, partner >= 0, found.scores[of_class], positives, config.min_recall
            )
        if name in ("traffic_cone", "barrier"):
            undefined = ["vel_err", "attr_err"] + ["orient_err"] * (name == "traffic_cone")
            errors[label, [ERRORS.index(error) for error in undefined]] = np.nan
    return precision, errors


def _counted(boxes: Boxes, truth: Truth, limits: F64, racked: Bools) -> Bools:
    """Whether boxes are in the range of their class, and not bicycles in a rack."""
    offset = boxes.centers[:, :2] - truth.positions[boxes.sample]
    counted: Bools = np.sqrt((offset**2).sum(axis=1)) < limits[boxes.label]
    candidates = np.flatnonzero(counted & racked[boxes.label])
    for rack in range(len(truth.racks.label)):
        near = candidates[boxes.sample[candidates] == truth.racks.sample[rack]]
        rotation = quaternion_to_matrix(truth.racks.rotations[rack])
        local = (boxes.centers[near] - truth.racks.centers[rack]) @ rotation
        half = truth.racks.sizes[rack, [1, 0, 2]] / 2
        counted[near[(np.abs(local) <= half).all(axis=1)]] = False
    return counted


@kernel
def _match(centers: F64, group: I64, true: F64, starts: I64, distances: F64, matched: I64) -> None:
    """Give each detection in turn the nearest true box of its group that is left, if it is near enough."""
    for d in range(len(distances)):
        taken = np.zeros(len(true), dtype=np.bool_)
        for i in range(len(group)):
            nearest, best = -1, np.inf
            for j in range(starts[group[i]], starts[group[i] + 1]):
                if not taken[j]:
                    x, y = centers[i, 0] - true[j, 0], centers[i, 1] - true[j, 1]
                    distance = np.sqrt(x * x + y * y)
                    if distance < best:
                        nearest, best = j, distance
            if best < distances[d]:
                taken[nearest] = True
                matched[d, i] = nearest


def _average_precision(hit: Bools, positives: int, config: Any) -> float:
    if not hit.any():
        return 0.0
    hits = np.cumsum(hit).astype(np.float64)
    precision = np.interp(_RECALLS, hits / positives, hits / np.arange(1, len(hit) + 1), right=0)
    above = np.maximum(precision[round(100 * config.min_recall) + 1 :] - config.min_precision, 0)
    return float(above.mean() / (1 - config.min_precision))


def _errors(found: Boxes, true: Boxes, period: float) -> Float[F64, "m e"]:
    """Errors of matched boxes, in the order of `ERRORS`; NaN where the truth is unknown."""
    smaller = np.minimum(found.sizes, true.sizes).prod(axis=1)
    union = found.sizes.prod(axis=1) + true.sizes.prod(axis=1) - smaller
    turn = (_yaw(true.rotations) - _yaw(found.rotations) + period / 2) % period - period / 2
    wrong = (found.attributes != true.attributes).astype(np.float64)
    return np.stack(
        [
            np.linalg.norm(found.centers[:, :2] - true.centers[:, :2], axis=1),
            1 - smaller / union,
            np.abs(turn),
            np.linalg.norm(found.velocities - true.velocities, axis=1),
            np.where(true.attributes == 0, np.nan, wrong),
        ],
        axis=-1,
    )


def _yaw(rotations: Float[F64, "m 4"]) -> Float[F64, "m"]:
    matrices = quaternion_to_matrix(rotations)
    yaw: F64 = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    return yaw


def _mean_errors(
    errors: Float[F64, "m e"], hit: Bools, scores: F64, positives: int, min_recall: float
) -> Float[F64, "e"]:
    """Mean over recalls of the running mean of each error."""
    confidence = np.interp(_RECALLS, np.cumsum(hit) / positives, scores, right=0)
    first = round(100 * min_recall) + 1
    reached = np.flatnonzero(confidence)
    last = int(reached[-1]) if len(reached) else 0
    if last < first:
        return np.ones(errors.shape[1])
    known = ~np.isnan(errors)
    count = np.cumsum(known, axis=0)
    running = np.cumsum(np.where(known, errors, 0.0), axis=0) / np.maximum(count, 1)
    running[:, count[-1] == 0] = 1.0
    of_hits = scores[hit][::-1]
    means = [np.interp(confidence[::-1], of_hits, column[::-1])[::-1] for column in running.T]
    return np.array([mean[first : last + 1].mean() for mean in means])
