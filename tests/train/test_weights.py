"""Published weights through the command line: taken as they are, and converted both ways."""

import argparse
import dataclasses

import pytest
import safetensors
import torch
import yaml

from bev_models import PUBLISHED_QUIRKS, build_published, load_weights
from bev_models.config import config_from_dict
from bev_models.published import PUBLISHED, is_published, to_published
from bev_train.settings.find import shipped_configs


def scores(result):
    """The table that a validation prints."""
    assert result.code == 0, result.error
    return [line for line in result.output.splitlines() if line.startswith("  ")]


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """The trained weights in a file like a published one, settings of the training program in it."""
    content = torch.load(trained.checkpoint, weights_only=True)
    state = {key.removeprefix("detector."): value for key, value in content["state_dict"].items()}
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    named = to_published(state, config_from_dict(content["detector"]), (32, 64))
    extra = {
        "epoch": 2,
        "global_step": 4,
        "pytorch-lightning_version": "1.6.0",
        "hyper_parameters": argparse.Namespace(data_root="/data", gpus=8),
    }
    torch.save(extra | {"state_dict": named}, path)
    return path


def test_validation_takes_a_published_file_as_it_is(command, trained, published):
    options = ["--pictures.count", "0", "--ckpt_path"]
    assert scores(command("validate", "TINY", *options, published)) == scores(
        command("validate", "TINY", *options, trained.checkpoint)
    )


def test_published_weights_without_the_preset_are_noted(command, trained, published, caplog):
    def notes(*options):
        caplog.clear()
        limits = ["--pictures.count=0", "--trainer.limit_val_batches=1"]
        assert command("validate", "TINY", *limits, *options).code == 0
        return [record.getMessage() for record in caplog.records if "note:" in record.getMessage()]

    (note,) = notes("--ckpt_path", published)
    assert f"{published} have published names" in note
    assert "--published true" in note
    assert notes("--ckpt_path", published, "--published=true") == []
    assert notes("--ckpt_path", trained.checkpoint) == []


def test_weights_of_another_detector_are_refused(command, published):
    result = command("validate", "TINY", "--model.detector.head.channels=16", "--ckpt_path", published)
    assert result.code == 2
    assert "ckpt_path: weights must fit the detector" in result.error
    assert "in another shape head.shared.0.weight [8, " in result.error


def test_training_does_not_go_on_from_bare_weights(command, published):
    result = command("fit", "TINY", "--ckpt_path", published)
    assert result.code == 2
    assert "training goes on from a checkpoint of `bev-train fit` alone" in result.error


def test_a_file_without_weights_is_refused(command, tmp_path):
    (tmp_path / "notes.txt").write_text("no weights")
    result = command("validate", "TINY", "--ckpt_path", "notes.txt")
    assert result.code == 2
    assert "ckpt_path: weights must be a whole file of torch.save or safetensors" in result.error


def test_converting_there_and_back(command, trained, tmp_path):
    """Lightning's checkpoint -> published names -> safetensors by our names -> the same score."""
    ours, there, back = trained.checkpoint, tmp_path / "there.pth", tmp_path / "back.safetensors"
    result = command("convert", ours, there, "--image-size", "32", "64")
    assert result.code == 0, result.error
    assert "there.pth: weights by published names" in result.output
    assert is_published(torch.load(there, weights_only=True)["state_dict"])
    # Only a published experiment's shape can be told from bare published weights.
    result = command("convert", there, back)
    assert result.code == 2
    assert "weights must fit the detector" in result.error
    assert not back.exists()
    assert command("convert", ours, back, "--to", "ours").code == 0
    with safetensors.safe_open(back, "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = torch.load(ours, weights_only=True)["state_dict"]
    assert all(torch.equal(kept[name], state[name]) for name in state)
    assert command("convert", back, tmp_path / "again.pth").code == 0
    again = torch.load(tmp_path / "again.pth", weights_only=True)["state_dict"]
    first = torch.load(there, weights_only=True)["state_dict"]
    learned = [name for name in first if not name.endswith("frustum")]
    assert all(torch.equal(again[name], first[name]) for name in learned)


def test_converting_a_published_experiment(command, tmp_path):
    torch.manual_seed(0)
    source = build_published("bev_depth_lss_r50_256x704_128x128_24e_2key")
    torch.save({"state_dict": to_published(source.state_dict(), source.config)}, tmp_path / "published.pth")
    assert command("convert", "published.pth", "ours.safetensors").code == 0
    target = build_published("bev_depth_lss_r50_256x704_128x128_24e_2key")
    load_weights(target, tmp_path / "ours.safetensors")
    state = source.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in target.state_dict().items())


def test_converting_into_something_else(command, published):
    result = command("convert", published, "weights.onnx")
    assert result.code == 2
    assert "must end in one of .pth, .pt, .ckpt, .safetensors, got weights.onnx" in result.error


def test_published_detectors_are_those_of_the_configs(command):
    experiments = [name for name in shipped_configs() if name != "quickstart"]
    assert set(experiments) == set(PUBLISHED)
    for name in experiments:
        result = command("fit", name, "--print_config")
        found = config_from_dict(yaml.safe_load(result.output)["model"]["detector"])
        detector = PUBLISHED[name]
        assert found == dataclasses.replace(detector, quirks=PUBLISHED_QUIRKS), name
