"""Layers that several modules share."""

from torch import nn
from torchvision.models.resnet import BasicBlock

__all__ = ["BasicBlock", "ConvBlock"]


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU.

    The convolution is without bias unless asked for; it keeps the map's size at stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
