"""Scores at the end of a validation: the official nuScenes evaluation, depth errors, a table."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from bev_data.samples.batch import Batch
from bev_data.samples.dataset import KeyFrameDataset
from bev_data.scores.depth import RANGES, depth_error_table, depth_scores, lidar_points, table_rows
from bev_data.scores.official import evaluate_detections
from bev_data.scores.results import to_nuscenes_results
from bev_train.distributed import gather, merge, on_rank_zero
from bev_train.errors import InputError
from bev_train.module import DetectionModule, DetectionOutput

ERRORS = ("mATE", "mASE", "mAOE", "mAVE", "mAAE")
_DEPTH_SCORES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")


class Found(NamedTuple):
    """Detections of one key frame, on the host.

    Attributes:
        keyego2global: [4,4].
        boxes: [m,9] in keyego.
        scores: [m].
        labels: [m].
    """

    keyego2global: NDArray[np.float64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def collect(batch: Batch, output: DetectionOutput) -> dict[str, Found]:
    """Detections of a batch by sample token."""
    return {
        meta.token: Found(meta.keyego2global, *(value.cpu().numpy() for value in detections))
        for meta, detections in zip(batch.meta, output.detections, strict=True)
    }


def as_results(found: Mapping[str, Found], classes: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Detections as entries of a nuScenes results file."""
    return {
        token: to_nuscenes_results(
            token, entry.keyego2global, entry.boxes, entry.scores, entry.labels, classes
        )
        for token, entry in found.items()
    }


class _Evaluation(Callback):
    """Does the same at the end of a validation and of a test."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.begin()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch."""
        if not trainer.sanity_checking:
            self.add(pl_module, batch, outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores."""
        if not trainer.sanity_checking:
            self.finish(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.begin()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch."""
        self.add(pl_module, batch, outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores."""
        self.finish(trainer, pl_module, "test")

    def begin(self) -> None:
        """Forget what was taken in."""
        raise NotImplementedError

    def add(self, module: Any, batch: Batch, output: DetectionOutput) -> None:
        """Take in a batch."""
        raise NotImplementedError

    def finish(self, trainer: Trainer, module: Any, stage: str) -> None:
        """Log scores as `<stage>/<name>`."""
        raise NotImplementedError


class NuScenesEvaluation(_Evaluation):
    """The official nuScenes detection evaluation of the key frames that were seen.

    Logs `val/mAP`, `val/NDS`, the five errors such as `val/mATE`, and `val/AP/<class>`.
    """

    def __init__(self, class_range: float | None = None) -> None:
        """Say how far boxes count.

        Args:
            class_range: only boxes within so many metres of the ego vehicle count; null takes the official
                range of each class (30 to 50 m). Scores of different ranges cannot be compared.
        """
        if class_range is not None and not class_range > 0:
            raise ValueError(f"evaluation.class_range must be positive, in metres, got {class_range}")
        self.class_range = class_range
        self.found: dict[str, Found] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse data that cannot be scored before hours of training are spent on it.

        Raises:
            InputError: if there are no tables for a split to be scored.
        """
        datasets: Mapping[str, KeyFrameDataset] = trainer.datamodule.datasets  # type: ignore[attr-defined]
        for name, dataset in datasets.items():
            tables = dataset.root / dataset.infos.version
            if name in ("val", "test") and not tables.is_dir():
                raise InputError(
                    f"scores need nuScenes tables, got none in {tables}: train with "
                    "--trainer.limit_val_batches 0, or write results with `bev-train predict`"
                )

    def begin(self) -> None:
        """Forget all detections."""
        self.found = {}

    def add(self, module: DetectionModule, batch: Batch, output: DetectionOutput) -> None:
        """Keep the detections of a batch."""
        self.found |= collect(batch, output)

    def finish(self, trainer: Trainer, module: DetectionModule, stage: str) -> None:
        """Evaluate what all processes found.

        Raises:
            InputError: if the split has no annotations.
        """
        found = merge(gather(trainer, self.found))
        dataset = trainer.datamodule.datasets[stage]  # type: ignore[attr-defined]
        infos = dataset.infos

        def evaluate() -> dict[str, float]:
            return evaluate_detections(
                as_results(found, module.detector.class_names),
                dataset.root,
                infos.version,
                infos.split,
                tokens=list(found),
                class_range=self.class_range,
            ).summary()

        scores = on_rank_zero(trainer, evaluate)
        module.log_dict({f"{stage}/{name}": value for name, value in scores.items()}, sync_dist=True)


class DepthMetrics(_Evaluation):
    """Errors of the predicted depth at lidar points within the depth bins.

    Logs `val/depth_abs_rel`, `val/depth_rmse` (metres), `val/depth_delta1` and so on; the same of the points
    in labelled boxes as `val/depth_objects_abs_rel`, by range of distance as `val/depth_10_20m_abs_rel`, and,
    where there is stereo, all of this for depth from one image alone as `val/depth_mono_abs_rel`.
    """

    def __init__(self, ranges: tuple[float, ...] = RANGES) -> None:
        """Say how to part distance.

        Args:
            ranges: rising borders of distance in which errors are also told apart, metres.
        """
        self.rows = table_rows(ranges)
        self.ranges = ranges
        self.sums: dict[str, dict[str, Tensor]] = {}

    def begin(self) -> None:
        """Forget all points."""
        self.sums = {}

    def add(self, module: DetectionModule, batch: Batch, output: DetectionOutput) -> None:
        """Add up the errors of each sample."""
        if batch.lidar_depth is None:
            return
        bins = module.detector.config.depth_net.bins
        depths = {"depth": output.expected_depth, "depth_mono": output.mono_depth}
        for i, meta in enumerate(batch.meta):
            one = Batch._make(field[i : i + 1] for field in cast(Iterable[Any], batch))
            self.sums[meta.token] = {}
            for kind, depth in depths.items():
                if depth is not None:
                    # What the detector cannot express does not count.
                    points = lidar_points(one, depth[i : i + 1].float(), (bins.start, bins.stop))
                    # On the host, because not every device has float64.
                    predicted, lidar, on_object = (value.cpu() for value in points)
                    table = depth_error_table(predicted, lidar, on_object, self.ranges)
                    self.sums[meta.token][kind] = table

    def finish(self, trainer: Trainer, module: DetectionModule, stage: str) -> None:
        """Log the means over all samples; where no point was seen, nothing."""
        samples = list(merge(gather(trainer, self.sums)).values())
        for kind in samples[0] if samples else ():
            table = torch.stack([sums[kind] for sums in samples]).sum(0)
            for name, row in zip(self.rows, table, strict=True):
                prefix = f"{stage}/{kind}" if name == "all" else f"{stage}/{kind}_{name}"
                scores = {f"{prefix}_{key}": value for key, value in depth_scores(row).items()}
                module.log_dict(scores, sync_dist=True)


class ScoreTable(Callback):
    """Prints the scores after a validation or test."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        if not trainer.sanity_checking:
            self._show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        self._show(trainer, pl_module, "test")

    def _show(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        prefix = f"{stage}/"
        scores = {
            name.removeprefix(prefix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefix)
        }
        evaluation = next((c for c in trainer.callbacks if isinstance(c, NuScenesEvaluation)), None)  # type: ignore[attr-defined]
        reach = evaluation.class_range if evaluation else None
        where = f"boxes within {reach:g} m" if reach else "official class ranges"
        module.print(score_table(scores, f"{stage} epoch {trainer.current_epoch}, {where}"))


def score_table(scores: Mapping[str, float], title: str) -> str:
    """Lay out scores in a few lines; those that are missing are left out.

    Args:
        scores: by name, without stage.
        title: first line.
    """
    classes = {name.removeprefix("AP/"): value for name, value in scores.items() if name.startswith("AP/")}
    rows: list[list[tuple[str, float]]] = [
        [(name, scores[name]) for name in ("mAP", "NDS", *ERRORS) if name in scores],
        list(classes.items())[:5],
        list(classes.items())[5:],
    ]
    lines = ["  " + "  ".join(f"{name} {value:.3f}" for name, value in row) for row in rows if row]
    return "\n".join([title, *lines, *_depth_lines(scores)])


def _depth_lines(scores: Mapping[str, float]) -> list[str]:
    """Lay out depth errors, a line for each set of points."""
    table: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        if found := re.fullmatch(rf"(depth\w*?)_({'|'.join(_DEPTH_SCORES)})", name):
            table.setdefault(found[1].replace("_", " "), {})[found[2]] = value
    width = max(map(len, table), default=0)
    head = "  " + " " * width + "".join(f"{score:>10}" for score in _DEPTH_SCORES)
    lines = [
        f"  {name:<{width}}" + "".join(f"{row[score]:>10.3f}" for score in _DEPTH_SCORES)
        for name, row in table.items()
    ]
    return [head, *lines] if lines else []


class StepSeed(Callback):
    """Seeds every batch of training from the run's seed, the epoch, the batch and the rank.

    Dropout of a run that goes on anywhere, within an epoch too, is then that of a run that was never stopped.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch, on all devices."""
        run = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        state = np.random.SeedSequence([run, trainer.current_epoch, batch_idx, trainer.global_rank])
        torch.manual_seed(int(state.generate_state(1)[0]))
