"""A detector from a file that holds its weights."""

import dataclasses

import pytest
import torch

from bev_models import load_detector

from . import tiny


@pytest.fixture(scope="module")
def detector():
    return tiny.detector(seed=1, quirks="published").eval()


def checkpoint(detector, path):
    state = {f"detector.{name}": value for name, value in detector.state_dict().items()}
    torch.save({"state_dict": state, "detector": dataclasses.asdict(detector.config), "epoch": 3}, path)
    return path


def test_a_checkpoint_brings_its_configuration(detector, tmp_path):
    found = load_detector(checkpoint(detector, tmp_path / "best.ckpt"))
    assert not found.training
    assert found.config == detector.config
    with torch.no_grad():
        mine, theirs = (model(tiny.images(), tiny.rig()) for model in (found, detector))
    torch.testing.assert_close(mine.tasks[0].heatmap, theirs.tasks[0].heatmap)


def test_files_that_hold_no_detector(detector, tmp_path):
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(ValueError, match="weights must be a whole file of torch"):
        load_detector(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match="the weights must be a file, none at"):
        load_detector(tmp_path / "nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match=r"none at .*detector\.safetensors"):
        load_detector(tmp_path)
    checkpoint(detector, tmp_path / "short.ckpt")
    content = torch.load(tmp_path / "short.ckpt", weights_only=True)
    content["state_dict"].pop("detector.head.shared.0.weight")
    torch.save(content, tmp_path / "short.ckpt")
    with pytest.raises(ValueError, match=r"they lack head.shared.0.weight \(in .*short.ckpt\)"):
        load_detector(tmp_path / "short.ckpt")
    content["detector"]["colour"] = "grey"
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"colour.*\(in .*other.ckpt\)"):
        load_detector(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="a published experiment must be one of"):
        load_detector(checkpoint(detector, tmp_path / "best.ckpt"), "bev_stereo")
