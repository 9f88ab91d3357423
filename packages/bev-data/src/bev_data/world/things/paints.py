"""Colours and paints that several things share."""

from collections.abc import Callable

import numpy as np

from bev_data.world.things.solids import Color, Model, Paint

Size = tuple[float, float, float]  # length, width, height in metres
# Builds a road user of a size; the flag is whether it moves, or for cycles whether it has a rider.
Builder = Callable[[Size, np.random.Generator, bool], Model]

GLASS = Paint((0.09, 0.12, 0.16), contrast=0.5)
TYRE = Paint((0.05, 0.05, 0.055), contrast=0.5)
HUB = Paint((0.45, 0.45, 0.47), contrast=0.5)
LAMP = Paint((1.0, 0.97, 0.82), contrast=0.05, glow=0.9)
TAIL = Paint((0.85, 0.05, 0.04), contrast=0.1, glow=0.5)
DARK = Paint((0.10, 0.10, 0.11), contrast=0.5)
STEEL = Paint((0.42, 0.43, 0.45), contrast=0.5)
SPOKES = Paint((0.20, 0.21, 0.22), contrast=0.5)
PLATE = Paint((0.9, 0.9, 0.85), contrast=0.1)
SKIN = Paint((0.72, 0.52, 0.40), contrast=0.2)

CAR_COLORS: tuple[Color, ...] = (
    (0.85, 0.85, 0.86), (0.55, 0.57, 0.60), (0.16, 0.17, 0.19), (0.60, 0.08, 0.07), (0.10, 0.20, 0.48),
    (0.30, 0.36, 0.40), (0.72, 0.68, 0.58), (0.08, 0.30, 0.20),
)  # fmt: skip
CLOTHES: tuple[Color, ...] = (
    (0.75, 0.15, 0.15), (0.15, 0.25, 0.60), (0.80, 0.75, 0.65), (0.15, 0.45, 0.25), (0.55, 0.20, 0.50),
    (0.85, 0.55, 0.10), (0.20, 0.55, 0.60), (0.90, 0.90, 0.90),
)  # fmt: skip


def pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    """One of several colours."""
    return colors[int(rng.integers(len(colors)))]


def scaled(color: Color, factor: float) -> Color:
    """A lighter or darker tone of a colour."""
    return (color[0] * factor, color[1] * factor, color[2] * factor)
