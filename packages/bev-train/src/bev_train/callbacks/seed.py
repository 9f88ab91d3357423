"""Chance in training that depends on where a run is, not on how it came there."""

import os
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seeds every batch of training from the run's seed, the epoch, the batch and the rank.

    Dropout of a run that goes on anywhere, within an epoch too, is then that of a run that was never stopped.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch, on all devices."""
        run = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        state = np.random.SeedSequence([run, trainer.current_epoch, batch_idx, trainer.global_rank])
        torch.manual_seed(int(state.generate_state(1)[0]))
