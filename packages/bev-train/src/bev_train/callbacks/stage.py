"""What is done over all batches of a validation, a test or a prediction: begin, add, finish."""

from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer

from bev_data.samples.batch import Batch
from bev_train.data_module import Stage
from bev_train.module import DetectionOutput


class StageCallback(Callback):
    """Takes in every batch of a stage; a new metric overrides `begin`, `add` and `finish`.

    Lightning's trial run before a training (its sanity check) is left out.

    Attributes:
        stages: those it takes part in.
    """

    stages: ClassVar[tuple[Stage, ...]] = ("val", "test")

    def begin(self, trainer: Trainer, module: Any, stage: Stage) -> None:
        """Forget what was taken in before."""

    def add(self, trainer: Trainer, module: Any, stage: Stage, batch: Batch, output: DetectionOutput) -> None:
        """Take in a batch of this process."""

    def finish(self, trainer: Trainer, module: Any, stage: Stage) -> None:
        """Put together what all processes took in; log scores as `<stage>/<name>`, or write files."""

    def _begin(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        if stage in self.stages and not trainer.sanity_checking:
            self.begin(trainer, module, stage)

    def _add(self, trainer: Trainer, module: LightningModule, stage: Stage, batch: Any, output: Any) -> None:
        if stage in self.stages and not trainer.sanity_checking:
            self.add(trainer, module, stage, batch, output)

    def _finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        if stage in self.stages and not trainer.sanity_checking:
            self.finish(trainer, module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin(trainer, pl_module, "val")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add."""
        self._add(trainer, pl_module, "val", batch, outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish."""
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin(trainer, pl_module, "test")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add."""
        self._add(trainer, pl_module, "test", batch, outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish."""
        self._finish(trainer, pl_module, "test")

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin(trainer, pl_module, "predict")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add."""
        self._add(trainer, pl_module, "predict", batch, outputs)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish."""
        self._finish(trainer, pl_module, "predict")
