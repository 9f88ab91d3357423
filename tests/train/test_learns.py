"""A detector learns: forty steps on one rendered key frame bring the loss down and find a box."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_forty_steps_on_one_key_frame_find_a_box(command, tmp_path, logged):
    options = [
        "--data.subset.max_samples=1",
        "--data.splits.val=mini_train",
        "--data.loader.batch_size=1",
        "--data.image_aug=null",
        "--data.bev_aug=null",
        "--model.optimizer.lr=1e-2",
        "--model.schedule.kind=cosine",
        "--model.schedule.warmup=0.1",
        "--trainer.max_epochs=40",
        "--trainer.check_val_every_n_epoch=40",
        "--output=out",
        "--pictures.count=0",
    ]
    assert command("fit", "TINY", *options).code == 0
    losses = {
        step: float(text) for (step, name), text in logged(tmp_path / "out").items() if name == "train/loss"
    }
    assert len(losses) == 40
    assert losses[39] < losses[0] / 5
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    assert scores["mAP"] > 0.02
