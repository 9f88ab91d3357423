"""What the settings of a run must agree on before anything is built."""

from typing import Any

import torch

from bev_data.errors import InputError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check_device(trainer: Any) -> None:
    """Settle `trainer.accelerator`; auto is a GPU of CUDA, or the CPU.

    Args:
        trainer: its settings; `accelerator` is written.

    Raises:
        InputError: if a device is asked for that is not there, or that lacks what the detector needs.
    """
    name = trainer.accelerator
    if name == "auto" and not torch.cuda.is_available():
        trainer.accelerator = "cpu"
    if name == "mps" or (name == "gpu" and torch.backends.mps.is_available()):
        raise InputError(
            f"trainer.accelerator must be cpu, cuda or auto, got {name}: targets need float64, not in MPS"
        )
    if name in ("cuda", "gpu") and not torch.cuda.is_available():
        raise InputError(
            f"trainer.accelerator is {name}, but torch {torch.__version__} finds no such device "
            "here: add --trainer.accelerator cpu, or auto"
        )


def check_precision(trainer: Any) -> None:
    """Refuse precisions in which weights and geometry are not float32.

    Args:
        trainer: its settings.

    Raises:
        InputError: naming those that can be used.
    """
    given = str(trainer.precision) if trainer.precision is not None else "32-true"
    known = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}.get(given, given)
    if known not in PRECISIONS:
        raise InputError(
            f"trainer.precision must be one of {', '.join(PRECISIONS)}, got {given}: projections and weights "
            "need float32"
        )


def check_statistics(batch_size: int, bev_aug: object, processes: int) -> None:
    """Refuse batches whose statistics training and evaluation would not share.

    The numbers of the BEV augmentation enter the depth net through a batch norm. They are one and the same
    for all cameras of a sample, so a batch of one sample has no variance in them: the running variance would
    fall to zero, and evaluation, which divides by it, would see values a hundred times as large.

    Args:
        batch_size: per device.
        bev_aug: the augmentation; None for none.
        processes: whose statistics are brought together.

    Raises:
        InputError: if a step's statistics come from one sample whose BEV is augmented.
    """
    if bev_aug is not None and batch_size * processes == 1:
        raise InputError(
            "data.loader.batch_size must be at least 2 where data.bev_aug is on, got 1: the statistics of "
            "one sample know no variance of its augmentation; or set data.bev_aug to null, or "
            "trainer.sync_batchnorm to true on several devices"
        )
