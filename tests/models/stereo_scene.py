"""Hand-made stereo: a camera that moves past slanted walls with relief, and features that name scene points.

Every point of the scene has its own code, a smooth random function of where it is, so that the correlation of
two codes falls off with their distance alone: 1 for the same point, about 0 for points some cells apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bev_models import Cameras, DepthBins, DepthNetOutput, DynamicStereo, StereoConfig, StereoSource

STRIDE = 4
CHANNELS = 64
GROUPS = 8
# Distance at which two codes stop resembling each other, in cells of the key frame.
CODE_WIDTH = 3.0
# One e-fold of depth changes a code as much as this many cells do.
CELLS_PER_EFOLD = 20.0


@dataclass(frozen=True)
class Wall:
    """The plane normal . p = distance seen from inside, with waves of some metres on it."""

    normal: tuple[float, float, float]
    distance: float
    relief: float = 0.0


@dataclass(frozen=True)
class Board:
    """A vertical rectangle that hides what is behind it: x = `x`, or y = `y`, over two intervals."""

    axis: int
    at: float
    across: tuple[float, float]
    up: tuple[float, float]


class Found(NamedTuple):
    """What a search found, per cell of the key frame [h, w].

    Attributes:
        error: |mu - true depth| of the range that holds the truth, metres.
        seen: the point is inside both images and hidden in neither.
        motion: how far 0.25 m of depth moves the point in the other frame, in cells.
        depth: the truth, metres.
    """

    error: Tensor
    seen: Tensor
    motion: Tensor
    depth: Tensor


def camera_pose(yaw: float, x: float) -> Tensor:
    """camera -> keyego for a level camera 1.5 m up, looking along `yaw`, `x` metres ahead of the ego."""
    c, s = math.cos(yaw), math.sin(yaw)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor([[s, 0, c], [-c, 0, s], [0, -1, 0]], dtype=torch.float64)
    pose[:3, 3] = torch.tensor([x, 0, 1.5], dtype=torch.float64)
    return pose


class Scene:
    """Two views, key frame and one that lies `moved` metres behind it, of the same walls and boards."""

    def __init__(
        self,
        walls: Sequence[Wall],
        boards: Sequence[Board] = (),
        yaw: float = 0.0,
        focal: float = 316.0,
        size: tuple[int, int] = (24, 240),
        moved: float = 1.0,
    ) -> None:
        """`focal` and `size` (h, w) count stereo cells; 316 is nuScenes' camera at full resolution."""
        self.walls, self.boards, self.size = walls, boards, size
        height, width = size
        self.poses = [camera_pose(yaw, 0.0), camera_pose(yaw, -moved)]
        middle = ((width - 1) / 2, (height - 1) / 2)
        self.cell_matrix = torch.tensor(
            [[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]], dtype=torch.float64
        )
        pixels = torch.tensor(
            [
                [focal * STRIDE, 0, (width * STRIDE - 1) / 2],
                [0, focal * STRIDE, (height * STRIDE - 1) / 2],
                [0, 0, 1],
            ]
        )
        key, source = self.poses
        motion = torch.stack([torch.eye(4, dtype=torch.float64), torch.linalg.inv(source) @ key])
        self.cameras = Cameras(
            sensor2keyego=torch.stack(self.poses)[None, :, None].float(),
            key2sensor=motion[None, :, None].float(),
            intrinsics=pixels.expand(1, 2, 1, 3, 3),
            image_aug=torch.eye(3).expand(1, 2, 1, 3, 3),
            bev_aug=torch.eye(4)[None],
        )
        generator = torch.Generator().manual_seed(0)
        self.frequencies = (
            torch.randn(CHANNELS // 2, 3, generator=generator, dtype=torch.float64) / CODE_WIDTH
        )
        j, i = torch.arange(width, dtype=torch.float64), torch.arange(height, dtype=torch.float64)
        self.cells = torch.stack(torch.meshgrid(j, i, indexing="xy"), dim=-1)
        self.depths, self.points = zip(*(self.look(pose, self.cells) for pose in self.poses), strict=True)

    def look(self, pose: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Depth and 3D point that a camera sees at cells [..., 2]."""
        rays = torch.cat([cells, torch.ones_like(cells[..., :1])], dim=-1)
        directions = rays @ torch.linalg.inv(self.cell_matrix).T @ pose[:3, :3].T
        origin = pose[:3, 3]
        depth = torch.full(cells.shape[:-1], math.inf, dtype=torch.float64)
        for wall in self.walls:
            normal = torch.tensor(wall.normal, dtype=torch.float64)
            towards = directions @ normal
            hit = (wall.distance - origin @ normal) / towards
            for _ in range(40):  # waves are low: the fixed point contracts
                wave = _waves(origin + directions * hit[..., None])
                hit = (wall.distance + wall.relief * wave - origin @ normal) / towards
            depth = torch.where(towards > 1e-9, torch.minimum(depth, hit), depth)
        for board in self.boards:
            hit = (board.at - origin[board.axis]) / directions[..., board.axis]
            point = origin + directions * hit[..., None]
            side, up = point[..., 1 - board.axis], point[..., 2]
            on = (hit > 0) & (side > board.across[0]) & (side < board.across[1])
            on &= (up > board.up[0]) & (up < board.up[1])
            depth = torch.where(on, torch.minimum(depth, hit), depth)
        return depth, origin + directions * depth[..., None]

    def project(self, points: Tensor, frame: int) -> tuple[Tensor, Tensor]:
        """Cell position [..., 2] and depth at which a frame's camera sees points."""
        seen = (points - self.poses[frame][:3, 3]) @ self.poses[frame][:3, :3]
        return (seen / seen[..., 2:] @ self.cell_matrix.T)[..., :2], seen[..., 2]

    def codes(self, frame: int) -> Tensor:
        """Stereo features [1, c, h, w] of a frame: the codes of the points at its cells."""
        cells, depth = self.project(self.points[frame], 0)
        place = torch.cat([cells, CELLS_PER_EFOLD * depth.clamp(min=1e-3).log()[..., None]], dim=-1)
        phase = place @ self.frequencies.T
        code = torch.stack([phase.cos(), phase.sin()], dim=-1).flatten(-2) * math.sqrt(2)
        return code.permute(2, 0, 1)[None].float()

    def search(self, stereo: DynamicStereo, bins: DepthBins) -> Found:
        """Let EM search from the middle of every range, candidates spread over all of it."""
        ranges = len(stereo.range_start)
        height, width = self.size
        length = (stereo.range_stop - stereo.range_start).expand(1, ranges, height, width)
        logits = torch.zeros(1, bins.count, height, width)
        word = DepthNetOutput(
            logits=logits,
            context=torch.zeros(1, 8, height, width),
            mu=torch.zeros(1, ranges, height, width),
            sigma=length / (2 * float(stereo.offsets.max())),
            range_score=torch.zeros(1, ranges, height, width),
        )
        projection = self.cameras.sweep_projection(0, 1, (height * STRIDE, width * STRIDE), self.size)
        source = StereoSource(self.codes(1), logits, projection, projection)
        with torch.no_grad():
            mu = stereo(word, self.codes(0), [source]).mu[0]
        return self.judge(mu, stereo.range_stop.flatten())

    def judge(self, mu: Tensor, range_stop: Tensor) -> Found:
        """Hold the depths of all ranges [r, h, w] against the truth."""
        truth = self.depths[0]
        cells, depth = self.project(self.points[0], 1)
        height, width = self.size
        limit = torch.tensor([width - 1, height - 1])
        inside = ((cells >= 0) & (cells <= limit)).all(-1) & (depth > 0)
        seen = inside & ((self.look(self.poses[1], cells)[0] - depth).abs() < 1e-6 * depth)
        origin = self.poses[0][:3, 3]
        farther = origin + (self.points[0] - origin) * (1 + 0.25 / truth)[..., None]
        motion = (self.project(farther, 1)[0] - cells).norm(dim=-1)
        of_range = torch.bucketize(truth.float(), range_stop[:-1], right=True)
        error = (mu.gather(0, of_range[None])[0] - truth).abs()
        return Found(error, seen, motion, truth)


def matcher(
    bins: DepthBins, ranges: Sequence[float], iterations: int, samples: int, gain: float
) -> DynamicStereo:
    """A stereo search whose score is `gain` times the mean correlation."""
    settings = StereoConfig(tuple(ranges), iterations, samples, groups=GROUPS, min_sigma=0.1)
    stereo = DynamicStereo(bins, **settings.search, upsampling=1).eval()
    first, second, last = stereo.similarity_net
    with torch.no_grad():
        for parameter in stereo.similarity_net.parameters():
            parameter.zero_()
        for block in (first, second):
            block[1].weight.fill_(1)
        first[0].weight[0] = 1 / GROUPS
        first[1].bias[0] = 1  # correlations reach down to -1: keep them above the ReLU's kink
        second[0].weight[0, 0] = 1
        last.weight[0, 0] = gain
    return stereo


def _waves(points: Tensor) -> Tensor:
    """Relief of a wall, between -1 and 1."""
    x, y, z = points.unbind(-1)
    return torch.sin(1.1 * x + 0.7 * z) * torch.cos(0.9 * y - 0.5 * x)
