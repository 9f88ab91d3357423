"""The CUDA kernels on real tensors: conversion of dtypes, allocation of results, the calls.

Half precision is read and written as it is, sums run in float32 or better. Where atomic additions sum in any
order, `torch.use_deterministic_algorithms(True)` has the sums taken in the order of the points instead. Every
method trusts its arguments, puts its work into the current stream and returns.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from bev_ops._checks import compute_dtype
from bev_ops.reference import hidden_position

# Type codes of the calls, see cpp/cuda/calls.h.
_TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3, torch.int64: 4}


def _value_dtype(places: torch.dtype, *tensors: Tensor) -> torch.dtype:
    """What the kernels read values in: one dtype for all; half precision only beside places in float32."""
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    if dtype == torch.float64:
        return dtype
    return dtype if dtype in _TYPES and places == torch.float32 else torch.float32


def _sum_dtype(values: torch.dtype) -> torch.dtype:
    return torch.float64 if values == torch.float64 else torch.float32


def _queue(tensor: Tensor) -> tuple[int, int]:
    """Device and stream of a call; a tensor in main memory belongs to the emulation."""
    if tensor.device.type != "cuda":
        return 0, 0
    return tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream


def _rows(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., C, H, W] -> dense [..., H, W, C]."""
    return maps.to(dtype).movedim(-3, -1).contiguous()


def _is_empty(*tensors: Tensor) -> bool:
    return any(tensor.numel() == 0 for tensor in tensors)


def _or_nothing(grad: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if grad is None else grad.to(like.dtype)


def _maps(rows: Tensor | None) -> Tensor | None:
    """[B,H,W,C] -> [B,C,H,W]."""
    return None if rows is None else rows.permute(0, 3, 1, 2)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _by_cell(keys: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Points in the order of their cells, and where each cell starts; those behind count nowhere."""
    keys, points = keys.sort(stable=True)
    return points, torch.searchsorted(keys, torch.arange(cells + 1, device=keys.device))


class Kernels:
    """The ops over one compiled module: `_native` on GPUs, or the emulation of its kernels in main memory."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def _lift(
        self,
        depth: Tensor,
        context: Tensor,
        projection: Tensor,
        depth_bins: Tensor,
        grid: Sequence[int],
        rounding: str,
    ) -> tuple[Any, tuple[Tensor, ...]]:
        """A prepared call, and the tensors whose memory it reads."""
        places = compute_dtype(projection, depth_bins)
        values = _value_dtype(places, depth, context)
        tensors = (
            depth.to(values),
            _rows(context, values),
            projection.to(places).contiguous(),
            depth_bins.to(places).contiguous(),
        )
        weights, rows, matrices, bins = tensors
        call = self._module.LiftCall(
            (*depth.shape, context.shape[2]),
            tuple(grid),
            rounding == "trunc",
            _TYPES[values],
            _TYPES[places],
            weights.data_ptr(),
            weights.stride(),
            rows.data_ptr(),
            matrices.data_ptr(),
            bins.data_ptr(),
            *_queue(depth),
        )
        return call, tensors

    def lift_splat(
        self,
        depth: Tensor,
        context: Tensor,
        projection: Tensor,
        depth_bins: Tensor,
        grid: list[int],
        rounding: str,
    ) -> Tensor:
        """See `bev_ops.lift_splat`."""
        shape = (depth.shape[0], grid[1], grid[2], context.shape[2])
        bev = context.new_zeros(shape, dtype=compute_dtype(depth, context))
        if not _is_empty(depth, context):
            call, _held = self._lift(depth, context, projection, depth_bins, grid, rounding)
            if torch.are_deterministic_algorithms_enabled():
                keys = torch.empty(depth.numel(), dtype=torch.int64, device=depth.device)
                call.keys(keys.data_ptr())
                points, starts = _by_cell(keys, depth.shape[0] * grid[1] * grid[2])
                call.gather(points.data_ptr(), starts.data_ptr(), bev.data_ptr())
            else:
                call.splat(bev.data_ptr())
        return bev.permute(0, 3, 1, 2).to(context.dtype)

    def lift_splat_backward(
        self,
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
        if _is_empty(depth, context):
            return (
                depth.new_zeros(depth.shape if wanted[0] else 0),
                context.new_zeros(context.shape if wanted[1] else 0),
            )
        call, (weights, *_held) = self._lift(depth, context, projection, depth_bins, grid, rounding)
        rows = _rows(grad, weights.dtype)
        grad_depth = grad_context = None
        if wanted[0]:
            grad_depth = weights.new_empty(depth.shape)
            call.depth_gradient(rows.data_ptr(), grad_depth.data_ptr())
        if wanted[1]:
            grad_context = weights.new_empty(context.shape)
            call.context_gradient(rows.data_ptr(), grad_context.data_ptr())
        return _or_nothing(grad_depth, depth), _or_nothing(grad_context, context)

    def _pool(
        self, coords: Tensor, values: torch.dtype, channels: int, grid: Sequence[int], rounding: str
    ) -> tuple[Any, Tensor]:
        """A prepared call, and the cell of each point."""
        places = compute_dtype(coords) if coords.is_floating_point() else torch.int64
        coords = coords.to(places)
        queue = _queue(coords)
        sizes = (*coords.shape[:2], channels)
        call = self._module.PoolCall(sizes, tuple(grid), rounding == "trunc", _TYPES[values], *queue)
        keys = torch.empty(coords.shape[0] * coords.shape[1], dtype=torch.int64, device=coords.device)
        call.keys(_TYPES[places], coords.data_ptr(), coords.stride(), keys.data_ptr())
        return call, keys

    def voxel_pooling(self, coords: Tensor, features: Tensor, grid: list[int], rounding: str) -> Tensor:
        """See `bev_ops.voxel_pooling`."""
        batch, _, channels = features.shape
        bev = features.new_zeros((batch, grid[1], grid[2], channels), dtype=compute_dtype(features))
        if not _is_empty(features):
            rows = features.to(_value_dtype(torch.float32, features)).contiguous()
            call, keys = self._pool(coords, rows.dtype, channels, grid, rounding)
            if torch.are_deterministic_algorithms_enabled():
                points, starts = _by_cell(keys, batch * grid[1] * grid[2])
                call.gather(points.data_ptr(), starts.data_ptr(), rows.data_ptr(), bev.data_ptr())
            else:
                call.splat(keys.data_ptr(), rows.data_ptr(), bev.data_ptr())
        return bev.permute(0, 3, 1, 2).to(features.dtype)

    def voxel_pooling_backward(self, grad: Tensor, coords: Tensor, grid: list[int], rounding: str) -> Tensor:
        """Gradient of the features."""
        values = _value_dtype(torch.float32, grad)
        channels = grad.shape[1]
        out = grad.new_empty((grad.shape[0], coords.shape[1], channels), dtype=values)
        if not _is_empty(out):
            rows = _rows(grad, values)
            call, keys = self._pool(coords, values, channels, grid, rounding)
            call.gradient(keys.data_ptr(), rows.data_ptr(), out.data_ptr())
        return out.to(grad.dtype)

    def _sweep(
        self,
        reference: Tensor | None,
        source: Tensor,
        projection: Tensor,
        depth: Tensor,
        groups: int,
        behind: str,
    ) -> tuple[Any, torch.dtype, tuple[Tensor, ...]]:
        """A prepared call, the dtype of its values, and the tensors whose memory it reads."""
        views = (source,) if reference is None else (source, reference)
        places = compute_dtype(projection, depth)
        values = _value_dtype(places, *views)
        height, width = source.shape[2:]
        rows = [_rows(view, values) for view in views]
        matrices, planes = projection.to(places).contiguous(), depth.to(places)
        call = self._module.SweepCall(
            (*source.shape, *depth.shape[1:], groups),
            (hidden_position(width, behind), hidden_position(height, behind)),
            _TYPES[values],
            _TYPES[places],
            0 if reference is None else rows[1].data_ptr(),
            rows[0].data_ptr(),
            matrices.data_ptr(),
            planes.data_ptr(),
            planes.stride(),
            *_queue(source),
        )
        return call, values, (*rows, matrices, planes)

    def homography_warp(self, source: Tensor, projection: Tensor, depth: Tensor, behind: str) -> Tensor:
        """See `bev_ops.homography_warp`; dense as [B,D,H,W,C]."""
        shape = (*depth.shape, source.shape[1])
        if _is_empty(source, depth):
            return source.new_zeros(shape).permute(0, 4, 1, 2, 3)
        call, values, _held = self._sweep(None, source, projection, depth, 0, behind)
        out = source.new_empty(shape, dtype=values)
        call.warp(out.data_ptr())
        return out.permute(0, 4, 1, 2, 3).to(source.dtype)

    def plane_sweep_correlation(
        self,
        reference: Tensor,
        source: Tensor,
        projection: Tensor,
        depth: Tensor,
        groups: int,
        behind: str,
    ) -> Tensor:
        """See `bev_ops.plane_sweep_correlation`."""
        dtype = torch.promote_types(reference.dtype, source.dtype)
        shape = depth.shape[0], groups, *depth.shape[1:]
        if _is_empty(source, depth):
            # The mean over no channels is NaN; a view without cells is zero everywhere.
            nothing = math.nan if source.shape[1] == 0 else 0.0
            return source.new_full(shape, nothing, dtype=dtype)
        call, values, _held = self._sweep(reference, source, projection, depth, groups, behind)
        out = source.new_empty(shape, dtype=values)
        call.correlate(out.data_ptr())
        return out.to(dtype)

    def plane_sweep_backward(
        self,
        grad: Tensor,
        reference: Tensor | None,
        source: Tensor,
        projection: Tensor,
        depth: Tensor,
        groups: int,
        behind: str,
        wanted: list[bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of reference, source and depth, empty where not wanted; of a warp without reference."""
        batch, channels, source_height, source_width = source.shape
        like = source if reference is None else reference
        views = (source,) if reference is None else (source, reference)
        sums = compute_dtype(*views)
        empty = _is_empty(source, depth)
        grad_source = grad_depth = grad_reference = None
        if wanted[0]:
            shape = (batch, *depth.shape[2:], channels)
            values = _value_dtype(compute_dtype(projection, depth), *views)
            grad_reference = (
                like.new_zeros(shape, dtype=values) if empty else like.new_empty(shape, dtype=values)
            )
        if wanted[1]:
            grad_source = source.new_zeros((batch, source_height, source_width, channels), dtype=sums)
        if wanted[2]:
            grad_depth = depth.new_zeros(depth.shape, dtype=sums)
        if not empty:
            call, values, _held = self._sweep(reference, source, projection, depth, groups, behind)
            towards = grad.to(values) if groups else grad.to(values).movedim(1, -1)
            towards = towards.contiguous()
            ordered = grad_source is not None and torch.are_deterministic_algorithms_enabled()
            if grad_source is not None and ordered:
                keys = torch.empty(depth.numel(), dtype=torch.int64, device=depth.device)
                call.keys(keys.data_ptr())
                points, starts = _by_cell(keys, batch * (source_height + 1) * (source_width + 1))
                addresses = points.data_ptr(), starts.data_ptr(), grad_source.data_ptr()
                call.source_gradient(towards.data_ptr(), *addresses)
            scattered = None if ordered else grad_source
            if grad_reference is not None or scattered is not None:
                call.view_gradients(towards.data_ptr(), _address(grad_reference), _address(scattered))
            if grad_depth is not None:
                call.depth_gradient(towards.data_ptr(), grad_depth.data_ptr())
        return (
            _or_nothing(_maps(grad_reference), like),
            _or_nothing(_maps(grad_source), source),
            _or_nothing(grad_depth, depth),
        )

    def by_operator(self) -> dict[str, Any]:
        """The methods by the names of torch's operators."""
        names = (
            "lift_splat",
            "lift_splat_backward",
            "voxel_pooling",
            "voxel_pooling_backward",
            "homography_warp",
            "plane_sweep_correlation",
            "plane_sweep_backward",
        )
        return {name: getattr(self, name) for name in names}
