"""The compiled kernels as torch operators: shapes for tracing, gradients of any order.

`torch.ops.bev_ops` exists in every installation; its operators run where `_native_ops.runs` says so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bev_ops import _cuda_devices, _cuda_ops
from bev_ops import _native_ops as native_ops
from bev_ops import _second_order as second_order

# torch leaves its Library without types.
_LIBRARY: Any = torch.library.Library("bev_ops", "DEF")  # type: ignore[no-untyped-call]
ops = torch.ops.bev_ops


def _define(name: str, arguments: str, results: str, kernel: Any, fake: Any) -> None:
    _LIBRARY.define(f"{name}({arguments}) -> {results}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CPU")
    torch.library.register_fake(f"bev_ops::{name}", fake, lib=_LIBRARY)
    if hasattr(torch.library, "register_vmap"):  # from torch 2.5 on
        torch.library.register_vmap(f"bev_ops::{name}", _vmap(name), lib=_LIBRARY)


def _vmap(name: str) -> Any:
    """The rule of torch.vmap: one call per element, as each call fills the threads with its own batch."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        outs = [
            getattr(ops, name)(
                *(
                    argument if dim is None or not isinstance(argument, Tensor) else argument.select(dim, n)
                    for argument, dim in zip(arguments, in_dims, strict=True)
                )
            )
            for n in range(info.batch_size)
        ]
        if isinstance(outs[0], Tensor):
            return torch.stack(outs), 0
        return tuple(map(torch.stack, zip(*outs, strict=True))), (0,) * len(outs[0])

    return rule


def _differentiate(name: str, backward: Any, setup: Any) -> None:
    torch.library.register_autograd(f"bev_ops::{name}", backward, setup_context=setup, lib=_LIBRARY)


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


def _nothing(count: int) -> list[None]:
    """No gradients."""
    return [None] * count


def _sum(*terms: Tensor | None) -> Tensor | None:
    """Sum of the terms that are there."""
    there = [term for term in terms if term is not None]
    return sum(there[1:], there[0]) if there else None


# Lift-splat is linear in depth and in context, so each derivative is made of the same two operators, of
# (depth, context, *places, grid, *options) and (grad, depth, context, *places, grid, *options, wanted), where
# places are matrices and bins, or a plan.


def _define_lift(name: str, places: str, options: str) -> None:
    arguments = f"Tensor depth, Tensor context, {places}, {options}"
    tensors = 3 + places.count(",")
    forward_op, backward_op = f"{name}", f"{name}_backward"

    def fake(depth: Tensor, context: Tensor, *rest: Any) -> Tensor:
        return _maps(context, depth.shape[0], context.shape[2], rest[tensors - 2][1:])

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.options = inputs[tensors:]
        ctx.save_for_backward(*inputs[:tensors])

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = list(ctx.needs_input_grad[:2])
        grads = getattr(ops, backward_op)(grad, *ctx.saved_tensors, *ctx.options, wanted)
        return (*_or_none(grads, wanted), *_nothing(tensors - 2 + len(ctx.options)))

    def backward_fake(grad: Tensor, depth: Tensor, context: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return _gradient(depth, rest[-1][0]), _gradient(context, rest[-1][1])

    def backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *ctx.options, ctx.wanted = inputs[tensors + 1 :]
        ctx.save_for_backward(*inputs[: tensors + 1])

    def backward_backward(ctx: Any, towards_depth: Tensor, towards_context: Tensor) -> tuple[Any, ...]:
        splat, splat_backward = getattr(ops, forward_op), getattr(ops, backward_op)
        grad, depth, context = ctx.saved_tensors[:3]
        rest: list[Any] = [*ctx.saved_tensors[3:], *ctx.options]
        need_grad, need_depth, need_context = ctx.needs_input_grad[:3]
        for_depth, for_context = ctx.wanted
        grad_grad = grad_depth = grad_context = None
        if need_grad:
            grad_grad = _sum(
                splat(towards_depth, context, *rest).to(grad.dtype) if for_depth else None,
                splat(depth, towards_context, *rest).to(grad.dtype) if for_context else None,
            )
        if need_depth and for_context:
            grad_depth = splat_backward(grad, depth, towards_context, *rest, [True, False])[0]
        if need_context and for_depth:
            grad_context = splat_backward(grad, towards_depth, context, *rest, [False, True])[1]
        return grad_grad, grad_depth, grad_context, *_nothing(len(rest) + 1)

    _define(forward_op, arguments, "Tensor", getattr(native_ops, forward_op), fake)
    kernel = getattr(native_ops, backward_op)
    _define(
        backward_op, f"Tensor grad, {arguments}, bool[] wanted", "(Tensor, Tensor)", kernel, backward_fake
    )
    _differentiate(forward_op, backward, setup)
    _differentiate(backward_op, backward_backward, backward_setup)


_define_lift("lift_splat", "Tensor projection, Tensor depth_bins", "SymInt[] grid, str rounding")
_define_lift("lift_splat_planned", "Tensor starts, Tensor cell, Tensor rows, Tensor events", "SymInt[] grid")


# Voxel pooling is linear in the features.


def _pool_fake(coords: Tensor, features: Tensor, grid: list[int], rounding: str) -> Tensor:
    return _maps(features, features.shape[0], features.shape[2], grid[1:])


def _pool_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    coords, _, ctx.grid, ctx.rounding = inputs
    ctx.save_for_backward(coords)


def _pool_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (coords,) = ctx.saved_tensors
    return None, ops.voxel_pooling_backward(grad, coords, ctx.grid, ctx.rounding), None, None


def _pool_backward_fake(grad: Tensor, coords: Tensor, grid: list[int], rounding: str) -> Tensor:
    return grad.new_empty(grad.shape[0], coords.shape[1], grad.shape[1])


def _pool_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, coords, ctx.grid, ctx.rounding = inputs
    ctx.save_for_backward(coords)


def _pool_backward_backward(ctx: Any, towards: Tensor) -> tuple[Tensor | None, ...]:
    (coords,) = ctx.saved_tensors
    return ops.voxel_pooling(coords, towards, ctx.grid, ctx.rounding), None, None, None


_define(
    "voxel_pooling",
    "Tensor coords, Tensor features, SymInt[] grid, str rounding",
    "Tensor",
    native_ops.voxel_pooling,
    _pool_fake,
)
_define(
    "voxel_pooling_backward",
    "Tensor grad, Tensor coords, SymInt[] grid, str rounding",
    "Tensor",
    native_ops.voxel_pooling_backward,
    _pool_backward_fake,
)
_differentiate("voxel_pooling", _pool_backward, _pool_setup)
_differentiate("voxel_pooling_backward", _pool_backward_backward, _pool_backward_setup)


# Plane sweeps: the first derivative is a kernel, the others are plain torch.


def _warp_fake(source: Tensor, projection: Tensor, depth: Tensor, behind: str) -> Tensor:
    return _maps(source, source.shape[0], source.shape[1], depth.shape[1:])


def _warp_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.behind = inputs
    ctx.save_for_backward(*tensors)


def _warp_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    source, projection, depth = ctx.saved_tensors
    for_source, _, for_depth, _ = ctx.needs_input_grad
    _, grad_source, grad_depth = ops.plane_sweep_backward(
        grad, None, source, projection, depth, 0, ctx.behind, [False, for_source, for_depth]
    )
    return grad_source if for_source else None, None, grad_depth if for_depth else None, None


def _correlation_fake(
    reference: Tensor, source: Tensor, projection: Tensor, depth: Tensor, groups: int, behind: str
) -> Tensor:
    dtype = torch.promote_types(reference.dtype, source.dtype)
    return source.new_empty(depth.shape[0], groups, *depth.shape[1:], dtype=dtype)


def _correlation_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.groups, ctx.behind = inputs
    ctx.save_for_backward(*tensors)


def _correlation_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    for_reference, for_source, _, for_depth, _, _ = ctx.needs_input_grad
    wanted = [for_reference, for_source, for_depth]
    grads = ops.plane_sweep_backward(grad, *ctx.saved_tensors, ctx.groups, ctx.behind, wanted)
    grad_reference, grad_source, grad_depth = _or_none(grads, wanted)
    return grad_reference, grad_source, None, grad_depth, None, None


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


def _sweep_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.groups, ctx.behind, ctx.wanted = inputs
    ctx.save_for_backward(*tensors)


def _sweep_backward_backward(ctx: Any, *towards: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:5]
    grads = second_order.plane_sweep(
        ctx.saved_tensors, ctx.groups, ctx.behind, _or_none(towards, ctx.wanted), needed
    )
    return (*grads, None, None, None)


_SWEEP = "Tensor source, Tensor projection, Tensor depth"

_define("homography_warp", f"{_SWEEP}, str behind", "Tensor", native_ops.homography_warp, _warp_fake)
_define(
    "plane_sweep_correlation",
    f"Tensor reference, {_SWEEP}, SymInt groups, str behind",
    "Tensor",
    native_ops.plane_sweep_correlation,
    _correlation_fake,
)
_define(
    "plane_sweep_backward",
    f"Tensor grad, Tensor? reference, {_SWEEP}, SymInt groups, str behind, bool[] wanted",
    "(Tensor, Tensor, Tensor)",
    native_ops.sweep_backward,
    _sweep_backward_fake,
)
_differentiate("homography_warp", _warp_backward, _warp_setup)
_differentiate("plane_sweep_correlation", _correlation_backward, _correlation_setup)
_differentiate("plane_sweep_backward", _sweep_backward_backward, _sweep_backward_setup)


# The same operators on GPUs.

if _cuda_devices.built():
    for _name, _kernel in _cuda_ops.Kernels(native_ops.native).by_operator().items():
        _LIBRARY.impl(_name, _kernel, "CUDA")
