"""What the detector is trained on: heatmaps, boxes, depth."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from bev_models.center_head import TaskMaps
from bev_models.config import DetectorConfig, LossConfig, resolve_quirks
from bev_models.detector import Predictions
from bev_models.grid import DepthBins
from bev_models.targets import TaskTargets, center_targets
from bev_models.volume import Matching

# Keeps a density that has run out from dividing by zero, and its logarithm finite.
_EPS = 1e-6
# How far a match must move between 0.9 and 1.1 times the depth to tell one depth from another, input pixels.
_MIN_PARALLAX = 3.0


class Term(NamedTuple):
    """What one term of the loss adds up to, and over how much.

    Attributes:
        total: summed over boxes or cells.
        over: count of boxes or cells.
        least: count that is divided by.
    """

    total: Float[Tensor, ""]
    over: Float[Tensor, ""]
    least: float = 1.0

    def mean(self, count: Float[Tensor, ""] | None = None) -> Float[Tensor, ""]:
        """The term per box or cell.

        Args:
            count: to divide by in place of its own.
        """
        return self.total / (self.over if count is None else count).clamp(min=self.least)


class DetectionLoss(nn.Module):
    """Sum of a focal loss on heatmaps, an L1 loss on boxes, and a cross entropy on depth.

    Source: CenterPoint (CVPR 2021), section 4; BEVDepth (AAAI 2023), section 3.1 for the depth term.
    """

    def __init__(self, config: DetectorConfig, weights: LossConfig | None = None) -> None:
        """Build the loss.

        Args:
            config: of the detector: classes, grid and bins.
            weights: of the terms; those published unless told otherwise.
        """
        super().__init__()
        self.tasks = [len(task) for task in config.head.tasks]
        self.grid = config.bev.grid
        self.bins = config.depth_net.bins
        self.rounding = resolve_quirks(config.quirks).rounding
        self.weights = weights or LossConfig()

    def forward(
        self,
        predictions: Predictions,
        boxes: Sequence[Float[Tensor, "_m 9"]],
        labels: Sequence[Int64[Tensor, "_m"]],
        lidar_depth: Float[Tensor, "b n H W"] | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms "heatmap", "boxes" and, with lidar, "depth" and "stereo"; the total is their sum.

        Args:
            predictions: of the detector.
            boxes: per sample, in augmented keyego; unknown (NaN) entries do not count.
            labels: per sample.
            lidar_depth: metres in input pixels of the key frame, 0 where unknown.
        """
        with torch.autocast(predictions.depth_probs.device.type, enabled=False):
            targets = center_targets(boxes, labels, self.tasks, self.grid, self.rounding)
            pairs = list(zip(predictions.tasks, targets, strict=True))
            terms = {
                "heatmap": [heatmap_loss(maps.heatmap, target.heatmap) for maps, target in pairs],
                "boxes": [box_loss(maps, target) for maps, target in pairs],
            }
            if lidar_depth is not None:
                terms["depth"] = [depth_loss(predictions.depth_probs, lidar_depth, self.bins)]
                if self.weights.stereo_weight and predictions.stereo_density is not None:
                    terms["stereo"] = [stereo_loss(predictions.stereo_density, lidar_depth, self.bins)]
                if self.weights.stereo_weight and predictions.matching is not None:
                    terms["stereo"] = [matching_loss(predictions.matching, lidar_depth)]
            return self._weighted(terms)

    def _weighted(self, terms: Mapping[str, Sequence[Term]]) -> dict[str, Tensor]:
        """Sum the terms of each kind; all processes of a training divide by the same counts."""
        weights = {
            "heatmap": 1.0,
            "boxes": self.weights.box_weight,
            "depth": self.weights.depth_weight,
            "stereo": self.weights.stereo_weight,
        }
        counts = iter(_mean_over_ranks(torch.stack([t.over for kind in terms.values() for t in kind])))
        return {
            name: weights[name] * torch.stack([term.mean(next(counts)) for term in kind]).sum()
            for name, kind in terms.items()
        }


def heatmap_loss(logits: Float[Tensor, "b k y x"], target: Float[Tensor, "b k y x"]) -> Term:
    """Gaussian focal loss per box centre.

    Source: Law and Deng, CornerNet (ECCV 2018), equation 1, alpha 2, beta 4.
    """
    probs = logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    centers = target.eq(1)
    hit = -(probs + 1e-12).log() * (1 - probs) ** 2
    miss = -(1 - probs + 1e-12).log() * probs**2 * (1 - target) ** 4
    return Term(torch.where(centers, hit, miss).sum(), centers.sum().float())


def box_loss(maps: TaskMaps, target: TaskTargets) -> Term:
    """L1 distance at the centre cells per box; unknown (NaN) targets do not count."""
    predicted = torch.cat([x.float() for x in maps[1:]], dim=1).flatten(2)
    predicted = predicted[target.sample, :, target.cell]
    known = ~target.boxes.isnan()
    error = (predicted - target.boxes.nan_to_num()).abs() * known
    return Term(error.sum(), error.new_full((), len(target.boxes)), least=1e-4)


def depth_loss(
    depth_probs: Float[Tensor, "b n d h w"], lidar_depth: Float[Tensor, "b n H W"], bins: DepthBins
) -> Term:
    """Binary cross entropy of the depth distribution with the one-hot lidar bin, per cell with lidar.

    Source: Li et al., BEVDepth (AAAI 2023), section 3.1.
    """
    index, known = depth_bin_of_cells(lidar_depth, (depth_probs.shape[-2], depth_probs.shape[-1]), bins)
    probs = depth_probs.float().permute(0, 1, 3, 4, 2)[known]
    one_hot = F.one_hot(index[known], bins.count).to(probs)
    return Term(F.binary_cross_entropy(probs, one_hot, reduction="sum"), known.sum().float())


def stereo_loss(
    density: Float[Tensor, "b n d sh sw"], lidar_depth: Float[Tensor, "b n H W"], bins: DepthBins
) -> Term:
    """Mean negative log-likelihood of lidar under what the stereo search found, per cell with lidar.

    Args:
        density: over the depth bins, up to a factor.
        lidar_depth: metres, 0 where unknown.
        bins: the depth bins.

    Source: Bae et al., Multi-View Depth Estimation by Fusing Single-View Depth Probability with Multi-View
    Geometry (CVPR 2022), whose search is trained so; there on a continuous depth.
    """
    index, known = depth_bin_of_cells(lidar_depth, (density.shape[-2], density.shape[-1]), bins)
    probs = density.float() / (density.float().sum(2, keepdim=True) + _EPS)
    likelihood = probs.permute(0, 1, 3, 4, 2)[known].gather(1, index[known][:, None])
    return Term(-(likelihood + _EPS).log().sum(), known.sum().float())


def matching_loss(matching: Matching, lidar_depth: Float[Tensor, "b n H W"]) -> Term:
    """Cross entropy of the matching scores with the plane of the lidar point, where a match can tell.

    That is at cells with lidar that another frame sees at that depth, and where the match moves with it.

    Args:
        matching: of the volume.
        lidar_depth: metres, 0 where unknown.
    """
    scores, planes = matching.scores.float(), matching.planes
    nearest = nearest_depth_of_cells(lidar_depth, (scores.shape[-2], scores.shape[-1])).flatten(0, 1)
    known = (nearest >= planes[0]) & (nearest <= planes[-1])
    index = torch.bucketize(nearest, (planes[1:] * planes[:-1]).sqrt())

    def at_truth(values: Float[Tensor, "n p h w"]) -> Float[Tensor, "n h w"]:
        return values.gather(1, index[:, None])[:, 0]

    told = known & (at_truth(matching.seen) > 0) & (at_truth(matching.parallax) > _MIN_PARALLAX)
    loss = F.cross_entropy(scores.permute(0, 2, 3, 1)[told], index[told], reduction="sum")
    return Term(loss, told.sum().float())


def nearest_depth_of_cells(
    lidar_depth: Float[Tensor, "b n H W"], size: tuple[int, int]
) -> Float[Tensor, "b n h w"]:
    """Smallest lidar depth within each feature cell, metres; infinity where there is none."""
    stride = lidar_depth.shape[-2] // size[0], lidar_depth.shape[-1] // size[1]
    depth = torch.where(lidar_depth > 0, lidar_depth, torch.inf)
    return -F.max_pool2d(-depth, stride)


def depth_bin_of_cells(
    lidar_depth: Float[Tensor, "b n H W"], size: tuple[int, int], bins: DepthBins
) -> tuple[Int64[Tensor, "b n h w"], Bool[Tensor, "b n h w"]]:
    """Bin of the nearest lidar point in each feature cell, and whether there is one within the bins."""
    nearest = nearest_depth_of_cells(lidar_depth, size)
    # One-based, so that truncation toward zero cannot lift depths before the first bin into it.
    index = ((nearest - (bins.start - bins.step)) / bins.step).clamp(-1, bins.count + 1).long()
    known = (index >= 1) & (index <= bins.count)
    return (index - 1).clamp(0, bins.count - 1), known


def _mean_over_ranks(value: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """Mean over the processes of a distributed training, the value itself without one."""
    value = value.detach().float()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value
