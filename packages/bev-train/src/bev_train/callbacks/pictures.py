"""What a run leaves behind for people: pictures, and results files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from bev_data.atomic import atomic_path
from bev_data.pictures.page import draw_sample
from bev_data.samples.batch import Batch
from bev_data.samples.dataset import KeyFrameDataset
from bev_data.scores.results import write_results
from bev_train.callbacks.scores import Found, as_results, collect
from bev_train.data_module import Stage
from bev_train.distributed import gather, merge, on_rank_zero
from bev_train.module import DetectionOutput


class PictureWriter(Callback):
    """Draws key frames, spread evenly over the split.

    They lie in `pictures/<stage>/<number>_<token>.png`, and in TensorBoard.
    """

    def __init__(self, count: int = 4, score_threshold: float = 0.3, bev_range: float | None = None) -> None:
        """Say what to draw.

        Args:
            count: how many key frames; 0 for none, -1 for all.
            score_threshold: detections below it are not drawn.
            bev_range: the plot shows so many metres in every direction; null takes those of the BEV grid.
        """
        if count < -1:
            raise ValueError(f"pictures.count must be -1 (all) or more, got {count}")
        self.count = count
        self.score_threshold = score_threshold
        self.bev_range = bev_range
        self.folder = Path()
        self.chosen: dict[str, int] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder of the run."""
        self.folder = Path(trainer.default_root_dir) / "pictures"

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose key frames."""
        self._choose(trainer, "val", trainer.num_val_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw those of a batch."""
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module, "val", batch, outputs)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose key frames."""
        self._choose(trainer, "test", trainer.num_test_batches)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw those of a batch."""
        self._draw(trainer, pl_module, "test", batch, outputs)

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose key frames."""
        self._choose(trainer, "predict", trainer.num_predict_batches)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw those of a batch."""
        self._draw(trainer, pl_module, "predict", batch, outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the pictures are."""
        if self.chosen:
            pl_module.print(f"pictures: {self.folder / 'predict'}")

    def _choose(self, trainer: Trainer, stage: Stage, batches: Sequence[int | float]) -> None:
        """Spread the pictures over the key frames that the stage will see."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        dataset: KeyFrameDataset = data.datasets[stage]
        seen = data.positions(stage)[: int(sum(batches)) * data.batch_size * trainer.world_size]
        count = len(seen) if self.count == -1 else min(self.count, len(seen))
        picks = [seen[int(i)] for i in np.linspace(0, len(seen) - 1, count)]
        rows = [int(dataset.indices[position]) for position in picks]
        tokens = dataset.infos.tokens
        self.chosen = {tokens[row]: row for row in rows}

    def _draw(
        self, trainer: Trainer, module: Any, stage: Stage, batch: Batch, output: DetectionOutput
    ) -> None:
        dataset: KeyFrameDataset = trainer.datamodule.datasets[stage]  # type: ignore[attr-defined]
        grid = module.detector.config.bev.grid
        bins = module.detector.config.depth_net.bins
        for i, (token, found) in enumerate(collect(batch, output).items()):
            if token not in self.chosen:
                continue
            picture = draw_sample(
                dataset.infos[self.chosen[token]],
                dataset.root,
                cameras=dataset.cameras,
                detections=(found.boxes, found.scores, found.labels),
                keyego2global=found.keyego2global,
                expected_depth=output.expected_depth[i].float().cpu().numpy(),
                score_threshold=self.score_threshold,
                bev_range=self.bev_range or max(*map(abs, grid.x[:2]), *map(abs, grid.y[:2])),
                depth_range=(bins.start, bins.stop),
                classes=module.detector.class_names,
            )
            number = list(self.chosen).index(token)
            name = f"{stage}/{number:04d}_{token}"
            with atomic_path(self.folder / f"{name}.png") as temporary:
                picture.save(temporary, format="png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                    logger.experiment.add_image(
                        name, np.asarray(picture), trainer.global_step, dataformats="HWC"
                    )


class PredictionWriter(Callback):
    """Writes the detections of `bev-train predict` as one nuScenes results file."""

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

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.found = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the detections of a batch."""
        self.found |= collect(batch, outputs)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write what all processes found."""
        found = merge(gather(trainer, self.found))
        path = Path(self.path) if self.path else self.folder / "predictions.json"
        classes = pl_module.detector.class_names
        on_rank_zero(trainer, lambda: write_results(as_results(found, classes), path))
        pl_module.print(f"results of {len(found)} key frames: {path}")
