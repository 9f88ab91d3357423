"""Pictures of key frames with what was detected."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from bev_data.atomic import atomic_path
from bev_data.errors import InputError
from bev_data.pictures.page import draw_sample
from bev_data.samples.batch import Batch
from bev_data.samples.dataset import KeyFrameDataset
from bev_train.callbacks.predictions import collect
from bev_train.callbacks.stage import StageCallback
from bev_train.data_module import Stage
from bev_train.module import DetectionModule, DetectionOutput


class PictureWriter(StageCallback):
    """Draws key frames, spread evenly over the split.

    They lie in `pictures/<stage>/<number>_<token>.png`, and in TensorBoard.
    """

    stages: ClassVar[tuple[Stage, ...]] = ("val", "test", "predict")

    def __init__(self, count: int = 4, score_threshold: float = 0.3, bev_range: float | None = None) -> None:
        """Say what to draw.

        Args:
            count: how many key frames; 0 for none, -1 for all.
            score_threshold: detections below it are not drawn.
            bev_range: the plot shows so many metres in every direction; null takes those of the BEV grid.

        Raises:
            InputError: if the count is below -1.
        """
        if count < -1:
            raise InputError(f"pictures.count must be -1 (all) or more, got {count}")
        self.count = count
        self.score_threshold = score_threshold
        self.bev_range = bev_range
        self.folder = Path()
        self.chosen: dict[str, int] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder of the run."""
        self.folder = Path(trainer.default_root_dir) / "pictures"

    def begin(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Choose key frames, spread over those that the stage will see."""
        batches = {
            "val": trainer.num_val_batches,
            "test": trainer.num_test_batches,
            "predict": trainer.num_predict_batches,
        }[stage]
        data = trainer.datamodule  # type: ignore[attr-defined]
        dataset: KeyFrameDataset = data.datasets[stage]
        seen = data.positions(stage)[: int(sum(batches)) * data.loader.batch_size * trainer.world_size]
        count = len(seen) if self.count == -1 else min(self.count, len(seen))
        picks = [seen[int(i)] for i in np.linspace(0, len(seen) - 1, count)]
        rows = [int(dataset.indices[position]) for position in picks]
        tokens = dataset.infos.tokens
        self.chosen = {tokens[row]: row for row in rows}

    def add(
        self, trainer: Trainer, module: DetectionModule, stage: Stage, batch: Batch, output: DetectionOutput
    ) -> None:
        """Draw the chosen ones of a batch."""
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

    def finish(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Say where the pictures are."""
        if stage == "predict" and self.chosen:
            module.print(f"pictures: {self.folder / stage}")
