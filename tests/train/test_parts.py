"""Schedules, the search for NaN, and what processes exchange."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bev_data.errors import InputError
from bev_data.samples.augment import BevAugmentation
from bev_train.callbacks.ema import MovingAverage
from bev_train.callbacks.table import score_table
from bev_train.distributed import merge
from bev_train.errors import NonFiniteError
from bev_train.nonfinite import check_gradients, first_nonfinite_module
from bev_train.optimization import OptimizerConfig, ScheduleConfig, build_optimizer, lr_factor
from bev_train.settings.agree import check_device, check_statistics
from bev_train.shared_memory import batch_bytes, check_shared_memory

DEPTH_SCORES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")


def test_step_schedule_decays_after_whole_epochs():
    factor = lr_factor(ScheduleConfig(milestones=(2, 3)), total_steps=0, steps_per_epoch=10)
    assert [factor(step) for step in (0, 19, 20, 29, 30)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_schedule_rises_then_falls_to_zero():
    factor = lr_factor(ScheduleConfig(kind="cosine", warmup=0.1), total_steps=100, steps_per_epoch=10)
    rising = [factor(step) for step in range(10)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < 0.1
    assert factor(10) == pytest.approx(1)
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0)


def test_constant_schedule_stays():
    factor = lr_factor(ScheduleConfig(kind="constant"), total_steps=0, steps_per_epoch=1)
    assert factor(1000) == 1


@pytest.mark.parametrize(("lr", "expected"), [(None, 2e-4), (0.5, 0.5)])
def test_learning_rate_follows_the_batch_unless_given(lr, expected):
    optimizer = build_optimizer(nn.Linear(1, 1).parameters(), OptimizerConfig(lr=lr), 64, fused=False)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(1, 1)
    layer.bias.requires_grad_(False)
    optimizer = build_optimizer(layer.parameters(), OptimizerConfig(), 1, fused=False)
    assert optimizer.param_groups[0]["params"] == [layer.weight]


def test_broken_weights_are_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU())
    nn.init.constant_(model[1].bias, float("nan"))
    found = first_nonfinite_module(model, lambda: model(torch.ones(1, 2)))
    assert found == "1 (its weights bias are not finite)"
    assert first_nonfinite_module(model[:1], lambda: model[:1](torch.ones(1, 2))) is None


def test_broken_gradient_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model(torch.ones(1, 2)).sum().backward()
    check_gradients(model)
    model[1].weight.grad[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"gradient of 1\.weight is not finite"):
        check_gradients(model)


def test_first_value_of_a_shared_key_counts():
    assert merge([{"a": 1, "b": 2}, {"b": 3, "c": 4}]) == {"a": 1, "b": 2, "c": 4}


def test_score_table_leaves_out_what_is_missing():
    table = score_table({"mAP": 0.25, "AP/car": 0.5}, "title")
    assert table.splitlines() == ["title", "  mAP 0.250", "  car 0.500"]


def test_score_table_lays_out_depth_errors():
    scores = {f"depth{row}_{score}": 0.5 for row in ("", "_mono_10_20m") for score in DEPTH_SCORES}
    head, *rows = score_table(scores | {"depth": 7.0}, "title").splitlines()[1:]
    assert head.split() == list(DEPTH_SCORES)
    assert [line.split()[:-7] for line in rows] == [["depth"], ["depth", "mono", "10", "20m"]]


def test_no_accelerator_of_a_mac_is_taken_by_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    settings = SimpleNamespace(accelerator="auto")
    check_device(settings)
    assert settings.accelerator == "cpu"
    with pytest.raises(InputError, match="must be cpu, cuda or auto, got gpu"):
        check_device(SimpleNamespace(accelerator="gpu"))


def test_statistics_of_one_augmented_sample_are_refused():
    check_statistics(batch_size=1, bev_aug=None, processes=1)
    check_statistics(batch_size=1, bev_aug=BevAugmentation(), processes=8)
    check_statistics(batch_size=2, bev_aug=BevAugmentation(), processes=1)
    with pytest.raises(InputError, match="at least 2 where data"):
        check_statistics(batch_size=1, bev_aug=BevAugmentation(), processes=1)


def test_workers_that_shared_memory_has_no_room_for_are_refused(tmp_path):
    data = SimpleNamespace(
        image_size=(256, 704), cameras=("a",) * 6, history=SimpleNamespace(frames=1), lidar_depth=True
    )
    assert batch_bytes(data, 8) == 86_507_520
    check_shared_memory([data], 8, 0, 1, tmp_path)
    check_shared_memory([data], 8, 4, 1, tmp_path / "none")
    free = shutil.disk_usage(tmp_path).free
    too_many = free // (2 * 86_507_520) + 2
    with pytest.raises(
        InputError, match=f"for {too_many} workers x 2 of 87 MB x 1 processes, but .* --shm-size"
    ):
        check_shared_memory([data], 8, too_many, 1, tmp_path)


def test_moving_averages_move_together(monkeypatch):
    """One call for all weights of a kind; no number is read back from the device."""
    average = MovingAverage(0.9, 0)
    before = [torch.randn(3), torch.randn(2, 2)]
    after = [torch.randn(3), torch.randn(2, 2)]
    expected = [a + (b - a) * (1 - 0.9) for a, b in zip(before, after, strict=True)]
    for method in ("item", "__int__", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, method, None)
    average.average(before, after, torch.tensor(7))
    monkeypatch.undo()
    for ours, theirs in zip(before, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    counts = [torch.tensor(3)]
    average.average(counts, [torch.tensor(5)], torch.tensor(7))
    assert counts[0] == 5
