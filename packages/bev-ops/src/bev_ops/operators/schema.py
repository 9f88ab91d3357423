"""The operators `torch.ops.bev_ops.*`: signatures, shapes for tracing, derivatives, and what runs where.

Each is defined by four things: its signature, its shapes, its derivative and its tangent. The dispatcher does
the rest: compiled kernels where a processor has them, the definitions everywhere else.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bev_ops import devices
from bev_ops.operators import kernels, second_order
from bev_ops.operators.fallback import DEFINITIONS

Grads = Sequence[Tensor | None]
Call = Callable[..., Any]

# torch leaves its Library without types.
_LIBRARY: Any = torch.library.Library("bev_ops", "DEF")  # type: ignore[no-untyped-call]
KERNELS = kernels.available()
# The dispatch keys of a tensor that is nothing but numbers in main memory.
_MAIN_MEMORY = torch._C._dispatch_keys(torch.empty(0)).raw_repr()
_NO_TANGENT = "bev_ops: {} has no forward-mode derivative by {}; take reverse mode (vjp, jacrev or backward)"


def _define(
    name: str,
    arguments: str,
    results: str,
    fake: Call,
    backward: Call,
    tangent: Call,
    plain: int | None = None,
) -> Call:
    """Define an operator; returns the function that calls it from anywhere, torch.func's transforms too.

    Args:
        name: of the operator.
        arguments: of its signature.
        results: of its signature.
        fake: the arguments -> results with the right shapes, dtypes and strides, of any values.
        backward: (the arguments, which of them need a gradient, gradients of the results) -> gradients of the
            first arguments; behind them there are none.
        tangent: (the arguments, their tangents or None) -> tangents of the results.
        plain: the argument whose gradients only the definition has.
    """
    _LIBRARY.define(f"{name}({arguments}) -> {results}", tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(torch.ops.bev_ops, name).default
    definition = DEFINITIONS[name]

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*inputs: Any) -> Any:
            return below_autograd(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.set_materialize_grads(False)
            tensors = [value if isinstance(value, Tensor) else None for value in inputs]
            ctx.options = [None if isinstance(value, Tensor) else value for value in inputs]
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            nothing = all(grad is None for grad in grads)
            found = () if nothing else backward(_inputs(ctx), ctx.needs_input_grad, grads)
            return (*found, *(None,) * (len(ctx.options) - len(found)))

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
            return tangent(_inputs(ctx), tangents)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
            return _one_by_one(call, info, in_dims, *inputs)

    def call(*inputs: Any) -> Any:
        if plain is not None and inputs[plain].requires_grad:
            return definition(*inputs)
        # The dispatcher meets torch.func's transforms too late for a Function.
        if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
            return operator(*inputs)
        return Function.apply(*inputs)

    on_cpu = getattr(KERNELS.get("CPU"), name, None)

    def below_autograd(*inputs: Any) -> Any:
        # The dispatcher's second round costs more than all else around a kernel.
        if on_cpu is not None and _nothing_but_numbers(inputs):
            return on_cpu(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*inputs)

    def with_autograd(*inputs: Any) -> Any:
        if torch.autograd.forward_ad._current_level < 0 and not _needs_gradient(inputs):
            return below_autograd(*inputs)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(
                f"torch.ops.bev_ops.{name} cannot be differentiated by torch.func; "
                "call the functions of bev_ops"
            )
        if plain is not None and inputs[plain].requires_grad:
            return definition(*inputs)
        return Function.apply(*inputs)

    def in_plain_torch(*inputs: Any) -> Any:
        devices.warn_of_plain_torch(_device(inputs))
        return definition(*inputs)

    def on_gpu(*inputs: Any) -> Any:
        run = in_plain_torch if devices.cuda_problem(_device(inputs).index) else kernel
        return run(*inputs)

    _LIBRARY.impl(name, with_autograd, "Autograd")
    _LIBRARY.impl(name, in_plain_torch, "CompositeExplicitAutograd")
    if on_cpu is not None:
        _LIBRARY.impl(name, on_cpu, "CPU")
    if "CUDA" in KERNELS and "planned" not in name:
        kernel = getattr(KERNELS["CUDA"], name)
        _LIBRARY.impl(name, on_gpu, "CUDA")
    torch.library.register_fake(f"bev_ops::{name}", fake, lib=_LIBRARY)
    if hasattr(torch.library, "register_vmap"):  # from torch 2.5 on
        torch.library.register_vmap(
            f"bev_ops::{name}", lambda *inputs: _one_by_one(operator, *inputs), lib=_LIBRARY
        )
    return call


def _inputs(ctx: Any) -> list[Any]:
    """The arguments of a call, tensors and options in their order."""
    pairs = zip(ctx.saved_tensors, ctx.options, strict=True)
    return [option if tensor is None else tensor for tensor, option in pairs]


def _needs_gradient(inputs: Sequence[Any]) -> bool:
    if torch.is_grad_enabled():
        for value in inputs:
            if isinstance(value, Tensor) and value.requires_grad:
                return True
    return False


def _nothing_but_numbers(inputs: Sequence[Any]) -> bool:
    """Whether the dispatcher would come to the processor's kernel at once."""
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    for value in inputs:
        if isinstance(value, Tensor) and torch._C._dispatch_keys(value).raw_repr() != _MAIN_MEMORY:
            return False
    return True


def _device(inputs: Sequence[Any]) -> torch.device:
    return next(value.device for value in inputs if isinstance(value, Tensor))


def _one_by_one(call: Call, info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    """The rule of torch.vmap: one call per element, as each call fills the threads with its own batch."""
    outs = [
        call(
            *(
                value if dim is None or not isinstance(value, Tensor) else value.select(dim, n)
                for value, dim in zip(inputs, in_dims, strict=True)
            )
        )
        for n in range(info.batch_size)
    ]
    if isinstance(outs[0], Tensor):
        return torch.stack(outs), 0
    return tuple(map(torch.stack, zip(*outs, strict=True))), (0,) * len(outs[0])


def _maps(like: Tensor, batch: int, channels: int, size: Sequence[int]) -> Tensor:
    """An empty [B,C,*size], channels side by side in memory."""
    order = (0, len(size) + 1, *range(1, len(size) + 1))
    return like.new_empty(batch, *size, channels).permute(order)


def _gradient(like: Tensor, wanted: bool) -> Tensor:
    return like.new_empty(like.shape if wanted else 0)


def _map_gradient(like: Tensor, wanted: bool) -> Tensor:
    return _maps(like, like.shape[0], like.shape[1], like.shape[2:]) if wanted else like.new_empty(0)


def _or_none(grads: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    return [grad if want else None for grad, want in zip(grads, wanted, strict=True)]


def _sum(*terms: Tensor | None) -> Tensor | None:
    """Sum of the terms that are there."""
    there = [term for term in terms if term is not None]
    return sum(there[1:], there[0]) if there else None


# Lift-splat is linear in depth and in context, so each derivative is made of the same two operators, of
# (depth, context, *places, grid, *options) and (grad, depth, context, *places, grid, *options, wanted), where
# places are matrices and bins, or a plan.


def _define_lift(name: str, places: Sequence[str], options: str) -> Call:
    arguments = ", ".join(f"Tensor {one}" for one in ("depth", "context", *places)) + f", {options}"
    grid = 2 + len(places)

    def fake(depth: Tensor, context: Tensor, *rest: Any) -> Tensor:
        return _maps(context, depth.shape[0], context.shape[2], rest[grid - 2][1:])

    def backward(inputs: Sequence[Any], needed: Sequence[bool], grads: Grads) -> Grads:
        wanted = list(needed[:2])
        return _or_none(splat_backward(grads[0], *inputs, wanted), wanted)

    def tangent(inputs: Sequence[Any], tangents: Grads) -> Tensor:
        depth, context, *rest = inputs
        moved = _sum(
            None if tangents[0] is None else splat(tangents[0], context, *rest),
            None if tangents[1] is None else splat(depth, tangents[1], *rest),
        )
        return torch.zeros_like(splat(depth, context, *rest)) if moved is None else moved

    def backward_fake(grad: Tensor, depth: Tensor, context: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return _gradient(depth, rest[-1][0]), _gradient(context, rest[-1][1])

    def backward_backward(inputs: Sequence[Any], needed: Sequence[bool], towards: Grads) -> Grads:
        grad, depth, context, *rest, wanted = inputs
        for_depth, for_context = (t if want else None for t, want in zip(towards, wanted, strict=True))
        grad_grad = grad_depth = grad_context = None
        if needed[0]:
            grad_grad = _sum(
                None if for_depth is None else splat(for_depth, context, *rest).to(grad.dtype),
                None if for_context is None else splat(depth, for_context, *rest).to(grad.dtype),
            )
        if needed[1] and for_context is not None:
            grad_depth = splat_backward(grad, depth, for_context, *rest, [True, False])[0]
        if needed[2] and for_depth is not None:
            grad_context = splat_backward(grad, for_depth, context, *rest, [False, True])[1]
        return grad_grad, grad_depth, grad_context

    def backward_tangent(inputs: Sequence[Any], tangents: Grads) -> Grads:
        grad, depth, context, *rest, wanted = inputs
        found: list[Tensor | None] = [None, None]
        for n in range(2):
            only = [wanted[0] and n == 0, wanted[1] and n == 1]
            # The gradient of depth is linear in context, and the other way round.
            moved = (grad, depth, tangents[2]) if n == 0 else (grad, tangents[1], context)
            terms = ((tangents[0], depth, context), moved)
            found[n] = _sum(
                *(
                    splat_backward(*term, *rest, only)[n]
                    for term in terms
                    if only[n] and all(one is not None for one in term)
                )
            )
        like = zip(found, (depth, context), wanted, strict=True)
        return tuple(_still(x, want) if t is None else t for t, x, want in like)

    splat = _define(name, arguments, "Tensor", fake, backward, tangent)
    splat_backward = _define(
        f"{name}_backward",
        f"Tensor grad, {arguments}, bool[] wanted",
        "(Tensor, Tensor)",
        backward_fake,
        backward_backward,
        backward_tangent,
    )
    return splat


def _still(like: Tensor, wanted: bool) -> Tensor:
    """The tangent of a gradient that does not move."""
    return torch.zeros_like(like) if wanted else like.new_zeros(0)


lift_splat = _define_lift("lift_splat", ("projection", "depth_bins"), "SymInt[] grid, str rounding")
lift_splat_planned = _define_lift("lift_splat_planned", ("starts", "cell", "rows", "events"), "SymInt[] grid")


# Voxel pooling is linear in the features.


def _pool_fake(coords: Tensor, features: Tensor, grid: list[int], rounding: str) -> Tensor:
    return _maps(features, features.shape[0], features.shape[2], grid[1:])


def _pool_backward(inputs: Sequence[Any], needed: Sequence[bool], grads: Grads) -> Grads:
    coords, _, grid, rounding = inputs
    return None, voxel_pooling_backward(grads[0], coords, grid, rounding) if needed[1] else None


def _pool_tangent(inputs: Sequence[Any], tangents: Grads) -> Tensor:
    coords, features, *options = inputs
    moved: Tensor = voxel_pooling(
        coords, torch.zeros_like(features) if tangents[1] is None else tangents[1], *options
    )
    return moved


def _pool_backward_fake(grad: Tensor, coords: Tensor, grid: list[int], rounding: str) -> Tensor:
    return grad.new_empty(grad.shape[0], coords.shape[1], grad.shape[1])


def _pool_backward_backward(inputs: Sequence[Any], needed: Sequence[bool], towards: Grads) -> Grads:
    _, coords, grid, rounding = inputs
    return (voxel_pooling(coords, towards[0], grid, rounding),)


def _pool_backward_tangent(inputs: Sequence[Any], tangents: Grads) -> Tensor:
    grad, *rest = inputs
    moved: Tensor = voxel_pooling_backward(
        torch.zeros_like(grad) if tangents[0] is None else tangents[0], *rest
    )
    return moved


voxel_pooling = _define(
    "voxel_pooling",
    "Tensor coords, Tensor features, SymInt[] grid, str rounding",
    "Tensor",
    _pool_fake,
    _pool_backward,
    _pool_tangent,
)
voxel_pooling_backward = _define(
    "voxel_pooling_backward",
    "Tensor grad, Tensor coords, SymInt[] grid, str rounding",
    "Tensor",
    _pool_backward_fake,
    _pool_backward_backward,
    _pool_backward_tangent,
)


# Plane sweeps: the first derivative is a kernel, the others are plain torch.


def _warp_fake(source: Tensor, projection: Tensor, depth: Tensor, behind: str) -> Tensor:
    return _maps(source, source.shape[0], source.shape[1], depth.shape[1:])


def _warp_backward(inputs: Sequence[Any], needed: Sequence[bool], grads: Grads) -> Grads:
    source, projection, depth, behind = inputs
    wanted = [False, needed[0], needed[2]]
    found = plane_sweep_backward(grads[0], None, source, projection, depth, 0, behind, wanted)
    _, grad_source, grad_depth = _or_none(found, wanted)
    return grad_source, None, grad_depth


def _warp_tangent(inputs: Sequence[Any], tangents: Grads) -> Tensor:
    source, projection, depth, behind = inputs
    for_source, for_projection, for_depth = tangents[:3]
    if for_projection is not None:
        raise NotImplementedError(_NO_TANGENT.format("homography_warp", "projection"))
    moved = _sum(
        None if for_source is None else homography_warp(for_source, projection, depth, behind),
        None
        if for_depth is None
        else second_order.warp_tangent(source, projection, depth, for_depth, behind).to(source.dtype),
    )
    return torch.zeros_like(homography_warp(*inputs)) if moved is None else moved


def _correlation_fake(
    reference: Tensor, source: Tensor, projection: Tensor, depth: Tensor, groups: int, behind: str
) -> Tensor:
    dtype = torch.promote_types(reference.dtype, source.dtype)
    return source.new_empty(depth.shape[0], groups, *depth.shape[1:], dtype=dtype)


def _correlation_backward(inputs: Sequence[Any], needed: Sequence[bool], grads: Grads) -> Grads:
    wanted = [needed[0], needed[1], needed[3]]
    found = plane_sweep_backward(grads[0], *inputs, wanted)
    grad_reference, grad_source, grad_depth = _or_none(found, wanted)
    return grad_reference, grad_source, None, grad_depth


def _correlation_tangent(inputs: Sequence[Any], tangents: Grads) -> Tensor:
    reference, source, projection, depth, groups, behind = inputs
    for_reference, for_source, for_projection, for_depth = tangents[:4]
    if for_projection is not None:
        raise NotImplementedError(_NO_TANGENT.format("plane_sweep_correlation", "projection"))
    rest, dtype = (projection, depth, groups, behind), torch.promote_types(reference.dtype, source.dtype)
    along = None
    if for_depth is not None:
        warped = second_order.warp_tangent(source, projection, depth, for_depth, behind)
        along = (reference[:, :, None] * warped).unflatten(1, (groups, -1)).mean(2)
    moved = _sum(
        None if for_reference is None else plane_sweep_correlation(for_reference, source, *rest),
        None if for_source is None else plane_sweep_correlation(reference, for_source, *rest),
        along,
    )
    return torch.zeros_like(plane_sweep_correlation(*inputs)) if moved is None else moved.to(dtype)


def _sweep_backward_fake(
    grad: Tensor,
    reference: Tensor | None,
    source: Tensor,
    projection: Tensor,
    depth: Tensor,
    groups: int,
    behind: str,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    like = source if reference is None else reference
    return _map_gradient(like, wanted[0]), _map_gradient(source, wanted[1]), _gradient(depth, wanted[2])


def _sweep_backward_backward(inputs: Sequence[Any], needed: Sequence[bool], towards: Grads) -> Grads:
    *saved, groups, behind, wanted = inputs
    of = [t if want else None for t, want in zip(towards, wanted, strict=True)]
    return second_order.plane_sweep(saved, groups, behind, of, needed[:5])


def _sweep_backward_tangent(inputs: Sequence[Any], tangents: Grads) -> Tensor:
    raise NotImplementedError(_NO_TANGENT.format("a plane sweep's backward pass", "its inputs"))


_SWEEP = "Tensor source, Tensor projection, Tensor depth"

homography_warp = _define(
    "homography_warp", f"{_SWEEP}, str behind", "Tensor", _warp_fake, _warp_backward, _warp_tangent, plain=1
)
plane_sweep_correlation = _define(
    "plane_sweep_correlation",
    f"Tensor reference, {_SWEEP}, SymInt groups, str behind",
    "Tensor",
    _correlation_fake,
    _correlation_backward,
    _correlation_tangent,
    plain=2,
)
plane_sweep_backward = _define(
    "plane_sweep_backward",
    f"Tensor grad, Tensor? reference, {_SWEEP}, SymInt groups, str behind, bool[] wanted",
    "(Tensor, Tensor, Tensor)",
    _sweep_backward_fake,
    _sweep_backward_backward,
    _sweep_backward_tangent,
)
