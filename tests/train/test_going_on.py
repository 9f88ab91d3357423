"""Runs that begin, go on, are replaced or refused; what survives an error."""

import pytest
import torch
import yaml

SHORT = ("--trainer.limit_val_batches=0", "--pictures.count=0")


def refused(result):
    assert result.code == 2, result.error
    assert "Traceback" not in result.error
    return result.error.splitlines()[-1]


@pytest.fixture
def begun(command, tmp_path):
    """One epoch of a run in `out`."""
    assert command("fit", "TINY", *SHORT, "--output=out", "--trainer.max_epochs=1").code == 0
    return tmp_path / "out"


def step_of(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def test_a_second_run_does_not_replace_the_first(command, begun):
    sentence = refused(command("fit", "TINY", *SHORT, "--output=out"))
    assert "out must not hold another run, but has config.yaml, last.ckpt" in sentence
    for way in ("--ckpt_path last", "auto", "--overwrite true", "--output"):
        assert way in sentence
    assert step_of(begun) == 2


def test_auto_goes_on_where_there_is_something(command, begun):
    (begun / "csv" / "stranger").mkdir()
    assert command("fit", "TINY", *SHORT, "--output=out", "--ckpt_path=auto").code == 0
    assert step_of(begun) == 4
    assert (begun / "csv" / "stranger").is_dir()


def test_auto_begins_where_there_is_nothing(command, tmp_path):
    assert (
        command("fit", "TINY", *SHORT, "--output=out", "--ckpt_path=auto", "--trainer.max_epochs=1").code == 0
    )
    assert step_of(tmp_path / "out") == 2


def test_overwriting_leaves_nothing_of_the_first_run(command, begun):
    (begun / "checkpoints" / "best.ckpt").write_bytes(b"of the first run")
    (begun / "notes.txt").write_text("the user's")
    options = (*SHORT, "--output=out", "--overwrite=true", "--trainer.max_epochs=1")
    assert command("fit", "TINY", *options).code == 0
    assert [path.name for path in (begun / "checkpoints").iterdir()] == ["last.ckpt"]
    assert len(list((begun / "csv").iterdir())) == 1
    assert (begun / "notes.txt").is_file()


def test_a_run_can_be_repeated_from_its_config_after_it_was_gone_on_with(command, begun):
    before = yaml.safe_load((begun / "config.yaml").read_text())
    # A file that need not be there any more.
    options = (*SHORT, "--output=out", "--ckpt_path=last", "--model.imagenet_weights=gone.pth")
    assert command("fit", "TINY", *options).code == 0
    after = yaml.safe_load((begun / "config.yaml").read_text())
    assert after["ckpt_path"] is None
    assert after["model"].pop("imagenet_weights") == "gone.pth"
    before["model"].pop("imagenet_weights")
    assert after["model"] == before["model"]


@pytest.mark.parametrize(
    "options",
    [["--data.loader.batch_size=3"], ["--trainer.accumulate_grad_batches=2"]],
    ids=["batch", "accumulation"],
)
def test_other_batches_are_refused(command, begun, options):
    sentence = refused(command("fit", "TINY", *SHORT, "--output=out", "--ckpt_path=last", *options))
    assert "2 samples over all devices x 1 accumulated in the checkpoint" in sentence
    assert step_of(begun) == 2


def test_a_moving_average_is_not_trained_on(command, trained):
    options = (
        *SHORT,
        "--output",
        trained.folder,
        "--ckpt_path",
        trained.checkpoint,
        "--trainer.max_epochs=3",
    )
    assert "the checkpoint holds a moving average" in refused(command("fit", "TINY", *options))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (
            "--model.detector.depth_net.bins={start: 3, stop: 27, step: 2}",
            "model.detector.depth_net.bins.start is 3.0 here and 2.0 there",
        ),
        (
            "--model.detector.stereo.ranges=[2,12,26]",
            "model.detector.stereo.ranges is (2.0, 12.0, 26.0) here",
        ),
        ("--model.detector.quirks.color=bgr", "model.detector.quirks.color is bgr here and rgb there"),
        (
            "--model.detector.bev.grid={x: [-12.8, 38.4, 3.2], y: [-25.6, 25.6, 3.2]}",
            "model.detector.bev.grid.x is (-12.8, 38.4, 3.2) here",
        ),
    ],
)
def test_a_detector_of_other_geometry_is_refused(command, trained, option, named):
    """All of these load without a word by the shapes of their weights."""
    options = ["--ckpt_path", trained.checkpoint, option]
    if "bins" in option:
        options.append("--model.detector.stereo.ranges=[3,11,27]")
    assert named in refused(command("validate", "TINY", *options))


def test_what_may_differ_is_noted(command, trained, caplog):
    options = ["--ckpt_path", trained.checkpoint, "--model.detector.head.max_boxes=4", *SHORT[1:]]
    assert command("validate", "TINY", *options, "--trainer.limit_val_batches=1").code == 0
    notes = [record.getMessage() for record in caplog.records if "note:" in record.getMessage()]
    assert notes == ["note: model.detector.head.max_boxes is 4 here and 5 there"]


BROKEN = """
from lightning import Callback
class Broken(Callback):
    def on_validation_start(self, trainer, pl_module):
        raise RuntimeError('a validation that fails')
"""


def test_a_failing_validation_costs_no_epoch(command, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="a validation that fails"):
        command("fit", "TINY", "--output=out", "--pictures.count=0", "--trainer.callbacks+=broken.Broken")
    assert step_of(tmp_path / "out") == 2
    assert command("fit", "TINY", "--output=out", "--ckpt_path=last", *SHORT).code == 0
    assert step_of(tmp_path / "out") == 4


def test_the_length_of_a_run_can_be_given_in_steps(command, tmp_path):
    options = ("--trainer.max_epochs=-1", "--trainer.max_steps=3", "--model.schedule.kind=cosine")
    assert command("fit", "TINY", *SHORT, "--output=out", *options).code == 0
    assert step_of(tmp_path / "out") == 3
