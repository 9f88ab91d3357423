"""The compiled kernels as citizens of torch: operator checks, derivatives, compilation, export."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bev_ops
from bev_ops import _native_ops

if _native_ops.native is None:
    pytest.skip("bev-ops is installed without its compiled kernels", allow_module_level=True)

GRID = (1, 6, 7)
Call = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


def lift(dtype: torch.dtype = torch.float64) -> Call:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(1, 2, 3, 4, 5, generator=generator, dtype=dtype, requires_grad=True)
    context = torch.rand(1, 2, 3, 4, 5, generator=generator, dtype=dtype, requires_grad=True)
    projection = torch.rand(1, 2, 3, 4, generator=generator, dtype=torch.float64).float()
    projection[:, :, 2] = 0
    bins = torch.tensor([0.5, 1.0, 1.5])
    return lambda d, c: bev_ops.lift_splat(d, c, projection, bins, GRID), (depth, context)


def pool(dtype: torch.dtype = torch.float64) -> Call:
    generator = torch.Generator().manual_seed(0)
    coords = torch.randint(-1, 8, (2, 9, 3), generator=generator)
    features = torch.rand(2, 9, 4, generator=generator, dtype=dtype, requires_grad=True)
    return lambda f: bev_ops.voxel_pooling(coords, f, GRID), (features,)


def _views(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(1, 4, 3, 3, generator=generator, dtype=dtype, requires_grad=True)
    source = torch.rand(1, 4, 4, 5, generator=generator, dtype=dtype, requires_grad=True)
    projection = torch.eye(3, 4, dtype=dtype)[None].clone()
    projection[0, :, 3] = torch.tensor([0.61, 0.37, -0.2], dtype=dtype)
    depth = 1 + torch.rand(1, 2, 3, 3, generator=generator, dtype=dtype)
    return reference, source, projection, depth.requires_grad_()


def correlation(dtype: torch.dtype = torch.float64) -> Call:
    reference, source, projection, depth = _views(dtype)
    return (
        lambda r, s, d: bev_ops.plane_sweep_correlation(r, s, projection, d, 2),
        (reference, source, depth),
    )


def warp(dtype: torch.dtype = torch.float64) -> Call:
    _, source, projection, depth = _views(dtype)
    return lambda s, d: bev_ops.homography_warp(s, projection, d), (source, depth)


OPS = pytest.mark.parametrize("make", [lift, pool, correlation, warp])


@OPS
def test_derivatives(make: Callable[..., Call]) -> None:
    function, leaves = make()
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


untraceable = pytest.mark.skipif(
    hasattr(bev_ops.lift_splat, "__wrapped__"),
    reason="torch cannot trace the shape checks: run with BEV_TYPECHECK=0",
)


@untraceable
@OPS
def test_compiles_whole(make: Callable[..., Call]) -> None:
    function, leaves = make(torch.float32)
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    outs = [f(*leaves) for f in (function, compiled)]
    grads = [torch.autograd.grad(out.square().sum(), leaves) for out in outs]
    assert torch.equal(*outs)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@OPS
def test_exports(make: Callable[..., Call]) -> None:
    function, leaves = make(torch.float32)

    class Module(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return function(*inputs)

    exported = torch.export.export(Module(), leaves)
    assert torch.equal(exported.module()(*leaves), function(*leaves))


@untraceable
# opcheck looks at the gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_their_promises(dtype: torch.dtype) -> None:
    operators = torch.ops.bev_ops
    _, (depth, context) = lift(dtype)
    projection, bins = torch.rand(1, 2, 3, 4), torch.rand(3)
    torch.library.opcheck(operators.lift_splat.default, (depth, context, projection, bins, GRID, "floor"))
    grad = torch.rand(1, 3, 6, 7, dtype=dtype)
    torch.library.opcheck(
        operators.lift_splat_backward.default,
        (grad, depth, context, projection, bins, GRID, "floor", [True, False]),
    )
    coords = torch.randint(0, 6, (2, 9, 3))
    features = torch.rand(2, 9, 4, dtype=dtype, requires_grad=True)
    torch.library.opcheck(operators.voxel_pooling.default, (coords, features, GRID, "floor"))
    reference, source, matrices, planes = _views(dtype)
    matrices, planes = matrices.float(), planes.detach().float()
    torch.library.opcheck(operators.homography_warp.default, (source, matrices, planes, "zero"))
    torch.library.opcheck(
        operators.plane_sweep_correlation.default, (reference, source, matrices, planes, 2, "zero")
    )


def test_other_devices_run_the_definition() -> None:
    features = torch.rand(1, 5, 4, device="meta")
    coords = torch.zeros(1, 5, 3, dtype=torch.int64, device="meta")
    assert not _native_ops.runs(features.device)
    assert not _native_ops.runs(coords.device)


def test_autocast_leaves_sums_in_float32() -> None:
    function, leaves = lift(torch.float32)
    plain = function(*leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = function(*leaves)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
