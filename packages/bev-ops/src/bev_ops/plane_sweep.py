"""Plane-sweep stereo: warp a source view onto depth hypotheses of a reference view, and correlate the two."""

from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor

from bev_ops._checks import (
    Shapes,
    expect_choice,
    expect_countable,
    expect_floating,
    expect_groups,
    expect_one_device,
    passed,
    remember,
    signature,
)
from bev_ops.operators import schema

Behind = Literal["zero", "corner"]
BEHIND: tuple[Behind, ...] = ("zero", "corner")


def homography_warp(
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    behind: Behind = "zero",
) -> Float[Tensor, "B C D H W"]:
    """Sample a source view where the reference view's cells would appear in it at the given depths.

    Reference cell (j, i) at depth z is seen at the dehomogenised ``projection @ (j*z, i*z, z, 1)``, in
    source cells (0 is the centre of the first). Sampling is bilinear with zeros outside.

    Args:
        source: features of the source view.
        projection: reference cell times depth -> homogeneous source cell.
        depth: hypotheses in metres, per reference cell; any value, also zero, negative or NaN.
        behind: what a point sees whose depth in the source camera is below 1e-3 m: "zero", or "corner",
            about 1/16 of the bottom-right feature, as the published BEVStereo weights were trained.

    Returns:
        Warped features, in the dtype of `source`; positions are computed in float32 or better.

    Raises:
        ValueError: if a shape, dtype, device or option is wrong.

    Source: Yao et al., MVSNet (ECCV 2018), section 3.2; Li et al., BEVStereo (AAAI 2023), section 3.
    """
    known = signature("homography_warp", (), (behind,), source, projection, depth)
    if passed(known):
        return cast("Tensor", schema.homography_warp(source, projection, depth, behind))
    shapes = Shapes("homography_warp")
    shapes.expect("source", source, "B C h w")
    shapes.expect("projection", projection, "B 3 4")
    shapes.expect("depth", depth, "B D H W")
    expect_floating("homography_warp", source=source, projection=projection, depth=depth)
    expect_one_device("homography_warp", source=source, projection=projection, depth=depth)
    expect_choice("homography_warp", "behind", behind, BEHIND)
    result = (*source.shape[:2], *depth.shape[1:])
    expect_countable("homography_warp", "depth", result, "result [B C D H W]")
    remember(known)
    return cast("Tensor", schema.homography_warp(source, projection, depth, behind))


def plane_sweep_correlation(
    reference: Float[Tensor, "B C H W"],
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    groups: int,
    behind: Behind = "zero",
) -> Float[Tensor, "B G D H W"]:
    """Group-wise correlation of a reference view with a source view warped to depth hypotheses.

    Args:
        reference: features of the reference view.
        source: features of the source view.
        projection: see `homography_warp`.
        depth: see `homography_warp`.
        groups: C is split into this many groups of neighbouring channels.
        behind: see `homography_warp`.

    Returns:
        Mean over each group's channels of reference times warped source.

    Raises:
        ValueError: if a shape, dtype, device or option is wrong.

    Source: Guo et al., Group-wise Correlation Stereo Network (CVPR 2019), equation 2.
    """
    op = "plane_sweep_correlation"
    known = signature(op, (), (groups, behind), reference, source, projection, depth)
    if passed(known):
        return cast(
            "Tensor", schema.plane_sweep_correlation(reference, source, projection, depth, groups, behind)
        )
    shapes = Shapes(op)
    shapes.expect("reference", reference, "B C H W")
    shapes.expect("source", source, "B C h w")
    shapes.expect("projection", projection, "B 3 4")
    shapes.expect("depth", depth, "B D H W")
    tensors = {
        "reference": reference,
        "source": source,
        "projection": projection,
        "depth": depth,
    }
    expect_floating(op, **tensors)
    expect_one_device(op, **tensors)
    expect_choice(op, "behind", behind, BEHIND)
    groups = expect_groups(op, groups, source.shape[1])
    expect_countable(op, "depth", (len(depth), groups, *depth.shape[1:]), "result [B G D H W]")
    remember(known)
    return cast(
        "Tensor", schema.plane_sweep_correlation(reference, source, projection, depth, groups, behind)
    )
