"""Dynamic temporal stereo: depth candidates that move to where two frames of one camera agree.

Shape shorthand: n images (batch times cameras), c channels, d depth bins, r depth ranges, k candidates;
h w cells of the feature map, sh sw cells of the finer stereo map.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bev_models.blocks import BasicBlock, ConvBlock, apply_checkpointed, at_least_float32
from bev_models.depth_net import DepthNetOutput
from bev_models.grid import DepthBins
from bev_ops import homography_warp, plane_sweep_correlation

# Bounds of the search's spread and of its change per iteration.
_SIGMA_MIN, _SIGMA_MAX = 0.1, 10.0
_GAIN_MIN, _GAIN_MAX = 0.1, 10.0


class StereoSource(NamedTuple):
    """Another frame of the same cameras.

    Attributes:
        features: its stereo map.
        logits: its monocular depth.
        projection: reference cell of the stereo map -> its cell (`Cameras.sweep_projection`).
        mask_projection: the same for the feature map.
    """

    features: Float[Tensor, "n c sh sw"]
    logits: Float[Tensor, "n d h w"]
    projection: Float[Tensor, "n 3 4"]
    mask_projection: Float[Tensor, "n 3 4"]


class StereoDepth(NamedTuple):
    """What the search found.

    Attributes:
        mu: depth per range, metres.
        sigma: its spread, metres.
        depth: density over the depth bins, one Gaussian per range weighted by the range's probability.
        logits: what stereo adds to the monocular logits, before the mask.
        mask: trust in it, 0 to 1, per range and thus per bin.
    """

    mu: Float[Tensor, "n r sh sw"]
    sigma: Float[Tensor, "n r sh sw"]
    depth: Float[Tensor, "n d sh sw"]
    logits: Float[Tensor, "n d h w"]
    mask: Float[Tensor, "n d h w"]

    @property
    def added(self) -> Float[Tensor, "n d h w"]:
        """To the monocular logits."""
        return at_least_float32(self.logits) * self.mask


def candidate_offsets(samples: int, sampling_range: float) -> Float[Tensor, "k"]:
    """Offsets of the depth candidates from the mean, in standard deviations.

    The probability mass of a normal distribution within +-`sampling_range` is split into equal parts; a
    candidate lies midway between the borders of each.

    Source: Bae et al., Multi-View Depth Estimation by Fusing Single-View Depth Probability with Multi-View
    Geometry (CVPR 2022), equation 5.
    """
    mass = torch.linspace(0, 1, samples + 1, dtype=torch.float64)
    tail = torch.special.ndtr(torch.tensor(-sampling_range, dtype=torch.float64))
    borders: Tensor = torch.special.ndtri(tail + mass * (1 - 2 * tail))
    return ((borders[1:] + borders[:-1]) / 2).float()


class DynamicStereo(nn.Module):
    """EM search for depth between frames, and the mask that says where to trust it.

    Source: Li et al., BEVStereo (AAAI 2023), sections 3.2 (dynamic temporal stereo) and 3.3 (mask).
    """

    offsets: Tensor
    edges: Tensor
    bin_range: Tensor
    range_start: Tensor
    range_stop: Tensor

    def __init__(
        self,
        bins: DepthBins,
        *,
        ranges: Sequence[float],
        iterations: int,
        samples: int,
        sampling_range: float,
        groups: int,
        min_sigma: float,
        upsampling: int = 4,
        behind: Literal["zero", "corner"] = "zero",
        batch_ranges: bool = True,
        mask_channels: int = 64,
        downsample_channels: int = 256,
        checkpointing: bool = False,
    ) -> None:
        """Build the search.

        Args:
            bins: depth bins of the result.
            ranges: borders of the depth ranges on borders of bins, metres.
            iterations: EM iterations.
            samples: candidates per iteration, odd.
            sampling_range: reach of the candidates in standard deviations.
            groups: channel groups of the correlation.
            min_sigma: least spread of the result, metres.
            upsampling: how much finer the stereo map is than the feature map: 1, 2 or 4.
            behind: see `bev_models.config.Quirks`.
            batch_ranges: see `bev_models.config.Quirks`.
            mask_channels: width of the mask net.
            downsample_channels: width of the net that brings stereo depth to the feature map.
            checkpointing: of each small net keep only the input for the backward pass.
        """
        super().__init__()
        self.checkpointing = checkpointing
        self.iterations = iterations
        self.groups = groups
        self.min_sigma = min_sigma
        self.upsampling = upsampling
        self.behind = behind
        self.batch_ranges = batch_ranges
        borders = torch.tensor([bins.index(border) for border in ranges])
        ranges_of_bins = torch.arange(len(borders) - 1)
        bin_range = torch.repeat_interleave(ranges_of_bins, borders.diff(), output_size=bins.count)
        self.register_buffer("offsets", candidate_offsets(samples, sampling_range), persistent=False)
        self.register_buffer("edges", bins.edges(), persistent=False)
        self.register_buffer("bin_range", bin_range, persistent=False)
        self.register_buffer("range_start", torch.tensor(ranges[:-1])[:, None, None], persistent=False)
        self.register_buffer("range_stop", torch.tensor(ranges[1:])[:, None, None], persistent=False)

        # Pointwise over candidates: two hidden layers from correlation groups to one score.
        self.similarity_net = nn.Sequential(ConvBlock(groups, 16, 1), ConvBlock(16, 8, 1), nn.Conv2d(8, 1, 1))
        self.mask_net = nn.Sequential(
            *ConvBlock(2 * bins.count, mask_channels, 3, bias=True),
            BasicBlock(mask_channels, mask_channels),
            BasicBlock(mask_channels, mask_channels),
            nn.Conv2d(mask_channels, 1, 1),
            nn.Sigmoid(),
        )
        first, second = (2 if upsampling > 1 else 1), (2 if upsampling > 2 else 1)
        self.downsample = nn.Sequential(
            *ConvBlock(bins.count, downsample_channels, 3, stride=first, bias=True),
            *ConvBlock(downsample_channels, downsample_channels, 3, stride=second, bias=True),
            nn.Conv2d(downsample_channels, bins.count, 1),
        )

    def forward(
        self, reference: DepthNetOutput, features: Float[Tensor, "n c sh sw"], sources: Sequence[StereoSource]
    ) -> StereoDepth:
        """Search depth for one reference frame against other frames.

        Args:
            reference: the depth net's word on the reference frame.
            features: its stereo map; no gradient flows into it.
            sources: the other frames.

        Raises:
            ValueError: if there is no other frame, or the depth net was built without ranges.
        """
        if not sources:
            raise ValueError("stereo needs at least one other frame, got none")
        if reference.mu is None or reference.sigma is None or reference.range_score is None:
            raise ValueError("stereo needs a depth net with ranges, got one without")
        start, stop = self.range_start, self.range_stop
        mu = start + torch.sigmoid(reference.mu) * (stop - start)
        sigma = reference.sigma
        # In float32 whatever autocast says: matches are found by differences of correlations.
        features = at_least_float32(features.detach())
        sources = [
            s._replace(
                features=at_least_float32(s.features.detach()), logits=at_least_float32(s.logits.detach())
            )
            for s in sources
        ]

        # Evaluation treats all ranges in one pass; batch statistics may have to be kept apart in training.
        together = self.batch_ranges or not self.training
        passes = [slice(None)] if together else [slice(r, r + 1) for r in range(mu.shape[1])]
        found = []
        for part in passes:
            part_mu, part_sigma = self._search(mu[:, part], sigma[:, part], features, sources)
            part_mu = torch.minimum(torch.maximum(part_mu, start[part]), stop[part])
            mask = self._mask(part_mu, reference.logits.detach(), sources)
            found.append((part_mu, part_sigma.clamp(min=self.min_sigma), mask))
        mu, sigma, mask = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        depth = self._density(mu, sigma, reference.range_score)
        logits = apply_checkpointed(self.downsample, depth, self.checkpointing)
        return StereoDepth(mu, sigma, depth, logits, mask[:, self.bin_range])

    def _search(
        self,
        mu: Float[Tensor, "n r sh sw"],
        sigma: Float[Tensor, "n r sh sw"],
        features: Float[Tensor, "n c sh sw"],
        sources: Sequence[StereoSource],
    ) -> tuple[Tensor, Tensor]:
        """EM: score candidates around mu, move mu to their mean, widen or narrow sigma."""
        offsets = self.offsets[:, None, None]
        middle = len(self.offsets) // 2
        for _ in range(self.iterations):
            candidates = mu[:, :, None] + sigma[:, :, None] * offsets
            scores = [self._match(candidates.detach(), features, source) for source in sources]
            probs = torch.stack(scores).mean(0).softmax(dim=2)
            gain = (0.5 / (1e-4 + probs[:, :, middle])).clamp(_GAIN_MIN, _GAIN_MAX)
            sigma = (sigma * gain).clamp(_SIGMA_MIN, _SIGMA_MAX)
            mu = (candidates * probs).sum(dim=2)
        return mu, sigma

    def _match(
        self,
        candidates: Float[Tensor, "n r k sh sw"],
        features: Float[Tensor, "n c sh sw"],
        source: StereoSource,
    ) -> Float[Tensor, "n r k sh sw"]:
        """Score how well each candidate depth explains the source frame."""
        correlation = plane_sweep_correlation(
            features,
            source.features,
            source.projection,
            candidates.flatten(1, 2),
            groups=self.groups,
            behind=self.behind,
        )
        score = apply_checkpointed(self.similarity_net, correlation.flatten(2, 3), self.checkpointing)
        return at_least_float32(score).view(candidates.shape)

    def _mask(
        self,
        mu: Float[Tensor, "n r sh sw"],
        logits: Float[Tensor, "n d h w"],
        sources: Sequence[StereoSource],
    ) -> Float[Tensor, "n r h w"]:
        """Trust in stereo per range: do the two frames' monocular depths agree at the found depth?"""
        pooled = F.avg_pool2d(mu, self.upsampling).detach()
        images, ranges, *cells = pooled.shape
        reference = logits[:, None].expand(-1, ranges, -1, -1, -1)
        masks = []
        for source in sources:
            warped = homography_warp(source.logits, source.mask_projection, pooled, behind=self.behind)
            pair = torch.cat([reference, warped.transpose(1, 2)], dim=2)
            mask = apply_checkpointed(self.mask_net, pair.flatten(0, 1), self.checkpointing)
            masks.append(mask.view(images, ranges, *cells))
        return torch.stack(masks).mean(0)

    def _density(
        self,
        mu: Float[Tensor, "n r sh sw"],
        sigma: Float[Tensor, "n r sh sw"],
        range_score: Float[Tensor, "n r sh sw"],
    ) -> Float[Tensor, "n d sh sw"]:
        """Gaussians of the ranges over the depth bins; the exponent takes sigma as the variance."""
        amplitude = range_score.softmax(dim=1) / (sigma * math.sqrt(2 * math.pi) + 1e-6)
        offset = self.edges[:, None, None] - mu[:, self.bin_range]
        return amplitude[:, self.bin_range] * torch.exp(-0.5 * offset**2 / sigma[:, self.bin_range])
