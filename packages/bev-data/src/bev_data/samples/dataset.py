"""Infos -> samples: images, matrices, lidar depth and boxes of a key frame with its history, augmented."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bev_data.errors import InputError
from bev_data.geometry import boxes_to_frame, invert, matrix_to_quaternion, pose
from bev_data.infos.info import Annotations, CameraFrame, Info
from bev_data.infos.infos import Infos
from bev_data.nuscenes.taxonomy import CATEGORY_TO_CLASS, CLASSES
from bev_data.samples.augment import (
    BevAugmentation,
    ImageAugmentation,
    ImageTransform,
    Pixels,
    Placing,
    augment_boxes,
    draw_bev_matrix,
    draw_image_transform,
    evaluation_transform,
    place_depth,
)
from bev_data.samples.batch import Sample, SampleMeta
from bev_data.samples.history import History, history_frames, usable_key_frames
from bev_data.samples.images import load_image
from bev_data.samples.lidar_depth import depth_points, read_depth_file

__all__ = [
    "PUBLISHED_DATA_QUIRKS",
    "BevAugmentation",
    "DataQuirks",
    "History",
    "ImageAugmentation",
    "KeyFrameDataset",
    "SampleOptions",
]

F64 = NDArray[np.float64]

# What the chance of a sample is drawn for; part of its seed, so that new draws leave the old ones alone.
_IMAGE_DRAWS, _BEV_DRAWS = 0, 1


def _check_choices(options: object, **choices: tuple[str, ...]) -> None:
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(options, name)!r}")


@dataclass(frozen=True)
class DataQuirks:
    """Where the published weights were trained on samples made in another way than the right one.

    The defaults are right; `PUBLISHED_DATA_QUIRKS` is what the published weights need.

    Attributes:
        keyego: "lidar": boxes, BEV and lifted features share the ego frame at the key frame's lidar sweep.
            "published": features are lifted into the ego frame of their own camera's exposure, while boxes
            and results stand in the mean of these frames.
        depth_rule: which of several lidar points in one pixel counts; see `place_depth`.
        unknown_velocity: "nan": losses must leave it out. "zero": boxes are trained to stand.
        cbgs_count: what a key frame counts for in class-balanced sampling, once each: the "classes" of its
            boxes, or the raw "categories" of all its annotations.
        pixels: "centers": `image_aug` and depth maps count pixels from the middle of the first one, as
            intrinsics do. "published": from its corner; see `ImageTransform`.
        crop: "horizon": where the bottom crop would put a camera's horizon above `SampleOptions.horizon`, the
            crop is laid so that it lies there; for images of 16:9 that is the bottom crop. "published":
            always the bottom.
    """

    keyego: Literal["lidar", "published"] = "lidar"
    depth_rule: Literal["nearest", "published"] = "nearest"
    unknown_velocity: Literal["nan", "zero"] = "nan"
    cbgs_count: Literal["classes", "categories"] = "classes"
    pixels: Pixels = "centers"
    crop: Literal["horizon", "published"] = "horizon"

    def __post_init__(self) -> None:
        _check_choices(
            self,
            keyego=("lidar", "published"),
            depth_rule=("nearest", "published"),
            unknown_velocity=("nan", "zero"),
            cbgs_count=("classes", "categories"),
            pixels=("centers", "published"),
            crop=("horizon", "published"),
        )


PUBLISHED_DATA_QUIRKS = DataQuirks(
    keyego="published",
    depth_rule="published",
    unknown_velocity="zero",
    cbgs_count="categories",
    pixels="published",
    crop="published",
)


@dataclass(frozen=True)
class SampleOptions:
    """How samples are made where there is a choice.

    Attributes:
        depth_source: "lidar": computed from the sweep in the loader. "files": read from `depth_gt/`, which
            `bev-data depth-gt` makes with the same numbers.
        decoding: how training reads and resizes images: "fast", or "exact" as published; they differ by 1 of
            255 in a few values per thousand. Evaluation is always exact.
        min_points: boxes with fewer lidar and radar points are left out.
        horizon: the crop of an image leaves at least this share of the input's height above the horizon.
    """

    depth_source: Literal["lidar", "files"] = "lidar"
    decoding: Literal["fast", "exact"] = "fast"
    min_points: int = 1
    horizon: float = 1 / 6

    def __post_init__(self) -> None:
        _check_choices(self, depth_source=("lidar", "files"), decoding=("fast", "exact"))
        if self.min_points < 0:
            raise InputError(f"min_points must be 0 or more, got {self.min_points}")
        if not 0 <= self.horizon < 1:
            raise InputError(f"horizon must be a share of the input's height in [0, 1), got {self.horizon}")


class KeyFrameDataset(Dataset[Sample]):
    """Samples of a split.

    Chance depends on the seed, the epoch and the index of a sample alone: it is the same with any number of
    workers and ranks, and differs from epoch to epoch.

    Args:
        infos: the key frames.
        root: data root that the infos' files are relative to.
        image_size: height and width of the input, multiples of 32.
        history: frames before the key frame.
        classes: class names that labels index; boxes of other classes are left out.
        training: augment; otherwise images are scaled to cover the input and nothing is drawn.
        image_aug: ranges of the image augmentation; None for none.
        bev_aug: ranges of the BEV augmentation; None for none.
        lidar_depth: make lidar depth maps.
        cameras: names of the cameras to use; None for all.
        seed: of all chance.
        options: see `SampleOptions`.
        quirks: see `DataQuirks`; "published" for those of the published weights.

    Attributes:
        indices: of the infos that samples are made from.

    Raises:
        ValueError: if the image size does not fit, a class or camera is unknown, or no key frame has enough
            history.
    """

    def __init__(
        self,
        infos: Infos,
        root: Path | str,
        *,
        image_size: tuple[int, int],
        history: History | None = None,
        classes: Sequence[str] = CLASSES,
        training: bool = False,
        image_aug: ImageAugmentation | None = ImageAugmentation(),  # noqa: B008 - frozen
        bev_aug: BevAugmentation | None = BevAugmentation(),  # noqa: B008 - frozen
        lidar_depth: bool = True,
        cameras: Sequence[str] | None = None,
        seed: int = 0,
        options: SampleOptions | None = None,
        quirks: DataQuirks | Literal["published"] | None = None,
    ) -> None:
        height, width = image_size
        if height < 32 or width < 32 or height % 32 or width % 32:
            raise InputError(
                f"image_size must be (height, width) in multiples of 32 pixels, got {tuple(image_size)}"
            )
        known = set(CATEGORY_TO_CLASS.values())
        if not classes or not known.issuperset(classes) or len(set(classes)) != len(classes):
            raise InputError(f"classes must be different ones of {', '.join(CLASSES)}, got {list(classes)}")
        self.cameras = tuple(infos.cameras if cameras is None else cameras)
        if not self.cameras or not set(infos.cameras).issuperset(self.cameras):
            raise InputError(f"cameras must be some of {', '.join(infos.cameras)}, got {list(self.cameras)}")
        self.infos = infos
        self.root = Path(root)
        self.image_size = (height, width)
        self.history = history if history is not None else History()
        self.classes = tuple(classes)
        self.training = training
        self.lidar_depth = lidar_depth
        self.seed = seed
        self.options = options if options is not None else SampleOptions()
        self.quirks = PUBLISHED_DATA_QUIRKS if quirks == "published" else quirks or DataQuirks()
        self.indices = usable_key_frames(infos, self.history, self.cameras)
        self._warn_of_hidden_horizons()
        self._image_aug = image_aug if training else None
        self._bev_aug = bev_aug if training else None
        # Shared memory, so that workers that outlive an epoch see the new one.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch that chance is drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw new augmentations from here on, in the workers that are running too."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.draw(index)

    def draw(self, index: int, repetition: int = 0) -> Sample:
        """A sample; the same key frame with another repetition is augmented differently.

        Raises:
            FileNotFoundError: if an image or lidar file is missing.
            ValueError: if one is damaged, or an image has another size than the tables say.
        """
        row = int(self.indices[index])
        info = self.infos[row]
        frames = history_frames(self.infos, info, self.history, self.cameras)
        transforms = self._image_transforms(info, self._generator(row, repetition, _IMAGE_DRAWS))
        bev_aug = np.eye(4)
        if self._bev_aug is not None:
            bev_aug = draw_bev_matrix(self._bev_aug, self._generator(row, repetition, _BEV_DRAWS))
        keyego2global = self.keyego2global(info)
        sensor2keyego, key2sensor = self._frame_matrices(info, frames, keyego2global)
        boxes, labels = self.boxes(info)
        intrinsics = np.stack([[frame[name].intrinsics for name in self.cameras] for frame in frames])
        image_aug = np.stack([[t.matrix() for t in transforms.values()]] * len(frames))
        return Sample(
            images=self._images(frames, transforms),
            sensor2keyego=_float(sensor2keyego),
            key2sensor=_float(key2sensor),
            intrinsics=_float(intrinsics),
            image_aug=_float(image_aug),
            bev_aug=_float(bev_aug),
            lidar_depth=self._lidar_depth(info, transforms) if self.lidar_depth else None,
            boxes=_float(augment_boxes(boxes, bev_aug)),
            labels=torch.from_numpy(labels),
            meta=SampleMeta(info.token, keyego2global),
        )

    def keyego2global(self, info: Info) -> Float[F64, "4 4"]:
        """Pose of the frame in which a key frame's boxes stand."""
        if self.quirks.keyego == "lidar":
            return info.keyego2global
        return mean_ego_pose([info.cameras[name] for name in self.cameras])

    def boxes(self, info: Info) -> tuple[Float[F64, "m 9"], Int64[NDArray[np.int64], "m"]]:
        """Boxes of a key frame in keyego before augmentation, and their labels."""
        chosen, labels = select_boxes(info.annotations, self.classes, self.options.min_points)
        a = info.annotations
        velocities = a.velocities[chosen]
        if self.quirks.unknown_velocity == "zero":
            velocities = np.nan_to_num(velocities, nan=0.0)
        boxes = boxes_to_frame(
            invert(self.keyego2global(info)),
            a.centers[chosen],
            a.sizes[chosen],
            a.rotations[chosen],
            velocities,
        )
        return boxes, labels

    def _generator(self, row: int, repetition: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(
            np.random.SeedSequence([self.seed, self.epoch, row, repetition, purpose])
        )

    def _image_transforms(self, info: Info, rng: np.random.Generator) -> dict[str, ImageTransform]:
        size = (self.image_size[1], self.image_size[0])
        transforms = {}
        for name in self.cameras:
            camera = info.cameras[name]
            source, placing = (camera.width, camera.height), self._placing(camera)
            if self._image_aug is None:
                transforms[name] = evaluation_transform(source, size, placing)
            else:
                transforms[name] = draw_image_transform(self._image_aug, source, size, rng, placing)
        return transforms

    def _placing(self, camera: CameraFrame) -> Placing:
        by_horizon = self.quirks.crop == "horizon"
        return Placing(camera.horizon if by_horizon else None, self.options.horizon, self.quirks.pixels)

    def _warn_of_hidden_horizons(self) -> None:
        """Say which cameras of the first key frame would show nothing that is far away."""
        width, height = self.image_size[1], self.image_size[0]
        for name in self.cameras:
            camera = self.infos[0].cameras[name]
            source = (camera.width, camera.height)
            transform = evaluation_transform(source, (width, height), self._placing(camera))
            row = transform.scale[1] * camera.horizon - transform.crop[1]
            if not 0 <= row < height:
                warnings.warn(
                    f"the horizon of {name} should lie in its input of {height}x{width} pixels, got row "
                    f"{row:.0f}: what is farther than some metres is not seen; choose another image_size, or "
                    f"look at it with `bev-data show --input {height}x{width}`",
                    stacklevel=3,
                )

    def _frame_matrices(
        self, info: Info, frames: Sequence[dict[str, CameraFrame]], keyego2global: Float[F64, "4 4"]
    ) -> tuple[Float[F64, "t n 4 4"], Float[F64, "t n 4 4"]]:
        key = [info.cameras[name] for name in self.cameras]
        key2global = np.stack([camera.sensor2global for camera in key])
        sensor2global = np.stack([[frame[name].sensor2global for name in self.cameras] for frame in frames])
        if self.quirks.keyego == "lidar":
            global2keyego = invert(keyego2global)
        else:
            global2keyego = invert(np.stack([camera.ego2global for camera in key]))
        return global2keyego @ sensor2global, invert(sensor2global) @ key2global

    def _images(
        self, frames: Sequence[dict[str, CameraFrame]], transforms: dict[str, ImageTransform]
    ) -> UInt8[Tensor, "t n 3 H W"]:
        decoding = self.options.decoding if self.training else "exact"
        images = np.empty((len(frames), len(transforms), 3, *self.image_size), dtype=np.uint8)
        for n, (name, transform) in enumerate(transforms.items()):
            for t, frame in enumerate(frames):
                # A frame that history repeats is decoded once.
                if t > 0 and frame is frames[t - 1]:
                    images[t, n] = images[t - 1, n]
                else:
                    load_image(self.root, frame[name], transform, decoding, images[t, n])
        return torch.from_numpy(images)

    def _lidar_depth(self, info: Info, transforms: dict[str, ImageTransform]) -> Float[Tensor, "n H W"]:
        if self.options.depth_source == "lidar":
            points = depth_points(self.root, info, self.cameras)
        else:
            points = [read_depth_file(self.root, info.cameras[name]) for name in self.cameras]
        maps = np.zeros((len(points), *self.image_size), dtype=np.float32)
        for of_camera, transform, out in zip(points, transforms.values(), maps, strict=True):
            place_depth(of_camera, transform, out, rule=self.quirks.depth_rule)
        return torch.from_numpy(maps)


def mean_ego_pose(frames: Sequence[CameraFrame]) -> Float[F64, "4 4"]:
    """Mean of the ego poses at several exposures: translations and quaternions averaged, as published."""
    translation = np.mean([frame.ego2global[:3, 3] for frame in frames], axis=0)
    quaternions = np.stack([matrix_to_quaternion(frame.ego2global[:3, :3]) for frame in frames])
    # A quaternion and its negative are the same rotation: bring all to the side of the first.
    quaternions *= np.where(quaternions @ quaternions[0] < 0, -1.0, 1.0)[:, None]
    return pose(quaternions.mean(axis=0), translation)


def select_boxes(
    annotations: Annotations, classes: Sequence[str], min_points: int
) -> tuple[Int64[NDArray[np.int64], "m"], Int64[NDArray[np.int64], "m"]]:
    """Indices of the annotations of these classes with enough lidar and radar points, and their labels."""
    label = {name: i for i, name in enumerate(classes)}
    labels = np.array(
        [label.get(CATEGORY_TO_CLASS.get(c, ""), -1) for c in annotations.categories], dtype=np.int64
    )
    chosen = np.flatnonzero((labels >= 0) & annotations.has_points(min_points))
    return chosen, labels[chosen]


def _float(array: F64) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
