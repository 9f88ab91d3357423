"""Scores at the end of a validation or test: the official nuScenes evaluation."""

from collections.abc import Mapping
from typing import Literal

from lightning import LightningModule, Trainer

from bev_data.errors import InputError
from bev_data.samples.batch import Batch
from bev_data.samples.dataset import KeyFrameDataset
from bev_data.scores.official import DetectionMetrics, evaluate_detections
from bev_train.callbacks.predictions import Found, as_results, collect
from bev_train.callbacks.stage import StageCallback
from bev_train.data_module import Stage
from bev_train.distributed import gather, merge, on_rank_zero
from bev_train.module import DetectionModule, DetectionOutput
from bev_train.scores_file import write_scores


class NuScenesEvaluation(StageCallback):
    """The official nuScenes detection evaluation of the key frames that were seen.

    Logs `val/mAP`, `val/NDS`, the five errors such as `val/mATE`, and `val/AP/<class>`: over the detector's
    classes; where these are fewer than the ten, also `val/official_mAP` and `val/official_NDS` over all ten.
    Every evaluation leaves `scores.json` in the folder of the run.
    """

    def __init__(
        self, class_range: float | None = None, engine: Literal["devkit", "fast"] = "devkit"
    ) -> None:
        """Say how far boxes count, and who counts.

        Args:
            class_range: only boxes within so many metres of the ego vehicle count; null takes the official
                range of each class (30 to 50 m). Scores of different ranges cannot be compared.
            engine: "devkit": the official code, for numbers that are reported. "fast": the same metrics, more
                than ten times as fast; all processes of a run wait meanwhile.

        Raises:
            InputError: if the range is not positive.
        """
        if class_range is not None and not class_range > 0:
            raise InputError(f"evaluation.class_range must be positive, in metres, got {class_range}")
        self.class_range = class_range
        self.engine = engine
        self.found: dict[str, Found] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse data that cannot be scored before hours of training are spent on it.

        Raises:
            InputError: if there are no tables for a split to be scored.
        """
        datasets: Mapping[str, KeyFrameDataset] = trainer.datamodule.datasets  # type: ignore[attr-defined]
        for name, dataset in datasets.items():
            tables = dataset.root / dataset.infos.version
            if name in self.stages and not tables.is_dir():
                raise InputError(
                    f"scores need nuScenes tables, got none in {tables}: train with "
                    "--trainer.limit_val_batches 0, or write results with `bev-train predict`"
                )

    def begin(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Forget all detections."""
        self.found = {}

    def add(
        self, trainer: Trainer, module: DetectionModule, stage: Stage, batch: Batch, output: DetectionOutput
    ) -> None:
        """Keep the detections of a batch."""
        self.found |= collect(batch, output)

    def finish(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Evaluate what all processes found.

        Raises:
            InputError: if the split has no annotations.
        """
        found = merge(gather(trainer, self.found))
        dataset = trainer.datamodule.datasets[stage]  # type: ignore[attr-defined]
        infos = dataset.infos

        def evaluate() -> dict[str, float]:
            official = evaluate_detections(
                as_results(found, module.detector.class_names),
                dataset.root,
                infos.version,
                infos.split,
                tokens=list(found),
                class_range=self.class_range,
                engine=self.engine,
            )
            scores = _scores(official, module.detector.class_names)
            settings = {
                "engine": self.engine,
                "class_range": self.class_range,
                "version": infos.version,
                "split": infos.split,
                "key_frames": len(found),
            }
            write_scores(trainer, scores, settings)
            return scores

        scores = on_rank_zero(trainer, evaluate)
        module.log_dict({f"{stage}/{name}": value for name, value in scores.items()}, sync_dist=True)


def _scores(official: DetectionMetrics, classes: tuple[str, ...]) -> dict[str, float]:
    """Scores over the detector's classes, and the official ones where these are others."""
    if set(classes) == set(official.class_ap):
        return official.summary()
    ours = official.over(classes).summary()
    scores = {name: value for name, value in ours.items() if "/" not in name or name[3:] in classes}
    return scores | {"official_mAP": official.mAP, "official_NDS": official.NDS}
