"""One augmented item (`Sample`), collated items (`Batch`), and the step between them.

Shape shorthand: b batch, t frames (0 = key frame, then back in time), n cameras, H W input pixels, m boxes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor


class SampleMeta(NamedTuple):
    """What a sample is called and where it stood; stays on the host.

    Attributes:
        token: nuScenes sample token of the key frame.
        keyego2global: [4,4] float64, the ego frame of boxes and results -> map frame.
    """

    token: str
    keyego2global: NDArray[np.float64]


class Sample(NamedTuple):
    """One key frame with its history, augmented; `docs/conventions.md` explains frames, cameras and boxes.

    Attributes:
        images: RGB, 0 to 255.
        sensor2keyego: camera of frame t at its exposure -> keyego, metres.
        key2sensor: key-frame camera -> the same camera in frame t, metres.
        intrinsics: in pixels of the original image.
        image_aug: original pixel -> input pixel; the same for all frames of one camera.
        bev_aug: keyego -> augmented keyego (rotation, scale, flips).
        lidar_depth: metres along the optical axis of the key-frame camera, 0 where no point fell.
        boxes: x y z l w h yaw vx vy in augmented keyego; z at the centre; NaN velocity where unknown.
        labels: index into the class list of the dataset.
        meta: name and pose of the key frame.
    """

    images: UInt8[Tensor, "t n 3 H W"]
    sensor2keyego: Float[Tensor, "t n 4 4"]
    key2sensor: Float[Tensor, "t n 4 4"]
    intrinsics: Float[Tensor, "t n 3 3"]
    image_aug: Float[Tensor, "t n 3 3"]
    bev_aug: Float[Tensor, "4 4"]
    lidar_depth: Float[Tensor, "n H W"] | None
    boxes: Float[Tensor, "m 9"]
    labels: Int64[Tensor, "m"]
    meta: SampleMeta


class Batch(NamedTuple):
    """Collated samples: tensors gain a leading axis b, boxes and labels stay one tensor per sample.

    `lidar_depth` is None where the samples carry none.
    """

    images: UInt8[Tensor, "b t n 3 H W"]
    sensor2keyego: Float[Tensor, "b t n 4 4"]
    key2sensor: Float[Tensor, "b t n 4 4"]
    intrinsics: Float[Tensor, "b t n 3 3"]
    image_aug: Float[Tensor, "b t n 3 3"]
    bev_aug: Float[Tensor, "b 4 4"]
    lidar_depth: Float[Tensor, "b n H W"] | None
    boxes: list[Float[Tensor, "m 9"]]
    labels: list[Int64[Tensor, "m"]]
    meta: list[SampleMeta]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch.

    Raises:
        ValueError: if `samples` is empty, or only some of them carry a lidar depth map.
    """
    if not samples:
        raise ValueError("a batch must hold at least one sample, got none")
    depth_maps = [sample.lidar_depth for sample in samples if sample.lidar_depth is not None]
    if depth_maps and len(depth_maps) != len(samples):
        missing = [sample.meta.token for sample in samples if sample.lidar_depth is None]
        raise ValueError(f"all samples of a batch must have lidar depth or none, got none for {missing}")
    return Batch(
        images=torch.stack([sample.images for sample in samples]),
        sensor2keyego=torch.stack([sample.sensor2keyego for sample in samples]),
        key2sensor=torch.stack([sample.key2sensor for sample in samples]),
        intrinsics=torch.stack([sample.intrinsics for sample in samples]),
        image_aug=torch.stack([sample.image_aug for sample in samples]),
        bev_aug=torch.stack([sample.bev_aug for sample in samples]),
        lidar_depth=torch.stack(depth_maps) if depth_maps else None,
        boxes=[sample.boxes for sample in samples],
        labels=[sample.labels for sample in samples],
        meta=[sample.meta for sample in samples],
    )
