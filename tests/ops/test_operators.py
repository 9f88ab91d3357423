"""The compiled kernels as citizens of torch: operator checks, derivatives, compilation, export."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bev_ops
from bev_ops import devices
from bev_ops.operators.fallback import DEFINITIONS
from bev_ops.operators.schema import KERNELS

if devices.native is None:
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


def planned(dtype: torch.dtype = torch.float64) -> Call:
    _, leaves = lift(dtype)
    projection = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    plan = bev_ops.LiftSplatPlan(projection, torch.tensor([0.5, 1.0, 1.5]), (4, 5), GRID)
    return plan.splat, leaves


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


OPS = pytest.mark.parametrize("make", [lift, planned, pool, correlation, warp])


@OPS
def test_derivatives(make: Callable[..., Call]) -> None:
    function, leaves = make()
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


# torch's own forward mode loads rules that it keeps as scripts.
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


@forward_mode
@OPS
def test_forward_mode(make: Callable[..., Call]) -> None:
    function, leaves = make()
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, check_backward_ad=False)


@forward_mode
@OPS
def test_transforms_of_torch_func(make: Callable[..., Call]) -> None:
    function, leaves = make()
    primals = tuple(leaf.detach() for leaf in leaves)
    towards = torch.rand_like(function(*primals))
    wanted = torch.autograd.grad(function(*leaves), leaves, towards)
    got = torch.func.vjp(function, *primals)[1](towards)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    numbers = tuple(range(len(primals)))
    got = torch.func.grad(lambda *x: (function(*x) * towards).sum(), numbers)(*primals)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    reverse, forward = (of(function, numbers)(*primals) for of in (torch.func.jacrev, torch.func.jacfwd))
    for a, b in zip(forward, reverse, strict=True):
        torch.testing.assert_close(a, b)
    assert any(a.count_nonzero() for a in forward)


@forward_mode
@pytest.mark.parametrize("make", [lift, planned, pool])
def test_hessians_of_the_bilinear_ops(make: Callable[..., Call]) -> None:
    function, leaves = make()
    primals = tuple(leaf.detach() for leaf in leaves)

    def value(*inputs: Tensor) -> Tensor:
        return function(*inputs).square().sum()

    wanted = torch.autograd.functional.hessian(value, primals)
    got = torch.func.hessian(value, tuple(range(len(primals))))(*primals)
    for row, expected in zip(got, wanted, strict=True):
        for a, b in zip(row, expected, strict=True):
            torch.testing.assert_close(a, b)


@forward_mode
def test_what_forward_mode_does_not_know_is_refused() -> None:
    reference, source, projection, depth = (x.detach() for x in _views(torch.float64))

    def correlate(matrix: Tensor) -> Tensor:
        return bev_ops.plane_sweep_correlation(reference, source, matrix, depth, 2)

    with pytest.raises(
        NotImplementedError, match="no forward-mode derivative by projection; take reverse mode"
    ):
        torch.func.jvp(correlate, (projection,), (projection,))

    def value(x: Tensor) -> Tensor:
        return bev_ops.homography_warp(x, projection, depth).square().sum()

    with pytest.raises(NotImplementedError, match="a plane sweep's backward pass"):
        torch.func.hessian(value)(source)
    raw = torch.ops.bev_ops.homography_warp
    with pytest.raises(NotImplementedError, match="call the functions of bev_ops"):
        torch.func.grad(lambda x: raw(x, projection, depth, "zero").sum())(source)


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


@pytest.mark.skipif(
    not hasattr(torch.library, "register_vmap"),
    reason="before torch 2.5 no tensors may be exported that a function closes over, as those below do",
)
@OPS
def test_exports(make: Callable[..., Call]) -> None:
    function, leaves = make(torch.float32)

    class Module(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return function(*inputs)

    exported = torch.export.export(Module(), leaves)
    assert torch.equal(exported.module()(*leaves), function(*leaves))


def operator_calls(dtype: torch.dtype) -> dict[str, tuple[Any, ...]]:
    """Arguments of every operator of the library."""
    _, (depth, context) = lift(dtype)
    places = torch.rand(1, 2, 3, 4), torch.rand(3)
    groups = KERNELS["CPU"].lift_plan(*places, (4, 5), GRID, "floor")
    towards = torch.rand(1, 3, 6, 7, dtype=dtype, requires_grad=True)
    coords = torch.randint(0, 6, (2, 9, 3))
    features = torch.rand(2, 9, 4, dtype=dtype, requires_grad=True)
    reference, source, matrices, planes = _views(dtype)
    sweep = source, matrices.float(), planes.detach().float()
    cost, volume = torch.rand(1, 2, 2, 3, 3, dtype=dtype), torch.rand(1, 4, 2, 3, 3, dtype=dtype)
    return {
        "lift_splat": (depth, context, *places, GRID, "floor"),
        "lift_splat_backward": (towards, depth, context, *places, GRID, "floor", [True, False]),
        "lift_splat_planned": (depth, context, *groups, GRID),
        "lift_splat_planned_backward": (towards, depth, context, *groups, GRID, [True, True]),
        "voxel_pooling": (coords, features, GRID, "floor"),
        "voxel_pooling_backward": (torch.rand(2, 4, 6, 7, dtype=dtype), coords, GRID, "floor"),
        "homography_warp": (*sweep, "zero"),
        "plane_sweep_correlation": (reference, *sweep, 2, "zero"),
        "plane_sweep_backward": (cost, reference, *sweep, 2, "corner", [True, True, True]),
        "plane_sweep_backward of a warp": (volume, None, *sweep, 0, "zero", [False, True, False]),
    }


NAMES = pytest.mark.parametrize("name", operator_calls(torch.float32))


@untraceable
# opcheck looks at the gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@NAMES
def test_operators_keep_their_promises(name: str, dtype: torch.dtype) -> None:
    operator = getattr(torch.ops.bev_ops, name.split()[0]).default
    torch.library.opcheck(operator, operator_calls(dtype)[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@NAMES
def test_fallbacks_give_what_the_kernels_give(name: str, dtype: torch.dtype) -> None:
    arguments = [x.detach() if isinstance(x, Tensor) else x for x in operator_calls(dtype)[name]]
    got = getattr(torch.ops.bev_ops, name.split()[0])(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        wanted = DEFINITIONS[name.split()[0]](*arguments)
    for a, b in zip(*((x,) if isinstance(x, Tensor) else x for x in (got, wanted)), strict=True):
        torch.testing.assert_close(a, b, check_stride=False)


# Loads a graph in an installation that has no compiled kernels, and compares with what it gave with them.
WITHOUT_KERNELS = """
import sys, warnings
sys.modules["bev_ops._native"] = None
warnings.simplefilter("ignore")
import torch, bev_ops
from bev_ops import devices
assert devices.native is None
graph = torch.export.load(sys.argv[1])
inputs, out, grads = torch.load(sys.argv[2])
inputs = [x.requires_grad_() for x in inputs]
got = graph.module()(*inputs)
torch.testing.assert_close(got, out)
for a, b in zip(torch.autograd.grad(got.square().sum(), inputs), grads, strict=True):
    torch.testing.assert_close(a, b)
"""


@pytest.mark.skipif(
    not hasattr(torch.library, "register_vmap"),
    reason="before torch 2.5 no tensors may be exported that a function closes over, as those below do",
)
@pytest.mark.parametrize("make", [planned, correlation])
def test_exported_graphs_run_without_kernels(make: Callable[..., Call], tmp_path: Path) -> None:
    function, leaves = make(torch.float32)

    class Module(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return function(*inputs)

    out = function(*leaves)
    grads = torch.autograd.grad(out.square().sum(), leaves)
    torch.export.save(torch.export.export(Module(), leaves), tmp_path / "graph.pt2")
    torch.save(([x.detach() for x in leaves], out.detach(), grads), tmp_path / "values.pt")
    arguments = [str(tmp_path / name) for name in ("graph.pt2", "values.pt")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERNELS, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_operator_is_checked() -> None:
    names = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if "bev_ops::" in name}
    assert names == {name.split()[0] for name in operator_calls(torch.float32)}


@pytest.mark.skipif(not hasattr(torch.library, "register_vmap"), reason="torch offers it from 2.5 on")
@NAMES
def test_vmap(name: str) -> None:
    operator, arguments = getattr(torch.ops.bev_ops, name.split()[0]), operator_calls(torch.float32)[name]
    # Every second floating-point tensor has the mapped axis, first and last in turn.
    floats = [n for n, x in enumerate(arguments) if isinstance(x, Tensor) and x.is_floating_point()]
    dims: list[int | None] = [None] * len(arguments)
    for turn, n in enumerate(floats[::2]):
        dims[n] = -1 if turn % 2 else 0
    mapped = [
        argument if dim is None else torch.stack([argument, 2 * argument], dim).detach()
        for argument, dim in zip(arguments, dims, strict=True)
    ]
    got = torch.vmap(lambda *inputs: operator(*inputs), in_dims=tuple(dims))(*mapped)
    for n in range(2):
        inputs = [x if dim is None else x.select(dim, n) for x, dim in zip(mapped, dims, strict=True)]
        wanted = operator(*inputs)
        for a, b in zip(*((x,) if isinstance(x, Tensor) else x for x in (got, wanted)), strict=True):
            assert torch.equal(a[n], b)


@OPS
def test_batched_gradients(make: Callable[..., Call]) -> None:
    function, leaves = make()
    out = function(*leaves)
    towards = torch.rand(2, *out.shape, dtype=out.dtype)
    batched = torch.autograd.grad(out, leaves, towards, is_grads_batched=True, retain_graph=True)
    for n in range(2):
        single = torch.autograd.grad(out, leaves, towards[n], retain_graph=True)
        assert all(torch.equal(a[n], b) for a, b in zip(batched, single, strict=True))


@OPS
def test_deterministic_algorithms_are_all_there_is(make: Callable[..., Call]) -> None:
    function, leaves = make(torch.float32)
    plain = torch.autograd.grad(function(*leaves).square().sum(), leaves)
    torch.use_deterministic_algorithms(True)
    try:
        strict = torch.autograd.grad(function(*leaves).square().sum(), leaves)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(plain, strict, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("make", [correlation, warp])
def test_memory_formats(make: Callable[..., Call], channels_last: bool) -> None:
    function, (*views, planes) = make(torch.float32)
    wanted = function(*views, planes)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert torch.equal(function(*(v.contiguous(memory_format=memory_format) for v in views), planes), wanted)


def test_other_devices_run_the_definition() -> None:
    features = torch.rand(1, 5, 4, device="meta")
    coords = torch.zeros(1, 5, 3, dtype=torch.int64, device="meta")
    assert bev_ops.voxel_pooling(coords, features, GRID).shape == (1, 4, 6, 7)


@OPS
def test_autocast_leaves_sums_in_float32(make: Callable[..., Call]) -> None:
    function, leaves = make(torch.float32)
    plain = function(*leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = function(*leaves)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
