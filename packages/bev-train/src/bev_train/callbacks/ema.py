"""The moving average of the weights."""

import math
from typing import Any

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
        super().__init__(use_buffers=True, avg_fn=self.average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with the weights as they are; torch would take the first step's as they come."""
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged.fill_(1)

    def average(self, average: Tensor, current: Tensor, steps: Any) -> Tensor:
        """Move an average toward a current value.

        Args:
            average: so far.
            current: after the step.
            steps: number of the step, from 1.
        """
        return average + (current - average) * (1 - self.decay_at(int(steps)))

    def decay_at(self, step: int) -> float:
        """Share of the average that step number `step` keeps."""
        return self.decay * (1 - math.exp(-step / self.warmup)) if self.warmup else self.decay
