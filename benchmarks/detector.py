"""The published R50 detector beside the same detector on the plain path: `python benchmarks/detector.py`.

Both hold the same weights and see the same six cameras and two frames at 256 x 704. The plain path is what
one writes in torch alone: stereo warps the features of one depth range after the other with grid_sample and
multiplies, lift-splat multiplies depth and context out for every point of the frustum before any is summed,
and feature maps keep their channels apart. Predictions must agree before anything is measured.
"""

import copy
import dataclasses
import math
import multiprocessing
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bev_models import (
    PUBLISHED,
    Cameras,
    DetectionLoss,
    Detector,
    Predictions,
    StereoSource,
    build_detector,
)
from bev_models.stereo import DynamicStereo
from bev_models.view_transform import LiftSplat
from harness import gate, interleave, peak_memory, start, with_threads

EXPERIMENT = "bev_stereo_lss_r50_256x704_128x128_24e_2key"
HEIGHT, WIDTH = 256, 704
YAWS = (55.0, 0.0, -55.0, 110.0, 180.0, -110.0)


def warp(source: Tensor, projection: Tensor, depth: Tensor) -> Tensor:
    """Sample `source` [n,c,h,w] where each cell at each `depth` [n,d,h,w] is seen: [n,c,d,h,w]."""
    n, channels, height, width = source.shape
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)]).float().flatten(1)
    points = (
        depth.flatten(2)[:, None] * (projection[:, :, :3] @ rays)[:, :, None]
        + projection[:, :, 3, None, None]
    )
    x, y, z = points.unbind(1)
    hidden = z < 1e-3
    z = z.clamp(min=1e-3)
    # A point behind the camera reads the corner, as published weights need it.
    x, y = (
        torch.where(hidden, size + size / (4 * size - 1) - 0.5, p / z)
        for p, size in ((x, width), (y, height))
    )
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(source, grid, align_corners=False).view(n, channels, -1, height, width)


class PlainStereo(DynamicStereo):
    """One depth range after the other, with every warped feature in memory."""

    def _search(
        self, mu: Tensor, sigma: Tensor, features: Tensor, sources: Sequence[StereoSource]
    ) -> tuple[Tensor, Tensor]:
        ranges = zip(mu.split(1, dim=1), sigma.split(1, dim=1), strict=True)
        found = [super(PlainStereo, self)._search(*one, features, sources) for one in ranges]
        mu, sigma = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return mu, sigma

    def _match(self, candidates: Tensor, features: Tensor, source: StereoSource) -> Tensor:
        warped = warp(source.features, source.projection, candidates.flatten(1, 2))
        product = features[:, :, None] * warped
        correlation = product.unflatten(1, (self.groups, -1)).mean(2)
        score: Tensor = self.similarity_net(correlation.flatten(2, 3))
        return score.view(candidates.shape)

    def _mask(self, mu: Tensor, logits: Tensor, sources: Sequence[StereoSource]) -> Tensor:
        masks = []
        for one in F.avg_pool2d(mu, self.upsampling).detach().split(1, dim=1):
            warped = [warp(source.logits, source.mask_projection, one)[:, :, 0] for source in sources]
            masks.append(torch.stack([self.mask_net(torch.cat([logits, w], dim=1)) for w in warped]).mean(0))
        return torch.cat(masks, dim=1)


class PlainLiftSplat(LiftSplat):
    """Every point of the frustum lifted before any is summed."""

    def forward(self, depth_probs: Tensor, context: Tensor, projection: Tensor) -> Tensor:
        """Lift, then splat."""
        volume = depth_probs[:, :, None] * context[:, :, :, None]
        rows = volume.permute(0, 1, 3, 4, 5, 2).flatten(1, 4)
        _, height, width = self.grid_shape
        coords = self._cells(projection, depth_probs.shape[-2:]).flatten(1, 4)
        cells = coords.trunc().long() if self.rounding == "trunc" else coords.floor().long()
        inside = ((cells >= 0) & (cells < cells.new_tensor([width, height, self.grid_shape[0]]))).all(-1)
        batch, _, channels = rows.shape
        flat = (torch.arange(batch)[:, None] * height + cells[..., 1]) * width + cells[..., 0]
        bev = rows.new_zeros(batch * height * width, channels).index_add(0, flat[inside], rows[inside])
        return bev.view(batch, height, width, channels).permute(0, 3, 1, 2)


def plain_path(detector: Detector) -> Detector:
    """The same detector and weights on the plain path."""
    plain = copy.deepcopy(detector).to(memory_format=torch.contiguous_format)
    plain.stereo.__class__ = PlainStereo
    plain.view_transform.__class__ = PlainLiftSplat
    return plain


def scene() -> tuple[Tensor, Cameras]:
    """Noise in six cameras of 65 degrees around a car that has driven 3 m between two frames."""
    key = torch.zeros(6, 4, 4)
    for n, yaw in enumerate(YAWS):
        a, b = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        key[n] = torch.tensor([[b, 0, a, 1.5 * a], [-a, 0, b, 0.5 * b], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    moved = torch.eye(4)
    moved[0, 3] = -3.0
    sensor2keyego = torch.stack([key, moved @ key])[None]
    intrinsics = torch.tensor([[0.79 * WIDTH, 0, WIDTH / 2], [0, 0.79 * WIDTH, 0.35 * HEIGHT], [0, 0, 1]])
    cameras = Cameras(
        sensor2keyego=sensor2keyego,
        key2sensor=torch.linalg.inv(sensor2keyego) @ key,
        intrinsics=intrinsics.repeat(1, 2, 6, 1, 1),
        image_aug=torch.eye(3).repeat(1, 2, 6, 1, 1),
        bev_aug=torch.eye(4)[None],
    )
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(12, 3, HEIGHT // 8, WIDTH // 8, generator=generator)
    images = F.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")
    return images.view(1, 2, 6, 3, HEIGHT, WIDTH), cameras


def training_step(detector: Detector, images: Tensor, cameras: Cameras) -> Predictions:
    """Losses of a full forward pass, and all gradients."""
    boxes = torch.tensor([[10.0, 3, 0, 4, 2, 1.5, 0.3, 1, 0]])
    lidar = torch.full((1, 6, HEIGHT, WIDTH), 20.0)
    predictions: Predictions = detector(images, cameras)
    losses = DetectionLoss(detector.config)(predictions, [boxes], [torch.tensor([0])], lidar)
    torch.stack(list(losses.values())).sum().backward()
    detector.zero_grad(set_to_none=True)
    return predictions


def forward(detector: Detector, images: Tensor, cameras: Cameras) -> Predictions:
    """Predictions without gradient."""
    with torch.no_grad():
        predictions: Predictions = detector(images, cameras)
    return predictions


MODES = {"forward": forward, "training step": training_step}
# Of these the first is what the others are compared with.
CANDIDATES = {
    "forward": ("ours", "plain path"),
    "training step": ("ours", "ours, activation checkpointing", "plain path"),
}


def candidate(name: str, mode: str) -> Detector:
    """A detector on one of the paths, always with the same weights."""
    torch.manual_seed(0)
    config = PUBLISHED[EXPERIMENT]
    if name.endswith("checkpointing"):
        config = dataclasses.replace(config, activation_checkpointing=True)
    detector = build_detector(config).to(memory_format=torch.channels_last)
    detector = plain_path(detector) if name == "plain path" else detector
    return detector.train(mode == "training step")


def peak_in_fresh_process(name: str, mode: str) -> float:
    """MB that a first pass adds, where no earlier pass has left memory behind."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, mode))


def _peak(name: str, mode: str) -> float:
    detector, (images, cameras) = candidate(name, mode), scene()
    return peak_memory(lambda: MODES[mode](detector, images, cameras))


def main() -> None:
    """Compare a forward pass and a training step."""
    options = start("BEVStereo R50, 256 x 704, six cameras, two frames, float32, one sample")
    images, cameras = scene()
    for mode, work in MODES.items():
        detectors = {name: candidate(name, mode) for name in CANDIDATES[mode]}
        if mode == "forward":
            ours, plain = (work(detector, images, cameras) for detector in detectors.values())
            gate("depth", ours.depth_probs, plain.depth_probs.double(), 1e-3)
            gate("heatmap", ours.tasks[0].heatmap, plain.tasks[0].heatmap.double(), 1e-3)
        peaks = {name: peak_in_fresh_process(name, mode) for name in CANDIDATES[mode]}
        for threads in with_threads(options):
            runs = {name: partial(work, detector, images, cameras) for name, detector in detectors.items()}
            times = interleave(runs, options.rounds)
            print(f"## {mode}, threads: {threads}")
            print("| path | median s | min s | x ours (median) | x ours (min) | peak MB | x ours |")
            print("|---|---|---|---|---|---|---|")
            for name in CANDIDATES[mode]:
                (median, least), own = times[name], times["ours"]
                print(
                    f"| {name} | {median / 1e3:.2f} | {least / 1e3:.2f} | {median / own[0]:.2f} "
                    f"| {least / own[1]:.2f} | {peaks[name]:.0f} | {peaks[name] / peaks['ours']:.2f} |"
                )
            print(flush=True)


if __name__ == "__main__":
    main()
