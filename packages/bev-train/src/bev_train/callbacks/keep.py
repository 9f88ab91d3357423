"""Keeps what training has reached, whatever comes after it."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`: from the end of each epoch, or from where an epoch ended early.

    It is written before a validation, too, and where an error ends an epoch between two steps: a broken image
    or a full disk then costs that validation or step, not the epoch before it.
    """

    def __init__(self, folder: Path) -> None:
        """Say where.

        Args:
            folder: of the checkpoints.
        """
        super().__init__(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        self._path = folder / "last.ckpt"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save before a validation, and where the last step that was asked for lies within an epoch."""
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        if trainer.is_last_batch:
            save = trainer.enable_validation and epoch_loop._should_check_val_epoch()
        else:
            save = trainer.global_step == trainer.max_steps
        if save:
            trainer.save_checkpoint(self._path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a whole epoch; one that ended early is to go on where it was."""
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what the steps before the error reached; other processes of a run cannot be waited for."""
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        batches = epoch_loop.batch_progress.current
        between_steps = trainer.training and batches.ready == batches.completed > 0
        if between_steps and trainer.world_size == 1 and not epoch_loop._should_accumulate():
            trainer.save_checkpoint(self._path)
