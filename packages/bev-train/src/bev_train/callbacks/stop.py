"""Stop training when a signal asks for it, with a checkpoint that goes on there."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from bev_train.stopping import SIGNALS, Stopped


class StopOnSignal(Callback):
    """Ends training after an optimiser step, or within a validation, when a signal asks for it."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._step = 0

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; Lightning has put handlers of its own in place."""
        SIGNALS.install()

    on_validation_start = on_test_start = on_predict_start = on_sanity_check_start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to lose."""
        SIGNALS.install()
        SIGNALS.patient = True
        kill = getattr(trainer.strategy.launcher, "kill", None)
        if kill is not None:
            SIGNALS.at_once = lambda: kill(SIGNALS.asked)
        self._step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop after an optimiser step, when it is logged; gradients that are not applied would be lost."""
        if trainer.global_step > self._step and batch_idx > 0:
            self._step = trainer.global_step
            _stop_if_asked(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop."""
        if not trainer.sanity_checking:
            _stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after an epoch, unless it is the last."""
        if trainer.current_epoch + 1 != trainer.max_epochs and trainer.global_step != trainer.max_steps:
            _stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All is saved."""
        SIGNALS.patient = False


class StopAndSave(StopOnSignal, Checkpoint):
    """The same with a checkpoint of all that was done.

    A validation that was cut short begins anew when the run goes on. Being a `Checkpoint`, it comes after all
    other callbacks.
    """

    def __init__(self, path: Path) -> None:
        """Say where to save.

        Args:
            path: of the checkpoint.
        """
        super().__init__()
        self.path = path

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what was done before the end."""
        if trainer.global_step == 0 or not isinstance(exception, Stopped):
            return
        loop: Any = trainer.fit_loop.epoch_loop
        if trainer.validating:
            # Lightning then begins the validation again, with the first batch.
            for part in (loop.val_loop.batch_progress.total, loop.val_loop.batch_progress.current):
                part.ready = part.started = 1
                part.processed = part.completed = 0
        elif loop.batch_progress.current.ready > loop.batch_progress.current.completed:
            # The batch that was about to begin is still to come.
            for part in (loop.batch_progress.total, loop.batch_progress.current):
                part.ready = part.completed
            loop.batch_progress.is_last_batch = False
        trainer.save_checkpoint(self.path, weights_only=False)
        if trainer.is_global_zero:
            exception.saved = f"{self.path} holds {trainer.global_step} steps: go on with --ckpt_path last"


def _stop_if_asked(trainer: Trainer) -> None:
    """Stop all processes at the same place when a signal asked one of them.

    Raises:
        Stopped: if it did.
    """
    if trainer.strategy.reduce_boolean_decision(SIGNALS.asked is not None, all=False):
        raise Stopped(SIGNALS.asked or 15)
