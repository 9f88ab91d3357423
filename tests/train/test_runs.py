"""Whole runs through the command line: what they log, write, and how they go on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

OFFICIAL = ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")


def test_training_logs_losses_and_official_scores(trained, logged):
    names = {name for _, name in logged(trained.folder)}
    assert {"train/heatmap", "train/boxes", "train/depth", "train/loss", "val/loss"} <= names
    assert {f"val/{name}" for name in OFFICIAL} <= names
    assert {"val/AP/car", "val/AP/traffic_cone"} <= names
    assert {"val/depth_abs_rel", "val/depth_rmse", "val/depth_delta1", "val/depth_objects_abs_rel"} <= names
    assert {"val/depth_mono_rmse_log", "val/depth_mono_objects_sq_rel", "val/depth_10_20m_delta3"} <= names


def test_training_leaves_its_files_in_one_folder(trained):
    assert {path.name for path in trained.checkpoint.parent.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (trained.folder / "config.yaml").is_file()
    assert list(trained.folder.glob("events.out.tfevents.*"))
    (picture,) = trained.folder.glob("pictures/val/*.png")
    pixels = np.asarray(Image.open(picture))
    assert pixels.shape[1] > 1000
    assert pixels.std() > 20


def test_pictures_reach_tensorboard(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.folder))
    events.Reload()
    (tag,) = events.Tags()["images"]
    assert tag.startswith("val/0000_")


def test_checkpoint_holds_the_moving_average(trained):
    checkpoint = torch.load(trained.checkpoint, weights_only=True)
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    # BatchNorm's statistics are averaged as weights are.
    for key in ("detector.head.shared.0.weight", "detector.head.shared.1.running_mean"):
        assert not torch.equal(average[key], current[key])


def test_validation_scores_the_moving_average(command, trained, tmp_path, logged):
    result = command("validate", "TINY", "--ckpt_path", trained.checkpoint, "--output", "out")
    assert result.code == 0
    assert "boxes within 25 m" in result.output
    at_end = {name: text for (_, name), text in logged(trained.folder).items() if name.startswith("val/")}
    again = {name: text for (_, name), text in logged(tmp_path / "out").items()}
    assert again == at_end


def test_resumed_run_continues_exactly(command, trained, tmp_path, logged):
    run = ("fit", "TINY", "--output", "out", "--ema", "0.5")
    assert command(*run, "--trainer.max_epochs", "1").code == 0
    assert command(*run, "--ckpt_path", "last").code == 0
    assert logged(tmp_path / "out") == logged(trained.folder)
    ours = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)
    theirs = torch.load(trained.checkpoint, weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part])


def test_run_stopped_within_an_epoch_continues_exactly(command, tmp_path, logged):
    """Two batches an epoch, with augmentation, dropout, a worker and a moving average."""
    every_step = [
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path / 'out' / 'steps'}",
        "--trainer.callbacks.filename={step}",
        "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.save_top_k=-1",
    ]
    run = ("fit", "TINY", "--data.loader.num_workers=1", "--ema=0.5", "--trainer.limit_val_batches=0")

    def finish(*options):
        assert command(*run, "--output=out", *options).code == 0
        path = tmp_path / "out" / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True), logged(tmp_path / "out")

    whole, of_whole = finish(*every_step)
    assert whole["global_step"] == 4
    for step in (1, 3):
        resumed, of_both = finish("--ckpt_path", tmp_path / "out" / "steps" / f"step={step}.ckpt")
        for part in ("state_dict", "current_model_state"):
            assert all(torch.equal(resumed[part][key], whole[part][key]) for key in whole[part])
        theirs, ours = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (whole, resumed))
        assert all(torch.equal(ours[i]["exp_avg"], theirs[i]["exp_avg"]) for i in theirs)
        # The losses of the steps that were done again are the same, too.
        assert of_both == of_whole
    assert len(list((tmp_path / "out" / "csv").iterdir())) == 3


def test_prediction_is_a_results_file_the_devkit_accepts(command, trained, world, tmp_path):
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox

    result = command("predict", "TINY", "--ckpt_path", trained.checkpoint, "--output", "out")
    assert result.code == 0
    path = tmp_path / "out" / "predictions.json"
    assert f"results of 3 key frames: {path.relative_to(tmp_path)}" in result.output
    boxes, meta = load_prediction(str(path), 500, DetectionBox)
    samples = {row["token"]: row for row in json.loads((world / "v1.0-mini" / "sample.json").read_text())}
    assert len(boxes.sample_tokens) == 3
    assert set(boxes.sample_tokens) <= set(samples)
    assert len(boxes.all) > 0
    assert meta["use_camera"]
    assert not meta["use_lidar"]
    assert len(list((tmp_path / "out" / "pictures" / "predict").glob("*.png"))) == 1


def test_a_part_of_the_predictions_has_a_name_of_its_own(command, trained, tmp_path):
    options = ["--output", "out", "--trainer.limit_predict_batches", "0.5", "--pictures.count", "0"]
    result = command("predict", "TINY", "--ckpt_path", trained.checkpoint, *options)
    assert result.code == 0
    assert "results of 2 of 3 key frames: out/predictions.part.json" in result.output
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_an_evaluation_leaves_its_scores_and_what_they_belong_to(command, trained, tmp_path):
    engines = {}
    for engine in ("devkit", "fast"):
        options = ["--output", engine, "--evaluation.engine", engine, "--pictures.count", "0"]
        assert command("validate", "TINY", "--ckpt_path", trained.checkpoint, *options).code == 0
        engines[engine] = json.loads((tmp_path / engine / "scores.json").read_text())
    devkit, fast = engines["devkit"], engines["fast"]
    assert fast["scores"] == pytest.approx(devkit["scores"], abs=1e-9, nan_ok=True)
    assert (devkit["engine"], fast["engine"]) == ("devkit", "fast")
    assert devkit["checkpoint"] == str(trained.checkpoint)
    assert (devkit["split"], devkit["key_frames"], devkit["class_range"]) == ("mini_val", 3, 25)
    assert devkit["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    of_training = json.loads((trained.folder / "scores.json").read_text())
    assert of_training["step"] == 4
    assert of_training["config"] == str(trained.folder / "config.yaml")


def test_scores_are_means_over_the_classes_of_the_detector(command, tmp_path):
    """Untrained, but its title and names are those of any detector of cars and trucks."""
    tasks = ["--model.detector.head.tasks=[[car, truck]]", "--model.detector.head.nms_scale=[0.5]"]
    result = command("validate", "TINY", *tasks, "--output=out", "--pictures.count=0")
    assert result.code == 0, result.error
    assert "boxes within 25 m, 2 of 10 classes: car, truck" in result.output
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    assert {name for name in scores if name.startswith("AP/")} == {"AP/car", "AP/truck"}
    assert scores["mAP"] == pytest.approx((scores["AP/car"] + scores["AP/truck"]) / 2)
    assert scores["official_mAP"] == pytest.approx(scores["mAP"] * 2 / 10)


def test_limited_validation_scores_what_it_saw(command, trained):
    result = command(
        "validate", "TINY", "--ckpt_path", trained.checkpoint, "--trainer.limit_val_batches", "1"
    )
    assert result.code == 0
    assert "mAP" in result.output


def test_overlays_and_options_win_over_the_config(command, config, tmp_path):
    (tmp_path / "overlay.yaml").write_text("trainer: {max_epochs: 7}\nmodel: {detector: {stereo: null}}\n")
    result = command("fit", "TINY", "overlay.yaml", "--trainer.max_epochs", "8", "--print_config")
    assert result.code == 0
    assert "max_epochs: 8" in result.output
    assert "stereo: null" in result.output


@pytest.mark.parametrize(
    "options",
    [
        ["--model.detector.stereo", "null", "--data.sampling.cbgs", "true"],
        ["--trainer.precision", "bf16-mixed", "--model.schedule.kind", "cosine"],
        ["--data.cameras", "[CAM_FRONT]", "--trainer.precision", "bf16-mixed"],
        ["--data.cameras", "[CAM_BACK]", "--data.loader.batch_size", "1", "--data.bev_aug", "null"],
        ["--model.detector.frames", "1", "--model.detector.stereo", "null", "--data.lidar_depth", "false"],
    ],
    ids=["mono-cbgs", "bf16-cosine", "one-camera", "one-image", "one-frame-without-lidar"],
)
def test_variants_train(command, options):
    options = [
        *options,
        "--trainer.max_epochs",
        "1",
        "--trainer.limit_val_batches",
        "1",
        "--pictures.count",
        "0",
    ]
    assert command("fit", "TINY", *options).code == 0
