"""Wrong input ends with one sentence and exit code 2; a failing training says where it failed."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from bev_data.infos.infos import open_infos
from bev_data.rig import save_rig


def refused(result):
    """The sentence of a refused run."""
    assert result.code == 2
    sentence = result.error.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert "Traceback" not in result.error
    return sentence


def test_no_such_command(command):
    assert "commands are fit, validate" in refused(command("train", "TINY"))


def test_no_such_config(command):
    sentence = refused(command("fit", "quickstrat"))
    assert "did you mean 'quickstart'" in sentence
    assert "bev_stereo_lss_r50_256x704_128x128_24e_2key" in sentence


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--model.detector.stereo.iters=3",
            "'model.detector.stereo.iters' (did you mean 'model.detector.stereo.iter",
        ),
        ("--model.depth_weight=3", "'model.depth_weight': it is 'model.loss.depth_weight'"),
        ("--model.stereo_weight=3", "'model.stereo_weight': it is 'model.loss.stereo_weight'"),
        ("--optimizer.lr=3", "'optimizer.lr' (did you mean 'model.optimizer.lr'?)"),
        ("--trainer.max_epoch=3", "'trainer.max_epoch' (did you mean 'trainer.max_epochs'?)"),
        ("--data.train_split=train", "'data.train_split': it is 'data.splits.train'"),
        ("--data.batch_size=3", "'data.batch_size' (did you mean 'data.loader.batch_size'?)"),
    ],
)
def test_unknown_option(command, option, message):
    assert f"unknown key {message}" in refused(command("fit", "TINY", option))


def test_unknown_key_in_a_file(command, tmp_path):
    (tmp_path / "overlay.yaml").write_text("model: {detector: {depth_net: {bin: 3}}}")
    sentence = refused(command("fit", "TINY", "overlay.yaml"))
    assert "unknown key 'model.detector.depth_net.bin' in overlay.yaml" in sentence


def test_broken_yaml(command, tmp_path):
    (tmp_path / "overlay.yaml").write_text("a: 1\nb: [1,\n")
    assert "overlay.yaml must be YAML, got an error in line 3" in refused(
        command("fit", "TINY", "overlay.yaml")
    )


def test_a_key_that_is_said_twice(command, tmp_path):
    (tmp_path / "overlay.yaml").write_text("trainer:\n  max_epochs: 1\n  max_epochs: 2\n")
    sentence = refused(command("fit", "TINY", "overlay.yaml"))
    assert "overlay.yaml must be YAML, got an error in line 3: the key 'max_epochs' is said twice" in sentence


def test_config_that_is_no_mapping(command, tmp_path):
    (tmp_path / "overlay.yaml").write_text("- 1\n")
    assert "must map keys to values, got list" in refused(command("fit", "TINY", "overlay.yaml"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.detector.frames=two", "model.detector.frames: expected int, got two"),
        (
            "--model.schedule.kind=linear",
            "model.schedule.kind: expected Literal['step', 'cosine', 'constant']",
        ),
        ("--model.schedule.warmup=2", "model.schedule.warmup must be a share of all steps, 0 to 1, got 2.0"),
        ("--model.schedule.milestones=[3,2]", "model.schedule.milestones must rise, got (3, 2)"),
        ("--model.optimizer.lr=-1", "model.optimizer.lr must be above 0 and at most 10, got -1.0"),
        ("--model.optimizer.weight_decay=-1", "weight_decay must be at least 0 and at most 10, got -1.0"),
        ("--model.optimizer.lr=1e30", "model.optimizer.lr must be above 0 and at most 10, got 1e+30"),
        ("--model.schedule.gamma=-1", "model.schedule.gamma must be above 0 and at most 1, got -1.0"),
        ("--model.loss.box_weight=-1", "loss box_weight must be at least 0 and at most 1e+06, got -1.0"),
        ("--model.detector.stereo.iterations=0", "stereo iterations must be at least 1, got 0"),
        ("--model.imagenet_weights=none.pth", "model.imagenet_weights: ImageNet weights"),
        ("--data.loader.batch_size=0", "data.loader.batch_size must be at least 1"),
        ("--data.subset.max_samples=0", "data.subset.max_samples must be at least 1, got 0"),
        (
            "--data.image_size=[32,100]",
            "image_size must be (height, width) in multiples of 32 pixels, got (32, 100)",
        ),
        ("--data.root=/nowhere", "the data root must be a folder, got /nowhere"),
        ("--data.splits.train=train", "must be one of: mini_train, mini_val; got 'train'"),
        ("--data.version=v1.0-trainval", "must hold the folder v1.0-trainval"),
        ("--data.version=v1.0-test", "data.splits.train must be set: version v1.0-test"),
        (
            "--data.subset.tokens=[abc]",
            "data.subset.tokens must name key frames of split mini_train, got abc",
        ),
        ("--data.sampling.sequence_length=0", "data.sampling.sequence_length must be at least 1, got 0"),
        (
            "--data.sampling.sequence_length=4",
            "the length of sequences must be at most 3, the most key frames that follow each other in a "
            "scene of mini_train, got 4",
        ),
        ("--evaluation.class_range=0", "evaluation.class_range must be positive, in metres, got 0.0"),
        (
            "--depth_metrics.ranges=[9,3]",
            "ranges must be at least two rising distances in metres, got (9.0, 3.0)",
        ),
        ("--pictures.count=-2", "pictures.count must be -1 (all) or more, got -2"),
        ("--data.loader.batch_size=1", "data.loader.batch_size must be at least 2 where data.bev_aug is on"),
        (
            "--data.image_size=100,256",
            "got 100,256: write [100,256]",
        ),
        ("--data.classes=[car]", "unknown key 'data.classes': it is 'model.detector.head.tasks'"),
        ("--trainer.gpus=2", "unknown key 'trainer.gpus': it is 'trainer.devices'"),
        ("--trainer.precision=bf16-true", "trainer.precision must be one of 32-true, bf16-mixed, 16-mixed"),
        ("--trainer.accelerator=mps", "trainer.accelerator must be cpu, cuda or auto, got mps"),
        ("--evaluation.engine=quick", "evaluation.engine: expected Literal['devkit', 'fast'], got quick"),
        ("--ckpt_path=gone.ckpt", "no such checkpoint: gone.ckpt"),
        ("--ckpt_path=best", "no such checkpoint: outputs/tiny/checkpoints/best.ckpt"),
    ],
)
def test_wrong_value(command, option, message):
    assert message in refused(command("fit", "TINY", option))


def test_cbgs_over_chosen_key_frames(command):
    options = ["--data.sampling.cbgs=true", "--data.subset.max_samples=1"]
    assert "data.sampling.cbgs must be false where" in refused(command("fit", "TINY", *options))


@pytest.mark.parametrize("other", ["sampling.cbgs=true", "subset.max_samples=1", "subset.tokens=[abc]"])
def test_sequences_of_chosen_key_frames(command, other):
    options = ["--data.sampling.sequence_length=2", f"--data.{other}"]
    assert "data.sampling.sequence_length must be null where" in refused(command("fit", "TINY", *options))


def test_schedule_without_a_length(command):
    options = ["--trainer.max_epochs=-1", "--model.schedule.kind=cosine"]
    assert "needs the length of the run" in refused(command("fit", "TINY", *options))


def test_no_key_frame_with_enough_history(command):
    options = ["--data.history.missing=drop", "--data.history.stride=3"]
    assert "no key frame of split mini_train" in refused(command("fit", "TINY", *options))


def test_missing_root(command, tmp_path):
    (tmp_path / "empty.yaml").write_text("trainer: {max_epochs: 1}")
    assert "data.root must be set" in refused(command("fit", "empty.yaml"))


def test_data_that_cannot_be_scored_is_refused_before_training(command, world, tmp_path):
    root = tmp_path / "own"
    infos = open_infos(world, "v1.0-mini", "mini_val", progress=False)
    save_rig(infos, root, version="own", split="train", files=False)
    options = [f"--data.root={root}", "--data.version=own", "--data.splits.train=train"]
    sentence = refused(command("fit", "TINY", *options, "--data.splits.val=train"))
    assert f"scores need nuScenes tables, got none in {root / 'own'}" in sentence
    assert "--trainer.limit_val_batches 0" in sentence


def test_root_without_tables(command, tmp_path):
    assert "must hold a version folder" in refused(command("fit", "TINY", f"--data.root={tmp_path}"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_asked_for_but_absent(command):
    sentence = refused(command("fit", "TINY", "--trainer.accelerator=cuda"))
    assert "trainer.accelerator is cuda" in sentence
    assert "add --trainer.accelerator cpu" in sentence


@pytest.mark.parametrize(("channel", "workers"), [("CAM_FRONT", 0), ("CAM_FRONT", 1), ("LIDAR_TOP", 0)])
def test_missing_file(command, world, tmp_path, channel, workers):
    root = tmp_path / "world"
    shutil.copytree(world, root)
    files = sorted((root / "samples" / channel).iterdir())
    for path in files:
        path.unlink()
    sentence = refused(command("fit", "TINY", f"--data.root={root}", f"--data.loader.num_workers={workers}"))
    assert any(str(path) in sentence for path in files)
    assert "missing" in sentence


def test_checkpoint_of_another_detector(command, trained):
    options = ["--ckpt_path", trained.checkpoint, "--model.detector.head.channels=16"]
    sentence = refused(command("validate", "TINY", *options))
    assert "model.detector.head.channels is 16 here and 8 there" in sentence


def test_nan_stops_training_and_names_the_module(command, tmp_path, monkeypatch):
    (tmp_path / "breaking.py").write_text(
        "from lightning import Callback\n"
        "class Break(Callback):\n"
        "    def on_train_start(self, trainer, pl_module):\n"
        "        next(pl_module.detector.image_backbone.parameters()).data.fill_(float('inf'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = command("fit", "TINY", "--trainer.callbacks+=breaking.Break", "--pictures.count=0")
    assert result.code == 1
    assert "the first module whose output is not finite is image_backbone." in result.error.splitlines()[-1]


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, PermissionError])
def test_a_bug_keeps_its_traceback(command, tmp_path, monkeypatch, kind):
    (tmp_path / "buggy.py").write_text(
        "from lightning import Callback\n"
        "class Buggy(Callback):\n"
        "    def on_fit_start(self, trainer, pl_module):\n"
        f"        raise {kind.__name__}('a bug')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "buggy", raising=False)
    with pytest.raises(kind, match="a bug"):
        command("fit", "TINY", "--trainer.callbacks+=buggy.Buggy")


def test_the_program_exits_with_two(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bev_train.cli", "fit", "nothing.yaml"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no such config: 'nothing.yaml'")
    assert done.stdout == ""


@pytest.mark.parametrize("command_name", ["test", "predict"])
def test_results_of_no_weights(command, tmp_path, command_name):
    sentence = refused(command(command_name, "TINY", "--output=out"))
    assert f"--ckpt_path must say which weights {command_name} takes, got none" in sentence
    assert not (tmp_path / "out").exists()


def test_help_loads_nothing_heavy():
    """Torch, Lightning and numba take seconds to import; so do jsonargparse's and numpy's a part of one."""
    heavy = "torch", "lightning", "numba", "numpy", "cv2", "pyarrow", "jsonargparse", "nuscenes"
    code = (
        "import sys; from bev_train.cli import main; assert main(['--help']) == 0; "
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_public_names_are_there():
    import bev_train

    assert all(getattr(bev_train, name).__name__ == name for name in bev_train.__all__)
    with pytest.raises(AttributeError, match="no attribute 'gone'"):
        bev_train.gone  # noqa: B018


def test_help_and_configs(command):
    overview = command("--help")
    assert overview.code == 0
    for word in ("fit", "validate", "test", "predict", "configs", "quickstart", "examples:"):
        assert word in overview.output
    listing = command("configs").output.splitlines()
    names = {line.split()[0] for line in listing}
    assert names >= {"quickstart", "bev_stereo_lss_r50_256x704_128x128_24e_2key"}
    assert all(len(line.split()) > 3 for line in listing)
