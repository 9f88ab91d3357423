"""Schedules, the search for NaN, and what processes exchange."""

import pytest
import torch
from torch import nn

from bev_train.callbacks.table import score_table
from bev_train.distributed import merge
from bev_train.errors import NonFiniteError
from bev_train.nonfinite import check_gradients, first_nonfinite_module
from bev_train.optimization import OptimizerConfig, ScheduleConfig, build_optimizer, lr_factor

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
