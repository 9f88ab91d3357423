"""Detectors of few channels, and rigs made by hand."""

import math

import torch
from torch import Tensor

from bev_models import (
    BEVEncoderConfig,
    BEVGrid,
    Cameras,
    DepthBins,
    DepthNetConfig,
    Detector,
    DetectorConfig,
    HeadConfig,
    ImageEncoderConfig,
    StereoConfig,
    build_detector,
)

SIZE = (64, 96)


def config(
    frames: int = 2,
    stereo: bool = True,
    stride: int = 16,
    bins: DepthBins | None = None,
    ranges: tuple[float, ...] = (2.0, 6.0, 18.0),
    **changes: object,
) -> DetectorConfig:
    """A detector of two tasks over 32 m x 32 m that runs in milliseconds."""
    values = {
        "frames": frames,
        "image": ImageEncoderConfig(depth=18, width=8, stride=stride, neck_channels=8),
        "depth_net": DepthNetConfig(
            bins=bins or DepthBins(2, 18, 1), mid_channels=16, context_channels=8, deformable=False
        ),
        "stereo": StereoConfig(ranges=ranges, groups=4, mask_channels=8, downsample_channels=16)
        if stereo
        else None,
        "bev": BEVEncoderConfig(BEVGrid((-16, 16, 1), (-16, 16, 1), (-5, 3, 8)), channels=8, neck_channels=8),
        "head": HeadConfig(tasks=(("car",), ("pedestrian", "cone")), channels=8, nms_scale=(0.5, 0.5)),
    }
    return DetectorConfig(**(values | changes))


def detector(seed: int = 0, **changes: object) -> Detector:
    """A tiny detector, the same for the same seed."""
    torch.manual_seed(seed)
    return build_detector(config(**changes))


def pose(yaw: float = 0.0, at: tuple[float, float, float] = (0.0, 0.0, 1.5)) -> Tensor:
    """camera -> ego for a level camera that looks along `yaw`."""
    c, s = math.cos(yaw), math.sin(yaw)
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor([[s, 0, c], [-c, 0, s], [0, -1, 0]])
    matrix[:3, 3] = torch.tensor(at)
    return matrix


def rig(batch: int = 1, frames: int = 2, cameras: int = 2, moved: float = 1.0) -> Cameras:
    """Cameras all around an ego that drives ahead `moved` metres per frame."""
    key = torch.stack([pose(2 * math.pi * n / cameras) for n in range(cameras)])
    back = torch.eye(4).repeat(frames, 1, 1)
    back[:, 0, 3] = -moved * torch.arange(frames)
    sensor2keyego = back[:, None] @ key
    intrinsics = torch.tensor([[50.0, 0, 47.5], [0, 50, 31.5], [0, 0, 1]])
    many = (batch, frames, cameras)
    return Cameras(
        sensor2keyego=sensor2keyego.repeat(batch, 1, 1, 1, 1),
        key2sensor=(torch.linalg.inv(sensor2keyego) @ key).repeat(batch, 1, 1, 1, 1),
        intrinsics=intrinsics.repeat(*many, 1, 1),
        image_aug=torch.eye(3).repeat(*many, 1, 1),
        bev_aug=torch.eye(4).repeat(batch, 1, 1),
    )


def images(batch: int = 1, frames: int = 2, cameras: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    """Noise, the same every time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, frames, cameras, 3, *size, generator=generator)


def boxes(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes on the tiny grid in cells of their own, and labels."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(32 * 32, generator=generator)[:count]
    found = torch.rand(count, 9, generator=generator)
    found[:, 0] += cells % 32 - 16
    found[:, 1] += cells // 32 - 16
    found[:, 2] = found[:, 2] * 4 - 3
    found[:, 3:6] = 0.5 + found[:, 3:6] * 4
    found[:, 6] = (found[:, 6] - 0.5) * 6
    found[:, 7:] = (found[:, 7:] - 0.5) * 10
    return found, torch.randint(0, 3, (count,), generator=generator)
