"""Poolings by the names, arguments and shapes that other projects call them by, on this package's kernels.

Replace the import and leave the call as it is; docs/kernels.md says where. The points are made before they
are summed, so that these cost memory that `bev_ops.lift_splat` does not: it is what to move on to.
"""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from bev_ops._checks import Shapes, expect_floating, expect_one_device
from bev_ops.voxel_pooling import voxel_pooling


def bev_pool_v2(
    depth: Float[Tensor, "B N D H W"],
    feat: Float[Tensor, "B N H W C"],
    ranks_depth: Int[Tensor, "P"],
    ranks_feat: Int[Tensor, "P"],
    ranks_bev: Int[Tensor, "P"],
    bev_feat_shape: Sequence[int],
    interval_starts: Int[Tensor, "I"] | None = None,
    interval_lengths: Int[Tensor, "I"] | None = None,
) -> Float[Tensor, "B C Z Y X"]:
    """Sum depth times feature over listed points, as BEVDet's operator of this name does.

    Args:
        depth: weights.
        feat: features, channels last.
        ranks_depth: which element of `depth` each point takes.
        ranks_feat: which pixel of `feat` each point takes.
        ranks_bev: which cell of [B, Z, Y, X] each point falls into, in any order.
        bev_feat_shape: (B, Z, Y, X, C).
        interval_starts: not needed, points of a cell need not lie side by side.
        interval_lengths: the same.

    Raises:
        ValueError: if a shape, dtype or device is wrong.

    Source: Huang and Huang, BEVPoolv2 (arXiv 2211.17111), section 3.
    """
    op = "bev_pool_v2"
    shapes = Shapes(op)
    shapes.expect("depth", depth, "B N D H W")
    shapes.expect("feat", feat, "B N H W C")
    ranks = {"ranks_depth": ranks_depth, "ranks_feat": ranks_feat, "ranks_bev": ranks_bev}
    for name, rank in ranks.items():
        shapes.expect(name, rank, "P")
    _expect_whole(op, **ranks)
    expect_floating(op, depth=depth, feat=feat)
    expect_one_device(op, depth=depth, feat=feat, **ranks)
    sizes = tuple(int(size) for size in bev_feat_shape)
    if len(sizes) != 5 or min(sizes[1:4]) < 1 or (sizes[0], sizes[4]) != (depth.shape[0], feat.shape[4]):
        raise ValueError(
            f"{op}: bev_feat_shape must be (B, Z, Y, X, C) with B = {depth.shape[0]} as in depth and C = "
            f"{feat.shape[4]} as in feat, got {bev_feat_shape!r}"
        )
    weight = depth.flatten().index_select(0, ranks_depth.long())
    points = feat.flatten(0, 3).index_select(0, ranks_feat.long()) * weight[:, None]
    return _pooled(points, ranks_bev.long(), sizes[:4])


def bev_pool(
    x: Float[Tensor, "P C"],
    coords: Int[Tensor, "P 4"],
    B: int,
    D: int,
    H: int,
    W: int,
) -> Float[Tensor, "B C D H W"]:
    """Sum features by cell, as the operator of this name in BEVFusion and mmdet3d does.

    Args:
        x: what each point adds.
        coords: cell of each point, (h, w, d, b); points outside add nothing.
        B: samples.
        D: cells in height.
        H: cells along the first axis of `coords`.
        W: cells along its second axis.

    Raises:
        ValueError: if a shape, dtype or device is wrong.

    Source: Liu et al., BEVFusion (ICRA 2023), section III.B, "Efficient Camera-to-BEV Transformation".
    """
    shapes = Shapes("bev_pool")
    shapes.expect("x", x, "P C")
    shapes.expect("coords", coords, "P 4")
    _expect_whole("bev_pool", coords=coords)
    expect_floating("bev_pool", x=x)
    expect_one_device("bev_pool", x=x, coords=coords)
    if min(B, D, H, W) < 1:
        raise ValueError(f"bev_pool: B, D, H and W must be positive, got {(B, D, H, W)}")
    h, w, d, b = coords.long().unbind(1)
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & (d >= 0) & (d < D) & (b >= 0) & (b < B)
    cell = ((b * D + d) * H + h) * W + w
    return _pooled(x, cell.where(inside, -1), (B, D, H, W))


def _pooled(
    points: Float[Tensor, "P C"], cell: Int[Tensor, "P"], sizes: Sequence[int]
) -> Float[Tensor, "B C Z Y X"]:
    """Sums by cell of [B, Z, Y, X]; cells outside add nothing."""
    batch, z_size, y_size, x_size = sizes
    # All maps below each other are one map.
    coords = cell.new_zeros(1, len(cell), 3)
    coords[0, :, 0], coords[0, :, 1] = cell % x_size, cell.div(x_size, rounding_mode="floor")
    pooled = voxel_pooling(coords, points[None], (1, batch * z_size * y_size, x_size))
    channels = points.shape[1]
    return pooled[0].view(channels, batch, z_size, y_size, x_size).transpose(0, 1)


def _expect_whole(op: str, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex():
            raise ValueError(f"{op}: {name} must be of whole numbers, got {tensor.dtype}")
