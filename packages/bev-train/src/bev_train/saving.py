"""Checkpoints on disk: whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from bev_data.atomic import atomic_path


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and onto the disk before it takes that name.

    A kill or a full disk at any moment leaves the checkpoint that was there before. (Lightning writes to the
    folder for temporary files, which may be small and on another disk, and is silent where it may not write.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; a path with a protocol such as s3:// is left to Lightning.

        Raises:
            WriteError: if the disk does not take it.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # Through a file object, so that what is written does not depend on the temporary name.
        with atomic_path(Path(path), flush=True) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


def checkpoint_bytes(module: LightningModule, average: bool) -> int:
    """Size of a checkpoint: weights, the two moments of AdamW, and perhaps a moving average.

    Args:
        module: that is trained.
        average: whether there is a moving average of its weights.
    """
    weights = sum(value.nbytes for value in module.state_dict().values())
    moments = 2 * sum(value.nbytes for value in module.parameters() if value.requires_grad)
    return int(weights * (2 if average else 1) + moments)
