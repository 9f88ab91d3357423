"""The detector: the one place where its parts are put together.

Shape shorthand: b batch, t frames, n cameras, d depth bins, c channels; H W input pixels, h w feature cells,
sh sw stereo cells, y x BEV cells.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from bev_models.backbones import ResNet
from bev_models.bev_encoder import BEVEncoder
from bev_models.box_coder import BoxCoder, Detections
from bev_models.cameras import Cameras, camera_vector
from bev_models.center_head import CenterHead, TaskMaps
from bev_models.config import DetectorConfig, resolve_quirks
from bev_models.depth_net import DepthNet, DepthNetOutput
from bev_models.necks import MultiScaleNeck
from bev_models.stereo import DynamicStereo, StereoDepth, StereoSource
from bev_models.view_transform import LiftSplat
from bev_models.volume import Matching, VolumeDepth, VolumeStereo

# Stride of the backbone's first stage, whose features stereo compares.
_STEREO_STRIDE = 4

# Mean and standard deviation of ImageNet's red, green and blue, 0 to 255.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


class Predictions(NamedTuple):
    """What the detector says of a batch.

    Attributes:
        tasks: maps of the centre head.
        depth_probs: depth distribution of the key frame.
        mono_depth_probs: the same before stereo; None in training, and where there is no stereo.
        stereo_density: what the stereo search found for the key frame, up to a factor, on its finer map; None
            outside training, and where there is no such search.
        matching: how well the other frames match the key frame's; None outside training, and where stereo is
            no volume.
    """

    tasks: list[TaskMaps]
    depth_probs: Float[Tensor, "b n d h w"]
    mono_depth_probs: Float[Tensor, "b n d h w"] | None = None
    stereo_density: Float[Tensor, "b n d sh sw"] | None = None
    matching: Matching | None = None


class Frame(NamedTuple):
    """What the image encoder and the depth net make of one frame; cameras folded into the batch axis.

    Attributes:
        camera: what the depth net was told of each camera.
        features: of the neck, which the depth net saw.
        stereo_features: of the backbone's first stage.
        depth: what the depth net says.
    """

    camera: Float[Tensor, "bn 27"]
    features: Float[Tensor, "bn e h w"]
    stereo_features: Float[Tensor, "bn c sh sw"]
    depth: DepthNetOutput


class Detector(nn.Module):
    """BEVStereo; without stereo, BEVDepth.

    Attributes:
        config: what it was built from.
        class_names: what labels index.

    Source: Li et al., BEVStereo (AAAI 2023), figure 2.
    """

    mean: Tensor
    std: Tensor
    depth_centers: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.quirks = resolve_quirks(config.quirks)
        self.class_names = tuple(name for task in config.head.tasks for name in task)
        image, depth_net, bev, head = config.image, config.depth_net, config.bev, config.head
        bins, checkpointing = depth_net.bins, config.activation_checkpointing
        upsampling = image.stride // _STEREO_STRIDE
        if image.stride not in (4, 8, 16):
            raise ValueError(f"image stride must be 4, 8 or 16, got {image.stride}")
        if any(cells % 8 for cells in bev.grid.shape[1:]):
            raise ValueError(
                f"the BEV grid must have multiples of 8 cells along x and y, got {bev.grid.shape}"
            )

        self.image_backbone = ResNet(
            image.depth, width=image.width, frozen_stem=image.frozen_stem, checkpointing=checkpointing
        )
        self.image_neck = MultiScaleNeck(
            self.image_backbone.channels,
            self.image_backbone.strides,
            out_channels=image.neck_channels,
            out_stride=image.stride,
        )
        self.depth_net = DepthNet(
            self.image_neck.out_channels,
            mid_channels=depth_net.mid_channels,
            context_channels=depth_net.context_channels,
            bins=bins.count,
            ranges=len(config.stereo.ranges) - 1 if config.stereo and config.stereo.kind == "em" else 0,
            upsampling=upsampling,
            deformable=depth_net.deformable,
            checkpointing=checkpointing,
        )
        self.stereo: DynamicStereo | VolumeStereo | None = None
        if config.stereo and config.stereo.kind == "volume":
            self.stereo = VolumeStereo(
                bins,
                image.stride,
                **vars(config.stereo.volume),
                behind=self.quirks.behind,
                checkpointing=checkpointing,
            )
        elif config.stereo:
            if self.image_backbone.channels[0] % config.stereo.groups:
                raise ValueError(
                    f"stereo groups must divide the {self.image_backbone.channels[0]} channels of the first "
                    f"stage, got {config.stereo.groups}"
                )
            self.stereo = DynamicStereo(
                bins,
                **config.stereo.search,
                upsampling=upsampling,
                behind=self.quirks.behind,
                batch_ranges=self.quirks.batch_ranges,
                checkpointing=checkpointing,
            )
        self.view_transform = LiftSplat(
            bev.grid,
            bins,
            context_channels=depth_net.context_channels,
            aggregation=depth_net.aggregation,
            rounding=self.quirks.rounding,
        )
        self.bev_encoder = BEVEncoder(
            config.frames * depth_net.context_channels,
            channels=bev.channels,
            neck_channels=bev.neck_channels,
            depth=bev.depth,
            checkpointing=checkpointing,
        )
        self.head = CenterHead(
            self.bev_encoder.out_channels,
            [len(task) for task in head.tasks],
            channels=head.channels,
            heatmap_prior=head.heatmap_prior,
            checkpointing=checkpointing,
        )
        self.box_coder = BoxCoder(bev.grid, head, box_height=self.quirks.box_height)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.register_buffer("depth_centers", bins.centers()[:, None, None], persistent=False)

    def normalize(self, images: UInt8[Tensor, "*batch 3 H W"]) -> Float[Tensor, "*batch 3 H W"]:
        """RGB bytes -> what the backbone expects."""
        planes = images.flip(-3) if self.quirks.color == "bgr" else images
        return (planes.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Float[Tensor, "b t n 3 H W"], cameras: Cameras) -> Predictions:
        """Detect.

        Only the key frame is trained: the frames before it are seen without gradient.

        Args:
            images: normalised (`normalize`); H and W multiples of 32.
            cameras: matrices of the same frames and cameras.

        Raises:
            ValueError: if images and cameras do not belong together, or do not fit the configuration.
        """
        self._check(images, cameras)
        camera = camera_vector(cameras)
        frames = [self.see(images[:, t], camera, with_gradient=t == 0) for t in range(self.config.frames)]
        return self.fuse(frames, cameras, (images.shape[-2], images.shape[-1]))

    def see(
        self,
        images: Float[Tensor, "b n 3 H W"],
        camera: Float[Tensor, "bn 27"],
        with_gradient: bool = True,
    ) -> Frame:
        """Encode one frame's images and ask the depth net.

        Args:
            images: normalised (`normalize`).
            camera: `camera_vector` of the key frame.
            with_gradient: false for frames before the key frame.
        """
        with nullcontext() if with_gradient else torch.no_grad():
            maps = self.image_backbone(images.flatten(0, 1))
            features = self.image_neck(maps)
            depth = self.depth_net(features, camera)
        if isinstance(self.stereo, VolumeStereo):
            # A match has two sides: these features learn from all frames.
            return Frame(camera, features, self.stereo.features(images.flatten(0, 1)), depth)
        return Frame(camera, features, maps[0].detach(), depth)

    def tell(self, frame: Frame, camera: Float[Tensor, "bn 27"]) -> Frame:
        """A frame seen before, as a frame before a key frame with these cameras.

        The depth net is asked again only where the cameras are others than those it was told.

        Args:
            frame: of `see`.
            camera: `camera_vector` of the key frame.
        """
        if torch.equal(frame.camera, camera):
            return frame
        with torch.no_grad():
            return frame._replace(camera=camera, depth=self.depth_net(frame.features, camera))

    def fuse(self, frames: Sequence[Frame], cameras: Cameras, image_size: tuple[int, int]) -> Predictions:
        """Detect in frames that were seen.

        Args:
            frames: the key frame first.
            cameras: matrices of all frames.
            image_size: (H, W) of the input, pixels.
        """
        lifted = [self._lift(t, frames, cameras, image_size) for t in range(self.config.frames)]
        bev = torch.cat([bev for bev, _, _ in lifted], dim=1)
        with torch.autocast(bev.device.type, enabled=False):
            tasks = self.head(self.bev_encoder(bev))
        _, probs, found = lifted[0]
        if found is None:
            return Predictions(tasks, probs)
        if self.training:
            if isinstance(found, VolumeDepth):
                return Predictions(tasks, probs, matching=found.matching)
            density = found.depth.view(*probs.shape[:2], *found.depth.shape[1:])
            return Predictions(tasks, probs, stereo_density=density)
        mono = frames[0].depth.logits.detach().softmax(dim=1).view(probs.shape)
        return Predictions(tasks, probs, mono)

    def decode(self, predictions: Predictions) -> list[Detections]:
        """Boxes of every sample, in augmented keyego."""
        return self.box_coder.decode(predictions.tasks)

    def expected_depth(self, depth_probs: Float[Tensor, "*batch d h w"]) -> Float[Tensor, "*batch h w"]:
        """Mean of the depth distribution, metres."""
        return (depth_probs * self.depth_centers).sum(-3)

    def _lift(
        self, t: int, frames: Sequence[Frame], cameras: Cameras, image_size: tuple[int, int]
    ) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, "b n d h w"], StereoDepth | VolumeDepth | None]:
        """BEV map, depth distribution and what stereo found for frame t; gradient for the key frame only."""
        with nullcontext() if t == 0 else torch.no_grad():
            probs, found = self._depth_probs(t, frames, cameras, image_size)
            size = (probs.shape[-2], probs.shape[-1])
            projection = cameras.lift_projection(t, image_size, size, self.config.bev.grid, self.quirks.cells)
            rig = projection.shape[:2]
            probs = probs.view(*rig, *probs.shape[1:])
            context = frames[t].depth.context
            bev = self.view_transform(probs, context.view(*rig, *context.shape[1:]), projection)
            return bev, probs, found

    def _depth_probs(
        self, reference: int, frames: Sequence[Frame], cameras: Cameras, image_size: tuple[int, int]
    ) -> tuple[Float[Tensor, "bn d h w"], StereoDepth | VolumeDepth | None]:
        """Depth distribution of one frame: monocular logits, plus stereo against all other frames.

        Also what stereo found.
        """
        frame = frames[reference]
        logits = frame.depth.logits
        if self.stereo is None:
            return logits.softmax(dim=1), None
        size = (logits.shape[-2], logits.shape[-1])
        stereo_size = (frame.stereo_features.shape[-2], frame.stereo_features.shape[-1])
        searched = isinstance(self.stereo, DynamicStereo)
        mask_stride = _STEREO_STRIDE if searched and self.quirks.mask_stride == "stereo" else None
        cells = self.quirks.cells
        sources = [
            StereoSource(
                frames[t].stereo_features,
                frames[t].depth.logits,
                cameras.sweep_projection(reference, t, image_size, stereo_size, cells),
                cameras.sweep_projection(reference, t, image_size, size, cells, mask_stride),
            )
            for t in range(len(frames))
            if t != reference
        ]
        found: StereoDepth | VolumeDepth = self.stereo(frame.depth, frame.stereo_features, sources)
        return (logits + found.added).softmax(dim=1), found

    def _check(self, images: Tensor, cameras: Cameras) -> None:
        """Hold the input against the configuration."""
        if images.dim() != 6 or images.shape[3] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be normalised floats [b, t, n, 3, H, W], "
                f"got {list(images.shape)} {images.dtype}"
            )
        b, t, n, _, height, width = images.shape
        if t != self.config.frames:
            raise ValueError(f"images must have {self.config.frames} frames as configured, got {t}")
        if height % 32 or width % 32:
            raise ValueError(f"image height and width must be multiples of 32, got {height} x {width}")
        for name, matrix, shape in (
            ("sensor2keyego", cameras.sensor2keyego, (b, t, n, 4, 4)),
            ("key2sensor", cameras.key2sensor, (b, t, n, 4, 4)),
            ("intrinsics", cameras.intrinsics, (b, t, n, 3, 3)),
            ("image_aug", cameras.image_aug, (b, t, n, 3, 3)),
            ("bev_aug", cameras.bev_aug, (b, 4, 4)),
        ):
            if tuple(matrix.shape) != shape:
                raise ValueError(f"cameras.{name} must have shape {list(shape)}, got {list(matrix.shape)}")


def build_detector(config: DetectorConfig | None = None) -> Detector:
    """Build a detector with fresh weights; without a config, the published R50 model's shape.

    Raises:
        ValueError: if parts of the configuration do not fit each other.
    """
    return Detector(config or DetectorConfig())
