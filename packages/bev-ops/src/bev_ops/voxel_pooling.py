"""Voxel pooling: sum the features of points that fall into the same BEV cell."""

from collections.abc import Sequence
from typing import Literal, cast

from jaxtyping import Float, Num
from torch import Tensor

from bev_ops._checks import (
    Shapes,
    expect_choice,
    expect_countable,
    expect_floating,
    expect_grid,
    expect_one_device,
    expect_real,
    passed,
    remember,
    signature,
)
from bev_ops.operators import schema

Rounding = Literal["floor", "trunc"]
ROUNDINGS: tuple[Rounding, ...] = ("floor", "trunc")


def voxel_pooling(
    coords: Num[Tensor, "B P 3"],
    features: Float[Tensor, "B P C"],
    grid_shape: Sequence[int],
    rounding: Rounding = "floor",
) -> Float[Tensor, "B C Y X"]:
    """Sum point features into the cells of a BEV grid; the height axis is summed away.

    Args:
        coords: (x, y, z) of each point in cells; integer, or floating and rounded by `rounding`.
            Points outside 0..X-1, 0..Y-1, 0..Z-1 and NaN add nothing.
        features: what each point adds.
        grid_shape: (Z, Y, X) in cells, at most 2^24 each; Y * X below 2^31.
        rounding: "floor", or "trunc" toward zero, which also keeps points up to one cell below the low
            edges, as the published BEVDepth and BEVStereo weights were trained.

    Returns:
        BEV map in the dtype of `features`, sums taken in float32 or better.

    Raises:
        ValueError: if a shape, dtype, device or option is wrong.

    Source: Li et al., BEVDepth (AAAI 2023), section 3.4, "Efficient Voxel Pooling".
    """
    known = signature("voxel_pooling", grid_shape, (rounding,), coords, features)
    if passed(known):
        return cast("Tensor", schema.voxel_pooling(coords, features, grid_shape, rounding))
    shapes = Shapes("voxel_pooling")
    shapes.expect("coords", coords, "B P 3")
    shapes.expect("features", features, "B P C")
    expect_real("voxel_pooling", coords=coords)
    expect_floating("voxel_pooling", features=features)
    expect_one_device("voxel_pooling", coords=coords, features=features)
    expect_choice("voxel_pooling", "rounding", rounding, ROUNDINGS)
    grid = expect_grid("voxel_pooling", grid_shape)
    result = len(features), features.shape[2], *grid[1:]
    expect_countable("voxel_pooling", "grid_shape", result, "result [B C Y X]")
    remember(known)
    return cast("Tensor", schema.voxel_pooling(coords, features, grid, rounding))
