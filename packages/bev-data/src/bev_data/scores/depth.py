"""Errors of predicted depth at lidar points: AbsRel, SqRel, RMSE (of logarithms too) and delta thresholds.

`depth_quality` scores depths at once: over all points, on objects and by range of distance. The other
functions do so batch by batch, by sums that add up over batches and processes.

Shape shorthand: b samples, n cameras, h w depth cells, H W input pixels, p points, m boxes.

Source: Eigen et al., "Depth map prediction from a single image using a multi-scale deep network" (2014),
section 4.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bev_data.errors import InputError
from bev_data.samples.batch import Batch

# Borders of the ranges of distance in which depth is scored, metres.
RANGES = (0.0, 10.0, 20.0, 30.0, 40.0, 60.0)


def depth_quality(
    predicted: Float[Tensor, "p"],
    true: Float[Tensor, "p"],
    on_object: Bool[Tensor, "p"] | None = None,
    ranges: Sequence[float] = RANGES,
) -> dict[str, dict[str, float]]:
    """Score predicted depths.

    Args:
        predicted: metres.
        true: metres, above 0.
        on_object: whether a point lies on an object; None where that is not known.
        ranges: rising borders of distance, metres.

    Returns:
        What `depth_scores` tells of "all" points, of those on "objects", and of those in each range of true
        depth, named like "0_10m"; without the rows that have no point.
    """
    if on_object is None:
        on_object = torch.zeros_like(true, dtype=torch.bool)
    sums = depth_error_table(predicted, true, on_object, ranges)
    rows = {name: depth_scores(row) for name, row in zip(table_rows(ranges), sums, strict=True)}
    return {name: scores for name, scores in rows.items() if scores}


def table_rows(ranges: Sequence[float] = RANGES) -> list[str]:
    """Names of the rows of `depth_error_table`.

    Raises:
        InputError: if the ranges do not rise.
    """
    pairs = list(itertools.pairwise(ranges))
    if not pairs or any(low >= high for low, high in pairs):
        raise InputError(f"ranges must be at least two rising distances in metres, got {tuple(ranges)}")
    return ["all", "objects", *(f"{low:g}_{high:g}m" for low, high in pairs)]


def depth_error_table(
    predicted: Float[Tensor, "p"],
    true: Float[Tensor, "p"],
    on_object: Bool[Tensor, "p"],
    ranges: Sequence[float] = RANGES,
) -> Float[Tensor, "r 8"]:
    """`depth_error_sums` of all points, of those on objects, and of those in each range of true depth."""
    everywhere = torch.ones_like(on_object)
    borders = itertools.pairwise(ranges)
    rows = [everywhere, on_object, *((true >= low) & (true < high) for low, high in borders)]
    return torch.stack([depth_error_sums(predicted[row], true[row]) for row in rows])


def depth_error_sums(predicted: Float[Tensor, "p"], true: Float[Tensor, "p"]) -> Float[Tensor, "8"]:
    """What the scores are made of, as sums over points in float64, so that batches and processes add up.

    Args:
        predicted: metres; taken as at least 1 mm.
        true: metres, above 0.

    Returns:
        Number of points, |error| / true, error² / true, error², (log predicted - log true)², and the numbers
        within a factor of 1.25, 1.25² and 1.25³.

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(
            f"predicted and true depth must have the same shape, got {tuple(predicted.shape)} and "
            f"{tuple(true.shape)}"
        )
    predicted, true = predicted.double().clamp(min=1e-3), true.double()
    error = predicted - true
    ratio = torch.maximum(predicted / true, true / predicted)
    terms = [
        torch.ones_like(true),
        error.abs() / true,
        error.square() / true,
        error.square(),
        (predicted / true).log().square(),
        *((ratio < 1.25**power).double() for power in (1, 2, 3)),
    ]
    return torch.stack([term.sum() for term in terms])


def depth_scores(sums: Float[Tensor, "8"]) -> dict[str, float]:
    """Means of the points behind sums.

    Returns:
        abs_rel, sq_rel (metres), rmse (metres), rmse_log, and delta1, delta2, delta3 (shares within a factor
        of 1.25, 1.25², 1.25³); nothing where there was no point.
    """
    count, *totals = sums.tolist()
    if not count:
        return {}
    relative, relative_squared, squared, log_squared, *hits = (total / count for total in totals)
    return {
        "abs_rel": relative,
        "sq_rel": relative_squared,
        "rmse": squared**0.5,
        "rmse_log": log_squared**0.5,
        **{f"delta{power}": share for power, share in enumerate(hits, start=1)},
    }


def lidar_points(
    batch: Batch, depth: Float[Tensor, "b n h w"], limits: tuple[float, float]
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p"], Bool[Tensor, "p"]]:
    """Pair every lidar point with the predicted depth of the cell it falls into.

    Args:
        batch: with `lidar_depth`.
        depth: predicted for the key frame, metres.
        limits: least and greatest lidar depth in metres; points outside are left out.

    Returns:
        Predicted depth, lidar depth, and whether the point lies in a labelled box.

    Raises:
        ValueError: if the batch has no lidar depth.
    """
    lidar = batch.lidar_depth
    if lidar is None:
        raise ValueError(
            "depth errors need a batch with lidar_depth, got None; make the dataset with lidar_depth=True"
        )
    known = (lidar >= limits[0]) & (lidar < limits[1]) & (lidar > 0)
    sample, camera, row, column = known.nonzero(as_tuple=True)
    cell_row = row * depth.shape[-2] // lidar.shape[-2]
    cell_column = column * depth.shape[-1] // lidar.shape[-1]
    true = lidar[known]
    # A pixel's middle stands for the points in it.
    pixels = torch.stack([column, row, torch.ones_like(column)], dim=-1).to(true.dtype)
    pixel2ray = torch.linalg.inv(batch.image_aug[:, 0] @ batch.intrinsics[:, 0])
    to_boxes = batch.bev_aug[:, None] @ batch.sensor2keyego[:, 0]
    rays = (pixel2ray[sample, camera] @ pixels[..., None])[..., 0] * true[:, None]
    to_boxes = to_boxes[sample, camera]
    points = (to_boxes[:, :3, :3] @ rays[..., None])[..., 0] + to_boxes[:, :3, 3]
    on_object = torch.zeros_like(true, dtype=torch.bool)
    for index, boxes in enumerate(batch.boxes):
        mine = sample == index
        on_object[mine] = in_boxes(points[mine], boxes)
    return depth[sample, camera, cell_row, cell_column], true, on_object


def in_boxes(points: Float[Tensor, "p 3"], boxes: Float[Tensor, "m 9"]) -> Bool[Tensor, "p"]:
    """Whether points lie in one of the boxes (x y z l w h yaw vx vy, z at the centre), both in one frame."""
    if not len(boxes):
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)
    offset = points[:, None] - boxes[:, :3]
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    local = torch.stack([along, across, offset[..., 2]], dim=-1)
    return (local.abs() <= boxes[:, 3:6] / 2).all(dim=-1).any(dim=-1)
