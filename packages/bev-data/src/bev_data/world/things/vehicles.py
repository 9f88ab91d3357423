"""How vehicles on four and more wheels are put together from solids.

Every builder takes the size that the annotation states and fills exactly that box: x from -l/2 to l/2
(front at +), y from -w/2 to w/2, z from 0 to h. Fronts carry white lamps and a windscreen, rears red lamps,
so that heading can be seen.
"""

import numpy as np

from bev_data.world.things.paints import (
    CAR_COLORS,
    DARK,
    GLASS,
    HUB,
    LAMP,
    PLATE,
    STEEL,
    TAIL,
    TYRE,
    Size,
    pick,
    scaled,
)
from bev_data.world.things.solids import Model, Paint


def _lamps(model: Model, size: Size, z: tuple[float, float], inset: float = 0.12) -> None:
    """White lamps on the front face, red ones on the rear, a plate on both."""
    long, wide, _ = size
    lamp = 0.2 * wide
    for side in (-1, 1):
        y = sorted((side * (0.5 * wide - inset * wide), side * (0.5 * wide - inset * wide - lamp)))
        model.box((0.5 * long - 0.06, 0.5 * long), (y[0], y[1]), z, LAMP)
        model.box((-0.5 * long, -0.5 * long + 0.06), (y[0], y[1]), z, TAIL)
    low = z[0] - 0.16
    for x in ((0.5 * long - 0.05, 0.5 * long), (-0.5 * long, -0.5 * long + 0.05)):
        model.box(x, (-0.26, 0.26), (low, low + 0.12), PLATE)


def _wheels(model: Model, size: Size, radius: float, places: tuple[float, ...], thick: float = 0.22) -> None:
    _, wide, _ = size
    for x in places:
        model.wheel((x, radius), radius, (0.5 * wide - thick, 0.5 * wide), TYRE, HUB)
        model.wheel((x, radius), radius, (-0.5 * wide, -0.5 * wide + thick), TYRE, HUB)


def car(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A saloon, an estate or a van: body, cabin of glass with a painted roof, wheels, lamps."""
    long, wide, tall = size
    color = pick(rng, CAR_COLORS)
    body, roof = Paint(color), Paint(scaled(color, 0.92))
    model = Model()
    waist = rng.uniform(0.52, 0.58) * tall
    side = 0.5 * wide - 0.03
    x0, x1 = -0.5 * long + 0.04, 0.5 * long - 0.04
    model.box((x0, x1), (-side, side), (0.17 * tall, 0.42 * tall), body, front=DARK)
    model.taper(
        (x0, x1),
        (-side, side),
        (x0 + 0.06, x1 - 0.25),
        (-side + 0.06, side - 0.06),
        (0.42 * tall, waist),
        body,
    )
    kind = rng.integers(3)
    rear = (-0.46, -0.47, -0.40)[kind] * long
    rear_top = (-0.26, -0.45, -0.36)[kind] * long
    front, front_top = (0.22, 0.26, 0.40)[kind] * long, (0.07, 0.09, 0.20)[kind] * long
    model.taper(
        (rear, front), (-side + 0.07, side - 0.07), (rear_top, front_top), (-side + 0.24, side - 0.24),
        (waist, 0.965 * tall), GLASS,
    )  # fmt: skip
    model.taper(
        (rear_top - 0.05, front_top + 0.05), (-side + 0.2, side - 0.2), (rear_top, front_top),
        (-side + 0.25, side - 0.25), (0.955 * tall, tall), roof,
    )  # fmt: skip
    middle = 0.5 * (rear_top + front_top)
    model.taper(
        (middle - 0.06, middle + 0.06), (-side + 0.06, side - 0.06), (middle - 0.05, middle + 0.05),
        (-side + 0.22, side - 0.22), (waist, 0.96 * tall), roof,
    )  # fmt: skip
    _wheels(model, size, 0.19 * tall, (-0.31 * long, 0.31 * long))
    _lamps(model, size, (0.33 * tall, 0.42 * tall))
    return model


def truck(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A cab and, behind a gap, a tall box."""
    long, wide, tall = size
    cab = Paint(pick(rng, CAR_COLORS[:5]))
    load = Paint(pick(rng, ((0.88, 0.88, 0.86), (0.85, 0.72, 0.35), (0.55, 0.65, 0.75))), "panels")
    model = Model()
    split = 0.5 * long - min(2.0, 0.3 * long)
    side = 0.5 * wide
    model.box((-0.5 * long, 0.5 * long - 0.15), (-0.38 * wide, 0.38 * wide), (0.16 * tall, 0.24 * tall), DARK)
    model.box((-0.5 * long + 0.04, split - 0.15), (-side, side), (0.24 * tall, tall), load)
    model.box((split, 0.5 * long - 0.04), (-side + 0.06, side - 0.06), (0.17 * tall, 0.5 * tall), cab)
    model.taper(
        (split, 0.5 * long - 0.04), (-side + 0.06, side - 0.06), (split, 0.5 * long - 0.35), (-side + 0.15,
        side - 0.15), (0.5 * tall, 0.82 * tall), GLASS, rear=cab, top=cab,
    )  # fmt: skip
    model.box((split, split + 0.5), (-side + 0.1, side - 0.1), (0.5 * tall, 0.84 * tall), cab)
    _wheels(model, size, 0.155 * tall, (-0.36 * long, -0.2 * long, 0.38 * long), 0.3)
    _lamps(model, size, (0.26 * tall, 0.33 * tall))
    return model


def bus(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """One long body with a band of windows, bright paint, a large windscreen."""
    long, wide, tall = size
    color = pick(rng, ((0.80, 0.12, 0.10), (0.10, 0.42, 0.30), (0.92, 0.70, 0.10), (0.85, 0.87, 0.90)))
    paint, second = Paint(color), Paint(scaled(color, 0.65))
    side = 0.5 * wide
    model = Model()
    model.box((-0.5 * long + 0.02, 0.5 * long - 0.02), (-side + 0.02, side - 0.02), (0.1 * tall, tall), paint)
    model.box((-0.5 * long + 0.5, 0.5 * long - 0.1), (-side, side), (0.1 * tall, 0.24 * tall), second)
    number = max(4, round(long / 1.6))
    step = (long - 0.6) / number
    for k in range(number):
        x = -0.5 * long + 0.3 + k * step
        model.box((x + 0.08, x + step - 0.08), (-side, side), (0.45 * tall, 0.8 * tall), GLASS)
    model.box((0.5 * long - 0.1, 0.5 * long), (-side + 0.12, side - 0.12), (0.36 * tall, 0.82 * tall), GLASS)
    model.box(
        (0.5 * long - 0.1, 0.5 * long),
        (-0.3 * wide, 0.3 * wide),
        (0.86 * tall, 0.95 * tall),
        Paint((0.95, 0.65, 0.1), glow=0.8),
    )
    model.box((-0.5 * long, -0.5 * long + 0.1), (-side + 0.35, side - 0.35), (0.55 * tall, 0.8 * tall), GLASS)
    _wheels(model, size, 0.15 * tall, (-0.3 * long, 0.33 * long), 0.3)
    _lamps(model, size, (0.22 * tall, 0.28 * tall))
    return model


def trailer(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A long box on legs with a drawbar in front, ribbed sides and a striped rear."""
    long, wide, tall = size
    color = pick(rng, ((0.20, 0.36, 0.62), (0.62, 0.24, 0.14), (0.30, 0.50, 0.34), (0.78, 0.76, 0.70)))
    load = Paint(color, "panels", 0.45)
    side = 0.5 * wide
    model = Model()
    front = 0.5 * long - 0.14 * long
    model.box((-0.5 * long + 0.03, front), (-side, side), (0.3 * tall, tall), load)
    model.box((-0.5 * long, 0.42 * long), (-0.18 * wide, 0.18 * wide), (0.2 * tall, 0.3 * tall), DARK)
    model.box((0.3 * long, 0.5 * long), (-0.07, 0.07), (0.14 * tall, 0.2 * tall), STEEL)
    for y in (-0.36 * wide, 0.36 * wide):
        model.box((0.2 * long, 0.2 * long + 0.18), (y - 0.08, y + 0.08), (0.0, 0.3 * tall), STEEL)
    model.box(
        (-0.5 * long, -0.5 * long + 0.05),
        (-side + 0.05, side - 0.05),
        (0.22 * tall, 0.3 * tall),
        Paint((1, 1, 1), "stripes", 0.2),
    )
    _wheels(model, size, 0.125 * tall, (-0.38 * long, -0.26 * long), 0.32)
    for y in (-0.4 * wide, 0.4 * wide):
        model.box((-0.5 * long, -0.5 * long + 0.04), (y - 0.12, y + 0.12), (0.31 * tall, 0.36 * tall), TAIL)
    return model


def construction_vehicle(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """An excavator in yellow: tracks, a house with a cabin, a boom and a bucket in front."""
    long, wide, tall = size
    yellow = Paint(pick(rng, ((0.95, 0.68, 0.06), (0.95, 0.55, 0.08), (0.88, 0.76, 0.15))))
    side = 0.5 * wide
    model = Model()
    for y in ((-side, -side + 0.24 * wide), (side - 0.24 * wide, side)):
        model.taper((-0.44 * long, 0.18 * long), y, (-0.5 * long, 0.24 * long), y, (0.0, 0.13 * tall), DARK)
        model.taper(
            (-0.5 * long, 0.24 * long),
            y,
            (-0.44 * long, 0.18 * long),
            y,
            (0.13 * tall, 0.27 * tall),
            DARK,
            top=STEEL,
        )
    model.box(
        (-0.46 * long, 0.2 * long),
        (-0.4 * wide, 0.4 * wide),
        (0.27 * tall, 0.56 * tall),
        yellow,
        rear=Paint((1, 1, 1), "hazard", 0.2),
    )
    model.box(
        (-0.48 * long, -0.2 * long),
        (-0.4 * wide, 0.4 * wide),
        (0.3 * tall, 0.66 * tall),
        yellow,
        rear=Paint((1, 1, 1), "hazard", 0.2),
    )
    model.taper(
        (-0.1 * long, 0.2 * long), (0.02 * wide, 0.4 * wide), (-0.06 * long, 0.12 * long), (0.06 * wide,
        0.36 * wide), (0.56 * tall, 0.95 * tall), GLASS, top=yellow,
    )  # fmt: skip
    model.box((-0.08 * long, 0.14 * long), (0.04 * wide, 0.38 * wide), (0.94 * tall, tall), yellow)
    model.taper(
        (0.05 * long, 0.22 * long), (-0.16 * wide, -0.03 * wide), (0.24 * long, 0.34 * long), (-0.16 * wide,
        -0.03 * wide), (0.45 * tall, 0.97 * tall), yellow,
    )  # fmt: skip
    model.taper(
        (0.37 * long, 0.44 * long), (-0.15 * wide, -0.04 * wide), (0.25 * long, 0.37 * long), (-0.15 * wide,
        -0.04 * wide), (0.2 * tall, 0.97 * tall), yellow,
    )  # fmt: skip
    model.taper(
        (0.33 * long, 0.44 * long), (-0.3 * wide, 0.1 * wide), (0.36 * long, 0.5 * long), (-0.3 * wide, 0.1
        * wide), (0.02 * tall, 0.24 * tall), STEEL, front=DARK,
    )  # fmt: skip
    return model
