"""The neck: maps of several strides, each brought to one stride by a single convolution, concatenated."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MultiScaleNeck(nn.Module):
    """One (transposed) convolution, batch norm and ReLU per scale, concatenated.

    Source: Yan et al., SECOND (Sensors 2018), section 3.1.3.
    """

    def __init__(
        self, in_channels: Sequence[int], in_strides: Sequence[int], *, out_channels: int, out_stride: int
    ) -> None:
        """Build the neck.

        Args:
            in_channels: channels of each map.
            in_strides: stride of each map.
            out_channels: channels each map contributes.
            out_stride: stride of the result.

        Raises:
            ValueError: if a stride is no multiple or divisor of the result's.
        """
        super().__init__()
        self.out_channels = out_channels * len(in_channels)
        branches = []
        for channels, stride in zip(in_channels, in_strides, strict=True):
            if stride >= out_stride and stride % out_stride == 0:
                scale = stride // out_stride
                conv: nn.Module = nn.ConvTranspose2d(channels, out_channels, scale, scale, bias=False)
            elif out_stride % stride == 0:
                scale = out_stride // stride
                conv = nn.Conv2d(channels, out_channels, scale, scale, bias=False)
            else:
                raise ValueError(f"neck stride must divide or be divided by {stride}, got {out_stride}")
            norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
            branches.append(nn.Sequential(conv, norm, nn.ReLU(inplace=True)))
        self.branches = nn.ModuleList(branches)

    def forward(self, maps: Sequence[Float[Tensor, "b _c _h _w"]]) -> Float[Tensor, "b c h w"]:
        """Fuse one map per branch."""
        return torch.cat([branch(x) for branch, x in zip(self.branches, maps, strict=True)], dim=1)
