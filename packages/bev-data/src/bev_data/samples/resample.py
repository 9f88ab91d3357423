"""Pixels of an image into the network's input: resized, cropped, flipped and rotated as by Pillow, but fast.

Shape shorthand: H W input pixels, h w pixels of another image, k taps of a filter.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from bev_data.jit import kernel
from bev_data.samples.augment import ImageTransform

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

_ONE = 1 << 16  # of the 16.16 fixed-point numbers in which the rotation steps from pixel to pixel
_REACH = 2.0  # of the bicubic filter, in pixels of the smaller image


def place_image(pixels: UInt8[U8, "h w 3"], transform: ImageTransform, out: UInt8[U8, "3 H W"]) -> None:
    """Resize a BGR image (bicubic), crop, flip and rotate it (nearest), and write RGB planes.

    Values are those of `ImageTransform.apply`, up to rounding by one in a few thousand values; without a
    resize they are the same. Rows and columns that the crop leaves out are not computed.
    """
    left, top = transform.crop
    if transform.resized != (pixels.shape[1], pixels.shape[0]):
        columns, rows = (
            range(max(0, start), min(start + length, resized))
            for start, length, resized in zip(transform.crop, transform.size, transform.resized, strict=True)
        )
        pixels = _resize(pixels, transform.resized, columns, rows)
        left, top = left - columns.start, top - rows.start
    _gather(pixels, left, top, transform.flip, _steps(transform), out)


def _resize(
    pixels: UInt8[U8, "h w 3"], size: tuple[int, int], columns: range, rows: range
) -> UInt8[U8, "H W 3"]:
    """The part of a resized image that lies in these columns and rows."""
    width, height = size
    if not (columns and rows):
        return np.zeros((0, 0, 3), dtype=np.uint8)
    first, weights = _filter(pixels.shape[0], height, rows)
    used = pixels[first[0] : first[-1] + weights.shape[1]]
    # Across first, as Pillow does; torch leaves an axis alone that keeps its length.
    image = torch.from_numpy(used)[None].permute(0, 3, 1, 2)
    narrow = interpolate(image, size=(len(used), width), mode="bicubic", antialias=True)
    flat = narrow[0].permute(1, 2, 0).reshape(len(used), -1).numpy()
    result = np.empty((len(rows), len(columns), 3), dtype=np.uint8)
    _blend_rows(flat, 3 * columns.start, first - first[0], weights, result.reshape(len(rows), -1))
    return result


def _filter(length: int, resized: int, wanted: range) -> tuple[Int64[I64, "n"], Float[F32, "n k"]]:
    """Antialiased bicubic filter (a = -0.5) along one axis: the first pixel of each sum, and the weights.

    Source: Keys, "Cubic convolution interpolation for digital image processing" (1981), widened by the scale
    where an image shrinks.
    """
    scale = length / resized
    stretch = max(scale, 1.0)
    centers = (np.array(wanted) + 0.5) * scale
    start = np.maximum(np.floor(centers - _REACH * stretch + 0.5), 0).astype(np.int64)
    stop = np.minimum(np.floor(centers + _REACH * stretch + 0.5), length).astype(np.int64)
    taps = int((stop - start).max())
    # Where the image ends, sums begin earlier, with weights of 0.
    first = np.minimum(start, length - taps)
    position = first[:, None] + np.arange(taps)
    x = np.abs(position + 0.5 - centers[:, None]) / stretch
    weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
    weights *= (position >= start[:, None]) & (position < stop[:, None]) & (x < _REACH)
    weights /= weights.sum(axis=1, keepdims=True)
    return first, weights.astype(np.float32)


@kernel
def _blend_rows(pixels: U8, left: int, first: I64, weights: F32, out: U8) -> None:
    """Rows as weighted sums of rows."""
    rows, length = out.shape
    total = np.empty(length, dtype=np.float32)
    for y in range(rows):
        total[:] = np.float32(0.5)  # to the nearest
        for tap in range(weights.shape[1]):
            weight, row = weights[y, tap], pixels[first[y] + tap][left : left + length]
            for x in range(length):
                total[x] += weight * np.float32(row[x])
        for x in range(length):
            out[y, x] = np.uint8(min(max(total[x], np.float32(0)), np.float32(255)))


def _steps(transform: ImageTransform) -> tuple[int, int, int, int, int, int]:
    """Where a pixel of the turned image comes from, in 16.16 fixed point.

    Column = (s0 x + s1 y + s2) >> 16 and row = (s3 x + s4 y + s5) >> 16: the numbers in which Pillow turns an
    image, so that the same pixels meet.
    """
    angle = math.radians(transform.rotate_deg % 360)
    # Exact quarters and halves of a turn have a sine or cosine of exactly 0.
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = transform.size[0] / 2, transform.size[1] / 2
    rows = (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)
    s0, s1, s2, s3, s4, s5 = (
        math.floor(value * _ONE + 0.5) for a, b, c in rows for value in (a, b, c + a * 0.5 + b * 0.5)
    )
    return s0, s1, s2, s3, s4, s5


@kernel
def _gather(
    pixels: U8, left: int, top: int, flip: bool, steps: tuple[int, int, int, int, int, int], out: U8
) -> None:
    _, height, width = out.shape
    rows, columns, _ = pixels.shape
    s0, s1, s2, s3, s4, s5 = steps
    for y in range(height):
        for x in range(width):
            column, row = (s0 * x + s1 * y + s2) >> 16, (s3 * x + s4 * y + s5) >> 16
            inside = 0 <= column < width and 0 <= row < height
            if flip:
                column = width - 1 - column
            column, row = column + left, row + top
            if inside and 0 <= column < columns and 0 <= row < rows:
                out[0, y, x] = pixels[row, column, 2]
                out[1, y, x] = pixels[row, column, 1]
                out[2, y, x] = pixels[row, column, 0]
            else:
                out[0, y, x] = 0
                out[1, y, x] = 0
                out[2, y, x] = 0
