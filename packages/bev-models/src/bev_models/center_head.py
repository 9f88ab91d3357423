"""Centre head: per task a heatmap of box centres, and maps of what the box at a centre is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from bev_models.blocks import ConvBlock, apply_checkpointed


class TaskMaps(NamedTuple):
    """Maps of one task, raw.

    Attributes:
        heatmap: logits of a box centre, one map per class.
        offset: (x, y) of the centre from the low corner of its cell, in cells.
        height: z of the centre, metres.
        size: log of (l, w, h) in metres.
        rotation: (sin, cos) of the yaw.
        velocity: (vx, vy), m/s.
    """

    heatmap: Float[Tensor, "b k y x"]
    offset: Float[Tensor, "b 2 y x"]
    height: Float[Tensor, "b 1 y x"]
    size: Float[Tensor, "b 3 y x"]
    rotation: Float[Tensor, "b 2 y x"]
    velocity: Float[Tensor, "b 2 y x"]


_REGRESSED = {"offset": 2, "height": 1, "size": 3, "rotation": 2, "velocity": 2}


class CenterHead(nn.Module):
    """A shared convolution, then two convolutions per task and map.

    Source: Yin et al., Center-based 3D Object Detection and Tracking (CVPR 2021), section 4.
    """

    def __init__(
        self,
        in_channels: int,
        tasks: Sequence[int],
        *,
        channels: int = 64,
        heatmap_prior: float | None = 0.1,
        checkpointing: bool = False,
    ) -> None:
        """Build the head.

        Args:
            in_channels: channels of the BEV features.
            tasks: number of classes of each task.
            channels: channels of the shared convolution and of each map's first one.
            heatmap_prior: probability the heatmaps start from, or None for the default initialisation.
            checkpointing: keep no activations of the branches for the backward pass.
        """
        super().__init__()
        self.checkpointing = checkpointing
        self.shared = ConvBlock(in_channels, channels, 3)
        self.tasks = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: nn.Sequential(
                        ConvBlock(channels, channels, 3), nn.Conv2d(channels, size, 3, padding=1)
                    )
                    for name, size in {**_REGRESSED, "heatmap": classes}.items()
                }
            )
            for classes in tasks
        )
        if heatmap_prior is not None:
            for task in self.tasks:
                nn.init.constant_(task["heatmap"][1].bias, math.log(heatmap_prior / (1 - heatmap_prior)))  # type: ignore[index]

    def forward(self, bev: Float[Tensor, "b c y x"]) -> list[TaskMaps]:
        """Predict the maps of every task."""
        shared = self.shared(bev)
        return [
            TaskMaps(
                **{
                    name: apply_checkpointed(branch, shared, self.checkpointing)
                    for name, branch in task.items()  # type: ignore[operator]
                }
            )
            for task in self.tasks
        ]
