"""The CUDA kernels on real tensors: conversion of dtypes, allocation of results, the calls.

Half precision is read and written as it is, sums run in float32 or better. Sums that atomic additions take in any
order are taken in the order of the points instead under `torch.use_deterministic_algorithms(True)`. Every method
trusts its arguments, puts its work into the current stream and returns.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from bev_ops._checks import compute_dtype

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


def _by_cell(keys: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Points in the order of their cells, and where each cell starts; later cells hold what counts nowhere."""
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
            return tuple(
                like.new_zeros(like.shape if want else 0) for like, want in zip((depth, context), wanted, strict=True)
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

    def by_operator(self) -> dict[str, Any]:
        """The methods by the names of torch's operators."""
        return {"lift_splat": self.lift_splat, "lift_splat_backward": self.lift_splat_backward}
