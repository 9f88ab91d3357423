"""Random changes of a sample: of its images (resize, crop, flip, rotation) and of the BEV frame.

Shape shorthand: H W input pixels, k points, m boxes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from bev_data.errors import InputError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class ImageAugmentation:
    """Ranges from which each camera of a sample draws, once for all its frames.

    Attributes:
        resize: range of the scale. The published setting, for 900x1600 images and an input of 256x704, is
            (0.386, 0.55) in absolute terms; the default is the same range relative to that evaluation's 0.44.
        resize_unit: "relative": a multiple of the evaluation's scale, which is the smallest at which the
            image covers the input; it means the same for images and inputs of any size. "absolute": input
            pixels per original pixel.
        crop_bottom: range of the share of the resized height by which the crop is moved up from where
            `Placing` lays it; sideways its place is random.
        flip: mirror half of the images.
        rotate_deg: the image turns about its centre by up to this angle, either way; degrees.
    """

    resize: tuple[float, float] = (0.386 / 0.44, 0.55 / 0.44)
    resize_unit: Literal["relative", "absolute"] = "relative"
    crop_bottom: tuple[float, float] = (0.0, 0.0)
    flip: bool = True
    rotate_deg: float = 5.4

    def __post_init__(self) -> None:
        low, high = self.resize
        if not 0 < low <= high:
            raise InputError(f"resize must be a range (low, high) with 0 < low <= high, got {self.resize}")
        if self.resize_unit not in ("relative", "absolute"):
            raise InputError(f"resize_unit must be 'relative' or 'absolute', got {self.resize_unit!r}")
        low, high = self.crop_bottom
        if not 0 <= low <= high < 1:
            raise InputError(
                f"crop_bottom must be a range (low, high) with 0 <= low <= high < 1, got {self.crop_bottom}"
            )
        if not 0 <= self.rotate_deg <= 180:
            raise InputError(f"rotate_deg must be in [0, 180] degrees, got {self.rotate_deg}")


@dataclass(frozen=True)
class BevAugmentation:
    """Ranges from which each sample draws a change of its keyego frame.

    Attributes:
        rotate_deg: up to this angle, either way; degrees.
        scale: range of the scale.
        flip_x: half of the time x (forward) is negated.
        flip_y: half of the time y (left) is negated.
    """

    rotate_deg: float = 22.5
    scale: tuple[float, float] = (0.95, 1.05)
    flip_x: bool = True
    flip_y: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.rotate_deg <= 180:
            raise InputError(f"rotate_deg must be in [0, 180] degrees, got {self.rotate_deg}")
        low, high = self.scale
        if not 0 < low <= high:
            raise InputError(f"scale must be a range (low, high) with 0 < low <= high, got {self.scale}")


Pixels = Literal["centers", "published"]


class ImageTransform(NamedTuple):
    """What happens to one image, in this order.

    Attributes:
        scale: input pixels per original pixel, across and down.
        resized: width and height after resizing.
        crop: left and top edge of the crop in the resized image; what lies outside is black.
        size: width and height of the crop, which is the input.
        flip: mirror left and right.
        rotate_deg: counter-clockwise about the centre of the crop.
        pixels: "centers": the middle of the first pixel is (0, 0) before and after, as in intrinsics.
            "published": the published matrix, which takes its corner for (0, 0), so that positions are off by
            a quarter of a pixel, and by three quarters where an image is mirrored.
    """

    scale: tuple[float, float]
    resized: tuple[int, int]
    crop: tuple[int, int]
    size: tuple[int, int]
    flip: bool = False
    rotate_deg: float = 0.0
    pixels: Pixels = "centers"

    def matrix(self) -> Float[F64, "3 3"]:
        """`image_aug`: original pixel (u, v, 1) -> input pixel (u, v, 1)."""
        # Distance of the first pixel's middle from the image's corner, which resizing leaves in place.
        middle = 0.5 if self.pixels == "centers" else 0.0
        (scale_x, scale_y), (left, top), (width, height) = self.scale, self.crop, self.size
        moved = np.array(
            [
                [scale_x, 0, (scale_x - 1) * middle - left],
                [0, scale_y, (scale_y - 1) * middle - top],
                [0, 0, 1.0],
            ]
        )
        if self.flip:
            moved = np.array([[-1.0, 0, width - 2 * middle], [0, 1, 0], [0, 0, 1]]) @ moved
        angle = np.deg2rad(self.rotate_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        center = np.array([width / 2, height / 2]) - middle
        about_center = np.eye(3)
        about_center[:2, :2] = rotation
        about_center[:2, 2] = center - rotation @ center
        result: F64 = about_center @ moved
        return result

    def apply(self, image: Image.Image) -> Image.Image:
        """Resize (bicubic), crop, flip and rotate (nearest) an image; new area is black."""
        left, top = self.crop
        if self.resized != image.size:
            image = image.resize(self.resized, Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + self.size[0], top + self.size[1]))
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.rotate_deg:
            image = image.rotate(self.rotate_deg, Image.Resampling.NEAREST)
        return image


class Placing(NamedTuple):
    """Where the crop of a camera's images is taken from, and how pixels are counted.

    The crop is aligned to the bottom, because the top of an image is sky. Where that would put the horizon
    above a share of the input's height, or cut it off, as it does with images squarer than 16:9, the crop is
    laid so that the horizon lies there.

    Attributes:
        horizon: row of the horizon in the original image (`CameraFrame.horizon`); None to keep to the bottom
            always, as published.
        share: of the input's height that is above the horizon at least.
        pixels: see `ImageTransform`.
    """

    horizon: float | None = None
    share: float = 1 / 6
    pixels: Pixels = "centers"


BOTTOM = Placing()


def evaluation_transform(
    source: tuple[int, int], size: tuple[int, int], placing: Placing = BOTTOM
) -> ImageTransform:
    """The transform without chance: the smallest scale that covers the input, cropped in the middle.

    Args:
        source: width and height of the original image.
        size: width and height of the input.
        placing: of the crop, from top to bottom.
    """
    return _place(source, size, _covering_scale(source, size), cut=0.0, across=0.5, placing=placing)


def draw_image_transform(
    config: ImageAugmentation,
    source: tuple[int, int],
    size: tuple[int, int],
    rng: np.random.Generator,
    placing: Placing = BOTTOM,
) -> ImageTransform:
    """Draw a transform.

    Args:
        config: the ranges.
        source: width and height of the original image.
        size: width and height of the input.
        rng: source of chance; always gives five numbers, whatever the ranges are.
        placing: of the crop. A camera whose horizon is safe in the bottom crop of evaluation keeps to the
            bottom in training too.
    """
    resize, cut, across, mirror, turn = rng.random(5)
    unit = _covering_scale(source, size) if config.resize_unit == "relative" else 1.0
    if _keeps_bottom(source, size, placing):
        placing = placing._replace(horizon=None)
    placed = _place(
        source,
        size,
        unit * _between(config.resize, resize),
        _between(config.crop_bottom, cut),
        across,
        placing,
    )
    rotate = _between((-config.rotate_deg, config.rotate_deg), turn)
    return placed._replace(flip=config.flip and bool(mirror < 0.5), rotate_deg=rotate)


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(share)


def _covering_scale(source: tuple[int, int], size: tuple[int, int]) -> float:
    return max(size[0] / source[0], size[1] / source[1])


def _keeps_bottom(source: tuple[int, int], size: tuple[int, int], placing: Placing) -> bool:
    at_bottom = evaluation_transform(source, size, placing._replace(horizon=None))
    return evaluation_transform(source, size, placing).crop == at_bottom.crop


def _place(
    source: tuple[int, int],
    size: tuple[int, int],
    scale: float,
    cut: float,
    across: float,
    placing: Placing,
) -> ImageTransform:
    # The guard keeps a scale of 704 / 1600 from giving 703 pixels by rounding.
    width, height = (max(1, int(length * scale + 1e-6)) for length in source)
    top = int((1 - cut) * height) - size[1]
    if placing.horizon is not None:
        row = (placing.horizon + 0.5) * height / source[1]
        wanted = row - placing.share * size[1] - cut * height
        top = int(max(min(top, 0), min(top, wanted)))
    left = int(across * max(0, width - size[0]))
    # Whole pixels make the true scale another one than what was asked for, and each axis its own.
    true_scale = (width / source[0], height / source[1])
    return ImageTransform(
        true_scale if placing.pixels == "centers" else (scale, scale),
        (width, height),
        (left, top),
        size,
        pixels=placing.pixels,
    )


def draw_bev_matrix(config: BevAugmentation, rng: np.random.Generator) -> Float[F64, "4 4"]:
    """Draw `bev_aug`: keyego -> augmented keyego."""
    turn, size, mirror_x, mirror_y = rng.random(4)
    return bev_matrix(
        rotate_deg=_between((-config.rotate_deg, config.rotate_deg), turn),
        scale=_between(config.scale, size),
        flip_x=config.flip_x and bool(mirror_x < 0.5),
        flip_y=config.flip_y and bool(mirror_y < 0.5),
    )


def bev_matrix(*, rotate_deg: float, scale: float, flip_x: bool, flip_y: bool) -> Float[F64, "4 4"]:
    """`bev_aug` = flip @ (scale * rotation)."""
    angle = np.deg2rad(rotate_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0, 1.0]) @ (scale * rotation)
    return matrix


def augment_boxes(boxes: Float[F64, "m 9"], bev_aug: Float[F64, "4 4"]) -> Float[F64, "m 9"]:
    """Boxes of keyego (rows x y z l w h yaw vx vy) in augmented keyego; NaN velocities stay NaN.

    `bev_aug` must be what `bev_matrix` makes: a rotation about z, a scale and flips of x and y.
    """
    linear = bev_aug[:3, :3]
    result = np.array(boxes, dtype=np.float64)
    result[:, 0:3] = result[:, 0:3] @ linear.T + bev_aug[:3, 3]
    # Flips and the rotation leave z alone, so the scale can be read off there.
    result[:, 3:6] *= linear[2, 2]
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=-1) @ linear[:2, :2].T
    result[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    result[:, 7:9] = result[:, 7:9] @ linear[:2, :2].T
    return result


def place_depth(
    points: Float[F32, "k 3"],
    transform: ImageTransform,
    out: Float[F32, "H W"],
    *,
    rule: Literal["nearest", "published"] = "nearest",
) -> None:
    """Put depth into the map of an augmented image.

    Args:
        points: u, v in pixels of the original image, and depth in metres.
        transform: what happened to the image.
        out: the map, in metres; pixels without a point stay as they are.
        rule: "nearest": of the points that share a pixel the nearest counts. "published": the last one
            counts, and points up to one pixel outside the left and upper edge fold into it (truncation
            instead of floor).
    """
    height, width = out.shape
    u, v = _from_corner(points, transform)
    depth = points[:, 2]
    if rule == "nearest":
        order = np.argsort(-depth, kind="stable")
        columns, rows, depth = np.floor(u[order]), np.floor(v[order]), depth[order]
    else:
        columns, rows = np.trunc(u), np.trunc(v)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    # Where indices repeat, the last value stays.
    out[rows[inside].astype(np.int64), columns[inside].astype(np.int64)] = depth[inside]


def _from_corner(points: Float[F32, "k 3"], transform: ImageTransform) -> tuple[F32, F32]:
    """Points in pixels of the input, counted from the corner of its first pixel."""
    if transform.pixels == "published":
        return _published_points(points, transform)
    matrix = transform.matrix()[:2]
    u, v = matrix[:, :2] @ points[:, :2].T + matrix[:, 2:] + 0.5
    return u.astype(np.float32), v.astype(np.float32)


def _published_points(points: Float[F32, "k 3"], transform: ImageTransform) -> tuple[F32, F32]:
    """The same in float32 and in the order of steps of the published pipeline.

    The order decides which pixel a point on a pixel's border falls into, and so the depth maps that published
    weights were trained with.
    """
    width, height = transform.size
    u = points[:, 0] * np.float32(transform.scale[0]) - np.float32(transform.crop[0])
    v = points[:, 1] * np.float32(transform.scale[1]) - np.float32(transform.crop[1])
    if transform.flip:
        u = np.float32(width) - u
    angle = np.deg2rad(transform.rotate_deg)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    center = np.array([width, height], dtype=np.float32) / 2
    turned = (rotation @ (np.stack([u, v]) - center[:, None])).astype(np.float32) + center[:, None]
    return turned[0], turned[1]
