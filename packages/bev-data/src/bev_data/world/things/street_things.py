"""How things that stand by the street are put together: cones and barriers, which have boxes, and scenery.

Every builder takes the size that the annotation states and fills exactly that box: x from -l/2 to l/2
(front at +), y from -w/2 to w/2, z from 0 to h.
Scenery may reach below the ground, so that it stands firm on a slope.
"""

import numpy as np

from bev_data.world.things.paints import DARK, PLATE, STEEL, Size, pick, scaled
from bev_data.world.things.solids import Model, Paint


def traffic_cone(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """Orange with two white collars on a black foot."""
    long, wide, tall = size
    orange = Paint((1.0, 0.32, 0.03), contrast=0.2, glow=0.25)
    white = Paint((0.97, 0.97, 0.97), contrast=0.15, glow=0.25)
    model = Model()
    model.box((-0.5 * long, 0.5 * long), (-0.5 * wide, 0.5 * wide), (0.0, 0.05 * tall), DARK)
    levels, reach = (0.05, 0.34, 0.52, 0.64, 0.82, 1.0), 0.42 * min(long, wide)
    for k, paint in enumerate((orange, white, orange, white, orange)):
        low, high = levels[k], levels[k + 1]
        model.cone(
            (0.0, 0.0),
            (reach * (1.08 - 0.93 * low), reach * (1.08 - 0.93 * high)),
            (low * tall, high * tall),
            paint,
        )
    return model


def barrier(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A lamp plank striped in red and white above a concrete or plastic foot; its front is its broad side."""
    long, wide, tall = size
    stripes = Paint((1.0, 1.0, 1.0), "stripes", 0.2)
    model = Model()
    if rng.random() < 0.5:
        foot = Paint((0.72, 0.70, 0.66), "concrete")
        model.taper(
            (-0.5 * long, 0.5 * long),
            (-0.5 * wide, 0.5 * wide),
            (-0.22 * long, 0.22 * long),
            (-0.49 * wide, 0.49 * wide),
            (0.0, 0.5 * tall),
            foot,
        )
        model.box((-0.2 * long, 0.2 * long), (-0.49 * wide, 0.49 * wide), (0.5 * tall, tall), stripes)
    else:
        for y in (-0.44 * wide, 0.44 * wide):
            model.box((-0.5 * long, 0.5 * long), (y - 0.06 * wide, y + 0.06 * wide), (0.0, 0.08 * tall), DARK)
            model.box((-0.08, 0.08), (y - 0.05, y + 0.05), (0.08 * tall, tall), STEEL)
        for z in (0.2, 0.62):
            model.box((-0.12, 0.12), (-0.5 * wide, 0.5 * wide), (z * tall, (z + 0.34) * tall), stripes)
    return model


def building(size: Size, rng: np.random.Generator) -> Model:
    """A house with windows or bricks, a ground floor of shops, a roof with an edge."""
    long, wide, tall = size
    color = pick(
        rng,
        ((0.72, 0.62, 0.50), (0.60, 0.40, 0.32), (0.68, 0.68, 0.66), (0.80, 0.74, 0.60), (0.45, 0.48, 0.52)),
    )
    floor = min(3.3, 0.5 * tall)
    model = Model()
    lower = Paint(scaled(color, rng.uniform(0.6, 0.9)), "shops" if rng.random() < 0.5 else "brick", 0.4)
    upper = Paint(color, "windows" if rng.random() < 0.75 else "brick", 0.4)
    model.box((-0.5 * long, 0.5 * long), (-0.5 * wide, 0.5 * wide), (-3.0, floor), lower)
    model.box((-0.5 * long, 0.5 * long), (-0.5 * wide, 0.5 * wide), (floor, tall - 0.4), upper)
    model.box(
        (-0.5 * long - 0.2, 0.5 * long + 0.2),
        (-0.5 * wide - 0.2, 0.5 * wide + 0.2),
        (tall - 0.4, tall),
        Paint(scaled(color, 0.6), "concrete"),
    )
    return model


def wall(size: Size, rng: np.random.Generator) -> Model:
    """A garden wall or a hedge."""
    long, wide, tall = size
    hedge = rng.random() < 0.5
    paint = Paint((0.20, 0.34, 0.14), "leaves", 0.6) if hedge else Paint((0.62, 0.45, 0.36), "brick", 0.4)
    model = Model()
    model.box((-0.5 * long, 0.5 * long), (-0.5 * wide, 0.5 * wide), (-2.0, tall), paint)
    return model


def tree(size: Size, rng: np.random.Generator) -> Model:
    """A trunk below a crown of three tapered blocks of leaves."""
    long, _, tall = size
    leaves = Paint(
        pick(rng, ((0.22, 0.42, 0.14), (0.30, 0.45, 0.16), (0.38, 0.40, 0.12), (0.16, 0.34, 0.18))),
        "leaves",
        0.6,
    )
    bark = Paint((0.30, 0.22, 0.16), contrast=0.7)
    r = 0.5 * long
    model = Model()
    model.cone((0.0, 0.0), (0.16, 0.12), (-1.0, 0.5 * tall), bark)
    low = max(0.36 * tall, 2.4)  # people walk below it
    model.cone((0.0, 0.0), (0.55 * r, r), (low, low + 0.16 * tall), leaves)
    model.cone((0.0, 0.0), (r, 0.85 * r), (low + 0.16 * tall, 0.72 * tall), leaves)
    model.cone((0.0, 0.0), (0.85 * r, 0.3 * r), (0.72 * tall, tall), leaves)
    return model


def post(size: Size, rng: np.random.Generator) -> Model:
    """A street lamp or a sign on a pole."""
    _, _, tall = size
    model = Model()
    model.cone((0.0, 0.0), (0.09, 0.06), (-1.0, tall), STEEL)
    if rng.random() < 0.5:
        model.box((-0.1, 1.4), (-0.06, 0.06), (tall - 0.12, tall), STEEL)
        model.box((0.9, 1.5), (-0.14, 0.14), (tall - 0.2, tall - 0.08), PLATE)
    else:
        sign = Paint(pick(rng, ((0.10, 0.25, 0.65), (0.80, 0.10, 0.10), (0.95, 0.80, 0.10))), contrast=0.2)
        model.box(
            (-0.04, 0.04), (-0.35, 0.35), (0.62 * tall, 0.62 * tall + 0.7), STEEL, front=sign, rear=sign
        )
    return model
