"""Boxes -> the maps the head is trained to predict."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bev_models.grid import BEVGrid

# Overlap a displaced box must keep, and least radius in cells, of a heatmap's bumps.
_MIN_OVERLAP = 0.1
_MIN_RADIUS = 2


class TaskTargets(NamedTuple):
    """What one task should predict.

    Attributes:
        heatmap: 1 at the cell of each box centre, Gaussian around it.
        sample: which sample of the batch each box belongs to.
        cell: flat index y * X + x of its centre cell.
        boxes: offset x y (cells), z (m), log l w h, sin yaw, cos yaw, vx vy; NaN where unknown.
    """

    heatmap: Float[Tensor, "b k y x"]
    sample: Int64[Tensor, "m"]
    cell: Int64[Tensor, "m"]
    boxes: Float[Tensor, "m 10"]


def gaussian_radius(length: Tensor, width: Tensor, min_overlap: float = _MIN_OVERLAP) -> Tensor:
    """Largest displacement at which a box of this size still overlaps itself by `min_overlap`.

    The smallest of three cases' solutions; the roots are those of the CornerNet code, which centre heads
    have been trained with ever since, not those of its corrected form.

    Args:
        length: in cells.
        width: in cells.
        min_overlap: intersection over union.

    Source: Law and Deng, CornerNet (ECCV 2018), section 3.2 and its code.
    """
    total, area = length + width, length * width
    b1, c1 = total, area * (1 - min_overlap) / (1 + min_overlap)
    b2, c2 = 2 * total, (1 - min_overlap) * area
    a3, b3, c3 = 4 * min_overlap, -2 * min_overlap * total, (min_overlap - 1) * area
    r1 = (b1 + torch.sqrt(b1**2 - 4 * c1)) / 2
    r2 = (b2 + torch.sqrt(b2**2 - 16 * c2)) / 2
    r3 = (b3 + torch.sqrt(b3**2 - 4 * a3 * c3)) / 2
    return torch.minimum(torch.minimum(r1, r2), r3)


def center_targets(
    boxes: Sequence[Float[Tensor, "_m 9"]],
    labels: Sequence[Int64[Tensor, "_m"]],
    tasks: Sequence[int],
    grid: BEVGrid,
    rounding: str = "floor",
) -> list[TaskTargets]:
    """Make the targets of every task.

    Boxes whose centre cell is off the grid, or without length or width, are left out.

    Args:
        boxes: per sample, in augmented keyego.
        labels: per sample, counting through the tasks.
        tasks: number of classes of each task.
        grid: the BEV grid.
        rounding: see `bev_models.config.Quirks`.

    Source: Yin et al., CenterPoint (CVPR 2021), section 4.
    """
    all_boxes = torch.cat(list(boxes))
    all_labels = torch.cat(list(labels))
    counts = torch.tensor([len(sample) for sample in boxes], device=all_boxes.device)
    sample = torch.repeat_interleave(torch.arange(len(boxes), device=all_boxes.device), counts)
    low = all_boxes.new_tensor(grid.low[:2])
    size = all_boxes.new_tensor(grid.cell[:2])
    _, rows, columns = grid.shape
    position = (all_boxes[:, :2] - low) / size
    cell = (position.floor() if rounding == "floor" else position.trunc()).long()
    extent = all_boxes[:, 3:5] / size
    limit = cell.new_tensor([columns, rows])
    kept = ((cell >= 0) & (cell < limit)).all(1) & (extent > 0).all(1)

    targets = []
    first = 0
    for classes in tasks:
        mine = kept & (all_labels >= first) & (all_labels < first + classes)
        heatmap = _draw(
            cell[mine],
            extent[mine],
            sample[mine] * classes + all_labels[mine] - first,
            len(boxes) * classes,
            grid,
        )
        box = all_boxes[mine]
        regressed = torch.cat(
            [
                position[mine] - cell[mine],
                box[:, 2:3],
                box[:, 3:6].log(),
                box[:, 6:7].sin(),
                box[:, 6:7].cos(),
                box[:, 7:9],
            ],
            dim=1,
        )
        flat = cell[mine, 1] * columns + cell[mine, 0]
        maps = heatmap.view(len(boxes), classes, rows, columns)
        targets.append(TaskTargets(maps, sample[mine], flat, regressed))
        first += classes
    return targets


def _draw(
    cell: Int64[Tensor, "m 2"],
    extent: Float[Tensor, "m 2"],
    plane: Int64[Tensor, "m"],
    planes: int,
    grid: BEVGrid,
) -> Float[Tensor, "planes y x"]:
    """Draw one Gaussian bump per box into its plane; bumps merge by maximum."""
    _, rows, columns = grid.shape
    heatmaps = extent.new_zeros(planes, rows * columns)
    if len(cell) == 0:
        return heatmaps.view(planes, rows, columns)
    radius = gaussian_radius(extent[:, 0], extent[:, 1]).long().clamp(min=_MIN_RADIUS)[:, None]
    sigma = ((2 * radius + 1) / 6).double()
    near_x, bump_x = _profile(cell[:, :1], radius, sigma, columns)
    near_y, bump_y = _profile(cell[:, 1:], radius, sigma, rows)
    bump = bump_y[:, :, None] * bump_x[:, None]
    bump = bump * (near_y[:, :, None] & near_x[:, None])
    index = plane[:, None].expand(-1, rows * columns)
    return heatmaps.scatter_reduce(0, index, bump.flatten(1).to(heatmaps), "amax").view(planes, rows, columns)


def _profile(
    center: Int64[Tensor, "m 1"], radius: Int64[Tensor, "m 1"], sigma: Float[Tensor, "m 1"], size: int
) -> tuple[Bool[Tensor, "m size"], Float[Tensor, "m size"]]:
    """Which cells along one axis lie within the radius, and the Gaussian there."""
    distance = torch.arange(size, device=center.device) - center
    return distance.abs() <= radius, torch.exp(-(distance**2) / (2 * sigma**2))
