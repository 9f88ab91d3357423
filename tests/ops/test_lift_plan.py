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
