"""The definitions as torch's operators: what runs where there are no compiled kernels.

Every operator has its fallback, those of backward passes too, so that a graph which was recorded where the
kernels are runs where they are not.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bev_ops import reference


@contextmanager
def _autograd() -> Iterator[None]:
    """Record gradients inside an operator's kernel, for which torch switches autograd off."""
    keys = torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView
    below = [torch._C._SetExcludeDispatchKeyGuard(key, False) for key in keys]
    with below[0], below[1], torch.enable_grad():
        yield


def _gradients(
    definition: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Gradients of a definition by those of its inputs that are wanted, empty for the others."""
    with _autograd():
        leaves = [x.detach().requires_grad_(want) for x, want in zip(inputs, wanted, strict=True)]
        out = definition(*leaves)
        if out.requires_grad:
            needed = [leaf for leaf in leaves if leaf.requires_grad]
            grads = iter(torch.autograd.grad(out, needed, grad.to(out.dtype), materialize_grads=True))
        else:  # nothing falls into the grid, or nothing is seen
            grads = iter([torch.zeros_like(x) for x, want in zip(inputs, wanted, strict=True) if want])
    return tuple(next(grads) if want else x.new_empty(0) for x, want in zip(inputs, wanted, strict=True))


def lift_splat_backward(grad: Tensor, depth: Tensor, context: Tensor, *options: Any) -> tuple[Tensor, ...]:
    """Gradients of depth and context."""
    *geometry, wanted = options
    return _gradients(lambda d, c: reference.lift_splat(d, c, *geometry), (depth, context), grad, wanted)


def lift_splat_planned_backward(
    grad: Tensor, depth: Tensor, context: Tensor, *options: Any
) -> tuple[Tensor, ...]:
    """Gradients of depth and context."""
    *plan, wanted = options
    return _gradients(lambda d, c: reference.lift_splat_planned(d, c, *plan), (depth, context), grad, wanted)


def voxel_pooling_backward(grad: Tensor, coords: Tensor, grid: Any, rounding: str) -> Tensor:
    """Gradient of the features."""
    features = grad.new_empty(grad.shape[0], coords.shape[1], grad.shape[1])
    (found,) = _gradients(
        lambda f: reference.voxel_pooling(coords, f, grid, rounding), (features,), grad, [True]
    )
    return found


def plane_sweep_backward(
    grad: Tensor,
    reference_features: Tensor | None,
    source: Tensor,
    projection: Tensor,
    depth: Tensor,
    groups: int,
    behind: str,
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    """Gradients of reference, source and depth; without a reference, of a warp."""
    if reference_features is None:
        grads = _gradients(
            lambda s, d: reference.homography_warp(s, projection, d, behind),
            (source, depth),
            grad,
            wanted[1:],
        )
        return (source.new_empty(0), *grads)
    return _gradients(
        lambda r, s, d: reference.plane_sweep_correlation(r, s, projection, d, groups, behind),
        (reference_features, source, depth),
        grad,
        wanted,
    )


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "lift_splat": reference.lift_splat,
    "lift_splat_backward": lift_splat_backward,
    "lift_splat_planned": reference.lift_splat_planned,
    "lift_splat_planned_backward": lift_splat_planned_backward,
    "voxel_pooling": reference.voxel_pooling,
    "voxel_pooling_backward": voxel_pooling_backward,
    "homography_warp": reference.homography_warp,
    "plane_sweep_correlation": reference.plane_sweep_correlation,
    "plane_sweep_backward": plane_sweep_backward,
}
