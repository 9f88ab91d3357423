"""The official nuScenes detection evaluation as a function: any subset of samples, no files, no output.

By default the numbers come from the devkit's own code (`accumulate`, `calc_ap`, `calc_tp`, configuration
detection_cvpr_2019). The fast engine computes the same from whole arrays.
"""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bev_data.errors import InputError
from bev_data.infos.infos import Infos, build_infos, open_infos
from bev_data.nuscenes.splits import split_tokens
from bev_data.nuscenes.versions import load_devkit
from bev_data.scores.fast import ERRORS, found_boxes, number_attributes, score, true_boxes
from bev_data.scores.results import check_results

# The devkit's names of the true-positive errors -> those of the leaderboard, per class and as a mean.
_ERRORS: dict[str, str] = {
    "trans_err": "ATE",
    "scale_err": "ASE",
    "orient_err": "AOE",
    "vel_err": "AVE",
    "attr_err": "AAE",
}


_FARTHEST = 50.0  # metres, of a box that counts


@dataclass(frozen=True)
class DetectionMetrics:
    """Scores of the detection task.

    Attributes:
        mAP: mean of the average precision over classes and matching distances (0.5, 1, 2, 4 m).
        NDS: nuScenes detection score.
        mATE: mean translation error of matched boxes, metres.
        mASE: mean scale error, 1 - IoU of aligned boxes.
        mAOE: mean orientation error, radians.
        mAVE: mean velocity error, m/s.
        mAAE: mean attribute error, 1 - accuracy.
        class_ap: mean over the matching distances, by class.
        class_errors: ATE, ASE, AOE, AVE, AAE by class; NaN where a class has no such error.
        class_range: radius in metres around the vehicle within which boxes counted, by class.
        num_samples: samples evaluated.
    """

    mAP: float  # noqa: N815 - the names under which the scores are known
    NDS: float
    mATE: float  # noqa: N815
    mASE: float  # noqa: N815
    mAOE: float  # noqa: N815
    mAVE: float  # noqa: N815
    mAAE: float  # noqa: N815
    class_ap: dict[str, float]
    class_errors: dict[str, dict[str, float]]
    class_range: dict[str, float]
    num_samples: int

    def over(self, classes: Sequence[str]) -> "DetectionMetrics":
        """The same scores as means over some classes: those that a detector knows.

        An error that none of them has leaves the nuScenes detection score; its mean is NaN.

        Args:
            classes: at least one; all ten give the official scores.

        Raises:
            InputError: if there is no such class.
        """
        if not classes or not set(classes) <= self.class_ap.keys():
            raise InputError(f"classes must be some of {', '.join(self.class_ap)}, got {list(classes)}")
        ap = float(np.mean([self.class_ap[name] for name in classes]))
        errors = {}
        for error in _ERRORS.values():
            known = [v for name in classes if not np.isnan(v := self.class_errors[name][error])]
            errors[f"m{error}"] = float(np.mean(known)) if known else float("nan")
        # Five times the precision beside one score per error.
        terms = [max(0.0, 1 - value) for value in errors.values() if not np.isnan(value)]
        scores = {"mAP": ap, "NDS": (5 * ap + sum(terms)) / (5 + len(terms)), **errors}
        return replace(self, **scores)  # type: ignore[arg-type]

    def summary(self) -> dict[str, float]:
        """The scores under their usual names: mAP, NDS, mATE, mASE, mAOE, mAVE, mAAE, and AP/<class>."""
        per_class = {f"AP/{name}": ap for name, ap in self.class_ap.items()}
        names = ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")
        return {**{name: getattr(self, name) for name in names}, **per_class}


def evaluate_detections(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    root: Path | str,
    version: str,
    split: str,
    *,
    tokens: Sequence[str] | None = None,
    class_range: float | Mapping[str, float] | None = None,
    engine: Literal["devkit", "fast"] = "devkit",
) -> DetectionMetrics:
    """Score detections.

    Args:
        results: entries of the nuScenes results format by sample token; with `tokens`, others are ignored.
        root: data root.
        version: such as v1.0-mini.
        split: such as mini_val, or one of one's own (`bev_data.nuscenes.splits`).
        tokens: samples to evaluate; None for all of the split.
        class_range: upper limit in metres of the radius within which boxes count, for all classes or by
            class. The official radius (30 to 50 m by class) is used where it is smaller.
        engine: "devkit": the official code, for numbers that are reported. "fast": the same metrics to nine
            decimals from the infos, without loading the tables; more than ten times as fast.

    Raises:
        FileNotFoundError: if the root, the version or a table is missing.
        ValueError: if the split has no annotations, a sample has no results, or the official code would
            refuse one.
    """
    if engine not in ("devkit", "fast"):
        raise InputError(f"engine must be 'devkit' or 'fast', got {engine!r}")
    root = Path(root)
    of_split = split_tokens(root, version, split)
    if tokens is None:
        check_results(results, of_split)
        chosen = list(results)
    else:
        chosen = list(dict.fromkeys(tokens))
        strangers = set(chosen) - set(of_split)
        if strangers or not chosen:
            raise InputError(
                f"tokens must be samples of the split {split}, got {sorted(strangers)[:1] or 'none at all'}"
            )
        check_results({token: results[token] for token in chosen if token in results}, chosen)
    config = _configuration(class_range)
    entries = {token: results[token] for token in chosen}
    if engine == "fast":
        infos = _annotated_infos(root, version, split, chosen)
        _check_annotated(infos.num_boxes > 0, root, version, split)
        official = _score_fast(infos, config, entries)
    else:
        devkit = load_devkit(root, version)
        _check_annotated(bool(devkit.sample_annotation), root, version, split)
        official = _score_by_devkit(devkit, config, _load_ground_truth(devkit, tuple(chosen)), entries)
    return _metrics(official, config, len(chosen))


def _annotated_infos(root: Path, version: str, split: str, tokens: Sequence[str]) -> Infos:
    """Infos of these key frames; scores need no images, so that key frames may lack some."""
    try:
        infos = open_infos(root, version, split, progress=False)
        if set(tokens) <= set(infos.tokens):
            return infos
    except InputError:
        # What else is wrong with the tables is said below.
        pass
    return build_infos(root, version, split, num_sweeps=0, incomplete="keep", progress=False)


def _check_annotated(annotated: bool, root: Path, version: str, split: str) -> None:
    if not annotated:
        raise InputError(
            f"{version} in {root} has no annotations to evaluate {split} with; "
            f"upload the results file to the nuScenes evaluation server instead"
        )


def _configuration(class_range: float | Mapping[str, float] | None) -> Any:
    from nuscenes.eval.common.config import config_factory

    config = config_factory("detection_cvpr_2019")
    if class_range is None:
        return config
    if not isinstance(class_range, Mapping):
        class_range = dict.fromkeys(config.class_range, class_range)
    for name, limit in class_range.items():
        if name not in config.class_range:
            raise InputError(f"class_range must name detection classes, got {name!r}")
        if not limit > 0:
            raise InputError(f"class_range must be above 0 m, got {limit} for {name}")
        config.class_range[name] = min(config.class_range[name], limit)
    return config


@lru_cache(maxsize=2)
def _load_ground_truth(devkit: Any, tokens: tuple[str, ...]) -> Any:
    from nuscenes.eval.common.loaders import add_center_dist, load_gt_of_sample_tokens
    from nuscenes.eval.detection.data_classes import DetectionBox

    # The loader shows a progress bar, whatever it is told.
    with contextlib.redirect_stderr(io.StringIO()):
        boxes = load_gt_of_sample_tokens(devkit, list(tokens), DetectionBox, verbose=False)
    return add_center_dist(devkit, boxes)


def _warn_of_another_frame(distances: Sequence[float]) -> None:
    """Boxes of results are in the frame of the map: where none is near the vehicle, they are of another."""
    if distances and min(distances) > _FARTHEST:
        warnings.warn(
            f"boxes should stand in the frame of the map, but no box lies within {_FARTHEST:g} m of the "
            f"vehicle, the nearest at {min(distances):.0f} m: are they in the frame of the vehicle?",
            stacklevel=4,
        )


def _score_fast(infos: Infos, config: Any, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    from nuscenes.eval.detection.data_classes import DetectionMetrics as OfficialMetrics

    names, attributes = list(config.class_names), number_attributes()
    row_of = {token: row for row, token in enumerate(infos.tokens)}
    truth = true_boxes([infos[row_of[token]] for token in results], names, attributes)
    found = found_boxes(list(results.values()), names, attributes)
    away = found.centers[:, :2] - truth.positions[found.sample]
    _warn_of_another_frame(np.linalg.norm(away, axis=1).tolist())
    precisions, errors = score(truth, found, config)
    official = OfficialMetrics(config)
    for name, by_distance, by_error in zip(names, precisions.tolist(), errors.tolist(), strict=True):
        for distance, precision in zip(config.dist_ths, by_distance, strict=True):
            official.add_label_ap(name, distance, precision)
        for error, value in zip(ERRORS, by_error, strict=True):
            official.add_label_tp(name, error, value)
    return official


def _score_by_devkit(
    devkit: Any, config: Any, truth: Any, results: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Any:
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.loaders import add_center_dist
    from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
    from nuscenes.eval.detection.data_classes import DetectionBox
    from nuscenes.eval.detection.data_classes import DetectionMetrics as OfficialMetrics

    predicted = add_center_dist(devkit, EvalBoxes.deserialize(results, DetectionBox))
    _warn_of_another_frame([box.ego_dist for box in predicted.all])
    # Filtering replaces the lists of boxes, so it works on a copy of the cached ones.
    kept = EvalBoxes()
    for token in truth.sample_tokens:
        kept.add_boxes(token, truth[token])
    predicted, kept = _filter(devkit, predicted, config), _filter(devkit, kept, config)
    official = OfficialMetrics(config)
    for name in config.class_names:
        data = {th: accumulate(kept, predicted, name, config.dist_fcn_callable, th) for th in config.dist_ths}
        for threshold, curve in data.items():
            official.add_label_ap(name, threshold, calc_ap(curve, config.min_recall, config.min_precision))
        for error in _ERRORS:
            undefined = (name == "traffic_cone" and error in ("attr_err", "vel_err", "orient_err")) or (
                name == "barrier" and error in ("attr_err", "vel_err")
            )
            value = np.nan if undefined else calc_tp(data[config.dist_th_tp], config.min_recall, error)
            official.add_label_tp(name, error, value)
    return official


def _metrics(official: Any, config: Any, num_samples: int) -> DetectionMetrics:
    return DetectionMetrics(
        mAP=official.mean_ap,
        NDS=official.nd_score,
        **{f"m{_ERRORS[error]}": value for error, value in official.tp_errors.items()},
        class_ap={name: float(ap) for name, ap in official.mean_dist_aps.items()},
        class_errors={
            name: {short: float(official.get_label_tp(name, error)) for error, short in _ERRORS.items()}
            for name in config.class_names
        },
        class_range={name: float(limit) for name, limit in config.class_range.items()},
        num_samples=num_samples,
    )


def _filter(devkit: Any, boxes: Any, config: Any) -> Any:
    from nuscenes.eval.common.loaders import filter_eval_boxes

    # The devkit fails on a set without any box, which is what an untrained detector gives.
    if not boxes.all:
        return boxes
    return filter_eval_boxes(devkit, boxes, config.class_range, verbose=False)
