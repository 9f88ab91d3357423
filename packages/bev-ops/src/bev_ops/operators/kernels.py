"""The compiled kernels over real tensors: dtypes and layouts that they read, results, the calls.

One adapter serves both processors; where they differ, `Kernels` says why. Sums run in float32 or better.
Where atomic additions on a GPU sum in any order, `torch.use_deterministic_algorithms(True)` has the sums
taken in the order of the points instead.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from bev_ops import devices
from bev_ops._checks import compute_dtype, expect_choice
from bev_ops.reference import hidden_position

# Bytes from which on memory is asked for in large pages.
_LARGE = 4 * 2**20
_HALVES = (torch.float16, torch.bfloat16)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _says_what_did_not_fit(op: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Name the op and its arguments where memory for the result, or to work in, cannot be had."""

    @functools.wraps(op)
    def named(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return op(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            given = [list(value.shape) if isinstance(value, Tensor) else value for value in args[1:]]
            raise RuntimeError(
                f"{op.__name__}: result and scratch must fit into memory, got arguments "
                f"{', '.join(map(str, given))}: {error}"
            ) from error

    return named


def _is_empty(*tensors: Tensor) -> bool:
    return any(tensor.numel() == 0 for tensor in tensors)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def _dense(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return _as(tensor, dtype).contiguous()


def _or_nothing(grad: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if grad is None else _as(grad, like.dtype)


def _trunc(op: str, rounding: str) -> bool:
    expect_choice(op, "rounding", rounding, ("floor", "trunc"))
    return rounding == "trunc"


def _hidden(op: str, source: Tensor, behind: str) -> tuple[float, float]:
    """Where points behind the camera are seen, (u, v)."""
    expect_choice(op, "behind", behind, ("zero", "corner"))
    return hidden_position(source.shape[3], behind), hidden_position(source.shape[2], behind)


def _by_cell(keys: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Points in the order of their cells, and where each cell starts; those behind count nowhere."""
    keys, points = keys.flatten().sort(stable=True)
    return points, torch.searchsorted(keys, torch.arange(cells + 1, device=keys.device))


class Kernels:
    """The ops of one compiled processor. Every method trusts the options and checks no values.

    Args:
        ops: `_native.cpu`, `_native.cuda`, or `_emulated.cuda` for tensors in main memory.
        cuda: whether they are the CUDA kernels. Those read half precision as it is and want the channels of
            maps side by side, which the processor's kernels see to themselves; and they add to maps that must
            be zero before.
    """

    def __init__(self, ops: Any, *, cuda: bool) -> None:
        self._ops = ops
        self._cuda = cuda
        self._padding: int = ops.channel_padding

    # What calls are made of

    def _place(self, tensor: Tensor) -> tuple[int, int, int]:
        """Threads, device and stream of a call; a tensor in main memory belongs to the emulation."""
        if tensor.device.type != "cuda":
            return torch.get_num_threads(), 0, 0
        index = tensor.device.index
        return 0, index, torch.cuda.current_stream(index).cuda_stream

    def _value_dtype(self, places: torch.dtype, *tensors: Tensor) -> torch.dtype:
        """What the kernels read values in: one dtype for all; half only beside places in float32."""
        dtype = tensors[0].dtype
        for tensor in tensors[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
        if dtype in _HALVES and not (self._cuda and places == torch.float32):
            return torch.float32
        return dtype

    def _new(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype, *, zeros: bool = False) -> Tensor:
        """A dense tensor."""
        out = like.new_empty(shape, dtype=dtype)
        return self._prepared(out, zeros)

    def _new_maps(
        self, like: Tensor, shape: Sequence[int], dtype: torch.dtype, *, zeros: bool = False
    ) -> Tensor:
        """Uninitialised maps [B,C,*size] or zeros, channels side by side in memory."""
        batch, channels, *size = shape
        strides, step = [0] * len(shape), channels
        strides[1] = 1
        for axis in range(len(size) + 1, 1, -1):
            strides[axis] = step
            step *= shape[axis]
        strides[0] = step
        out = torch.empty_strided((batch, channels, *size), strides, dtype=dtype, device=like.device)
        return self._prepared(out, zeros)

    def _prepared(self, out: Tensor, zeros: bool) -> Tensor:
        if not self._cuda and out.nbytes >= _LARGE:
            # First touches of small pages can cost more than a kernel.
            self._ops.want_large_pages(out.data_ptr(), out.nbytes)
        return out.zero_() if zeros else out

    def _rows(self, maps: Tensor, dtype: torch.dtype) -> Tensor:
        """[B,*,C,H,W] with channels side by side in memory."""
        maps = _as(maps, dtype)
        rows = maps.movedim(-3, -1)
        if self._cuda or rows.is_contiguous():
            return rows.contiguous().movedim(-1, -3)
        out = self._new_maps(maps, maps.shape, dtype)
        self._ops.to_channels_last(maps, out, self._place(maps))
        return out

    def _features(self, maps: Tensor, dtype: torch.dtype) -> Tensor:
        """Maps as an op reads them."""
        return self._rows(maps, dtype) if self._cuda else _as(maps, dtype)

    def _ordered(self) -> bool:
        """Whether sums must be taken in the order of the points by an extra pass."""
        return self._cuda and torch.are_deterministic_algorithms_enabled()

    # Lift-splat

    def _lift(
        self,
        op: str,
        depth: Tensor,
        context: Tensor,
        projection: Tensor,
        depth_bins: Tensor,
        grid: Sequence[int],
        rounding: str,
    ) -> tuple[Any, ...]:
        """The arguments with which every call begins."""
        places = compute_dtype(projection, depth_bins)
        values = self._value_dtype(places, depth, context)
        return (
            _as(depth, values),
            self._features(context, values),
            _dense(projection, places),
            _dense(depth_bins, places),
            grid,
            _trunc(op, rounding),
        )

    @_says_what_did_not_fit
    def lift_splat(
        self,
        depth: Tensor,
        context: Tensor,
        projection: Tensor,
        depth_bins: Tensor,
        grid: Sequence[int],
        rounding: str,
    ) -> Tensor:
        """See `bev_ops.lift_splat`."""
        empty = _is_empty(depth, context)
        shape, sums = (depth.shape[0], context.shape[2], *grid[1:]), compute_dtype(depth, context)
        bev = self._new_maps(depth, shape, sums, zeros=self._cuda or empty)
        if not empty:
            call = self._lift("lift_splat", depth, context, projection, depth_bins, grid, rounding)
            place = self._place(depth)
            if self._ordered():
                keys = depth.new_empty(depth.shape, dtype=torch.int64)
                self._ops.lift_splat_keys(*call, keys, place)
                order = _by_cell(keys, depth.shape[0] * grid[1] * grid[2])
                self._ops.lift_splat_ordered(*call, *order, bev, place)
            else:
                self._ops.lift_splat(*call, bev, place)
        return _as(bev, context.dtype)

    @_says_what_did_not_fit
    def lift_splat_backward(
        self,
        grad: Tensor,
        depth: Tensor,
        context: Tensor,
        projection: Tensor,
        depth_bins: Tensor,
        grid: Sequence[int],
        rounding: str,
        wanted: list[bool],
    ) -> tuple[Tensor, Tensor]:
        """Gradients of depth and context, empty where not wanted."""
        values = self._value_dtype(compute_dtype(projection, depth_bins), depth, context)
        grads = self._lift_gradients(depth, context, values, wanted)
        if not _is_empty(depth, context):
            call = self._lift("lift_splat_backward", depth, context, projection, depth_bins, grid, rounding)
            self._ops.lift_splat_backward(self._rows(grad, values), *call, *grads, self._place(depth))
        return _or_nothing(grads[0], depth), _or_nothing(grads[1], context)

    def _lift_gradients(
        self, depth: Tensor, context: Tensor, values: torch.dtype, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Memory for the gradients of depth and context; none where not wanted."""
        empty = _is_empty(depth, context)
        for_depth = self._new(depth, depth.shape, values, zeros=empty) if wanted[0] else None
        return for_depth, self._new(context, context.shape, values, zeros=empty) if wanted[1] else None

    # Lift-splat by a plan, which only the processor's kernels know

    @_says_what_did_not_fit
    def lift_plan(
        self,
        projection: Tensor,
        depth_bins: Tensor,
        size: tuple[int, int],
        grid: tuple[int, int, int],
        rounding: str,
    ) -> list[Tensor]:
        """The groups of points that the kernels would merge in every call: starts, cell, rows and events."""
        places = compute_dtype(projection, depth_bins)
        geometry = _dense(projection, places), _dense(depth_bins, places)
        arguments = (*geometry, size, grid, _trunc("lift_plan", rounding))
        empty = _is_empty(projection, depth_bins) or 0 in size
        columns = 0 if empty else self._ops.lift_plan_columns(*projection.shape[:2], *size)
        starts = torch.zeros(columns + 1, 2, dtype=torch.int64)
        if columns:
            self._ops.lift_plan(*arguments, starts, None, None, None)
        groups, events = starts[-1].tolist()
        plan = [
            starts,
            torch.empty(groups, dtype=torch.int32),
            torch.empty(groups, dtype=torch.int16),
            torch.empty(events, 3, dtype=torch.int32),
        ]
        if groups:
            self._ops.lift_plan(*arguments, *plan)
        return plan

    @_says_what_did_not_fit
    def lift_splat_planned(
        self,
        depth: Tensor,
        context: Tensor,
        starts: Tensor,
        cell: Tensor,
        rows: Tensor,
        events: Tensor,
        grid: Sequence[int],
    ) -> Tensor:
        """See `bev_ops.LiftSplatPlan.splat`."""
        empty = _is_empty(depth, context)
        values = self._value_dtype(torch.float32, depth, context)
        shape, sums = (depth.shape[0], context.shape[2], *grid[1:]), compute_dtype(depth, context)
        bev = self._new_maps(depth, shape, sums, zeros=empty)
        if not empty:
            features = _as(depth, values), _as(context, values)
            self._ops.lift_splat_planned(*features, starts, cell, rows, events, grid, bev, self._place(depth))
        return _as(bev, context.dtype)

    @_says_what_did_not_fit
    def lift_splat_planned_backward(
        self,
        grad: Tensor,
        depth: Tensor,
        context: Tensor,
        starts: Tensor,
        cell: Tensor,
        rows: Tensor,
        events: Tensor,
        grid: Sequence[int],
        wanted: list[bool],
    ) -> tuple[Tensor, Tensor]:
        """Gradients of depth and context, empty where not wanted."""
        values = self._value_dtype(torch.float32, depth, context)
        grads = self._lift_gradients(depth, context, values, wanted)
        if not _is_empty(depth, context):
            features = _as(depth, values), _as(context, values)
            plan = starts, cell, rows, events
            place = self._place(depth)
            self._ops.lift_splat_planned_backward(
                self._rows(grad, values), *features, *plan, grid, *grads, place
            )
        return _or_nothing(grads[0], depth), _or_nothing(grads[1], context)

    # Voxel pooling

    def _points(self, coords: Tensor) -> tuple[Tensor, Tensor | None]:
        """Coordinates in a dtype that the kernels read, and memory for the cells on a GPU."""
        if coords.is_floating_point():
            coords = _as(coords, compute_dtype(coords))
        else:
            coords = _as(coords, torch.int64)
        return coords, coords.new_empty(coords.shape[:2], dtype=torch.int64) if self._cuda else None

    @_says_what_did_not_fit
    def voxel_pooling(self, coords: Tensor, features: Tensor, grid: Sequence[int], rounding: str) -> Tensor:
        """See `bev_ops.voxel_pooling`."""
        batch, _, channels = features.shape
        bev = self._new_maps(features, (batch, channels, *grid[1:]), compute_dtype(features), zeros=True)
        if not _is_empty(features):
            rows = _as(features, self._value_dtype(torch.float32, features))
            if self._cuda or (rows.stride(2) != 1 and channels != 1):
                rows = rows.contiguous()
            trunc, place = _trunc("voxel_pooling", rounding), self._place(features)
            coords, keys = self._points(coords)
            if self._ordered():
                self._ops.voxel_pooling_keys(coords, keys, grid, trunc, place)
                order = _by_cell(keys, batch * grid[1] * grid[2])  # type: ignore[arg-type]
                self._ops.voxel_pooling_ordered(coords, rows, grid, trunc, *order, bev, place)
            else:
                self._ops.voxel_pooling(coords, keys, rows, grid, trunc, bev, place)
        return _as(bev, features.dtype)

    @_says_what_did_not_fit
    def voxel_pooling_backward(
        self, grad: Tensor, coords: Tensor, grid: Sequence[int], rounding: str
    ) -> Tensor:
        """Gradient of the features."""
        values = self._value_dtype(torch.float32, grad)
        out = self._new(grad, (grad.shape[0], coords.shape[1], grad.shape[1]), values)
        if not _is_empty(out):
            trunc = _trunc("voxel_pooling_backward", rounding)
            coords, keys = self._points(coords)
            self._ops.voxel_pooling_backward(
                self._rows(grad, values), coords, keys, grid, trunc, out, self._place(grad)
            )
        return _as(out, grad.dtype)

    # Plane sweep

    @_says_what_did_not_fit
    def homography_warp(self, source: Tensor, projection: Tensor, depth: Tensor, behind: str) -> Tensor:
        """See `bev_ops.homography_warp`; channels lie side by side."""
        places = compute_dtype(projection, depth)
        values = self._value_dtype(places, source)
        shape, empty = (*source.shape[:2], *depth.shape[1:]), _is_empty(source, depth)
        out = self._new_maps(source, shape, values, zeros=empty)
        if not empty:
            hidden, place = _hidden("homography_warp", source, behind), self._place(source)
            views = self._features(source, values), _dense(projection, places), _as(depth, places)
            self._ops.homography_warp(*views, hidden, out, place)
        return _as(out, source.dtype)

    @_says_what_did_not_fit
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
            return source.new_full(shape, math.nan if source.shape[1] == 0 else 0.0, dtype=dtype)
        places = compute_dtype(projection, depth)
        values = self._value_dtype(places, reference, source)
        out = self._new(source, shape, values)
        self._ops.plane_sweep_correlation(
            self._features(reference, values),
            self._features(source, values),
            _dense(projection, places),
            _as(depth, places),
            groups,
            _hidden("plane_sweep_correlation", source, behind),
            out,
            self._place(source),
        )
        return _as(out, dtype)

    @_says_what_did_not_fit
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
        views = (source,) if reference is None else (reference, source)
        like, sums, places = views[0], compute_dtype(*views), compute_dtype(projection, depth)
        values = self._value_dtype(places, *views)
        batch, channels, *source_size = source.shape
        width = -(-channels // self._padding) * self._padding
        empty = _is_empty(source, depth)
        # Without atomic additions nothing but the source's gradient is added to what is there.
        grad_reference = grad_source = grad_depth = None
        if wanted[0]:
            shape = batch, width, *depth.shape[2:]
            grad_reference = self._new_maps(like, shape, values, zeros=empty)
        if wanted[1]:
            grad_source = self._new_maps(source, (batch, width, *source_size), sums, zeros=True)
        if wanted[2]:
            grad_depth = self._new(depth, depth.shape, sums, zeros=empty)
        if not empty:
            call = (
                self._towards(grad, groups, values),
                None if reference is None else self._features(reference, values),
                self._features(source, values),
                _dense(projection, places),
                _as(depth, places),
                groups,
                _hidden("plane_sweep_backward", source, behind),
            )
            place = self._place(source)
            scattered = grad_source
            if grad_source is not None and self._ordered():
                scattered = None
                keys = depth.new_empty(depth.shape, dtype=torch.int64)
                self._ops.plane_sweep_keys(*call[1:], keys, place)
                order = _by_cell(keys, batch * (source_size[0] + 1) * (source_size[1] + 1))
                self._ops.plane_sweep_backward_ordered(*call, *order, grad_source, place)
            self._ops.plane_sweep_backward(*call, grad_reference, scattered, grad_depth, place)
        maps = (grad_reference, like), (grad_source, source)
        first, second = (_or_nothing(_unpadded(grads, channels), tensor) for grads, tensor in maps)
        return first, second, _or_nothing(grad_depth, depth)

    def _towards(self, grad: Tensor, groups: int, values: torch.dtype) -> Tensor:
        """The gradient of a correlation, or of a warp, as the kernels read it."""
        grad = _as(grad, values)
        if not self._cuda:
            return grad
        return grad.contiguous() if groups else grad.movedim(1, -1).contiguous().movedim(-1, 1)


def _unpadded(maps: Tensor | None, channels: int) -> Tensor | None:
    """[B,C,H,W] of maps with padded channels, dense in the order of their memory."""
    if maps is None or maps.shape[1] == channels:
        return maps
    return maps[:, :channels].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def available() -> dict[str, Kernels]:
    """The compiled kernels by the dispatch key of their processor."""
    found = {}
    if devices.native is not None:
        found["CPU"] = Kernels(devices.native.cpu, cuda=False)
        if devices.built_for_cuda():
            found["CUDA"] = Kernels(devices.native.cuda, cuda=True)
    return found
