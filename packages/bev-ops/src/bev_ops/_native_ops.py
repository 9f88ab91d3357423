"""The compiled kernels on real CPU tensors: conversion of dtypes, allocation of results, the calls.

Half precision is converted, sums run in float32 or better. Every function trusts its arguments.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from bev_ops import _cuda_devices
from bev_ops._checks import compute_dtype
from bev_ops._compiled import native as native
from bev_ops.reference import hidden_position

# Channels of packed maps are padded to a multiple of this.
_PADDING = 16
# Bytes from which on memory is asked for in large pages.
_LARGE = 4 * 2**20


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_warned = False


def runs(device: torch.device) -> bool:
    """Whether the compiled kernels serve a device; warns once where they should and are missing."""
    global _warned
    if device.type == "cuda":
        return bool(_cuda_devices.runs(device.index))
    if device.type != "cpu":
        return False
    if native is None and not _warned:
        _warned = True
        warnings.warn(
            "bev_ops runs in plain torch, many times slower, because its compiled kernels are missing; with "
            "a C++17 compiler at hand, `pip install --force-reinstall --no-deps --no-binary bev-ops bev-ops` "
            "(or `pip install packages/bev-ops` in a checkout) builds them",
            RuntimeWarning,
            stacklevel=3,
        )
    return native is not None


def _call(kernel: str, *arguments: object) -> None:
    """Call a compiled kernel; tensors go as addresses, None for one that is not wanted."""
    getattr(native, kernel)(*map(_argument, arguments), torch.get_num_threads())


def _argument(value: object) -> object:
    if isinstance(value, list):
        return [_argument(one) for one in value]
    if value is None:
        return native.Argument(0, (), "")
    if isinstance(value, Tensor):
        return native.Argument(value.data_ptr(), value.stride(), str(value.dtype).removeprefix("torch."))
    return value


def _channels_last(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """[B,C,H,W] -> dense [B,H,W,C]."""
    maps = maps.to(dtype)
    rows = maps.permute(0, 2, 3, 1)
    if rows.is_contiguous():
        return rows
    out = _empty(rows.shape, dtype)
    _call("to_channels_last", tuple(maps.shape), maps, out)
    return out


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised memory; large pages where it is large, as first touches can cost more than a kernel."""
    out = torch.empty(tuple(shape), dtype=dtype)
    if out.nbytes >= _LARGE:
        native.want_large_pages(out.data_ptr(), out.nbytes)
    return out


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return _empty(shape, dtype).zero_()


def _or_nothing(grad: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if grad is None else grad.to(like.dtype)


def _is_empty(*tensors: Tensor) -> bool:
    return any(tensor.numel() == 0 for tensor in tensors)


def _says_what_did_not_fit(op: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Name the op and its arguments where memory for the result, or to work in, cannot be had."""

    @functools.wraps(op)
    def named(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return op(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            given = [list(value.shape) if isinstance(value, Tensor) else value for value in args]
            raise RuntimeError(
                f"{op.__name__}: result and scratch must fit into memory, got arguments "
                f"{', '.join(map(str, given))}: {error}"
            ) from error

    return named


@_says_what_did_not_fit
def lift_splat(
    depth: Tensor, context: Tensor, projection: Tensor, depth_bins: Tensor, grid: list[int], rounding: str
) -> Tensor:
    """See `bev_ops.lift_splat`."""
    channels = context.shape[2]
    sums, places = compute_dtype(depth, context), compute_dtype(projection, depth_bins)
    empty = _is_empty(depth, context)
    bev = (_zeros if empty else _empty)((depth.shape[0], grid[1], grid[2], channels), sums)
    if not empty:
        _call(
            "lift_splat",
            (*depth.shape, channels),
            tuple(grid),
            rounding == "trunc",
            depth.to(sums),
            context.to(sums),
            projection.to(places).contiguous(),
            depth_bins.to(places).contiguous(),
            bev,
        )
    return bev.permute(0, 3, 1, 2).to(context.dtype)


@_says_what_did_not_fit
def lift_splat_backward(
    grad: Tensor,
    depth: Tensor,
    context: Tensor,
    projection: Tensor,
    depth_bins: Tensor,
    grid: list[int],
    rounding: str,
    wanted: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of depth and context, empty where not wanted."""
    sums, places = compute_dtype(depth, context), compute_dtype(projection, depth_bins)
    empty = _is_empty(depth, context)
    new = _zeros if empty else _empty
    grad_depth = new(depth.shape, sums) if wanted[0] else None
    grad_context = new(context.shape, sums) if wanted[1] else None
    if not empty:
        _call(
            "lift_splat_backward",
            (*depth.shape, context.shape[2]),
            tuple(grid),
            rounding == "trunc",
            _channels_last(grad, sums),
            depth.to(sums),
            context.to(sums),
            projection.to(places).contiguous(),
            depth_bins.to(places).contiguous(),
            grad_depth,
            grad_context,
        )
    return _or_nothing(grad_depth, depth), _or_nothing(grad_context, context)


@_says_what_did_not_fit
def lift_plan(
    projection: Tensor, depth_bins: Tensor, size: tuple[int, int], grid: tuple[int, int, int], rounding: str
) -> list[Tensor]:
    """The groups of points that the kernels would merge in every call: starts, cell, rows and events."""
    places = compute_dtype(projection, depth_bins)
    matrices, bins = projection.to(places).contiguous(), depth_bins.to(places).contiguous()
    sizes = (*projection.shape[:2], len(bins), *size, 1)
    arguments = (sizes, grid, rounding == "trunc", matrices, bins)
    columns = 0 if 0 in sizes else native.lift_plan_columns(sizes)
    starts = torch.zeros(columns + 1, 2, dtype=torch.int64)
    if columns:
        _call("lift_plan", *arguments, [starts, None, None, None])
    groups, events = starts[-1].tolist()
    plan = [
        starts,
        torch.empty(groups, dtype=torch.int32),
        torch.empty(groups, dtype=torch.int16),
        torch.empty(events, 3, dtype=torch.int32),
    ]
    if groups:
        _call("lift_plan", *arguments, plan)
    return plan


@_says_what_did_not_fit
def lift_splat_planned(
    depth: Tensor,
    context: Tensor,
    starts: Tensor,
    cell: Tensor,
    rows: Tensor,
    events: Tensor,
    grid: list[int],
) -> Tensor:
    """See `bev_ops.LiftSplatPlan.splat`."""
    channels, sums = context.shape[2], compute_dtype(depth, context)
    empty = _is_empty(depth, context)
    bev = (_zeros if empty else _empty)((depth.shape[0], grid[1], grid[2], channels), sums)
    if not empty:
        plan = [starts, cell, rows, events]
        _call(
            "lift_splat_planned",
            (*depth.shape, channels),
            tuple(grid),
            depth.to(sums),
            context.to(sums),
            plan,
            bev,
        )
    return bev.permute(0, 3, 1, 2).to(context.dtype)


@_says_what_did_not_fit
def lift_splat_planned_backward(
    grad: Tensor,
    depth: Tensor,
    context: Tensor,
    starts: Tensor,
    cell: Tensor,
    rows: Tensor,
    events: Tensor,
    grid: list[int],
    wanted: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of depth and context, empty where not wanted."""
    sums = compute_dtype(depth, context)
    empty = _is_empty(depth, context)
    new = _zeros if empty else _empty
    grad_depth = new(depth.shape, sums) if wanted[0] else None
    grad_context = new(context.shape, sums) if wanted[1] else None
    if not empty:
        _call(
            "lift_splat_planned_backward",
            (*depth.shape, context.shape[2]),
            tuple(grid),
            _channels_last(grad, sums),
            depth.to(sums),
            context.to(sums),
            [starts, cell, rows, events],
            grad_depth,
            grad_context,
        )
    return _or_nothing(grad_depth, depth), _or_nothing(grad_context, context)


def _coords(coords: Tensor) -> Tensor:
    """Coordinates in one of the dtypes the kernels read."""
    if not coords.is_floating_point():
        return coords.long()
    return coords.to(compute_dtype(coords))


@_says_what_did_not_fit
def voxel_pooling(coords: Tensor, features: Tensor, grid: list[int], rounding: str) -> Tensor:
    """See `bev_ops.voxel_pooling`."""
    batch, points, channels = features.shape
    sums = compute_dtype(features)
    bev = _zeros((batch, grid[1], grid[2], channels), sums)
    if not _is_empty(features):
        rows = features.to(sums)
        rows = rows if rows.stride(2) == 1 or channels == 1 else rows.contiguous()
        _call(
            "voxel_pooling",
            (batch, points, channels),
            tuple(grid),
            rounding == "trunc",
            _coords(coords),
            rows,
            bev,
        )
    return bev.permute(0, 3, 1, 2).to(features.dtype)


@_says_what_did_not_fit
def voxel_pooling_backward(grad: Tensor, coords: Tensor, grid: list[int], rounding: str) -> Tensor:
    """Gradient of the features."""
    batch, channels, points = grad.shape[0], grad.shape[1], coords.shape[1]
    sums = compute_dtype(grad)
    out = _empty((batch, points, channels), sums)
    if not _is_empty(out):
        _call(
            "voxel_pooling_backward",
            (batch, points, channels),
            tuple(grid),
            rounding == "trunc",
            _coords(coords),
            _channels_last(grad, sums),
            out,
        )
    return out.to(grad.dtype)


def _sweep(
    source: Tensor, depth: Tensor, groups: int, behind: str
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sizes, and where points behind the camera are seen, as the kernels take them."""
    height, width = source.shape[2:]
    hidden = hidden_position(width, behind), hidden_position(height, behind)
    return (*source.shape, *depth.shape[1:], groups), hidden


@_says_what_did_not_fit
def homography_warp(source: Tensor, projection: Tensor, depth: Tensor, behind: str) -> Tensor:
    """See `bev_ops.homography_warp`; dense as [B,D,H,W,C]."""
    sums, places = compute_dtype(source), compute_dtype(projection, depth)
    empty = _is_empty(source, depth)
    new = _zeros if empty else _empty
    out = new((*depth.shape, source.shape[1]), sums)
    if not empty:
        sizes, hidden = _sweep(source, depth, 0, behind)
        matrices = projection.to(places).contiguous()
        _call("warp", sizes, hidden, source.to(sums), matrices, depth.to(places), out)
    return out.permute(0, 4, 1, 2, 3).to(source.dtype)


@_says_what_did_not_fit
def plane_sweep_correlation(
    reference: Tensor, source: Tensor, projection: Tensor, depth: Tensor, groups: int, behind: str
) -> Tensor:
    """See `bev_ops.plane_sweep_correlation`."""
    sums, places = compute_dtype(reference, source), compute_dtype(projection, depth)
    empty = _is_empty(source, depth)
    new = _zeros if empty else _empty
    out = new((depth.shape[0], groups, *depth.shape[1:]), sums)
    if not empty:
        sizes, hidden = _sweep(source, depth, groups, behind)
        views = reference.to(sums), source.to(sums)
        _call("correlate", sizes, hidden, *views, projection.to(places).contiguous(), depth.to(places), out)
    return out.to(torch.promote_types(reference.dtype, source.dtype))


@_says_what_did_not_fit
def sweep_backward(
    grad: Tensor,
    reference: Tensor | None,
    source: Tensor,
    projection: Tensor,
    depth: Tensor,
    groups: int,
    behind: str,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of reference, source and depth, empty where not wanted; without a reference, of a warp."""
    views = (source,) if reference is None else (reference, source)
    sums, places = compute_dtype(*views), compute_dtype(projection, depth)
    batch, channels, source_height, source_width = source.shape
    width = -(-channels // _PADDING) * _PADDING
    like = source if reference is None else reference
    empty = _is_empty(source, depth)
    new = _zeros if empty else _empty
    grad_reference = new((batch, *depth.shape[2:], width), sums) if wanted[0] else None
    grad_source = _zeros((batch, source_height, source_width, width), sums) if wanted[1] else None
    grad_depth = new(depth.shape, sums) if wanted[2] else None
    if not empty:
        sizes, hidden = _sweep(source, depth, groups, behind)
        _call(
            "sweep_backward",
            sizes,
            hidden,
            grad.to(sums),
            None if reference is None else reference.to(sums),
            source.to(sums),
            projection.to(places).contiguous(),
            depth.to(places),
            grad_reference,
            grad_source,
            grad_depth,
        )
    maps = [
        _or_nothing(None if rows is None else _unpadded(rows, channels), tensor)
        for rows, tensor in ((grad_reference, like), (grad_source, source))
    ]
    return maps[0], maps[1], _or_nothing(grad_depth, depth)


def _unpadded(rows: Tensor, channels: int) -> Tensor:
    """[B,H,W,padded C] -> [B,C,H,W], dense in the order of its memory."""
    return rows[..., :channels].contiguous().permute(0, 3, 1, 2)
