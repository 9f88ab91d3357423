"""Maps -> boxes: best cells, decoding, size-aware circle NMS."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bev_models.center_head import TaskMaps
from bev_models.config import HeadConfig
from bev_models.grid import BEVGrid

# How far beyond the grid a centre may lie, metres.
_MARGIN = 10.0
# Largest logarithm of a size: 148 m.
_LARGEST = 5.0


class Detections(NamedTuple):
    """Predicted boxes of one sample.

    Attributes:
        boxes: x y z l w h yaw vx vy in keyego; z at the centre unless `Quirks.box_height` says otherwise.
        scores: 0 to 1.
        labels: counting through the tasks.
    """

    boxes: Float[Tensor, "m 9"]
    scores: Float[Tensor, "m"]
    labels: Int64[Tensor, "m"]


class BoxCoder:
    """Turns the head's maps into detections.

    Source: Yin et al., CenterPoint (CVPR 2021), section 4; for the suppression the "size-aware circle NMS" of
    the BEVStereo code; for peaks Zhou et al., Objects as Points (2019), section 3.
    """

    def __init__(self, grid: BEVGrid, head: HeadConfig, *, box_height: str = "center") -> None:
        self.grid = grid
        self.head = head
        self.box_height = box_height
        self.center_range = head.center_range or (_reach(grid.x), _reach(grid.y), _MARGIN)

    @torch.no_grad()
    def decode(self, tasks: Sequence[TaskMaps]) -> list[Detections]:
        """Decode every sample of a batch; detections of a sample stand task by task, best first."""
        per_task = []
        first = 0
        for maps, scale in zip(tasks, self.head.nms_scale, strict=True):
            per_task.append(
                [self._suppress(candidates, scale, first) for candidates in self.candidates(maps)]
            )
            first += maps.heatmap.shape[1]
        return [
            Detections(*map(torch.cat, zip(*sample, strict=True))) for sample in zip(*per_task, strict=True)
        ]

    def candidates(self, maps: TaskMaps) -> list[Detections]:
        """Best cells of one task as boxes, before suppression; labels count within the task."""
        heat = maps.heatmap.float().sigmoid()
        batch, classes, rows, columns = heat.shape
        if self.head.peak_size > 1:
            highest = F.max_pool2d(heat, self.head.peak_size, stride=1, padding=self.head.peak_size // 2)
            heat = torch.where(heat == highest, heat, 0)
        per_class = min(self.head.max_candidates, rows * columns)
        scores, cells = heat.view(batch, classes, -1).topk(per_class)
        scores, best = scores.flatten(1).topk(min(self.head.max_candidates, classes * per_class))
        labels = best // per_class
        cells = cells.flatten(1).gather(1, best)

        offset, height, log_size, rotation, velocity = (
            x.float().flatten(2).transpose(1, 2).gather(1, cells[..., None].expand(-1, -1, x.shape[1]))
            for x in maps[1:]
        )
        grid = self.grid
        boxes = torch.cat(
            [
                (cells % columns + offset[..., 0])[..., None] * grid.cell[0] + grid.low[0],
                (cells // columns + offset[..., 1])[..., None] * grid.cell[1] + grid.low[1],
                height,
                # Wild logarithms stay sizes that every reader of boxes takes.
                log_size.clamp(-_LARGEST, _LARGEST).exp(),
                torch.atan2(rotation[..., :1], rotation[..., 1:]),
                velocity,
            ],
            dim=2,
        )
        inside = (boxes[..., :3].abs() <= boxes.new_tensor(self.center_range)).all(2)
        kept = inside & (scores > self.head.score_threshold)
        return [Detections(boxes[i, kept[i]], scores[i, kept[i]], labels[i, kept[i]]) for i in range(batch)]

    def _suppress(self, candidates: Detections, scale: float, first_label: int) -> Detections:
        """Keep the best of overlapping boxes of one task, at most `max_boxes`."""
        boxes, scores, labels = candidates
        rivals = labels if self.head.nms_per_class else None
        kept = size_aware_circle_nms(boxes, scores, scale, rivals)[: self.head.max_boxes]
        boxes = boxes[kept]
        if self.box_height == "bottom":
            boxes = torch.cat([boxes[:, :2], boxes[:, 2:3] - boxes[:, 5:6] / 2, boxes[:, 3:]], dim=1)
        return Detections(boxes, scores[kept], labels[kept] + first_label)


def _reach(axis: tuple[float, float, float]) -> float:
    """Largest coordinate of a centre along an axis of the grid, metres."""
    return max(abs(axis[0]), abs(axis[1])) + _MARGIN


def size_aware_circle_nms(
    boxes: Float[Tensor, "m 9"],
    scores: Float[Tensor, "m"],
    scale: float,
    labels: Int64[Tensor, "m"] | None = None,
) -> Int64[Tensor, "kept"]:
    """Suppress a box whose centre lies near a better one, measured in both boxes' own extents.

    Going down in score, box j falls to a kept box i if along x and along y the distance of their centres is
    at most scale / 2 times the sum of their axis-aligned extents.

    Args:
        boxes: x y z l w h yaw ...
        scores: any order.
        scale: share of the extents; 0 suppresses nothing but coinciding centres.
        labels: where given, boxes suppress only boxes of the same label.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    x, y, _, length, width, _, yaw = boxes[order, :7].unbind(1)
    cos, sin = yaw.cos().abs(), yaw.sin().abs()
    near = _within(x, length * cos + width * sin, scale) & _within(y, length * sin + width * cos, scale)
    if labels is not None:
        near &= labels[order][:, None] == labels[order]
    # The greedy pass depends on itself and is short: it runs on the host.
    suppressing = near.cpu().numpy()
    kept = []
    alive = ~torch.zeros(len(order), dtype=torch.bool).numpy()
    for i in range(len(order)):
        if alive[i]:
            kept.append(i)
            alive &= ~suppressing[i]
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]


def _within(center: Float[Tensor, "m"], extent: Float[Tensor, "m"], scale: float) -> Bool[Tensor, "m m"]:
    """Pairs whose distance along one axis is at most the scaled mean of their extents."""
    return (center[:, None] - center).abs() <= (extent[:, None] + extent) * (scale / 2)
