"""Training that starts from weights, with parts frozen."""

import pytest
import safetensors.torch
import torch
import yaml

SHORT = ("--trainer.limit_val_batches=0", "--trainer.max_epochs=1", "--pictures.count=0", "--output=out")


def refused(result):
    assert result.code == 2, result.error
    return result.error.splitlines()[-1]


def weights_of(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("detector."): value for name, value in state.items()}


def after(tmp_path):
    return weights_of(tmp_path / "out" / "checkpoints" / "last.ckpt")


@pytest.fixture
def notes(caplog):
    """What a run says of the weights it starts from."""
    return lambda: [r.getMessage() for r in caplog.records if r.getMessage().startswith("model.weights:")]


# Steps so small that weights stay what they were.
STILL = ("--model.optimizer.lr=1e-12", "--model.optimizer.weight_decay=0")


@pytest.mark.parametrize("kind", ["checkpoint", "safetensors"])
def test_training_starts_from_weights(command, trained, tmp_path, kind):
    path = trained.checkpoint
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        state = {name: value.contiguous() for name, value in weights_of(trained.checkpoint).items()}
        safetensors.torch.save_file(state, path)
    assert command("fit", "TINY", *SHORT, *STILL, f"--model.weights={path}").code == 0
    before, found = weights_of(trained.checkpoint), after(tmp_path)
    torch.testing.assert_close(found["head.shared.0.weight"], before["head.shared.0.weight"])
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["model"]["weights"] == str(path)
    # A run that goes on does not begin again.
    options = ("--ckpt_path=last", f"--model.weights={tmp_path / 'gone'}", "--trainer.max_epochs=2")
    assert command("fit", "TINY", *SHORT, *STILL, *options).code == 0


def test_weights_of_another_detector_are_refused(command, trained):
    options = ["--model.detector.head.channels=16", f"--model.weights={trained.checkpoint}"]
    sentence = refused(command("fit", "TINY", *SHORT, *options))
    assert "model.detector.head.channels is 16 here and 8 there" in sentence
    assert "--model.weights_partial true takes what fits" in sentence
    assert "none at gone.pth" in refused(command("fit", "TINY", *SHORT, "--model.weights=gone.pth"))


def test_what_fits_is_taken_and_the_rest_listed(command, trained, tmp_path, notes):
    """Another class list: other heatmaps, all else as it was."""
    classes = ["--model.detector.head.tasks=[[car, bus]]", "--model.detector.head.nms_scale=[0.5]"]
    partial = [f"--model.weights={trained.checkpoint}", "--model.weights_partial=true"]
    assert command("fit", "TINY", *SHORT, *STILL, *classes, *partial).code == 0
    before, found = weights_of(trained.checkpoint), after(tmp_path)
    torch.testing.assert_close(found["image_backbone.conv1.weight"], before["image_backbone.conv1.weight"])
    (note,) = notes()
    assert f"taken from {trained.checkpoint}; fresh: head.tasks.0." in note
    assert "left out: head.tasks.0." in note


def test_frozen_parts_stay_as_they_are(command, trained, tmp_path):
    options = ["--model.freeze=[image_backbone, depth_net.context]", f"--model.weights={trained.checkpoint}"]
    assert command("fit", "TINY", *SHORT, *options).code == 0
    before, found = weights_of(trained.checkpoint), after(tmp_path)
    frozen = [name for name in before if name.startswith(("image_backbone.", "depth_net.context."))]
    # Statistics of batch norms among them.
    assert any(name.endswith("running_mean") for name in frozen)
    assert all(torch.equal(found[name], before[name]) for name in frozen)
    for name in ("depth_net.reduce.0.weight", "image_neck.branches.0.0.weight", "head.shared.0.weight"):
        if name in before:
            assert not torch.equal(found[name], before[name]), name
    sentence = refused(command("fit", "TINY", *SHORT, "--ckpt_path=last", "--trainer.max_epochs=2"))
    assert "model.freeze is [] here and ['depth_net.context', 'image_backbone'] there" in sentence


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("[backbone]", "must name parts of the detector (image_backbone, image_neck, depth_net"),
        (
            "[image_backbone, image_neck, depth_net, stereo, view_transform, bev_encoder, head]",
            "must leave something to train",
        ),
    ],
)
def test_parts_that_cannot_be_frozen(command, parts, message):
    assert message in refused(command("fit", "TINY", *SHORT, f"--model.freeze={parts}"))
