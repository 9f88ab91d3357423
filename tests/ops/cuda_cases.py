"""Cases that the CUDA kernels must pass, on GPUs and in their emulation: each compares with the definitions.

`kernels` are the ops as `bev_ops._cuda_ops.Kernels` has them, `device` is where their tensors lie.
"""

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from bev_ops import reference
from bev_ops._cuda_ops import Kernels

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Relative norm of the error, by the coarsest dtype that takes part.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def assert_close(got: Tensor, wanted: Tensor, *dtypes: torch.dtype) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    got = got.detach().cpu().double()
    wanted = wanted.detach().cpu().double()
    assert torch.equal(got.isnan(), wanted.isnan())
    tolerance = max(TOLERANCE[dtype] for dtype in dtypes)
    error = (got.nan_to_num() - wanted.nan_to_num()).norm()
    assert error <= tolerance * (wanted.nan_to_num().norm() + 1e-6)


def strided(shape: Sequence[int], order: Sequence[int], gap: int, dtype: torch.dtype, seed: int) -> Tensor:
    """A random tensor whose axes lie in memory in the given order, the last with gaps."""
    generator = torch.Generator().manual_seed(seed)
    memory = [shape[axis] for axis in order]
    memory[-1] *= gap
    values = torch.randn(memory, generator=generator, dtype=torch.float64).to(dtype)
    return values[..., ::gap].permute([list(order).index(axis) for axis in range(len(shape))])


def rig(cameras: int, height: int, width: int, grid: tuple[int, int, int], roll: float = 0.0) -> Tensor:
    """Projections [1, N, 3, 4] of cameras that look around a circle; `roll` turns their images, radians."""
    cells = torch.tensor([grid[2] / 102.4, grid[1] / 102.4, grid[0] / 8.0])
    turn = torch.tensor(
        [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
    )
    rays = torch.tensor([[1 / width, 0, -0.5], [0, 0.4 / height, -0.2], [0, 0, 1.0]])
    matrices = torch.zeros(1, cameras, 3, 4)
    for n in range(cameras):
        angle = 2 * math.pi * n / cameras + 0.3
        axes = torch.tensor(
            [[math.sin(angle), 0.02, math.cos(angle)], [-math.cos(angle), 0.01, math.sin(angle)], [0, -1, 0.03]]
        )
        matrices[:, n, :, :3] = (axes @ turn @ rays) * cells[:, None]
        matrices[:, n, :, 3] = torch.tensor([51.2, 51.2, 6.5]) * cells
    return matrices


def gradients(out: Tensor, leaves: Sequence[Tensor], towards: Tensor) -> list[Tensor]:
    """Gradients of a definition, zeros where it returns a constant."""
    if not out.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(out, leaves, towards, materialize_grads=True))


# Quarters and halves put many points on the very borders of cells.
ENTRIES = st.sampled_from([0.0, 0.25, -0.25, 0.5, 1.0, -1.0, 3.0, 1e9, -1e9, math.inf, math.nan])


def any_lift(
    data: st.DataObject,
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, int, int], str]:
    """Arguments of a lift-splat of any size, layout and dtype, with points on borders and nowhere."""
    draw, order = data.draw, st.permutations(range(5))
    batch, cameras = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    bins, height, width, channels = (draw(st.integers(0, 19)) for _ in range(4))
    grid = draw(st.tuples(*[st.integers(1, 9)] * 3))
    floats, seed, gap = st.sampled_from(FLOATS), draw(st.integers(0, 99)), draw(st.integers(1, 2))
    places = draw(st.sampled_from([torch.float32, torch.float64]))
    depth = strided((batch, cameras, bins, height, width), draw(order), gap, draw(floats), seed)
    context = strided((batch, cameras, channels, height, width), draw(order), gap, draw(floats), seed + 1)
    matrices = [draw(st.lists(ENTRIES, min_size=12, max_size=12)) for _ in range(batch * cameras)]
    projection = torch.tensor(matrices, dtype=places).view(batch, cameras, 3, 4)
    metres = st.sampled_from([0.0, -1.0, 0.5, 1.0, 2.0, 8.0, 1e9, math.nan, math.inf])
    depth_bins = torch.tensor(draw(st.lists(metres, min_size=bins, max_size=bins)), dtype=torch.float32)
    return depth, context, projection, depth_bins, grid, draw(st.sampled_from(["floor", "trunc"]))


def check_lift_splat(
    kernels: Kernels,
    device: str,
    depth: Tensor,
    context: Tensor,
    projection: Tensor,
    bins: Tensor,
    grid: tuple[int, int, int],
    rounding: str,
) -> None:
    dtypes = depth.dtype, context.dtype, torch.float32 if projection.dtype != torch.float64 else depth.dtype
    leaves = [depth.detach().requires_grad_(), context.detach().requires_grad_()]
    wanted = reference.lift_splat(*leaves, projection, bins, grid, rounding)
    towards = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    towards = towards.to(wanted.dtype)
    inputs = depth.to(device), context.to(device), projection.to(device), bins.to(device)
    assert_close(kernels.lift_splat(*inputs, list(grid), rounding), wanted, *dtypes)
    grads = gradients(wanted, leaves, towards)
    got = kernels.lift_splat_backward(towards.to(device), *inputs, list(grid), rounding, [True, True])
    for grad, expected in zip(got, grads, strict=True):
        assert_close(grad, expected, *dtypes)
    for part, flags in enumerate(([True, False], [False, True])):
        alone = kernels.lift_splat_backward(towards.to(device), *inputs, list(grid), rounding, flags)
        assert torch.equal(alone[part].nan_to_num(), got[part].nan_to_num())
        assert alone[1 - part].numel() == 0
