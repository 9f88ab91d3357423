"""How fast training goes, and what it waits for."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Speed(Callback):
    """Logs `samples_per_s` over all processes and `data_wait`, the share of time spent waiting for data.

    Both are means over the steps since they were last logged; validations and checkpoints do not count. A
    `data_wait` above a few percent asks for more `data.loader.num_workers` or a faster disk.
    """

    def __init__(self) -> None:
        """Begin with nothing measured."""
        self._ended: float | None = None
        self._begun = self._waited = self._worked = 0.0
        self._samples = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out what lies between epochs."""
        self._ended = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out validations."""
        self._ended = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A batch is there."""
        self._begun = time.perf_counter()
        if self._ended is not None:
            self._waited += self._begun - self._ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A batch is done: the look for NaN has waited for the device."""
        self._ended = time.perf_counter()
        self._worked += self._ended - self._begun
        self._samples += len(batch.meta) * trainer.world_size
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            passed = self._waited + self._worked
            pl_module.log("samples_per_s", self._samples / passed, prog_bar=True)
            pl_module.log("data_wait", self._waited / passed, prog_bar=True)
            self._waited = self._worked = 0.0
            self._samples = 0
