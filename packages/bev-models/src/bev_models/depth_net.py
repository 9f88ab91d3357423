"""Camera-aware depth net: image features and camera parameters -> depth logits, context, stereo start values.

Shape shorthand: n images (batch times cameras), c channels, d depth bins, r depth ranges; h w cells of the
feature map, sh sw cells of the finer stereo map.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from bev_models.blocks import (
    BasicBlock,
    ConvBlock,
    LoneBatchNorm1d,
    LoneBatchNorm2d,
    apply_checkpointed,
    at_least_float32,
)

CAMERA_NUMBERS = 27


class DepthNetOutput(NamedTuple):
    """What the depth net says of each image.

    Attributes:
        logits: monocular depth, before softmax.
        context: the feature that is lifted.
        mu: raw start of each range's depth search (a sigmoid places it in the range).
        sigma: spread of the search, metres, positive.
        range_score: logits of the ranges. The three are None without stereo.
    """

    logits: Float[Tensor, "n d h w"]
    context: Float[Tensor, "n c h w"]
    mu: Float[Tensor, "n r sh sw"] | None
    sigma: Float[Tensor, "n r sh sw"] | None
    range_score: Float[Tensor, "n r sh sw"] | None


class CameraGate(nn.Module):
    """Squeeze-and-excitation whose gate comes from the camera vector.

    Source: Li et al., BEVDepth (AAAI 2023), section 3.2; Hu et al., SENet (CVPR 2018).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(CAMERA_NUMBERS, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.reduce = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(channels, channels, 1)

    def forward(
        self, features: Float[Tensor, "n c h w"], camera: Float[Tensor, "n 27"]
    ) -> Float[Tensor, "n c h w"]:
        """Scale each channel by its gate."""
        code = self.fc2(F.relu(self.fc1(camera)))[:, :, None, None]
        return features * torch.sigmoid(self.expand(F.relu(self.reduce(code))))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling.

    Source: Chen et al., Rethinking Atrous Convolution (2017), section 3.3.
    """

    def __init__(
        self, channels: int, *, dilations: tuple[int, ...] = (1, 6, 12, 18), dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ConvBlock(channels, channels, 1 if dilation == 1 else 3, dilation=dilation)
            for dilation in dilations
        )
        self.pooled = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvBlock(channels, channels, 1, norm=LoneBatchNorm2d)
        )
        self.project = ConvBlock((len(dilations) + 1) * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Gather context at several dilations and from the whole image."""
        pooled = self.pooled(x).expand(-1, -1, *x.shape[-2:])
        maps = [branch(x) for branch in self.branches]
        fused: Tensor = self.dropout(self.project(torch.cat([*maps, pooled], dim=1)))
        return fused


class DeformableConv(nn.Module):
    """3x3 deformable convolution without modulation; offsets come from its own 3x3 convolution.

    Source: Dai et al., Deformable Convolutional Networks (ICCV 2017), section 2.1.
    """

    def __init__(self, channels: int, *, groups: int = 4) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 2 * 9, 3, padding=1)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Convolve at learned offsets (y before x for each tap), in float32: the kernel has no bfloat16."""
        offset = at_least_float32(self.offset(x))
        # The kernel reads out of bounds at NaN; the sum below still carries the NaN on.
        finite = offset.nan_to_num()
        with torch.autocast(x.device.type, enabled=False):
            convolved: Tensor = deform_conv2d(
                at_least_float32(x), finite, at_least_float32(self.weight), padding=1
            )
        broken: Tensor = (offset - finite).sum(dim=1, keepdim=True)
        return convolved + broken


class DepthNet(nn.Module):
    """Depth distribution and context of an image, told what its camera is.

    Source: Li et al., BEVDepth (AAAI 2023), section 3.2; for mu, sigma and the range score Li et al.,
    BEVStereo (AAAI 2023), section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        mid_channels: int,
        context_channels: int,
        bins: int,
        ranges: int = 0,
        upsampling: int = 4,
        deformable: bool = True,
        checkpointing: bool = False,
    ) -> None:
        """Build the net.

        Args:
            in_channels: channels of the image features.
            mid_channels: width of the net.
            context_channels: channels of the lifted feature.
            bins: depth bins.
            ranges: depth ranges of stereo, 0 without.
            upsampling: how much finer the stereo map is than the feature map, a power of two.
            deformable: see `bev_models.config.DepthNetConfig`.
            checkpointing: of each part keep only the input for the backward pass.
        """
        super().__init__()
        self.checkpointing = checkpointing
        self.reduce = ConvBlock(in_channels, mid_channels, 3, bias=True)
        self.camera_norm = LoneBatchNorm1d(CAMERA_NUMBERS)
        self.context_gate = CameraGate(mid_channels)
        self.context = nn.Conv2d(mid_channels, context_channels, 1)
        self.depth_gate = CameraGate(mid_channels)
        self.depth_features = nn.Sequential(
            BasicBlock(mid_channels, mid_channels),
            BasicBlock(mid_channels, mid_channels),
            ASPP(mid_channels),
            DeformableConv(mid_channels) if deformable else _plain_conv(mid_channels),
        )
        self.mono_head = nn.Sequential(
            BasicBlock(mid_channels, mid_channels), nn.Conv2d(mid_channels, bins, 1)
        )
        self.range_head = _range_head(mid_channels, ranges, upsampling) if ranges else None

    def forward(self, features: Float[Tensor, "n c h w"], camera: Float[Tensor, "n 27"]) -> DepthNetOutput:
        """Predict depth and context.

        Args:
            features: of the neck.
            camera: `bev_models.cameras.camera_vector`, raw units.
        """
        camera = self.camera_norm(camera)
        x = self.reduce(features)
        context = self.context(self.context_gate(x, camera))
        depth = apply_checkpointed(self.depth_features, self.depth_gate(x, camera), self.checkpointing)
        logits = at_least_float32(apply_checkpointed(self.mono_head, depth, self.checkpointing))
        if self.range_head is None:
            return DepthNetOutput(logits, context, None, None, None)
        ranges = at_least_float32(apply_checkpointed(self.range_head, depth, self.checkpointing))
        mu, sigma, range_score = ranges.chunk(3, dim=1)
        return DepthNetOutput(logits, context, mu, F.elu(sigma) + 1 + 1e-10, range_score)


def _plain_conv(channels: int, groups: int = 4) -> nn.Conv2d:
    """What `DeformableConv` is without offsets."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)


def _range_head(channels: int, ranges: int, upsampling: int) -> nn.Sequential:
    """Residual block, as many doublings as the stereo map is finer, three numbers per range."""
    layers: list[nn.Module] = [BasicBlock(channels, channels)]
    for _ in range(round(math.log2(upsampling))):
        layers += [
            nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(channels, 3 * ranges, 1))
