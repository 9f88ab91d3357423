"""The CUDA kernels on a GPU: results, and how they go with streams, graphs, autograd and compilation."""

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
from bev_ops import devices
from bev_ops.operators.kernels import Kernels

from . import cuda_cases as cases

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)
if reason := devices.cuda_problem(0):
    pytest.skip(f"cuda:0 does not run the kernels: {reason}", allow_module_level=True)

KERNELS = Kernels(devices.native.cuda, cuda=True)
GRID = (1, 24, 28)
DTYPES = pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
OPS = pytest.mark.parametrize(
    "op", ["lift_splat", "voxel_pooling", "homography_warp", "plane_sweep_correlation"]
)


@pytest.fixture(params=[False, True], ids=["any order", "deterministic"])
def mode(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


def splat_arguments(dtype: torch.dtype = torch.float32, channels: int = 36) -> tuple[Tensor, ...]:
    """Depth, context, projection and bins of two samples of two cameras."""
    generator = torch.Generator().manual_seed(0)
    projection = cases.rig(2, 18, 9, GRID, 0.4).repeat(2, 1, 1, 1)
    depth = torch.rand(2, 2, 35, 18, 9, generator=generator, dtype=torch.float64).to(dtype)
    context = torch.randn(2, 2, channels, 18, 9, generator=generator, dtype=torch.float64).to(dtype)
    return depth, context, projection, torch.linspace(1, 60, 35)


# Results


@DTYPES
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("channels", [80, 36, 5, 130])
def test_lift_splat(dtype: torch.dtype, channels: int) -> None:
    cases.check_lift_splat(KERNELS, "cuda", *splat_arguments(dtype, channels), GRID, "floor")


@DTYPES
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("places", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (72, 2), (21, 7), (6, 1)])
def test_plane_sweep(dtype: torch.dtype, places: torch.dtype, channels: int, groups: int) -> None:
    views = cases.sweep(2, channels, (9, 8), (11, 6, 7), dtype, places)
    cases.check_plane_sweep(KERNELS, "cuda", *views, groups, "corner")


@pytest.mark.parametrize("deterministic", [False, True])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_anything(deterministic: bool, data: st.DataObject) -> None:
    torch.use_deterministic_algorithms(deterministic)
    try:
        cases.check_lift_splat(KERNELS, "cuda", *cases.any_lift(data))
        cases.check_voxel_pooling(KERNELS, "cuda", *cases.any_pool(data))
        cases.check_plane_sweep(KERNELS, "cuda", *cases.any_sweep(data), slopes=False)
    finally:
        torch.use_deterministic_algorithms(False)


def test_offsets_beyond_32_bits() -> None:
    points = 2**31 // 64 + 5  # of 64 channels in float16: more than 2^31 elements, 4 GiB
    if torch.cuda.mem_get_info()[0] < 3 * 2**32:
        pytest.skip("needs 12 GiB of free GPU memory")
    features = torch.zeros(1, points, 64, dtype=torch.float16, device="cuda")
    features[0, -1] = 1
    coords = torch.full((1, points, 3), 9, dtype=torch.int64, device="cuda")
    coords[0, -1] = torch.tensor([1, 2, 0])
    bev = bev_ops.voxel_pooling(coords, features, (1, 4, 4))
    assert bev.sum() == 64
    assert bool((bev[0, :, 2, 1] == 1).all())


def test_deterministic_sums_repeat_bit_for_bit(mode: bool) -> None:
    arguments = [x.cuda() for x in splat_arguments()]
    views = [x.cuda() for x in cases.sweep(2, 32, (9, 8), (11, 6, 7), torch.float32, torch.float32)]
    leaf = views[1].requires_grad_()
    results = []
    for _ in range(5):
        correlation = bev_ops.plane_sweep_correlation(views[0], leaf, *views[2:], 8)
        (grad,) = torch.autograd.grad(correlation.square().sum(), leaf)
        results.append((bev_ops.lift_splat(*arguments, GRID), grad))
    for one, other in results:
        if mode:
            assert torch.equal(one, results[0][0])
            assert torch.equal(other, results[0][1])
        else:
            torch.testing.assert_close(one, results[0][0])
            torch.testing.assert_close(other, results[0][1])


# Streams, graphs, devices


def test_runs_in_the_current_stream() -> None:
    arguments = [x.cuda() for x in splat_arguments()]
    wanted = bev_ops.lift_splat(*arguments, GRID)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        depth = torch.zeros_like(arguments[0])
        # Work that the kernel must wait for: in another stream it would read zeros.
        torch.cuda._sleep(50_000_000)
        depth.copy_(arguments[0])
        got = bev_ops.lift_splat(depth, *arguments[1:], GRID)
    stream.synchronize()
    torch.testing.assert_close(got, wanted)


def test_can_be_captured_in_a_graph(mode: bool) -> None:
    depth, *rest = (x.cuda() for x in splat_arguments())
    views = [x.cuda() for x in cases.sweep(2, 32, (9, 8), (11, 6, 7), torch.float32, torch.float32)]
    coords, features = torch.rand(1, 50, 3, device="cuda") * 9, torch.rand(1, 50, 20, device="cuda")

    def everything() -> list[Tensor]:
        leaves = [depth.detach().requires_grad_(), views[1].detach().requires_grad_()]
        out = bev_ops.lift_splat(leaves[0], *rest, GRID)
        correlation = bev_ops.plane_sweep_correlation(views[0], leaves[1], *views[2:], 8)
        grads = torch.autograd.grad(out.square().sum() + correlation.square().sum(), leaves)
        return [out, correlation, *grads, bev_ops.voxel_pooling(coords, features, (9, 9, 9))]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        everything()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = everything()
    depth.copy_(torch.rand_like(depth))
    graph.replay()
    torch.cuda.synchronize()
    for got, wanted in zip(results, everything(), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is only one CUDA device")
def test_runs_on_the_device_of_its_arguments() -> None:
    arguments = [x.to("cuda:1") for x in splat_arguments()]
    assert torch.cuda.current_device() == 0
    got = bev_ops.lift_splat(*arguments, GRID)
    assert torch.cuda.current_device() == 0
    torch.testing.assert_close(got.cpu(), bev_ops.lift_splat(*splat_arguments(), GRID))


# Torch


def small_call(op: str, dtype: torch.dtype) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A small call of an op, and what it is differentiated by."""
    if op == "lift_splat":
        depth, context = torch.rand(2, 1, 2, 3, 4, 5, dtype=dtype)
        projection = torch.rand(1, 2, 3, 4).cuda()
        projection[:, :, 2] = 0
        bins = torch.tensor([0.5, 1.0, 1.5]).cuda()
        leaves = [depth, context]
        function = lambda d, c: bev_ops.lift_splat(d, c, projection, bins, (1, 6, 7))  # noqa: E731
    elif op == "voxel_pooling":
        coords = torch.randint(-1, 8, (2, 9, 3)).cuda()
        leaves = [torch.rand(2, 9, 4, dtype=dtype)]
        function = lambda f: bev_ops.voxel_pooling(coords, f, (1, 6, 7))  # noqa: E731
    else:
        reference, source, *places = cases.sweep(1, 4, (4, 5), (2, 3, 3), dtype, dtype)
        projection = torch.eye(3, 4, dtype=dtype)[None].cuda()
        projection[0, :, 3] = torch.tensor([0.61, 0.37, -0.2])
        depth = 1 + torch.rand_like(places[1])
        leaves = [reference, source, depth]
        function = lambda r, s, d: bev_ops.plane_sweep_correlation(r, s, projection, d, 2)  # noqa: E731
        if op == "homography_warp":
            leaves = [source, depth]
            function = lambda s, d: bev_ops.homography_warp(s, projection, d)  # noqa: E731
    return function, [leaf.cuda().requires_grad_() for leaf in leaves]


@OPS
def test_derivatives(op: str) -> None:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # gradcheck compares repeated runs
    try:
        function, leaves = small_call(op, torch.float64)
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(
    hasattr(bev_ops.lift_splat, "__wrapped__"),
    reason="torch cannot trace the shape checks: run with BEV_TYPECHECK=0",
)
@OPS
def test_compiles_whole(op: str) -> None:
    torch.manual_seed(0)
    function, leaves = small_call(op, torch.float32)
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    outs = [f(*leaves) for f in (function, compiled)]
    grads = [torch.autograd.grad(out.square().sum(), leaves) for out in outs]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*grads)


# opcheck looks at the gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_operators_keep_their_promises(dtype: torch.dtype) -> None:
    operators = torch.ops.bev_ops
    depth, context, projection, bins = (x.cuda() for x in splat_arguments())
    depth, context = depth.to(dtype).requires_grad_(), context.to(dtype).requires_grad_()
    rest = projection, bins, list(GRID), "floor"
    torch.library.opcheck(operators.lift_splat.default, (depth, context, *rest))
    grad = torch.rand(2, 36, *GRID[1:], dtype=dtype, device="cuda")
    torch.library.opcheck(operators.lift_splat_backward.default, (grad, depth, context, *rest, [True, True]))
    coords = torch.randint(0, 6, (2, 9, 3), device="cuda")
    features = torch.rand(2, 9, 4, dtype=dtype, device="cuda", requires_grad=True)
    torch.library.opcheck(operators.voxel_pooling.default, (coords, features, list(GRID), "floor"))
    views = cases.sweep(1, 8, (4, 5), (2, 3, 3), dtype, torch.float32)
    reference, source, matrices, planes = (x.cuda() for x in views)
    reference, source = reference.requires_grad_(), source.requires_grad_()
    torch.library.opcheck(operators.homography_warp.default, (source, matrices, planes, "zero"))
    correlate = operators.plane_sweep_correlation.default
    torch.library.opcheck(correlate, (reference, source, matrices, planes, 2, "zero"))


def test_autocast_leaves_sums_in_float32() -> None:
    arguments = [x.cuda() for x in splat_arguments()]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert bev_ops.lift_splat(*arguments, GRID).dtype == torch.float32


def test_doctor_tests_the_gpu() -> None:
    command = [sys.executable, "-m", "bev_ops"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "self-test on cpu, cuda:0" in told.stdout
