"""Detections of a stage on the host, and the results file of `bev-train predict`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from lightning import LightningModule, Trainer
from numpy.typing import NDArray

from bev_data.samples.batch import Batch
from bev_data.scores.results import to_nuscenes_results, write_results
from bev_train.callbacks.stage import StageCallback
from bev_train.data_module import Stage
from bev_train.distributed import gather, merge, on_rank_zero
from bev_train.module import DetectionModule, DetectionOutput


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


class PredictionWriter(StageCallback):
    """Writes the detections of `bev-train predict` as one nuScenes results file."""

    stages: ClassVar[tuple[Stage, ...]] = ("predict",)

    def __init__(self, path: str | None = None) -> None:
        """Say where.

        Args:
            path: of the results file; null takes predictions.json in the folder of the run.
        """
        self.path = path
        self.folder = Path()
        self.found: dict[str, Found] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder of the run."""
        self.folder = Path(trainer.default_root_dir)

    def begin(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Forget all detections."""
        self.found = {}

    def add(
        self, trainer: Trainer, module: DetectionModule, stage: Stage, batch: Batch, output: DetectionOutput
    ) -> None:
        """Keep the detections of a batch."""
        self.found |= collect(batch, output)

    def finish(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Write what all processes found."""
        found = merge(gather(trainer, self.found))
        path = Path(self.path) if self.path else self.folder / "predictions.json"
        whole = len(trainer.datamodule.datasets[stage].infos)  # type: ignore[attr-defined]
        part = ""
        if len(found) < whole:
            # A name of its own: the test server, and whoever finds the file, takes it for the whole split.
            path = path.with_suffix(f".part{path.suffix}")
            part = f" of {whole}"
        classes = module.detector.class_names
        on_rank_zero(trainer, lambda: write_results(as_results(found, classes), path))
        module.print(f"results of {len(found)}{part} key frames: {path}")
