"""Weights and inputs by formula, so that reference values need no files of weights.

The formulas and generators (numpy's legacy MT19937, seeded by each parameter's published name) are those by
which the reference values in `goldens/` were made; nothing here depends on torch's random numbers.
"""

import re
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from bev_models import (
    BEVEncoderConfig,
    BEVGrid,
    Cameras,
    DepthNetConfig,
    Detector,
    DetectorConfig,
    HeadConfig,
    ImageEncoderConfig,
)
from bev_models.published import published_to_ours

# One published parameter: name, shape, dtype.
Key = tuple[str, list[int], str]

CAMERA_MEAN = [1200, 1200, 800, 450, 0, 0, 200, 0, 0.3, -120, 1, 0, 0, 1, 1]
CAMERA_MEAN += [0, 0, 0, 1, 0, 0, 0, 0, 0, -1, 0, 1.5]
CAMERA_VAR = [4e4, 4e4, 1e3, 1e3, 0.25, 0.05, 1e5, 0.05, 0.05, 1e4, 0.5, 0.2, 0.2, 0.5, 0.01]
CAMERA_VAR += [0.5, 0.5, 0.5, 1, 0.5, 0.5, 0.5, 1, 0.1, 0.1, 0.1, 0.1]

# Transposed convolutions, whose first axis counts the inputs: pattern, share of that axis in the fan.
_TRANSPOSED = (
    (r"backbone\.img_neck\.deblocks\.[23]\.0\.weight", 1.0),
    (r"head\.neck\.deblocks\.[0123]\.0\.weight", 1.0),
    (r"backbone\.depth_net\.mu_sigma_range_net\.[14]\.weight", 9 / 4),
)
_GAINS = {
    "backbone.similarity_net.2.weight": 0.6,
    "backbone.depth_downsample_net.0.weight": 40,
    "backbone.mask_net.5.weight": 0.5,
    "backbone.depth_aggregation_net.reduce_conv.0.weight": 10,
    "backbone.depth_aggregation_net.out_conv.0.weight": 0.05,
}
_HEAD_BIAS = {"heatmap": -2.19, "reg": 0.5, "height": -1.0, "dim": 0.5, "rot": 0, "vel": 0}
_HEAD_GAIN = {"heatmap": 0.5, "reg": 0.2, "height": 0.2, "dim": 0.1, "rot": 0.3, "vel": 0.3}


def small_config(aggregation: bool = False) -> DetectorConfig:
    """The configuration the reference values were computed with."""
    return DetectorConfig(
        image=ImageEncoderConfig(depth=18, width=16, neck_channels=32),
        depth_net=DepthNetConfig(mid_channels=64, context_channels=16, aggregation=aggregation),
        bev=BEVEncoderConfig(
            grid=BEVGrid((-25.6, 25.6, 1.6), (-25.6, 25.6, 1.6), (-5, 3, 8)), channels=32, neck_channels=16
        ),
        head=HeadConfig(center_range=(30, 30, 10)),
        quirks="published",
    )


def fill(detector: Detector, keys: Iterable[Key]) -> None:
    """Give every parameter of a detector its value by formula."""
    keys = list(keys)
    names = {key.removeprefix("model.") for key, _, _ in keys}
    expected = detector.state_dict()
    state = {}
    for key, shape, _ in keys:
        ours = published_to_ours(key)
        if ours is not None:
            value = torch.from_numpy(weight(key.removeprefix("model."), shape, names))
            state[ours] = value.reshape(expected[ours].shape)
    detector.load_state_dict(state, strict=True)


def weight(key: str, shape: list[int], names: set[str]) -> NDArray[np.generic]:
    """Value of a parameter by its published name (without "model.") among all `names`."""
    generator = np.random.RandomState(zlib.crc32(key.encode("ascii")))
    prefix, leaf = key.rsplit(".", 1)
    if leaf == "num_batches_tracked":
        return np.zeros((), dtype=np.int64)
    if f"{prefix}.running_mean" in names:
        value = _batch_norm(key, shape, generator)
    elif leaf == "bias":
        value = 0.1 * generator.standard_normal(shape)
        branch = re.match(r"head\.task_heads\.\d+\.(\w+)\.1\.bias", key)
        value += _HEAD_BIAS[branch[1]] if branch else 0
        value += 1.5 if key == "backbone.mask_net.5.bias" else 0
        value *= 0.05 if key == "backbone.depth_aggregation_net.out_conv.0.bias" else 1
    else:
        value = generator.standard_normal(shape) * np.sqrt(2 / _fan(key, shape)) * _gain(key, shape)
    return value.astype(np.float32)


def _batch_norm(key: str, shape: list[int], generator: np.random.RandomState) -> NDArray[np.float64]:
    leaf = key.rsplit(".", 1)[1]
    if key == "backbone.depth_net.bn.running_mean":
        return np.array(CAMERA_MEAN)
    if key == "backbone.depth_net.bn.running_var":
        return np.array(CAMERA_VAR)
    if leaf == "weight":
        tame = 0.5 if re.search(r"\.bn[23]\.weight$", key) else 1.0
        return (1 + 0.2 * generator.uniform(-1, 1, shape)) * tame
    if leaf == "running_var":
        return 1 + 0.4 * generator.uniform(-1, 1, shape)
    return 0.1 * generator.standard_normal(shape)


def _fan(key: str, shape: list[int]) -> float:
    for pattern, share in _TRANSPOSED:
        if re.match(pattern, key):
            return shape[0] * share
    return float(np.prod(shape[1:]))


def _gain(key: str, shape: list[int]) -> float:
    branch = re.match(r"head\.task_heads\.\d+\.(\w+)\.1\.weight", key)
    if branch:
        return _HEAD_GAIN[branch[1]]
    if key.endswith("conv_offset.weight"):
        return 0.5
    if key == "backbone.depth_net.context_conv.weight" and shape[0] >= 64:
        return 0.15
    if key == "backbone.depth_net.mono_depth_net.1.weight" and shape[1] >= 256:
        return 0.4
    if key == "backbone.depth_net.mu_sigma_range_net.7.weight" and shape[1] >= 256:
        return 0.5
    return _GAINS.get(key, 1.0)


def images(batch: int = 2, height: int = 64, width: int = 192) -> torch.Tensor:
    """Normalised images of two frames and six cameras: coarse noise and some fine noise."""
    coarse = np.random.RandomState(20220924).standard_normal((batch, 2, 6, 3, height // 8, width // 8))
    fine = np.random.RandomState(20220925).standard_normal((batch, 2, 6, 3, height, width))
    coarse = np.repeat(np.repeat(coarse, 8, axis=4), 8, axis=5)
    return torch.from_numpy((coarse + 0.25 * fine).astype(np.float32))


def lidar_depth(batch: int = 2, height: int = 64, width: int = 192) -> torch.Tensor:
    """A lidar depth map with a point in every fiftieth pixel."""
    generator = np.random.RandomState(777)
    hit = generator.uniform(size=(batch, 6, height, width)) < 0.02
    depth = generator.uniform(0.5, 70, size=(batch, 6, height, width))
    return torch.from_numpy(np.where(hit, depth, 0).astype(np.float32))


def cameras(goldens: Mapping[str, NDArray[np.float32]]) -> Cameras:
    """The stored rig, from the reference's 4x4 matrices to ours."""

    def stored(name: str) -> torch.Tensor:
        return torch.from_numpy(goldens[f"input.mats.{name}"])

    augmentation = stored("ida_mats")  # its translation stands in column 3
    image_aug = torch.zeros(*augmentation.shape[:3], 3, 3)
    image_aug[..., :2, :2], image_aug[..., :2, 2] = augmentation[..., :2, :2], augmentation[..., :2, 3]
    image_aug[..., 2, 2] = 1
    return Cameras(
        sensor2keyego=stored("sensor2ego_mats"),
        key2sensor=stored("sensor2sensor_mats"),
        intrinsics=stored("intrin_mats")[..., :3, :3].contiguous(),
        image_aug=image_aug,
        bev_aug=stored("bda_mat"),
    )
