"""Tiles of noise and pattern with their mip-maps, and how a ray's footprint is looked up in them.

Every tile is a square of a power of two, wraps around, and lies with all its levels in one flat array, so
that a look-up needs an offset and a number of bits and no branch.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.jit import inlined

DETAIL_BITS = 9
DETAIL_TEXEL = 0.02  # metres: waves from 4 cm to 10 m
PATTERN_BITS = 8
PAIR = 0xFF00FF  # red and blue of a packed texel
PATTERN_TEXELS = ((4 << (2 * PATTERN_BITS)) - 1) // 3  # of all levels

# Patterns by name: index into the atlas, and the side of one tile in metres.
PATTERNS: dict[str, tuple[int, float]] = {
    "plain": (0, 4.0),
    "windows": (1, 12.0),
    "brick": (2, 2.4),
    "leaves": (3, 3.0),
    "stripes": (4, 1.2),
    "panels": (5, 4.0),
    "hazard": (6, 1.0),
    "concrete": (7, 3.2),
    "shops": (8, 10.0),
}


class Textures(NamedTuple):
    """What is the same in every scene.

    Attributes:
        detail: noise with equal energy per octave, all levels in a row.
        atlas: [patterns * PATTERN_TEXELS] packed colours, one pattern after the other.
        tile_size: [patterns] metres.
    """

    detail: NDArray[np.uint8]
    atlas: NDArray[np.uint32]
    tile_size: NDArray[np.float64]


def noise(rng: np.random.Generator, size: int, exponent: float = 1.0) -> NDArray[np.float64]:
    """Wrapping noise of zero mean and unit deviation whose amplitude falls as frequency ** -exponent.

    With 1 every octave of a plane carries the same energy, so that each mip level keeps contrast.
    """
    frequency = np.fft.fftfreq(size) * size
    radius = np.hypot(frequency[:, None], frequency[None, :])
    radius[0, 0] = np.inf
    # Nothing finer than four texels: bilinear look-ups show no grid then.
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) * radius**-exponent * (radius < size / 3)
    field: NDArray[np.float64] = np.fft.ifft2(spectrum).real
    scaled: NDArray[np.float64] = field / field.std()
    return scaled


def mip_chain(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All levels of a square tile [size, size, channels], flattened and joined: [texels, channels]."""
    size, channels = tile.shape[0], tile.shape[2]
    levels = [tile.reshape(-1, channels)]
    level = tile.astype(np.float32)
    while size > 1:
        size //= 2
        level = (level[0::2, 0::2] + level[1::2, 0::2] + level[0::2, 1::2] + level[1::2, 1::2]) * np.float32(
            0.25
        )
        levels.append(np.round(level).astype(np.uint8).reshape(-1, channels))
    return np.ascontiguousarray(np.concatenate(levels))


def _to_bytes(field: NDArray[np.float64]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.round(field * 255.0), 0, 255).astype(np.uint8)
    return rounded


def _windows(
    rng: np.random.Generator, size: int, columns: int, rows: int, fill: float
) -> NDArray[np.float64]:
    """A wall with a grid of windows, each of its own brightness."""
    y, x = np.mgrid[0:size, 0:size] / size
    column, row = np.floor(x * columns).astype(int), np.floor(y * rows).astype(int)
    across, up = x * columns % 1.0, y * rows % 1.0
    glass = (np.abs(across - 0.5) < fill / 2) & (np.abs(up - 0.5) < 0.31)
    frame = (np.abs(across - 0.5) < fill / 2 + 0.06) & (np.abs(up - 0.5) < 0.36)
    bar = np.abs(across - 0.5) < 0.025
    tint = rng.uniform(0.2, 0.55, (rows, columns))[row, column]
    blind = up - 0.5 > rng.uniform(-0.3, 0.5, (rows, columns))[row, column]
    wall: NDArray[np.float64] = np.repeat(1.0 + 0.05 * noise(rng, size)[..., None], 3, axis=2)
    wall[frame] = (1.12, 1.1, 1.05)
    wall[glass] = tint[glass][:, None] * np.array([0.75, 0.95, 1.15])
    wall[glass & blind] = (0.85, 0.8, 0.7)
    wall[glass & bar] = (1.0, 0.98, 0.95)
    wall[up < 0.035] *= 0.8
    return wall


def _brick(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    y, x = np.mgrid[0:size, 0:size] / size
    row = np.floor(y * 24).astype(int)
    shifted = (x * 10 + 0.5 * (row % 2)) % 10
    column = np.floor(shifted).astype(int)
    mortar = (shifted % 1.0 < 0.07) | (y * 24 % 1.0 < 0.16)
    tone = rng.uniform(0.7, 1.15, (24, 10))[row, column]
    wall: NDArray[np.float64] = np.stack([tone, tone * 0.95, tone * 0.92], axis=2)
    wall[mortar] = 1.2
    return wall


def _leaves(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    clump, leaf = noise(rng, size, 1.3), noise(rng, size, 0.4)
    light = np.clip(0.85 + 0.28 * clump + 0.22 * leaf, 0.2, 1.5)
    return np.stack([light * (1 + 0.08 * clump), light, light * 0.85], axis=2)


def _diagonal(
    size: int, dark: tuple[float, float, float], light: tuple[float, float, float]
) -> NDArray[np.float64]:
    y, x = np.mgrid[0:size, 0:size] / size
    phase = (2 * (x + y)) % 1.0
    tile: NDArray[np.float64] = np.where((phase < 0.5)[..., None], np.array(dark), np.array(light))
    return tile


def _panels(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Ribbed metal sheets with seams and a few painted blocks."""
    y, x = np.mgrid[0:size, 0:size] / size
    tone = 1.0 + 0.07 * np.sin(2 * np.pi * x * 16)
    tone = np.where((x * 4 % 1.0 < 0.03) | (y * 2 % 1.0 < 0.02), 0.6, tone)
    tile = np.repeat(tone[..., None], 3, axis=2)
    for _ in range(4):
        left, low = rng.uniform(0, 0.7, 2)
        width, height = rng.uniform(0.1, 0.3, 2)
        inside = (x > left) & (x < left + width) & (y > low) & (y < low + height)
        tile[inside] *= rng.uniform(0.55, 1.2, 3)
    return tile


def _concrete(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    y, x = np.mgrid[0:size, 0:size] / size
    tone = 1.0 + 0.1 * noise(rng, size, 1.2)
    tone = np.where((x * 2 % 1.0 < 0.02) | (y * 4 % 1.0 < 0.03), 0.7, tone)
    return np.repeat(tone[..., None], 3, axis=2)


@cache
def textures() -> Textures:
    """Build the tiles once per process; the same in every world."""
    rng = np.random.default_rng(20230207)
    size = 1 << PATTERN_BITS
    tiles = {
        "plain": np.ones((size, size, 3)),
        "windows": _windows(rng, size, 5, 4, 0.5),
        "brick": _brick(rng, size),
        "leaves": _leaves(rng, size),
        "stripes": _diagonal(size, (0.9, 0.12, 0.1), (1.25, 1.25, 1.2)),
        "panels": _panels(rng, size),
        "hazard": _diagonal(size, (0.1, 0.1, 0.1), (1.3, 1.0, 0.1)),
        "concrete": _concrete(rng, size),
        "shops": _windows(rng, size, 3, 3, 0.78),
    }
    # A texel of 170 is the factor 1, which leaves room for highlights up to 1.5.
    atlas = np.concatenate([packed(mip_chain(_to_bytes(tiles[name] / 1.5))) for name in PATTERNS])
    detail = mip_chain(_to_bytes(0.5 + 0.19 * noise(rng, 1 << DETAIL_BITS))[..., None])[:, 0]
    return Textures(detail, atlas, np.array([side for _, side in PATTERNS.values()]))


def packed(texels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Red, green, blue [texels, 3] in one number each, red lowest: one read instead of three."""
    wide = texels.astype(np.uint32)
    joined: NDArray[np.uint32] = wide[:, 0] | wide[:, 1] << np.uint32(8) | wide[:, 2] << np.uint32(16)
    return joined


@inlined
def level_of(area: float, bits: int) -> int:
    """Mip level whose texel is nearest to a footprint; its area is given in texels of the finest level."""
    # Half of log2, rounded: the exponent of a double stands in its upper 12 bits.
    level = ((np.float64(2.0 * area).view(np.int64) >> 52) - 1023) >> 1
    return min(max(int(level), 0), bits)


@inlined
def level_offset(bits: int, level: int) -> int:
    """First texel of a level in the flat array: the sum of the squares before it."""
    side = 1 << bits
    small = side >> level
    return (4 * (side * side - small * small)) // 3


@inlined
def sample_tone(tile: NDArray[np.uint8], bits: int, level: int, u: float, v: float) -> float:
    """Bilinear look-up of one channel; u, v in texels of the finest level."""
    scale = 1.0 / (1 << level)
    u = u * scale - 0.5
    v = v * scale - 0.5
    left, low = int(np.floor(u)), int(np.floor(v))
    a, b = u - left, v - low
    side_bits = bits - level
    mask = (1 << side_bits) - 1
    start = level_offset(bits, level)
    row0 = start + ((low & mask) << side_bits)
    row1 = start + (((low + 1) & mask) << side_bits)
    i0, i1 = left & mask, (left + 1) & mask
    bottom = tile[row0 + i0] * (1.0 - a) + tile[row0 + i1] * a
    top = tile[row1 + i0] * (1.0 - a) + tile[row1 + i1] * a
    return float(bottom * (1.0 - b) + top * b)


@inlined
def sample_color(
    tiles: NDArray[np.uint32], first: int, bits: int, level: int, u: float, v: float
) -> tuple[float, float, float]:
    """Bilinear look-up of three channels in the tile that begins at `first`; u, v as for `sample_tone`."""
    scale = 1.0 / (1 << level)
    u = u * scale - 0.5
    v = v * scale - 0.5
    left, low = int(np.floor(u)), int(np.floor(v))
    a, b = u - left, v - low
    side_bits = bits - level
    mask = (1 << side_bits) - 1
    start = first + level_offset(bits, level)
    row0 = start + ((low & mask) << side_bits)
    row1 = start + (((low + 1) & mask) << side_bits)
    i0, i1 = left & mask, (left + 1) & mask
    # Weights in 256ths: then the products of two channels fit side by side into one integer.
    wa, wb = int(a * 256.0), int(b * 256.0)
    w11 = (wa * wb) >> 8
    w01, w10 = wa - w11, wb - w11
    w00 = 256 - wa - wb + w11
    p00, p01, p10, p11 = (
        int(tiles[row0 + i0]),
        int(tiles[row0 + i1]),
        int(tiles[row1 + i0]),
        int(tiles[row1 + i1]),
    )
    outer = (p00 & PAIR) * w00 + (p01 & PAIR) * w01 + (p10 & PAIR) * w10 + (p11 & PAIR) * w11
    green = ((p00 >> 8) & 255) * w00 + ((p01 >> 8) & 255) * w01 + ((p10 >> 8) & 255) * w10
    green += ((p11 >> 8) & 255) * w11
    return (outer & 65535) * (1.0 / 256.0), green * (1.0 / 256.0), (outer >> 16) * (1.0 / 256.0)
