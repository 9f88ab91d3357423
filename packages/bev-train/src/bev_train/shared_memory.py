"""Room for the batches that loading processes hand over."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bev_data.errors import InputError
from bev_data.samples.dataset import KeyFrameDataset

_FOLDER = Path("/dev/shm")
# Batches that each worker makes ahead.
_AHEAD = 2


def batch_bytes(dataset: KeyFrameDataset, batch_size: int) -> int:
    """Size of a batch of images and lidar depth; all else is small beside them."""
    height, width = dataset.image_size
    pixels = len(dataset.cameras) * height * width
    images = 3 * (dataset.history.frames + 1) * pixels
    return batch_size * (images + (4 * pixels if dataset.lidar_depth else 0))


def check_shared_memory(
    datasets: Sequence[KeyFrameDataset],
    batch_size: int,
    num_workers: int,
    processes: int,
    folder: Path = _FOLDER,
) -> None:
    """Refuse more workers than shared memory has room for, where there is a folder that tells.

    Without room, a worker loses its batch and the run waits for it.

    Args:
        datasets: whose loaders are at work together.
        batch_size: per process.
        num_workers: per process and data set.
        processes: on this machine.
        folder: where shared memory lies.

    Raises:
        InputError: naming how much there is and how much would be taken.
    """
    if num_workers == 0 or not folder.is_dir():
        return
    largest = max(batch_bytes(dataset, batch_size) for dataset in datasets)
    needed = largest * num_workers * _AHEAD * processes
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"shared memory must have room for the batches that workers make ahead, {needed / 1e6:.0f} MB for"
            f" {num_workers} workers x {_AHEAD} of {largest / 1e6:.0f} MB x {processes} processes, but"
            f" {folder} has {free / 1e6:.0f} MB free: give the container more (docker run --shm-size "
            f"{-(-needed // 10**9)}g, or --ipc host), or lower data.loader.num_workers"
        )
