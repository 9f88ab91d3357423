"""Second derivatives of the plane sweep, by autograd over a bilinear warp made of gathers.

torch does not differentiate the backward pass of grid_sample; this costs memory, and few ever need it.
"""

from collections.abc import Sequence

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


def _bilinear_warp(
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    behind: str,
) -> Float[Tensor, "B C D H W"]:
    """`bev_ops.homography_warp` in operations that torch differentiates as often as asked."""
    batch, channels, height, width = source.shape
    x, y, z = sweep_positions(projection, depth, (depth.shape[2], depth.shape[3]))
    visible = z >= MIN_DEPTH
    z = torch.where(visible, z, 1.0)
    u = torch.where(visible, x / z, hidden_position(width, behind)).clamp(-2.0, width + 1.0)
    v = torch.where(visible, y / z, hidden_position(height, behind)).clamp(-2.0, height + 1.0)
    left, top = u.detach().floor(), v.detach().floor()
    pixels = source.flatten(2)
    out = torch.zeros((), dtype=compute_dtype(source), device=source.device)
    for dx, x_weight in ((0, 1 - (u - left)), (1, u - left)):
        for dy, y_weight in ((0, 1 - (v - top)), (1, v - top)):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = torch.where(inside, row * width + column, 0.0).long().flatten(1)
            taps = pixels.gather(2, index[:, None].expand(-1, channels, -1)).view(
                batch, channels, *depth.shape[1:]
            )
            out = out + taps * torch.where(inside, x_weight * y_weight, 0.0)[:, None]
    return out
