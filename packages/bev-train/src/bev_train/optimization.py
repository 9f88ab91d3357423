"""Optimiser and learning rate over a run."""

import bisect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from bev_data.errors import InputError
from bev_models.ranges import check_ranges, within


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW.

    Attributes:
        lr: learning rate of the whole run, whatever the batch size; null takes lr_per_image.
        lr_per_image: learning rate per image of the total batch (all devices, accumulated); the published
            runs scale so.
        weight_decay: of all parameters.
    """

    lr: float | None = within(None, 0, 10, above=True)
    lr_per_image: float = within(2e-4 / 64, 0, 10, above=True)
    weight_decay: float = within(1e-7, 0, 10)

    def __post_init__(self) -> None:
        _check_ranges(self, "model.optimizer.")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes.

    Attributes:
        kind: "step" multiplies by `gamma` after each of `milestones`, "cosine" falls to 0 at the end of the
            run, "constant" stays.
        milestones: finished epochs at which "step" decays.
        gamma: factor of "step".
        warmup: share of all steps over which the rate first rises linearly from near 0.
    """

    kind: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[int, ...] = within((19, 23), 0)
    gamma: float = within(0.1, 0, 1, above=True)
    warmup: float = 0.0

    def __post_init__(self) -> None:
        _check_ranges(self, "model.schedule.")
        if not 0 <= self.warmup < 1:
            raise InputError(f"model.schedule.warmup must be a share of all steps, 0 to 1, got {self.warmup}")
        if list(self.milestones) != sorted(self.milestones):
            raise InputError(f"model.schedule.milestones must rise, got {self.milestones}")

    @property
    def needs_length(self) -> bool:
        """Whether the schedule depends on the length of the run."""
        return self.kind == "cosine" or self.warmup > 0


def _check_ranges(config: object, name: str) -> None:
    try:
        check_ranges(config, name)
    except ValueError as error:
        raise InputError(str(error)) from error


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig, total_batch: int, fused: bool
) -> torch.optim.AdamW:
    """Build AdamW over the parameters that train.

    Args:
        parameters: of the detector.
        config: settings.
        total_batch: images per optimiser step, over all devices and accumulated batches.
        fused: use the kernel that updates all parameters at once.
    """
    lr = config.lr if config.lr is not None else config.lr_per_image * total_batch
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=lr, weight_decay=config.weight_decay, fused=fused)


def lr_factor(config: ScheduleConfig, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Factor on the learning rate as a function of the finished optimiser steps.

    Args:
        config: settings.
        total_steps: of the run; 0 where the schedule does not need it.
        steps_per_epoch: optimiser steps.
    """
    warmup_steps = round(config.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if config.kind == "cosine":
            progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        if config.kind == "step":
            return config.gamma ** bisect.bisect_right(config.milestones, step // steps_per_epoch)
        return 1.0

    return factor
