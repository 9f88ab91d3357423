import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bev_models import predictions_of

from . import tiny

EXPORT = """
import torch
from bev_models import export_detector
from tests.models import tiny
detector = tiny.detector(quirks="published").train()
torch.export.save(export_detector(detector, tiny.SIZE, cameras=2), "detector.pt2")
assert detector.training
"""
RUN = """
import sys
import torch
import bev_ops
inputs = torch.load("inputs.pt", weights_only=True)
with torch.no_grad():
    torch.save(torch.export.load("detector.pt2").module()(*inputs), "maps.pt")
assert "bev_models" not in sys.modules
"""


def run(script: str, folder: Path) -> None:
    """In a process whose shape checks are not traced along."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_exported_program_gives_the_same_boxes_without_the_package(tmp_path: Path):
    detector = tiny.detector(quirks="published").eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 2, 2, 3, *tiny.SIZE), generator=generator, dtype=torch.uint8)
    cameras = tiny.rig()
    torch.save([images, *cameras], tmp_path / "inputs.pt")
    run(EXPORT, tmp_path)
    run(RUN, tmp_path)
    with torch.no_grad():
        expected = detector(detector.normalize(images), cameras)
    found = predictions_of(torch.load(tmp_path / "maps.pt", weights_only=True))
    torch.testing.assert_close(found.depth_probs, expected.depth_probs)
    for mine, theirs in zip(detector.decode(found), detector.decode(expected), strict=True):
        assert len(mine.boxes) > 10
        torch.testing.assert_close(mine.boxes, theirs.boxes, atol=1e-4, rtol=1e-4)


def test_maps_of_something_else_are_refused():
    with pytest.raises(ValueError, match="must be those of a TensorDetector, got none of depth_probs"):
        predictions_of({"logits": torch.zeros(1)})
