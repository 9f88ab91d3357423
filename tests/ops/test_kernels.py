"""The compiled kernels against the plain-torch definitions."""

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bev_ops
from bev_ops import devices, reference

from .test_operators import operator_calls

if devices.native is None:
    pytest.skip("bev-ops is installed without its compiled kernels", allow_module_level=True)

CASES = int(os.environ.get("BEV_OPS_CASES", "2000"))
INSTRUCTION_SETS = devices.native.cpu.instruction_sets().split()
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
PRECISE = [torch.float32, torch.float64]
# Error of a result over the sum of magnitudes it is made of, by the dtype of the result.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    devices.select(request.param)
    yield request.param
    devices.select(INSTRUCTION_SETS[0])


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(function: Callable[..., Tensor], leaves: list[Tensor], towards: Tensor | None = None) -> list[Tensor]:
    """A result and its gradients with respect to all leaves, towards given numbers or random ones."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    if towards is None:
        towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Where there is nothing to warp a definition returns a constant.
    if not out.requires_grad:
        return [out, *map(torch.zeros_like, leaves)]
    grads = torch.autograd.grad(out, leaves, towards.to(out.dtype), materialize_grads=True)
    return [out.detach(), *grads]


def compare(
    native: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    values: list[Tensor],
    places: list[Tensor] | None = None,
    near: dict[torch.dtype, float] | None = None,
) -> Tensor:
    """The same result, and the same gradients towards random directions, as the definition in float64.

    The definition gets `values` as float64 and everything that says where points fall as it is: it decides
    about cells in the arithmetic of the kernels (float32 unless a matrix or a distance is float64) and sums
    in float64. Each element may differ by TOLERANCE times the sum of magnitudes it is made of, which the
    definition gives for the absolute values, plus `near`, by the dtype that the kernels sum in. Gradients
    with respect to `places` have no such sum and are compared by norm. Returns the result.
    """
    places = places or []
    out, *grads = run(native, values + places)
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    towards = towards.to(out.dtype).double()
    doubles = [value.double() for value in values]
    exact = run(plain, doubles + places, towards)
    sums = torch.float64 if torch.float64 in [value.dtype for value in values] else torch.float32
    size = run(plain, [*(value.abs() for value in doubles), *places], towards.abs())
    for got, wanted, most in zip([out, *grads[: len(values)]], exact, size, strict=False):
        assert got.shape == wanted.shape
        # The last term is a step of the smallest numbers of half precision.
        slack = (near or {}).get(sums, 0.0) + torch.finfo(got.dtype).smallest_normal
        bound = TOLERANCE[max(got.dtype, sums, key=TOLERANCE.__getitem__)] * most + slack
        error = (got.double() - wanted).abs()
        assert (error <= bound).all(), f"{(error / bound).max():.1f} times the error that is allowed"
    for got, wanted in zip(grads[len(values) :], exact[1 + len(values) :], strict=True):
        assert got.dtype == wanted.dtype
        assert (got - wanted).norm() <= 1e-5 * wanted.norm()
    return out


def rig(cameras: int, height: int, width: int, grid: tuple[int, int, int], batch: int = 1) -> Tensor:
    """Projections of cameras that look around a circle, slightly tilted."""
    cells = torch.tensor([grid[2] / 102.4, grid[1] / 102.4, grid[0] / 8.0])
    matrices = torch.zeros(batch, cameras, 3, 4)
    for n in range(cameras):
        angle = 2 * math.pi * n / cameras + 0.3
        axes = torch.tensor(
            [
                [math.sin(angle), 0.02, math.cos(angle)],
                [-math.cos(angle), 0.01, math.sin(angle)],
                [0, -1, 0.03],
            ]
        )
        rays = torch.tensor(
            [[1 / width, 0, -0.5], [0, 0.4 / height, -0.2], [0, 0, 1.0]],
        )
        matrices[:, n, :, :3] = (axes @ rays) * cells[:, None]
        matrices[:, n, :, 3] = torch.tensor([51.2, 51.2, 6.5]) * cells
    return matrices


def strided(shape: tuple[int, ...], order: list[int], gap: int, dtype: torch.dtype, seed: int) -> Tensor:
    """A random tensor whose axes lie in memory in the given order, the last with gaps."""
    generator = torch.Generator().manual_seed(seed)
    memory = [shape[axis] for axis in order]
    memory[-1] *= gap
    values = torch.randn(memory, generator=generator, dtype=torch.float64).to(dtype)
    return values[..., ::gap].permute([order.index(axis) for axis in range(len(shape))])


def pick(numbers: list[float], shape: tuple[int, ...], seed: int) -> Tensor:
    """Some of the numbers, drawn anew for every element; the first ones, which do no harm, more often."""
    generator = torch.Generator().manual_seed(seed)
    harm = torch.rand((), generator=generator, dtype=torch.float64)
    odds = torch.linspace(1, float(harm), len(numbers), dtype=torch.float64).clamp(min=0)
    values = torch.tensor(numbers, dtype=torch.float64)
    count = math.prod(shape)
    if count == 0:
        return torch.zeros(shape, dtype=torch.float64)
    return values[torch.multinomial(odds, count, replacement=True, generator=generator)].view(shape)


# Lift-splat


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounding", ["floor", "trunc"])
@pytest.mark.parametrize("channels", [1, 17, 80, 130])
def test_lift_splat_of_a_rig(instruction_set: str, dtype: torch.dtype, rounding: str, channels: int) -> None:
    torch.manual_seed(0)
    grid, (height, width) = (1, 32, 40), (18, 21)
    projection = rig(2, height, width, grid, batch=2)
    bins = torch.linspace(1, 60, 30)
    depth = torch.randn(2, 2, 30, height, width, dtype=dtype)
    context = torch.randn(2, 2, channels, height, width, dtype=dtype)
    compare(
        lambda d, c: bev_ops.lift_splat(d, c, projection, bins, grid, rounding),
        lambda d, c: reference.lift_splat(d, c, projection, bins, grid, rounding),
        [depth, context],
    )


@settings(max_examples=CASES, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_lift_splat_of_anything(data: st.DataObject) -> None:
    size = st.integers(0, 19)
    batch, cameras = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
    bins, height, width, channels = (data.draw(size) for _ in range(4))
    grid = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    rounding = data.draw(st.sampled_from(["floor", "trunc"]))
    depth_type, context_type = data.draw(st.sampled_from(FLOATS)), data.draw(st.sampled_from(FLOATS))
    order = st.permutations(range(5))
    seed, gap = data.draw(st.integers(0, 9999)), data.draw(st.integers(1, 2))
    depth = strided((batch, cameras, bins, height, width), data.draw(order), gap, depth_type, seed)
    context = strided(
        (batch, cameras, channels, height, width), data.draw(order), gap, context_type, seed + 1
    )
    # Quarters and halves put many points on the very borders of cells.
    entries = [0.0, 0.25, -0.25, 0.5, 1.0, -1.0, 3.0, 1e9, -1e9, 3e38, -math.inf, math.inf, math.nan]
    projection = pick(entries, (batch, cameras, 3, 4), seed).to(data.draw(st.sampled_from(PRECISE)))
    metres = [0.0, -1.0, 0.5, 1.0, 2.0, 8.0, 1e9, -1e9, 3e38, math.nan, math.inf]
    depth_bins = pick(metres, (bins,), seed + 1).float()
    compare(
        lambda d, c: bev_ops.lift_splat(d, c, projection, depth_bins, grid, rounding),
        lambda d, c: reference.lift_splat(d, c, projection, depth_bins, grid, rounding),
        [depth, context],
    )
    plan = bev_ops.LiftSplatPlan(projection, depth_bins, (height, width), grid, rounding)
    at_once = bev_ops.lift_splat(depth, context, projection, depth_bins, grid, rounding)
    assert torch.equal(plan.splat(depth, context), at_once)
    assert at_once.dtype == context_type


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_lift_splat_keeps_bad_values_in_their_cells(instruction_set: str, bad: float) -> None:
    torch.manual_seed(0)
    grid, size = (1, 16, 16), (16, 16)
    projection, bins = rig(2, *size, grid), torch.linspace(1, 60, 12)
    depth, context = torch.rand(1, 2, 12, *size), torch.rand(1, 2, 5, *size)
    depth[0, 0, 3, 4, 5] = bad
    context[0, 1, 2, 7, 7] = bad
    got = bev_ops.lift_splat(depth, context, projection, bins, grid)
    wanted = reference.lift_splat(depth, context, projection, bins, grid, "floor")
    assert torch.equal(got.isfinite(), wanted.isfinite())

    towards = torch.rand(1, 5, 16, 16)
    towards[0, 1, 9, 9] = bad
    grads = []
    for function in (bev_ops.lift_splat, reference.lift_splat):
        leaves = [torch.rand_like(depth).requires_grad_(), torch.rand_like(context).requires_grad_()]
        out = function(*leaves, projection, bins, grid, "floor")
        grads.append(torch.autograd.grad(out, leaves, towards))
    for native, plain in zip(*grads, strict=True):
        assert torch.equal(native.isfinite(), plain.isfinite())


# Voxel pooling


@settings(max_examples=CASES, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_voxel_pooling_of_anything(data: st.DataObject) -> None:
    batch, points, channels = (
        data.draw(st.integers(0, 2)),
        data.draw(st.integers(0, 60)),
        data.draw(st.integers(0, 40)),
    )
    grid = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    rounding = data.draw(st.sampled_from(["floor", "trunc"]))
    value_type = data.draw(st.sampled_from(FLOATS))
    coord_type = data.draw(st.sampled_from([*FLOATS, torch.int64, torch.int32, torch.int16, torch.uint8]))
    numbers = [0.0, -0.0, -0.5, -1.0, 0.99, 1.0, 3.5, 8.0, 9.0, 200.0]
    if coord_type.is_floating_point:
        numbers += [math.nan, math.inf, -math.inf, 1e9 if coord_type != torch.float16 else 6e4]
    seed, gap = data.draw(st.integers(0, 9999)), data.draw(st.integers(1, 2))
    choice = strided((batch, points, 3), data.draw(st.permutations(range(3))), gap, torch.float64, seed)
    picks = (choice.abs() * 1000).long() % len(numbers)
    values = torch.tensor(numbers, dtype=torch.float64)[picks]
    coords = (
        values if coord_type.is_floating_point else values.clamp(min=-5 if coord_type.is_signed else 0)
    ).to(coord_type)
    features = strided((batch, points, channels), data.draw(st.permutations(range(3))), gap, value_type, seed)
    pooled = compare(
        lambda f: bev_ops.voxel_pooling(coords, f, grid, rounding),
        lambda f: reference.voxel_pooling(coords, f, grid, rounding),
        [features],
    )
    assert pooled.dtype == value_type


def test_voxel_pooling_of_many_points(instruction_set: str) -> None:
    torch.manual_seed(0)
    coords = torch.rand(2, 9000, 3) * torch.tensor([44.0, 34.0, 3.0]) - 1
    compare(
        lambda f: bev_ops.voxel_pooling(coords, f, (2, 32, 41)),
        lambda f: reference.voxel_pooling(coords, f, (2, 32, 41), "floor"),
        [torch.randn(2, 9000, 37)],
    )


# Plane sweep

# At the border of a view a cell may weigh as little as a position is rounded by.
NEAR = {torch.float64: 1e-14, torch.float32: 1e-6}


def sweep(
    batch: int, channels: int, source: tuple[int, int], view: tuple[int, int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reference, source, projection and depth of a camera that moved forward and turned a little."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    projection = torch.eye(3, 4, dtype=torch.float64) + 0.02 * normal(batch, 3, 4)
    projection[:, :, 3] += torch.tensor([3.0, 1.0, -0.7], dtype=torch.float64)
    depth = 4 + 2 * normal(batch, *view)
    maps = normal(batch, channels, *view[1:]), normal(batch, channels, *source)
    return maps[0].to(dtype), maps[1].to(dtype), projection.to(dtype), depth.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("behind", ["zero", "corner"])
@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (64, 2), (21, 7), (24, 1), (3, 3), (130, 1)])
def test_plane_sweep(
    instruction_set: str, dtype: torch.dtype, behind: Any, channels: int, groups: int
) -> None:
    ref, source, projection, depth = sweep(2, channels, (9, 8), (3, 6, 7), dtype)
    compare(
        lambda r, s, d: bev_ops.plane_sweep_correlation(r, s, projection, d, groups, behind),
        lambda r, s, d: reference.plane_sweep_correlation(r, s, projection, d, groups, behind),
        [ref, source],
        [depth],
        NEAR,
    )
    compare(
        lambda s, d: bev_ops.homography_warp(s, projection, d, behind),
        lambda s, d: reference.homography_warp(s, projection, d, behind),
        [source],
        [depth],
        NEAR,
    )


@settings(max_examples=CASES, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_plane_sweep_of_anything(data: st.DataObject) -> None:
    size = st.integers(0, 7)
    batch, hypotheses, height, width, source_height, source_width = (
        data.draw(st.integers(0, 2)),
        *(data.draw(size) for _ in range(5)),
    )
    groups = data.draw(st.integers(1, 3))
    channels = groups * data.draw(st.integers(0, 20))
    behind = data.draw(st.sampled_from(["zero", "corner"]))
    types = [data.draw(st.sampled_from(FLOATS)) for _ in range(2)]
    order, seed, gap = (
        st.permutations(range(4)),
        data.draw(st.integers(0, 9999)),
        data.draw(st.integers(1, 2)),
    )
    ref = strided((batch, channels, height, width), data.draw(order), gap, types[0], seed)
    source = strided((batch, channels, source_height, source_width), data.draw(order), gap, types[1], seed)
    entries = [0.0, 0.25, -0.25, 0.5, 1.0, -1.0, 3.0, 1e9, -1e9, -math.inf, math.inf, math.nan]
    place_types = [data.draw(st.sampled_from(PRECISE)) for _ in range(2)]
    projection = pick(entries, (batch, 3, 4), seed).to(place_types[0])
    metres = [0.0, -1.0, 0.5, 1.0, 2.0, 8.0, 1e9, -1e9, 3e38, 1e-3, math.nan, math.inf]
    cells = pick(metres, (batch, width, height, hypotheses * gap), seed + 1).to(place_types[1])
    depth = cells[..., ::gap].permute(0, 3, 2, 1)
    warped = compare(
        lambda s: bev_ops.homography_warp(s, projection, depth, behind),
        lambda s: reference.homography_warp(s, projection, depth, behind),
        [source],
        near=NEAR,
    )
    assert warped.dtype == types[1]
    if channels == 0:
        with pytest.raises(ValueError, match="at least one channel"):
            bev_ops.plane_sweep_correlation(ref, source, projection, depth, groups, behind)
        return
    correlation = compare(
        lambda r, s: bev_ops.plane_sweep_correlation(r, s, projection, depth, groups, behind),
        lambda r, s: reference.plane_sweep_correlation(r, s, projection, depth, groups, behind),
        [ref, source],
        near=NEAR,
    )
    assert correlation.dtype == torch.promote_types(*types)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (64, 2), (21, 7), (24, 1), (3, 3)])
def test_correlation_shows_what_diverged(
    instruction_set: str, bad: float, channels: int, groups: int
) -> None:
    ref, source, projection, depth = sweep(2, channels, (9, 8), (3, 6, 7), torch.float32)
    # The lower half of the view sees nothing at all.
    depth[:, :, 3:] = -1.0
    ref[0, 1, 1, 2] = ref[1, channels - 1, 5, 6] = bad
    got = bev_ops.plane_sweep_correlation(ref, source, projection, depth, groups)
    wanted = reference.plane_sweep_correlation(ref, source, projection, depth, groups, "zero")
    assert torch.equal(got.isfinite(), wanted.isfinite())
    assert not got[1, :, :, 5, 6].isfinite().all()


# Operators called directly, with arguments that do not fit


def _changed(argument: Any, data: st.DataObject) -> Any:
    """An argument as it should not be: cut, repeated, turned, of another dtype, of other numbers."""
    change = data.draw(st.sampled_from(["keep", "keep", "cut", "repeat", "turn", "dtype", "numbers"]))
    if isinstance(argument, (list, tuple)) and change != "keep":
        return [
            data.draw(st.integers(-1, 40)) if isinstance(x, int) and x is not True else x for x in argument
        ]
    if not isinstance(argument, Tensor) or change == "keep":
        return argument
    axis = data.draw(st.integers(0, argument.dim() - 1))
    if change == "cut":
        return argument.narrow(axis, 0, argument.shape[axis] // 2)
    if change == "repeat":
        return torch.cat([argument] * 3, axis)
    if change == "turn":
        return argument.movedim(axis, 0)
    if change == "dtype":
        return argument.to(
            data.draw(st.sampled_from([torch.float64, torch.float16, torch.int64, torch.int32]))
        )
    return torch.full_like(argument, data.draw(st.sampled_from([0, 1, -1, 1000, 2**14])))


@settings(max_examples=CASES // 4, deadline=None, derandomize=True, database=None)
@given(data=st.data(), name=st.sampled_from(sorted(operator_calls(torch.float32))))
def test_direct_calls_do_no_harm(data: st.DataObject, name: str) -> None:
    arguments = [x.detach() if isinstance(x, Tensor) else x for x in operator_calls(torch.float32)[name]]
    arguments = [_changed(argument, data) for argument in arguments]
    with contextlib.suppress(Exception):  # a crash, or what the sanitizers find, is no exception
        getattr(torch.ops.bev_ops, name.split()[0])(*arguments)


@pytest.mark.parametrize("part", [0, 1, 3])
@pytest.mark.parametrize("wrong", [-1, 2**14])
def test_plans_that_point_elsewhere_are_refused(part: int, wrong: int) -> None:
    depth, context, *plan, grid = operator_calls(torch.float32)["lift_splat_planned"]
    plan[part] = torch.full_like(plan[part], wrong)
    with pytest.raises(ValueError, match="a plan must be one that LiftSplatPlan made for these sizes"):
        torch.ops.bev_ops.lift_splat_planned(depth.detach(), context.detach(), *plan, grid)


# The instruction set that the environment asks for


@pytest.mark.parametrize("name", [INSTRUCTION_SETS[-1], "mmx"])
def test_the_environment_chooses_the_instruction_set(name: str) -> None:
    code = "from bev_ops import devices; print(devices.native.cpu.instruction_set())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"BEV_OPS_ISA": name},
        capture_output=True,
        text=True,
        check=False,
    )
    if name == "mmx":
        assert "BEV_OPS_ISA must be one that this processor has (" in done.stderr
        assert "got 'mmx'" in done.stderr
    else:
        assert done.stdout.strip() == name


# Threads


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_threads() -> None:
    torch.manual_seed(0)
    grid, size = (1, 33, 40), (18, 37)
    projection, bins = rig(3, *size, grid, batch=2), torch.linspace(1, 60, 40)
    depth, context = torch.rand(2, 3, 40, *size), torch.rand(2, 3, 21, *size)
    coords, features = torch.rand(2, 9000, 3) * 40, torch.rand(2, 9000, 9)
    ref, source, matrices, planes = sweep(3, 72, (9, 8), (3, 6, 7), torch.float32)
    results = []
    for count in (1, 2, 8, 8):
        torch.set_num_threads(count)
        leaves = [x.clone().requires_grad_() for x in (depth, context, features, ref, source, planes)]
        d, c, f, r, s, z = leaves
        outs = [
            bev_ops.lift_splat(d, c, projection, bins, grid),
            bev_ops.voxel_pooling(coords, f, (40, 40, 40)),
            bev_ops.plane_sweep_correlation(r, s, matrices, z, 8),
            bev_ops.homography_warp(s, matrices, z),
        ]
        torch.autograd.backward([out.square().sum() for out in outs])
        results.append([*outs, *(leaf.grad for leaf in leaves)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def _splat_in_child() -> float:
    grid = (1, 8, 8)
    out = bev_ops.lift_splat(
        torch.ones(1, 2, 4, 16, 40),
        torch.ones(1, 2, 3, 16, 40),
        rig(2, 16, 40, grid),
        torch.arange(4.0) * 9,
        grid,
    )
    return out.sum().item()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("threads")
def test_runs_in_forked_processes() -> None:
    torch.set_num_threads(2)
    expected = _splat_in_child()
    child = os.fork()
    if child == 0:
        os._exit(0 if _splat_in_child() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
