"""A world of two scenes, and a detector that trains on it in seconds."""

import csv
from pathlib import Path
from typing import NamedTuple

# Lightning's log keeps the stderr of its first import: this one, and not that of a single test.
import lightning.pytorch  # noqa: F401
import pytest

TINY = """
data:
  image_size: [32, 64]
  loader: {batch_size: 2, num_workers: 0}
model:
  detector:
    image: {depth: 18, width: 8, frozen_stem: false, neck_channels: 8}
    depth_net: {bins: {start: 2, stop: 26, step: 2}, mid_channels: 16, context_channels: 8}
    stereo: {ranges: [2, 10, 26], iterations: 1, mask_channels: 8, downsample_channels: 8}
    bev:
      grid: {x: [-25.6, 25.6, 3.2], y: [-25.6, 25.6, 3.2]}
      channels: 8
      neck_channels: 8
    # So low that an untrained detector finds something to score and write.
    head: {channels: 8, score_threshold: 0.01, max_boxes: 5}
  optimizer: {lr: 1e-3}
evaluation: {class_range: 25}
pictures: {count: 1}
trainer:
  accelerator: cpu
  max_epochs: 2
  gradient_clip_val: 5
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
"""


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    output: str
    error: str


@pytest.fixture(scope="session")
def world(rendered_world):
    """Rendered v1.0-mini: a training and a validation scene of three key frames."""
    return rendered_world(scenes=2, image_size=(160, 90), key_frames=3, sweep_hz=0)


@pytest.fixture(scope="session")
def config(world, tmp_path_factory):
    """The tiny config as a file."""
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(TINY.replace("data:\n", f"data:\n  root: {world}\n", 1))
    return path


@pytest.fixture
def command(config, tmp_path, monkeypatch, capfd):
    """Run `bev-train` in this process and an empty folder; `TINY` stands for the tiny config."""
    from bev_train.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(config) if argument == "TINY" else str(argument) for argument in arguments])
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def logged():
    """All values of a run's CSV files: (step, name) -> text, learning rates left out."""

    def read(folder):
        values = {}
        for path in sorted(folder.glob("csv/*/metrics.csv")):
            with path.open() as file:
                for row in csv.DictReader(file):
                    step = int(row.pop("step"))
                    values |= {(step, name): text for name, text in row.items() if text and "/" in name}
        return values

    return read


class Trained(NamedTuple):
    """A finished run of two epochs with a moving average."""

    folder: Path
    checkpoint: Path


@pytest.fixture(scope="session")
def trained(config, tmp_path_factory):
    """Train for two epochs once for all tests."""
    from bev_train.cli import main

    folder = tmp_path_factory.mktemp("trained")
    assert main(["fit", str(config), "--output", str(folder), "--ema", "0.5"]) == 0
    return Trained(folder, folder / "checkpoints" / "last.ckpt")
