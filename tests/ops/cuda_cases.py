"""Cases that the CUDA kernels must pass, on GPUs and in their emulation: each compares with the definitions.

`kernels` are the ops as `bev_ops.operators.kernels.Kernels` has them, `device` is where their tensors lie.
"""

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from bev_ops import reference
from bev_ops.operators.kernels import Kernels

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
            [
                [math.sin(angle), 0.02, math.cos(angle)],
                [-math.cos(angle), 0.01, math.sin(angle)],
                [0, -1, 0.03],
            ]
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


def any_pool(data: st.DataObject) -> tuple[Tensor, Tensor, tuple[int, int, int], str]:
    """Arguments of a voxel pooling of any size, layout and dtype."""
    draw, order = data.draw, st.permutations(range(3))
    batch, points, channels = draw(st.integers(0, 2)), draw(st.integers(0, 60)), draw(st.integers(0, 40))
    grid = draw(st.tuples(*[st.integers(1, 9)] * 3))
    value_type = draw(st.sampled_from(FLOATS))
    coord_type = draw(st.sampled_from([*FLOATS, torch.int64, torch.int32, torch.int16, torch.uint8]))
    numbers = [0.0, -0.0, -0.5, -1.0, 0.99, 1.0, 3.5, 8.0, 9.0, 200.0]
    if coord_type.is_floating_point:
        numbers += [math.nan, math.inf, -math.inf, 1e9 if coord_type != torch.float16 else 6e4]
    else:
        numbers = [max(number, -5.0 if coord_type.is_signed else 0.0) for number in numbers]
    seed, gap = draw(st.integers(0, 99)), draw(st.integers(1, 2))
    choice = strided((batch, points, 3), draw(order), gap, torch.float64, seed)
    picks = (choice.abs() * 1000).long() % len(numbers)
    coords = torch.tensor(numbers, dtype=torch.float64)[picks].to(coord_type)
    features = strided((batch, points, channels), draw(order), gap, value_type, seed)
    return coords, features, grid, draw(st.sampled_from(["floor", "trunc"]))


def check_voxel_pooling(
    kernels: Kernels,
    device: str,
    coords: Tensor,
    features: Tensor,
    grid: tuple[int, int, int],
    rounding: str,
) -> None:
    leaf = features.detach().requires_grad_()
    wanted = reference.voxel_pooling(coords, leaf, grid, rounding)
    inputs = coords.to(device), features.to(device)
    assert_close(kernels.voxel_pooling(*inputs, list(grid), rounding), wanted, features.dtype)
    towards = torch.randn_like(wanted)
    (expected,) = gradients(wanted, [leaf], towards)
    got = kernels.voxel_pooling_backward(towards.to(device), inputs[0], list(grid), rounding)
    assert_close(got, expected, features.dtype)


def sweep(
    batch: int,
    channels: int,
    source: tuple[int, int],
    view: tuple[int, int, int],
    dtype: torch.dtype,
    places: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reference, source, projection and depth of a camera that moved forward and turned a little."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    projection = torch.eye(3, 4, dtype=torch.float64) + 0.02 * normal(batch, 3, 4)
    projection[:, :, 3] += torch.tensor([3.0, 1.0, -0.7], dtype=torch.float64)
    depth = 4 + 2 * normal(batch, *view)
    maps = normal(batch, channels, *view[1:]), normal(batch, channels, *source)
    return maps[0].to(dtype), maps[1].to(dtype), projection.to(places), depth.to(places)


def any_sweep(data: st.DataObject) -> tuple[Tensor, Tensor, Tensor, Tensor, int, str]:
    """Arguments of a plane sweep of any size, layout and dtype, with positions anywhere and nowhere."""
    draw, order, size = data.draw, st.permutations(range(4)), st.integers(0, 7)
    batch, height, width, source_height, source_width = (
        draw(st.integers(0, 2)),
        *(draw(size) for _ in range(4)),
    )
    hypotheses = draw(st.integers(0, 17))
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(0, 20))
    floats, seed, gap = st.sampled_from(FLOATS), draw(st.integers(0, 99)), draw(st.integers(1, 2))
    ref = strided((batch, channels, height, width), draw(order), gap, draw(floats), seed)
    source = strided((batch, channels, source_height, source_width), draw(order), gap, draw(floats), seed)
    entry = st.sampled_from([0.0, 0.25, -0.25, 0.5, 1.0, -1.0, 3.0, 1e9, math.inf, math.nan])
    matrices = [draw(st.lists(entry, min_size=12, max_size=12)) for _ in range(batch)]
    projection = torch.tensor(matrices, dtype=torch.float64).view(batch, 3, 4)
    metres = torch.tensor([0.0, -1.0, 0.5, 1.0, 2.0, 8.0, 1e9, 1e-3, math.nan, math.inf], dtype=torch.float64)
    choice = strided((batch, hypotheses, height, width), draw(order), gap, torch.float64, seed + 1)
    depth = metres[(choice.abs() * 1000).long() % len(metres)]
    return ref, source, projection, depth, groups, draw(st.sampled_from(["zero", "corner"]))


def check_plane_sweep(
    kernels: Kernels,
    device: str,
    ref: Tensor,
    source: Tensor,
    projection: Tensor,
    depth: Tensor,
    groups: int,
    behind: str,
    slopes: bool = True,
) -> None:
    """Correlation and warp with their gradients; `slopes`: that of depth too, which must be defined then."""
    dtypes = [ref.dtype, source.dtype]
    if torch.float64 not in (projection.dtype, depth.dtype):
        # The definition's detour over grid_sample's coordinates rounds positions in float32 once more.
        dtypes.append(torch.float16)
    leaves = [x.detach().requires_grad_() for x in (ref, source, depth)]
    r, s, d = leaves
    to = [x.to(device) for x in (ref, source, projection, depth)]
    wanted = reference.plane_sweep_correlation(r, s, projection, d, groups, behind)
    assert_close(kernels.plane_sweep_correlation(*to, groups, behind), wanted, *dtypes)
    towards = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    towards = towards.to(wanted.dtype)
    expected = gradients(wanted, leaves, towards)
    got = kernels.plane_sweep_backward(towards.to(device), *to, groups, behind, [True, True, slopes])
    for grad, other in zip(got[: 2 + slopes], expected, strict=False):
        assert_close(grad, other, *dtypes)
    for part in range(2 + slopes):
        flags = [n == part for n in range(3)]
        alone = kernels.plane_sweep_backward(towards.to(device), *to, groups, behind, flags)
        assert_close(alone[part], expected[part], *dtypes)
        assert all(alone[n].numel() == 0 for n in range(3) if n != part)

    wanted = reference.homography_warp(s, projection, d, behind)
    assert_close(kernels.homography_warp(*to[1:], behind), wanted, *dtypes)
    towards = torch.randn_like(wanted)
    expected = gradients(wanted, [s, d], towards)
    got = kernels.plane_sweep_backward(towards.to(device), None, *to[1:], 0, behind, [False, True, slopes])
    for grad, other in zip(got[1 : 2 + slopes], expected, strict=False):
        assert_close(grad, other, *dtypes)
