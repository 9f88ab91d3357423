"""Loading in processes that were forked from one whose libraries have threads."""

import os
import subprocess
import sys

import pytest

# The process that forks has made infos and samples before, with the thread pools of Arrow, OpenCV, NumPy and
# torch running, whose threads and locks a fork does not carry over as they are.
_FORK = """
import os, sys
import cv2
import numpy as np
import torch
from pathlib import Path
from torch.utils.data import DataLoader

from bev_data.samples.batch import collate
from bev_data.samples.dataset import History, KeyFrameDataset
from bev_data.infos.infos import build_infos
from bev_data.checks.prepare import prepare

root = Path(sys.argv[1])
torch.set_num_threads(2)
cv2.setNumThreads(2)
prepare(root, check="sample", progress=False)
infos = build_infos(root, "v1.0-mini", "mini_val", progress=False)
picture = np.zeros((900, 1600, 3), dtype=np.uint8)
cv2.cvtColor(cv2.GaussianBlur(picture, (9, 9), 2), cv2.COLOR_BGR2YUV)
torch.rand(900, 900) @ torch.rand(900, 900)

for training in (True, False):
    dataset = KeyFrameDataset(
        infos, root, image_size=(256, 704), history=History(frames=1), training=training
    )
    expected = [dataset[i] for i in range(len(dataset))]
    loader = DataLoader(dataset, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
    for sample, batch in zip(expected, loader, strict=True):
        assert torch.equal(batch.images[0], sample.images)
        assert torch.equal(batch.lidar_depth[0], sample.lidar_depth)
        assert sample.lidar_depth.any()
    child = os.fork()
    if child == 0:
        # NumPy compares: torch's own operators hang in a process that was forked by hand.
        os._exit(0 if np.array_equal(dataset[0].images, expected[0].images) else 1)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_samples_are_made_in_forked_processes(write_database, tmp_path):
    root = write_database(tmp_path / "data")
    command = [sys.executable, "-c", _FORK, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
