"""Configuration of a detector: plain frozen values, with the published R50 model as defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bev_models.grid import BEVGrid, DepthBins
from bev_models.ranges import check_ranges, within

PUBLISHED_TASKS: tuple[tuple[str, ...], ...] = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Backbone and neck of the images.

    Attributes:
        depth: layers of the ResNet: 18, 34, 50, 101 or 152.
        width: channels of its stem; ImageNet weights need 64.
        frozen_stem: the first convolution and its batch norm do not train.
        stride: pixels per cell of the feature map the depth net works on: 4, 8 or 16.
        neck_channels: channels each of the four stages contributes to that map.
    """

    depth: int = 50
    width: int = within(64, 1)
    frozen_stem: bool = True
    stride: int = 16
    neck_channels: int = within(128, 1)

    def __post_init__(self) -> None:
        check_ranges(self, "image ")


@dataclass(frozen=True)
class DepthNetConfig:
    """The camera-aware depth net.

    Attributes:
        bins: depth bins; they also say where features are lifted to.
        mid_channels: width of the net.
        context_channels: channels of the lifted feature.
        deformable: end the net in a deformable convolution, as published, or in a plain one of the same
            shape, which trains several times faster on a CPU.
        aggregation: refine depth times context by convolutions before the splat (the "da" experiments).
    """

    bins: DepthBins = field(default_factory=DepthBins)
    mid_channels: int = within(512, 1)
    context_channels: int = within(80, 1)
    deformable: bool = True
    aggregation: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "depth_net ")


@dataclass(frozen=True)
class VolumeConfig:
    """Stereo by a dense matching volume (`bev_models.volume.VolumeStereo`).

    Attributes:
        stride: pixels per cell of the matching map: 1, 2 or 4.
        channels: of a matching feature.
        planes: depths at which frames are matched, each the same factor beyond the one before.
        width: channels of the 3-D network that weighs the matches.
    """

    stride: int = 2
    channels: int = 16
    planes: int = 32
    width: int = 8

    def __post_init__(self) -> None:
        if self.stride not in (1, 2, 4):
            raise ValueError(f"volume stride must be 1, 2 or 4 pixels, got {self.stride}")
        for name, value, least in (
            ("channels", self.channels, 1),
            ("planes", self.planes, 2),
            ("width", self.width, 1),
        ):
            if value < least:
                raise ValueError(f"volume {name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class StereoConfig:
    """Temporal stereo.

    Attributes:
        ranges: borders of the depth ranges in metres, first and last those of the depth bins; each range
            has its own mean and spread.
        iterations: EM iterations.
        samples: depth candidates per iteration, odd.
        sampling_range: how far candidates reach, in standard deviations.
        groups: channel groups of the correlation.
        min_sigma: least spread of the result, metres.
        mask_channels: width of the net that says where to trust stereo.
        downsample_channels: width of the net that brings stereo depth to the feature map.
        kind: "em" is the published search, dynamic temporal stereo, which the attributes above are of;
            "volume" a dense matching volume, which learns to match within minutes.
        volume: of the matching volume.
    """

    ranges: tuple[float, ...] = (2.0, 8.0, 16.0, 28.0, 58.0)
    iterations: int = within(3, 1)
    samples: int = within(3, 1)
    sampling_range: float = within(3.0, 0, above=True)
    groups: int = within(8, 1)
    min_sigma: float = within(1.0, 0, above=True)
    mask_channels: int = within(64, 1)
    downsample_channels: int = within(256, 1)
    kind: Literal["em", "volume"] = "em"
    volume: VolumeConfig = field(default_factory=VolumeConfig)

    def __post_init__(self) -> None:
        check_ranges(self, "stereo ")
        if len(self.ranges) < 2 or any(a >= b for a, b in zip(self.ranges, self.ranges[1:], strict=False)):
            raise ValueError(f"stereo ranges must be at least two rising depths in metres, got {self.ranges}")
        if self.samples % 2 == 0:
            raise ValueError(f"stereo samples must be odd, so that one is the mean, got {self.samples}")

    @property
    def search(self) -> dict[str, Any]:
        """What the EM search is told (`bev_models.stereo.DynamicStereo`)."""
        return {name: value for name, value in vars(self).items() if name not in ("kind", "volume")}


@dataclass(frozen=True)
class BEVEncoderConfig:
    """Trunk and neck of the bird's-eye view.

    Attributes:
        grid: the BEV grid.
        depth: layers of the ResNet whose first three stages form the trunk: 18 or 34.
        channels: channels of its stem and first stage.
        neck_channels: channels each of the four scales contributes.
    """

    grid: BEVGrid = field(default_factory=BEVGrid)
    depth: int = 18
    channels: int = within(160, 1)
    neck_channels: int = within(64, 1)

    def __post_init__(self) -> None:
        check_ranges(self, "bev ")


@dataclass(frozen=True)
class HeadConfig:
    """Centre head and how its maps become boxes.

    Attributes:
        tasks: classes, grouped; labels count through the groups in this order.
        channels: channels of the shared convolution.
        heatmap_prior: probability the heatmaps start from; null starts them near one half, as published.
        score_threshold: boxes must score more.
        nms_scale: per task, share of the two boxes' extents within which the weaker box is suppressed.
        nms_per_class: a box suppresses only boxes of its own class, not all of its task; worth having where a
            task holds many classes.
        peak_size: a cell is a candidate only where its class's heatmap is highest within a square of so many
            cells, odd; 1 takes every cell, as published, and leaves it to the suppression.
        max_candidates: best cells considered per class and task.
        max_boxes: boxes kept per task.
        center_range: largest |x|, |y|, |z| of a box centre, metres; null for 10 m beyond the grid, and a
            height of 10 m.
    """

    tasks: tuple[tuple[str, ...], ...] = PUBLISHED_TASKS
    channels: int = within(64, 1)
    heatmap_prior: float | None = 0.1
    score_threshold: float = within(0.1, 0, 1)
    nms_scale: tuple[float, ...] = within((0.6, 0.4, 0.4, 0.7, 0.8, 0.9), 0)
    nms_per_class: bool = False
    peak_size: int = 1
    max_candidates: int = within(500, 1)
    max_boxes: int = within(83, 1)
    center_range: tuple[float, float, float] | None = within(None, 0, above=True)

    def __post_init__(self) -> None:
        check_ranges(self, "head ")
        if not self.tasks or any(not task for task in self.tasks):
            raise ValueError(f"head tasks must be non-empty groups of class names, got {self.tasks}")
        names = [name for task in self.tasks for name in task]
        if len(set(names)) != len(names):
            raise ValueError(f"head tasks must name each class once, got {names}")
        if len(self.nms_scale) != len(self.tasks):
            raise ValueError(
                f"head nms_scale must have one value per task ({len(self.tasks)}), got {self.nms_scale}"
            )
        if self.peak_size < 1 or self.peak_size % 2 == 0:
            raise ValueError(f"head peak_size must be an odd number of cells, got {self.peak_size}")
        if self.heatmap_prior is not None and not 0 < self.heatmap_prior < 1:
            raise ValueError(f"head heatmap_prior must lie between 0 and 1, got {self.heatmap_prior}")


@dataclass(frozen=True)
class Quirks:
    """Where the published weights were trained with something other than the right behaviour.

    The defaults are right; `PUBLISHED_QUIRKS` is what the published weights need.

    Attributes:
        rounding: of BEV cell indices: "floor", or "trunc" toward zero, which folds points up to one cell
            below the grid into its first cell.
        behind: what stereo sees behind a camera: "zero", or the "corner" feature.
        cells: feature cell -> pixel: "centers", where cell j covers pixels [j*s, (j+1)*s), or "corners",
            where first and last cell lie on the first and last pixel.
        mask_stride: cells of the mask warp count in strides of "own" map, or of the "stereo" map, which
            reads only the top-left quarter.
        color: order of the planes the network sees, "rgb", or "bgr" with the statistics of RGB.
        box_height: z of decoded boxes is the "center", or the "bottom" of the box.
        batch_ranges: whether stereo treats all depth ranges in one pass in training too, which shares
            their batch statistics; evaluation does so in any case, with the same numbers.
    """

    rounding: Literal["floor", "trunc"] = "floor"
    behind: Literal["zero", "corner"] = "zero"
    cells: Literal["centers", "corners"] = "centers"
    mask_stride: Literal["own", "stereo"] = "own"
    color: Literal["rgb", "bgr"] = "rgb"
    box_height: Literal["center", "bottom"] = "center"
    batch_ranges: bool = True


PUBLISHED_QUIRKS = Quirks(
    rounding="trunc",
    behind="corner",
    cells="corners",
    mask_stride="stereo",
    color="bgr",
    box_height="bottom",
    batch_ranges=False,
)


def resolve_quirks(quirks: Quirks | Literal["published"]) -> Quirks:
    """The options that `DetectorConfig.quirks` stands for."""
    return PUBLISHED_QUIRKS if isinstance(quirks, str) else quirks


@dataclass(frozen=True)
class DetectorConfig:
    """A BEVStereo detector; with `stereo` null it is BEVDepth.

    Attributes:
        frames: key frame and history, at least 2 with stereo.
        image: backbone and neck.
        depth_net: depth bins and net.
        stereo: temporal stereo, or null for monocular depth.
        bev: grid and encoder.
        head: classes, centre head and decoding.
        quirks: "published" for published weights, or single options.
        activation_checkpointing: keep less for the backward pass, which computes the rest again: about half
            the memory of a training step for some more time, with the same numbers.
    """

    frames: int = 2
    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    depth_net: DepthNetConfig = field(default_factory=DepthNetConfig)
    stereo: StereoConfig | None = field(default_factory=StereoConfig)
    bev: BEVEncoderConfig = field(default_factory=BEVEncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    quirks: Quirks | Literal["published"] = field(default_factory=Quirks)
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.frames < (2 if self.stereo else 1):
            least = "2 with stereo (set stereo to null for one)" if self.stereo else "1"
            raise ValueError(f"frames must be at least {least}, got {self.frames}")
        if self.stereo and self.stereo.kind == "em":
            bins = self.depth_net.bins
            borders = [bins.index(border) for border in self.stereo.ranges]
            if borders[0] != 0 or borders[-1] != bins.count:
                raise ValueError(
                    f"stereo ranges must reach from {bins.start} m to {bins.stop} m as the depth bins do, "
                    f"got {self.stereo.ranges}"
                )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; the heatmaps' weighs one.

    Attributes:
        box_weight: of the L1 loss on boxes.
        depth_weight: of the cross entropy on depth.
        stereo_weight: of a term that trains stereo on lidar directly: of the log-likelihood of lidar under
            what the search finds, or of the cross entropy of the volume's matches; 0 as published, where only
            the final depth tells stereo what is right, which takes long.
    """

    box_weight: float = within(0.25, 0, 1e6)
    depth_weight: float = within(3.0, 0, 1e6)
    stereo_weight: float = within(0.0, 0, 1e6)

    def __post_init__(self) -> None:
        check_ranges(self, "loss ")


def config_from_dict(values: Mapping[str, Any]) -> DetectorConfig:
    """Rebuild a configuration from what `dataclasses.asdict` made of it, lists in place of tuples too.

    Raises:
        ValueError: if a value is out of its range.
        TypeError: if a key is unknown.
    """
    parts = _tuples(values)
    depth_net, stereo, bev = parts["depth_net"], parts["stereo"], parts["bev"]
    quirks = parts["quirks"]
    return DetectorConfig(
        **parts
        | {
            "image": ImageEncoderConfig(**parts["image"]),
            "depth_net": DepthNetConfig(**depth_net | {"bins": DepthBins(**depth_net["bins"])}),
            "stereo": stereo and StereoConfig(**stereo | {"volume": VolumeConfig(**stereo["volume"])}),
            "bev": BEVEncoderConfig(**bev | {"grid": BEVGrid(**bev["grid"])}),
            "head": HeadConfig(**parts["head"]),
            "quirks": quirks if quirks == "published" else Quirks(**quirks),
        }
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
