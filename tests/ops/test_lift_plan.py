"""Lift-splat by a plan: what `lift_splat` gives, in every respect."""

import copy

import pytest
import torch

from bev_ops import LiftSplatPlan, lift_splat

GRID, SIZE = (2, 9, 11), (18, 53)


def case(dtype=torch.float32, seed=0):
    """Two samples of two cameras, whose points fall on and around the grid, and their projections."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.randn(2, 2, 5, *SIZE, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 2, 7, *SIZE, generator=generator, dtype=torch.float64)
    projection = torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    projection *= torch.tensor([0.04, 0.06, 0.5, 1.0])
    projection[..., 3] += torch.tensor([5.0, 4.0, 1.0])
    bins = torch.linspace(1, 4, 5)
    return depth.to(dtype), context.to(dtype), projection.float(), bins


@pytest.mark.parametrize("rounding", ["floor", "trunc"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_lift_splat_with_gradients(dtype, rounding):
    depth, context, projection, bins = case(dtype)
    plan = LiftSplatPlan(projection, bins, SIZE, GRID, rounding)
    results = []
    for function in (plan.splat, lambda d, c: lift_splat(d, c, projection, bins, GRID, rounding)):
        leaves = [depth.clone().requires_grad_(), context.clone().requires_grad_()]
        bev = function(*leaves)
        results.append([bev, *torch.autograd.grad(bev.square().sum(), leaves)])
    assert results[0][0].count_nonzero() > 100
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_serves_any_number_of_channels_and_any_strides():
    depth, context, projection, bins = case()
    plan = LiftSplatPlan(projection, bins, SIZE, GRID)
    for channels in (0, 1, 7):
        part = context[:, :, :channels]
        turned = part.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        expected = lift_splat(depth, part, projection, bins, GRID)
        assert torch.equal(plan.splat(depth, turned), expected)


def test_keeps_its_own_copy_of_the_geometry():
    depth, context, projection, bins = case()
    expected = lift_splat(depth, context, projection, bins, GRID)
    plan = LiftSplatPlan(projection, bins, SIZE, GRID)
    projection.zero_(), bins.zero_()
    assert torch.equal(plan.splat(depth, context), expected)
    assert torch.equal(copy.deepcopy(plan).splat(depth, context), expected)


@pytest.mark.parametrize("empty", ["batch", "cameras", "bins", "height", "width"])
def test_empty_input_gives_an_empty_map(empty):
    sizes = dict.fromkeys(("batch", "cameras", "bins", "height", "width"), 2) | {empty: 0}
    b, n, d, h, w = sizes.values()
    plan = LiftSplatPlan(torch.zeros(b, n, 3, 4), torch.ones(d), (h, w), GRID)
    context = torch.rand(b, n, 3, h, w, requires_grad=True)
    bev = plan.splat(torch.rand(b, n, d, h, w), context)
    assert bev.shape == (b, 3, 9, 11)
    bev.sum().backward()
    assert context.grad.shape == context.shape


def test_cameras_gone_astray_are_left_out():
    depth, context, projection, bins = case()
    projection[0, 1] = float("nan")
    plan = LiftSplatPlan(projection, bins, SIZE, GRID)
    assert torch.equal(plan.splat(depth, context), lift_splat(depth, context, projection, bins, GRID))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projection": torch.zeros(2, 3, 4)}, r"projection must have shape \[B N 3 4\], got \[2, 3, 4\]"),
        ({"depth_bins": torch.arange(5)}, "depth_bins must be floating-point, got torch.int64"),
        ({"feature_size": (4,)}, r"feature_size must be two integers \(H, W\) from 0 up, got \(4,\)"),
        ({"grid_shape": (1, 0, 4)}, r"grid_shape must be three positive integers"),
        ({"rounding": "up"}, "rounding must be one of 'floor', 'trunc', got 'up'"),
        ({"depth_bins": torch.ones(5, device="meta")}, "must be on one device, got .*depth_bins on meta"),
    ],
)
def test_wrong_plans(change, message):
    _, _, projection, bins = case()
    arguments = {"projection": projection, "depth_bins": bins, "feature_size": SIZE, "grid_shape": GRID}
    with pytest.raises(ValueError, match=f"LiftSplatPlan: .*{message}"):
        LiftSplatPlan(**{**arguments, **change})


@pytest.mark.usefixtures("unchecked_shapes")
def test_tensors_that_do_not_fit_the_plan():
    depth, context, projection, bins = case()
    plan = LiftSplatPlan(projection, bins, SIZE, GRID)
    with pytest.raises(ValueError, match=r"depth must .*\(D = 5 as in the plan\), got \[2, 2, 4, 18, 53\]"):
        plan.splat(depth[:, :, :4], context)
    with pytest.raises(ValueError, match=r"context must .*\(W = 53 as in the plan\)"):
        plan.splat(depth, context[..., :50])
    with pytest.raises(ValueError, match="context must be floating-point"):
        plan.splat(depth, context.long())
    with pytest.raises(ValueError, match="must be on one device, got plan on cpu, depth on meta"):
        plan.splat(depth.to("meta"), context.to("meta"))
