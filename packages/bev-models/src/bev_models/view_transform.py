"""View transform: depth and context of the cameras -> features on the BEV grid."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bev_models.blocks import ConvBlock, at_least_float32
from bev_models.grid import BEVGrid, DepthBins
from bev_ops import Rounding, lift_splat, voxel_pooling


class DepthAggregation(nn.Module):
    """Convolutions over the (width, depth) planes of lifted features, before the splat.

    Source: Li et al., BEVDepth (AAAI 2023), section 3.3, "Depth Refinement".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvBlock(channels, channels, 3)
        self.conv = nn.Sequential(*ConvBlock(channels, channels, 3), *ConvBlock(channels, channels, 3))
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, depth: Float[Tensor, "n d h w"], context: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n d h w c"]:
        """Refine depth times context; each image row is one picture over (w, d)."""
        images, bins, height, width = depth.shape
        with torch.autocast(depth.device.type, enabled=False):
            depth, context = at_least_float32(depth), at_least_float32(context)
            rows = depth.permute(0, 2, 3, 1)[:, :, None] * context.permute(0, 2, 1, 3)[..., None]
            x = self.reduce(rows.flatten(0, 1))
            x = self.out(self.conv(x) + x)
        volume: Tensor = x.view(images, height, -1, width, bins)
        return volume.permute(0, 4, 1, 3, 2)


class LiftSplat(nn.Module):
    """Place context along its ray, weighted by depth, and sum it into the BEV grid.

    Source: Philion and Fidler, Lift, Splat, Shoot (ECCV 2020), section 3.
    """

    edges: Tensor

    def __init__(
        self,
        grid: BEVGrid,
        bins: DepthBins,
        *,
        context_channels: int,
        aggregation: bool = False,
        rounding: Rounding = "floor",
    ) -> None:
        """Build the transform.

        Args:
            grid: the BEV grid.
            bins: features are lifted to the near edge of each bin.
            context_channels: channels of the lifted feature.
            aggregation: refine lifted features first (`DepthAggregation`).
            rounding: see `bev_models.config.Quirks`.
        """
        super().__init__()
        self.grid_shape = grid.shape
        self.rounding = rounding
        self.aggregation = DepthAggregation(context_channels) if aggregation else None
        self.register_buffer("edges", bins.edges(), persistent=False)

    def forward(
        self,
        depth_probs: Float[Tensor, "b n d h w"],
        context: Float[Tensor, "b n c h w"],
        projection: Float[Tensor, "b n 3 4"],
    ) -> Float[Tensor, "b c y x"]:
        """Lift and splat, in float32.

        Args:
            depth_probs: distribution over depth bins.
            context: the lifted feature.
            projection: `bev_models.Cameras.lift_projection`.
        """
        depth_probs, context = at_least_float32(depth_probs), at_least_float32(context)
        if self.aggregation is None:
            return lift_splat(
                depth_probs, context, projection, self.edges, self.grid_shape, rounding=self.rounding
            )
        # Gradients and batch statistics need all images at once; otherwise only one camera's volume exists.
        if self.training or torch.is_grad_enabled():
            return self._refine_and_pool(self.aggregation, depth_probs, context, projection)
        cameras = zip(*(torch.split(x, 1, dim=1) for x in (depth_probs, context, projection)), strict=True)
        return functools.reduce(
            torch.add, (self._refine_and_pool(self.aggregation, *camera) for camera in cameras)
        )

    def _refine_and_pool(
        self,
        aggregation: DepthAggregation,
        depth_probs: Float[Tensor, "b n d h w"],
        context: Float[Tensor, "b n c h w"],
        projection: Float[Tensor, "b n 3 4"],
    ) -> Float[Tensor, "b c y x"]:
        """Refine the whole volume of these cameras, then sum it into the grid."""
        volume = aggregation(depth_probs.flatten(0, 1), context.flatten(0, 1))
        coords = self._cells(projection, (depth_probs.shape[-2], depth_probs.shape[-1]))
        features = volume.reshape(len(context), -1, context.shape[2])
        return voxel_pooling(coords.flatten(1, 4), features, self.grid_shape, rounding=self.rounding)

    def _cells(
        self, projection: Float[Tensor, "b n 3 4"], size: tuple[int, int]
    ) -> Float[Tensor, "b n d h w 3"]:
        """BEV position of every point of the frustum, in cells."""
        height, width = size
        j = torch.arange(width, device=projection.device, dtype=projection.dtype)
        i = torch.arange(height, device=projection.device, dtype=projection.dtype)[:, None]
        matrix = projection[:, :, :, :, None, None, None]
        ray = matrix[:, :, :, 0] * j + matrix[:, :, :, 1] * i + matrix[:, :, :, 2]
        return (ray * self.edges[:, None, None] + matrix[:, :, :, 3]).permute(0, 1, 3, 4, 5, 2)
