"""Lift-splat: place every pixel's context along its ray, weighted by depth, and sum it into a BEV grid."""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor

from bev_ops._checks import (
    Shapes,
    expect_choice,
    expect_countable,
    expect_floating,
    expect_grid,
    expect_one_device,
    passed,
    remember,
    signature,
)
from bev_ops.operators import schema
from bev_ops.voxel_pooling import ROUNDINGS, Rounding


def lift_splat(
    depth: Float[Tensor, "B N D H W"],
    context: Float[Tensor, "B N C H W"],
    projection: Float[Tensor, "B N 3 4"],
    depth_bins: Float[Tensor, "D"],
    grid_shape: Sequence[int],
    rounding: Rounding = "floor",
) -> Float[Tensor, "B C Y X"]:
    """Lift image features along their rays and splat them onto a BEV grid.

    The cell (x, y, z) of pixel (j, i) at depth bin d is ``round(projection @ (j*d, i*d, d, 1))``; it
    receives ``depth[d, i, j] * context[:, i, j]``. Points outside the grid add nothing; z is summed away.

    Args:
        depth: weight of each depth bin, usually a distribution over D.
        context: the feature that is lifted.
        projection: per camera, feature cell times depth -> BEV cell; intrinsics, pose, augmentations and
            grid folded into one matrix.
        depth_bins: metres.
        grid_shape: (Z, Y, X) in cells, at most 2^24 each; Y * X below 2^31.
        rounding: see `voxel_pooling`.

    Returns:
        BEV map in the dtype of `context`, sums taken in float32 or better.

    Raises:
        ValueError: if a shape, dtype, device or option is wrong.

    Source: Philion and Fidler, Lift, Splat, Shoot (ECCV 2020), section 3.
    """
    known = signature("lift_splat", grid_shape, (rounding,), depth, context, projection, depth_bins)
    if passed(known):
        return cast("Tensor", schema.lift_splat(depth, context, projection, depth_bins, grid_shape, rounding))
    shapes = Shapes("lift_splat")
    shapes.expect("depth", depth, "B N D H W")
    shapes.expect("context", context, "B N C H W")
    shapes.expect("projection", projection, "B N 3 4")
    shapes.expect("depth_bins", depth_bins, "D")
    tensors = {"depth": depth, "context": context, "projection": projection, "depth_bins": depth_bins}
    expect_floating("lift_splat", **tensors)
    expect_one_device("lift_splat", **tensors)
    expect_choice("lift_splat", "rounding", rounding, ROUNDINGS)
    grid = expect_grid("lift_splat", grid_shape)
    expect_countable(
        "lift_splat", "grid_shape", (len(depth), context.shape[2], *grid[1:]), "result [B C Y X]"
    )
    remember(known)
    return cast("Tensor", schema.lift_splat(depth, context, projection, depth_bins, grid, rounding))
