"""The moving average of the weights."""

import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from bev_data.errors import InputError


class MovingAverage(WeightAveraging):
    """Averages weights and batch norm statistics over the steps of a run.

    The average starts from the initial weights, is validated, and is what checkpoints hold as `state_dict`.
    """

    def __init__(self, decay: float, warmup: int) -> None:
        """Say how slowly it follows.

        Args:
            decay: share of the average that each step keeps, in the end.
            warmup: steps over which the decay rises: after n steps it is decay * (1 - exp(-n / warmup)), so
                that untrained weights are soon forgotten; 0 for the full decay from the first step.

        Raises:
            InputError: if a value is out of its range.

        Source: Tarvainen and Valpola, Mean teachers (2017); the warm-up is that of YOLOv5.
        """
        if not 0 < decay < 1:
            raise InputError(f"ema must be a decay between 0 and 1, or null, got {decay}")
        if warmup < 0:
            raise InputError(f"ema_warmup must be 0 or more steps, got {warmup}")
        self.decay, self.warmup = decay, warmup
        # On the host: the number on the device would have to be waited for in every step.
        self.steps = 0
        super().__init__(use_buffers=True, multi_avg_fn=self.average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with the weights as they are; torch would take the first step's as they come."""
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged.fill_(1)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the weights back that a validation took the place of, for what is saved of a run that ends."""
        if self._average_model is not None and trainer.validating and not trainer.sanity_checking:
            self._swap_models(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the count of a run that goes on."""
        assert self._average_model is not None
        self.steps = int(self._average_model.n_averaged)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow where an optimiser step was taken."""
        stepped = trainer.global_step > self._latest_update_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.steps += stepped

    @torch.no_grad()
    def average(self, averages: list[Tensor], currents: list[Tensor], _: Any) -> None:
        """Move averages toward current values, all of one kind at once; whole numbers are taken over.

        Args:
            averages: so far; changed in place.
            currents: after the step.
        """
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, 1 - self.decay_at(self.steps))
        else:
            torch._foreach_copy_(averages, currents)

    def decay_at(self, step: int) -> float:
        """Share of the average that step number `step` keeps."""
        return self.decay * (1 - math.exp(-step / self.warmup)) if self.warmup else self.decay
