"""Derivatives of the plane sweep that have no kernels, from a bilinear warp made of gathers.

torch does not differentiate the backward pass of grid_sample, nor grid_sample forward; this costs memory, and
few ever need it.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bev_ops._checks import compute_dtype
from bev_ops.reference import MIN_DEPTH, hidden_position, sweep_positions


def plane_sweep(
    saved: Sequence[Tensor | None],
    groups: int,
    behind: str,
    towards: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of the backward pass' inputs, given those of its results.

    Args:
        saved: inputs of the backward pass: grad, reference (None for a warp), source, projection, depth.
        groups: of the correlation; 0 for a warp.
        behind: see `bev_ops.homography_warp`.
        towards: gradient of each result: of reference, source and depth; None where it was not computed.
        needed: which of `saved` a gradient is wanted for.
    """
    with torch.enable_grad():
        grad, reference, source, projection, depth = (
            None if tensor is None else tensor.detach().requires_grad_() for tensor in saved
        )
        if grad is None or source is None or projection is None or depth is None:
            raise RuntimeError("the plane sweep's backward pass must have saved its inputs, got None")
        out = _bilinear_warp(source, projection, depth, behind)
        if reference is not None:
            product = reference[:, :, None] * out
            out = product.view(product.shape[0], groups, -1, *product.shape[2:]).mean(2)
        of = [
            (x, t)
            for x, t in zip((reference, source, depth), towards, strict=True)
            if x is not None and t is not None
        ]
        firsts = torch.autograd.grad(out, [x for x, _ in of], grad.to(out.dtype), create_graph=True)
        inputs = [
            x
            for x, need in zip((grad, reference, source, projection, depth), needed, strict=True)
            if need and x is not None
        ]
        seconds = iter(torch.autograd.grad(firsts, inputs, [t for _, t in of], allow_unused=True))
    return [next(seconds) if need else None for need in needed]


def warp_tangent(
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    towards: Float[Tensor, "B D H W"],
    behind: str,
) -> Float[Tensor, "B C D H W"]:
    """How `bev_ops.homography_warp` changes where depth changes by `towards`, in float32 or better."""
    u, v, distance = _seen(source, projection, depth, behind)
    rays = sweep_positions(
        torch.cat([projection[..., :3], torch.zeros_like(projection[..., 3:])], dim=-1),
        torch.ones_like(depth[:, :1]),
        (depth.shape[2], depth.shape[3]),
    )
    visible = distance >= MIN_DEPTH
    distance = torch.where(visible, distance, 1.0)
    along_u, along_v = (
        torch.where(visible, (ray - position * rays[2]) / distance, 0.0) * towards
        for ray, position in ((rays[0], u), (rays[1], v))
    )
    out = torch.zeros((), dtype=compute_dtype(source), device=source.device)
    for taps, inside, (x_weight, x_slope), (y_weight, y_slope) in _corners(source, u, v):
        change = x_slope * y_weight * along_u + x_weight * y_slope * along_v
        out = out + taps * torch.where(inside, change, 0.0)[:, None]
    return out


def _bilinear_warp(
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    behind: str,
) -> Float[Tensor, "B C D H W"]:
    """`bev_ops.homography_warp` in operations that torch differentiates as often as asked."""
    u, v, _ = _seen(source, projection, depth, behind)
    out = torch.zeros((), dtype=compute_dtype(source), device=source.device)
    for taps, inside, (x_weight, _), (y_weight, _) in _corners(source, u, v):
        out = out + taps * torch.where(inside, x_weight * y_weight, 0.0)[:, None]
    return out


def _seen(
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    behind: str,
) -> tuple[Float[Tensor, "B D H W"], Float[Tensor, "B D H W"], Float[Tensor, "B D H W"]]:
    """Where positions are seen in the source, (u, v) in cells, and how far from its camera, metres."""
    height, width = source.shape[2:]
    x, y, distance = sweep_positions(projection, depth, (depth.shape[2], depth.shape[3]))
    visible = distance >= MIN_DEPTH
    z = torch.where(visible, distance, 1.0)
    u = torch.where(visible, x / z, hidden_position(width, behind)).clamp(-2.0, width + 1.0)
    v = torch.where(visible, y / z, hidden_position(height, behind)).clamp(-2.0, height + 1.0)
    return u, v, distance


def _corners(
    source: Float[Tensor, "B C h w"], u: Float[Tensor, "B D H W"], v: Float[Tensor, "B D H W"]
) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, int], tuple[Tensor, int]]]:
    """The four cells around positions: features, which exist, weight and its slope along u and along v."""
    channels, (height, width) = source.shape[1], source.shape[2:]
    left, top = u.detach().floor(), v.detach().floor()
    pixels = source.flatten(2)
    for dx, along_x in ((0, (1 - (u - left), -1)), (1, (u - left, 1))):
        for dy, along_y in ((0, (1 - (v - top), -1)), (1, (v - top, 1))):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = torch.where(inside, row * width + column, 0.0).long().flatten(1)
            taps = pixels.gather(2, index[:, None].expand(-1, channels, -1)).view(
                len(source), channels, *u.shape[1:]
            )
            yield taps, inside, along_x, along_y
