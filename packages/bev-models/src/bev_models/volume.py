"""Stereo by a volume: how well frames match at every depth of every cell, weighed by a small 3-D network.

Shape shorthand: n images (batch times cameras), c channels, d depth bins, p planes; H W input pixels, h w
cells of the feature map, mh mw cells of the finer matching map.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bev_models.blocks import apply_checkpointed, at_least_float32
from bev_models.depth_net import DepthNetOutput
from bev_models.grid import DepthBins
from bev_models.stereo import StereoSource
from bev_ops import plane_sweep_correlation

# What a point must have before it to be seen at all, metres.
_MIN_DEPTH = 1e-3
# Parallax is how far a match moves between these shares of a depth.
_NEARER, _FARTHER = 0.9, 1.1
# Numbers per plane and cell that the network weighs.
_INPUTS = 6


class Matching(NamedTuple):
    """How well the other frames match at each plane.

    Attributes:
        planes: their depths, metres, rising.
        scores: logits of a distribution over the planes.
        seen: share of the other frames whose image holds the cell at that plane.
        parallax: how far the match moves between 0.9 and 1.1 times the plane's depth, in input pixels; the
            largest of all frames.
    """

    planes: Float[Tensor, "p"]
    scores: Float[Tensor, "n p h w"]
    seen: Float[Tensor, "n p h w"]
    parallax: Float[Tensor, "n p h w"]


class VolumeDepth(NamedTuple):
    """What the volume says.

    Attributes:
        added: to the monocular logits.
        matching: what it was made of.
    """

    added: Float[Tensor, "n d h w"]
    matching: Matching


class MatchingFeatures(nn.Module):
    """Features of unit length whose products tell whether two patches show the same point.

    They begin as a rotation of centred patches of 3x3 pixels, whose products are their normalised
    correlation, and learn from there.
    """

    def __init__(self, channels: int, stride: int) -> None:
        """Build the features.

        Args:
            channels: of a feature.
            stride: input pixels per cell.
        """
        super().__init__()
        self.patch = nn.Conv2d(3, channels, 3, stride, padding=1, bias=False)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        with torch.no_grad():
            nn.init.orthogonal_(self.patch.weight.view(channels, -1))
            self.patch.weight -= self.patch.weight.mean(dim=(2, 3), keepdim=True)
            nn.init.zeros_(self.refine.weight)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c mh mw"]:
        """Describe every cell."""
        x = self.patch(images)
        return F.normalize(at_least_float32(x + self.refine(F.relu(x))), dim=1, eps=1e-4)


class VolumeConv(nn.Module):
    """3x3x3 convolution that keeps the volume's size.

    Its weight has four axes, [out, in * 3, 3, 3]: `.to(memory_format=torch.channels_last)` takes no others.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        reach = 1 / math.sqrt(27 * in_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, 3 * in_channels, 3, 3).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-reach, reach))

    def forward(self, x: Float[Tensor, "n _c p h w"]) -> Float[Tensor, "n c p h w"]:
        """Convolve."""
        weight = self.weight.view(len(self.weight), -1, 3, 3, 3)
        return F.conv3d(x, weight, self.bias, padding=1)


class VolumeStereo(nn.Module):
    """Monocular depth corrected by a dense matching volume.

    One plane sweep correlates the frames at every plane. Three 3x3x3 convolutions over (plane, row, column)
    see, beside the matches, what one image says of depth, whether the other frames see the cell there, and
    how far its match moves with depth; what they put out adds to the monocular logits. It starts at zero:
    where nothing can be matched, one image has the word.

    Source: Yao et al., MVSNet (ECCV 2018), for the volume and its regularisation; Bae et al., Multi-View
    Depth Estimation by Fusing Single-View Depth Probability with Multi-View Geometry (CVPR 2022), for
    monocular depth inside it.
    """

    planes: Tensor
    to_planes: Tensor
    to_bins: Tensor
    place: Tensor

    def __init__(
        self,
        bins: DepthBins,
        cell_stride: int,
        *,
        stride: int = 2,
        channels: int = 16,
        planes: int = 32,
        width: int = 8,
        behind: Literal["zero", "corner"] = "zero",
        checkpointing: bool = False,
    ) -> None:
        """Build the volume.

        Args:
            bins: depth bins of the result.
            cell_stride: input pixels per cell of the feature map.
            stride: input pixels per cell of the matching map; it divides `cell_stride`.
            channels: of a matching feature.
            planes: depths at which frames are matched, each the same factor beyond the one before.
            width: channels of the 3-D network.
            behind: see `bev_models.config.Quirks`.
            checkpointing: of the network keep only the input for the backward pass.
        """
        super().__init__()
        self.cell_stride = cell_stride
        self.cells = cell_stride // stride
        self.behind = behind
        self.checkpointing = checkpointing
        depths = torch.logspace(math.log10(bins.start), math.log10(bins.stop), planes)
        self.register_buffer("planes", depths, persistent=False)
        self.register_buffer("place", torch.linspace(-1, 1, planes)[:, None, None], persistent=False)
        to_planes, to_bins = _between(bins, depths)
        self.register_buffer("to_planes", to_planes, persistent=False)
        self.register_buffer("to_bins", to_bins, persistent=False)

        self.features = MatchingFeatures(channels, stride)
        # Scores are correlations, -1 to 1, times this.
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        last = VolumeConv(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(
            VolumeConv(_INPUTS, width),
            nn.ReLU(inplace=True),
            VolumeConv(width, width),
            nn.ReLU(inplace=True),
            last,
        )

    def forward(
        self,
        reference: DepthNetOutput,
        features: Float[Tensor, "n c mh mw"],
        sources: Sequence[StereoSource],
    ) -> VolumeDepth:
        """Match one reference frame against other frames.

        Args:
            reference: the depth net's word on the reference frame; no gradient flows into it from here.
            features: its matching map.
            sources: the other frames, with their matching maps.

        Raises:
            ValueError: if there is no other frame.
        """
        if not sources:
            raise ValueError("stereo needs at least one other frame, got none")
        logits = reference.logits.detach()
        size = (logits.shape[-2], logits.shape[-1])
        looks = [self._look(source.mask_projection, size) for source in sources]
        seen = torch.stack([look[0] for look in looks])
        parallax = torch.stack([look[1] for look in looks]).amax(0)
        matches = [self._match(features, source) for source in sources]
        count = seen.sum(0)
        mean = (torch.stack([match[0] for match in matches]) * seen).sum(0) / count.clamp(min=1)
        best = torch.stack([match[1] for match in matches]).masked_fill(seen == 0, -1).amax(0)

        mono = logits.log_softmax(dim=1).clamp(min=-10)
        mono = torch.einsum("pd,ndhw->nphw", self.to_planes, mono) / 5
        place = self.place.expand_as(mono)
        share = count / len(sources)
        volume = torch.stack([mono, place, mean, best, share, parallax.log1p() / 2], dim=1)
        volume = volume.contiguous(memory_format=torch.channels_last_3d)
        found = at_least_float32(apply_checkpointed(self.net, volume, self.checkpointing)[:, 0])
        added = torch.einsum("dp,nphw->ndhw", self.to_bins, found)
        return VolumeDepth(added, Matching(self.planes, self.sharpness * mean, share, parallax))

    def _match(self, features: Tensor, source: StereoSource) -> tuple[Tensor, Tensor]:
        """Mean and largest correlation of each plane within the cells of the feature map, [n,p,h,w]."""
        images, _, *size = features.shape
        depth = self.planes[None, :, None, None].expand(images, -1, *size)
        correlation = plane_sweep_correlation(
            features, source.features, source.projection, depth, groups=1, behind=self.behind
        )[:, 0]
        # A mean over channels becomes the cosine of the two features.
        correlation = correlation * features.shape[1]
        # One patch says little: windows that overlap by half, two in each direction of a cell where it has
        # room for them.
        step = max(1, self.cells // 2)
        window = 2 * step if step > 1 else 3
        windows = F.avg_pool2d(correlation, window, step, (window - step) // 2, count_include_pad=False)
        per_cell = self.cells // step
        return F.avg_pool2d(windows, per_cell), F.max_pool2d(windows, per_cell)

    def _look(
        self, projection: Float[Tensor, "n 3 4"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "n p h w"], Float[Tensor, "n p h w"]]:
        """Whether another frame sees each cell at each plane, and the parallax there, input pixels."""
        u, v, ahead = _positions(projection, self.planes, size)
        height, width = size
        seen = ahead & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
        near, far = (_positions(projection, self.planes * share, size) for share in (_NEARER, _FARTHER))
        moved = torch.hypot(near[0] - far[0], near[1] - far[1]) * self.cell_stride
        # Beyond the size of an image all is the same: the match is gone.
        moved = torch.where(near[2] & far[2], moved, 0.0).clamp(max=width * self.cell_stride)
        return seen.to(moved.dtype), moved


def _positions(
    projection: Float[Tensor, "n 3 4"], depths: Float[Tensor, "p"], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the cells at these depths are seen, (u, v) in source cells, and whether they lie ahead."""
    height, width = size
    j = torch.arange(width, device=projection.device, dtype=projection.dtype)
    i = torch.arange(height, device=projection.device, dtype=projection.dtype)[:, None]
    matrix = projection[:, :, :, None, None, None]
    ray = matrix[:, :, 0] * j + matrix[:, :, 1] * i + matrix[:, :, 2]
    u, v, z = (ray * depths[:, None, None] + matrix[:, :, 3]).unbind(1)
    ahead = z > _MIN_DEPTH
    z = torch.where(ahead, z, 1.0)
    return u / z, v / z, ahead


def _between(
    bins: DepthBins, planes: Float[Tensor, "p"]
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "d p"]]:
    """Matrices that carry values per bin to the planes and back, by hats over the logarithm of depth."""
    at_bin, at_plane = bins.centers().log(), planes.log()
    apart = (at_plane[:, None] - at_bin).abs()
    step = (at_plane[1] - at_plane[0]).expand_as(at_plane)
    to_planes = (1 - apart / torch.maximum(step, (bins.step / planes).log1p())[:, None]).clamp(min=0)
    to_bins = (1 - apart / step[:, None]).clamp(min=0).T
    return to_planes / to_planes.sum(1, keepdim=True), to_bins / to_bins.sum(1, keepdim=True)
