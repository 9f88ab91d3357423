"""Shipped configs, what they are based on, and the published preset."""

import math

import pytest
import torch
import yaml

from bev_data.samples.dataset import PUBLISHED_DATA_QUIRKS
from bev_models import PUBLISHED_QUIRKS
from bev_train.callbacks.ema import MovingAverage
from bev_train.settings.bases import layers
from bev_train.settings.find import shipped_configs

STEM = "bev_stereo_lss_r50_256x704_128x128_"
EMA = {"ema": 0.999, "model.schedule.kind": "constant"}
KEY4 = {"data.history.source": "sweeps", "data.history.stride": 5}
DA = {
    "data.sampling.cbgs": True,
    "model.detector.depth_net.aggregation": True,
    "model.optimizer.lr_per_image": 2e-4 / 32,
    "model.optimizer.weight_decay": 1e-2,
    "model.schedule.milestones": [16, 19],
    "trainer.max_epochs": 20,
}
# What sets each experiment apart from the first, and nothing else does.
EXPERIMENTS = {
    STEM + "24e_2key_ema": EMA,
    STEM + "24e_key4": KEY4,
    STEM + "24e_key4_ema": KEY4 | EMA,
    STEM + "20e_cbgs_2key_da": DA,
    STEM + "20e_cbgs_2key_da_ema": DA | EMA,
    "bev_depth_lss_r50_256x704_128x128_24e_2key": {"model.detector.stereo": None},
}


def flat(value, prefix=""):
    """A nested mapping by full keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf
        for name, item in value.items()
        for key, leaf in flat(item, f"{prefix}.{name}" if prefix else name).items()
    }


@pytest.fixture
def resolved(command):
    """All settings of a run by full keys, as `--print_config` tells them."""

    def resolve(*arguments):
        result = command("fit", *arguments, "--print_config")
        assert result.code == 0, result.error
        return flat(yaml.safe_load(result.output))

    return resolve


def test_first_experiment(resolved):
    found = resolved(STEM + "24e_2key")
    expected = {
        "published": True,
        "ema": None,
        "data.image_size": [256, 704],
        "data.history.source": "key_frames",
        "data.history.stride": 1,
        "data.sampling.cbgs": False,
        "data.loader.batch_size": 8,
        "data.image_aug.resize": [0.386, 0.55],
        "data.image_aug.resize_unit": "absolute",
        "data.image_aug.rotate_deg": 5.4,
        "data.bev_aug.rotate_deg": 22.5,
        "model.detector.frames": 2,
        "model.detector.depth_net.aggregation": False,
        "model.detector.head.heatmap_prior": None,
        "ema_warmup": 0,
        "model.optimizer.lr": None,
        "model.optimizer.lr_per_image": 2e-4 / 64,
        "model.optimizer.weight_decay": 1e-7,
        "model.schedule.kind": "step",
        "model.schedule.milestones": [19, 23],
        "model.schedule.gamma": 0.1,
        "model.schedule.warmup": 0,
        "model.loss.box_weight": 0.25,
        "model.loss.depth_weight": 3,
        "trainer.max_epochs": 24,
        "trainer.precision": "16-mixed",
        "trainer.gradient_clip_val": 5,
    }
    assert {key: found[key] for key in expected} == expected


def test_experiments_differ_as_published_and_in_nothing_else(resolved):
    first = resolved(STEM + "24e_2key")
    for name, differences in EXPERIMENTS.items():
        found = resolved(name)
        if "model.detector.stereo" in differences:
            parts = [key for key in first if key.startswith("model.detector.stereo.")]
            assert parts
            found |= {key: first[key] for key in parts}
            first["model.detector.stereo"] = "on"
        changed = {key: found.get(key) for key in found.keys() | first if found.get(key) != first.get(key)}
        assert changed == differences, name


def test_every_experiment_is_shipped():
    assert {STEM + "24e_2key", "quickstart", *EXPERIMENTS} == set(shipped_configs())


def test_the_published_preset_is_one_switch(resolved):
    """It turns on every quirk of data and detector, and nothing else."""
    off = resolved("TINY")
    on = resolved("TINY", "--published", "true")
    changed = {key: on[key] for key in on if on[key] != off.get(key)}
    assert changed.pop("published") is True
    quirks = vars(PUBLISHED_QUIRKS)
    assert changed == {
        **{f"model.detector.quirks.{name}": value for name, value in quirks.items()},
        **{f"data.quirks.{name}": value for name, value in vars(PUBLISHED_DATA_QUIRKS).items()},
    }


def test_single_quirks_win_over_the_preset(resolved):
    found = resolved(
        "TINY", "--published=true", "--model.detector.quirks.color", "rgb", "--data.quirks.keyego", "lidar"
    )
    assert found["model.detector.quirks.color"] == "rgb"
    assert found["model.detector.quirks.rounding"] == "trunc"
    assert found["data.quirks.keyego"] == "lidar"
    assert found["data.quirks.depth_rule"] == "published"


def test_where_the_switch_is_set_last_counts(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("published: true\n")
    second.write_text("published: false\n")
    assert len(layers([first], [])) == 2
    assert len(layers([first, second], [])) == 2
    assert len(layers([second, first], [])) == 3
    assert len(layers([first], ["--published", "false"])) == 1
    assert len(layers([second], ["--published=true"])) == 2


def test_bases_lie_beneath_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    files = [tmp_path / "sub" / f"{name}.yaml" for name in "abc"]
    files[0].write_text("trainer: {max_epochs: 1}\n")
    files[1].write_text("base: a.yaml\n")
    files[2].write_text("base: b.yaml\n")
    assert [layer.path.name for layer in layers([files[2]], [])] == ["a.yaml", "b.yaml", "c.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: own.yaml\n", "must not be based on each other"),
        ("base: nothing\n", "no such config: 'nothing'"),
        ("base: [a, b]\n", "base in own.yaml must be the name or path of one config"),
        ("published: 3\n", "published: expected bool, got 3"),
    ],
)
def test_bases_and_switches_that_cannot_be(command, tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    result = command("fit", "own.yaml", "--print_config")
    assert result.code == 2
    assert message in result.error


def test_moving_average_rises_as_published():
    average = MovingAverage(0.999, 2000)
    # Decay and average of the reference over steps that each see the value 2, beginning from 1.
    weight = torch.ones(1, dtype=torch.float64)
    for step, decay, expected in (
        (1, 4.99375146e-04, 1.99950063),
        (2, 9.98500666e-04, 1.99999952),
        (3, 1.49737669e-03, 2.0),
    ):
        assert average.decay_at(step) == pytest.approx(decay, rel=1e-6)
        average.steps = step
        average.average([weight], [torch.full_like(weight, 2.0)], None)
        assert weight.item() == pytest.approx(expected, rel=1e-7)
    assert average.decay_at(16882) == pytest.approx(9.98784382e-01, rel=1e-8)
    assert MovingAverage(0.999, 0).decay_at(1) == 0.999
    assert math.isclose(average.decay_at(10**6), 0.999)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--ema", "1"], "ema must be a decay between 0 and 1"), (["--ema_warmup", "-1"], "ema_warmup must be")],
)
def test_averages_that_cannot_be(command, options, message):
    result = command("fit", "TINY", "--ema", "0.9", *options)
    assert result.code == 2
    assert message in result.error
