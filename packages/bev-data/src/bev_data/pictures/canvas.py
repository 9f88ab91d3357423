"""A picture that is drawn large and reduced at the end, so that lines and letters have smooth edges.

Coordinates and sizes are pixels of the finished picture, x to the right and y down from its top-left corner.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int] | tuple[int, int, int, int]
Point = tuple[float, float]

OVERSAMPLING = 2


class Canvas:
    """An RGB picture of `width` x `height` pixels; a colour's fourth value (0 to 255) is its opacity."""

    def __init__(self, width: float, height: float, background: Color = (0, 0, 0)) -> None:
        self.width, self.height = round(width), round(height)
        self._image = Image.new(
            "RGB", (self.width * OVERSAMPLING, self.height * OVERSAMPLING), background[:3]
        )
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def paste(
        self, picture: "Image.Image | Canvas", left: float, top: float, width: float, height: float
    ) -> None:
        """Scale a picture to `width` x `height` and put it down with its top-left corner at (left, top)."""
        image = picture._image if isinstance(picture, Canvas) else picture.convert("RGB")
        size = (round(width * OVERSAMPLING), round(height * OVERSAMPLING))
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        self._image.paste(image, (round(left * OVERSAMPLING), round(top * OVERSAMPLING)))

    def line(self, points: Sequence[Point], color: Color, width: float, dash: float = 0) -> None:
        """Draw a line through points; `dash` above 0 is the length of its dashes and of its gaps."""
        for start, end in pairwise(points):
            for a, b in _dashes(start, end, dash) if dash else [(start, end)]:
                self._draw.line(
                    [*_scaled(a), *_scaled(b)], fill=color, width=max(1, round(width * OVERSAMPLING))
                )

    def polygon(self, points: Sequence[Point], fill: Color) -> None:
        """Fill a polygon; fewer than three points are nothing to fill."""
        if len(points) >= 3:
            self._draw.polygon([_scaled(point) for point in points], fill=fill)

    def circle(self, center: Point, radius: float, color: Color, width: float) -> None:
        """Draw a circle's outline."""
        (x, y), r = _scaled(center), radius * OVERSAMPLING
        self._draw.ellipse(
            [x - r, y - r, x + r, y + r], outline=color, width=max(1, round(width * OVERSAMPLING))
        )

    def rectangle(
        self, left: float, top: float, right: float, bottom: float, fill: Color, radius: float = 0
    ) -> None:
        """Fill a rectangle, with rounded corners where a radius is given."""
        corners = [*_scaled((left, top)), *_scaled((right, bottom))]
        self._draw.rounded_rectangle(corners, radius * OVERSAMPLING, fill=fill)

    def text(
        self, at: Point, text: str, size: float, color: Color, anchor: str = "lm", plate: Color | None = None
    ) -> None:
        """Write text, placed by Pillow's two-letter anchors, on a plate where a colour for one is given."""
        font = _font(size)
        if plate is not None:
            left, top, right, bottom = self._draw.textbbox(_scaled(at), text, font=font, anchor=anchor)
            margin = 0.2 * size * OVERSAMPLING
            corners = [left - margin, top - margin, right + margin, bottom + margin]
            self._draw.rounded_rectangle(corners, margin, fill=plate)
        self._draw.text(_scaled(at), text, font=font, fill=color, anchor=anchor)

    def dots(
        self, centers: Float[NDArray[np.float64], "k 2"], colors: UInt8[NDArray[np.uint8], "k 3"], size: float
    ) -> None:
        """Paint squares of `size` pixels, the first one at the bottom."""
        side = max(1, round(size * OVERSAMPLING))
        pixels = np.array(self._image)
        corner = np.floor(centers * OVERSAMPLING - (side - 1) / 2).astype(np.int64)
        for down in range(side):
            for right in range(side):
                x, y = corner[:, 0] + right, corner[:, 1] + down
                inside = (x >= 0) & (x < pixels.shape[1]) & (y >= 0) & (y < pixels.shape[0])
                pixels[y[inside], x[inside]] = colors[inside]
        self._image.paste(Image.fromarray(pixels))

    def finished(self) -> Image.Image:
        """The picture in its final size."""
        return self._image.reduce(OVERSAMPLING)


def text_width(text: str, size: float) -> float:
    """Width in pixels of a text written in a size."""
    return float(_font(size).getlength(text)) / OVERSAMPLING


def _font(size: float) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    # The font that comes with Pillow: what a machine has installed would change the picture.
    return ImageFont.load_default(size * OVERSAMPLING)


def _scaled(point: Point) -> Point:
    return point[0] * OVERSAMPLING, point[1] * OVERSAMPLING


def _dashes(start: Point, end: Point, dash: float) -> list[tuple[Point, Point]]:
    a, b = np.asarray(start), np.asarray(end)
    length = float(np.linalg.norm(b - a))
    # An odd number of equal parts: a dash at either end, so that corners stay visible.
    parts = 2 * int(length / dash / 2) + 1
    stops = [tuple(a + (b - a) * i / parts) for i in range(parts + 1)]
    return list(zip(stops[0::2], stops[1::2], strict=True))
