"""How people, and the cycles that they ride, are put together from solids.

Every builder takes the size that the annotation states and fills exactly that box: x from -l/2 to l/2
(front at +), y from -w/2 to w/2, z from 0 to h.
"""

import numpy as np

from bev_data.world.things.paints import (
    CLOTHES,
    DARK,
    GLASS,
    HUB,
    LAMP,
    SKIN,
    SPOKES,
    STEEL,
    TAIL,
    TYRE,
    Size,
    pick,
)
from bev_data.world.things.solids import Model, Paint


def _rider(model: Model, x: float, width: float, seat: float, tall: float, rng: np.random.Generator) -> None:
    shirt = Paint(pick(rng, CLOTHES), contrast=0.5)
    helmet = Paint(pick(rng, CLOTHES), contrast=0.2)
    head = 0.13
    model.taper(
        (x - 0.2, x + 0.1),
        (-0.3 * width, 0.3 * width),
        (x - 0.02, x + 0.22),
        (-0.34 * width, 0.34 * width),
        (seat, tall - 0.27),
        shirt,
    )
    for side in (-1, 1):
        y = sorted((side * 0.2 * width, side * 0.42 * width))
        model.taper(
            (x - 0.12, x + 0.12),
            (y[0], y[1]),
            (x - 0.1, x + 0.2),
            (y[0], y[1]),
            (0.3 * seat, seat + 0.05),
            DARK,
        )
        arm = sorted((side * 0.34 * width, side * 0.5 * width))
        model.taper(
            (x + 0.25, x + 0.45),
            (arm[0], arm[1]),
            (x, x + 0.2),
            (arm[0], arm[1]),
            (seat + 0.12, tall - 0.32),
            shirt,
        )
    model.cone((x + 0.14, 0.0), (head, head * 0.8), (tall - 0.26, tall), helmet)


def motorcycle(size: Size, rng: np.random.Generator, rider: bool) -> Model:
    """Two fat wheels, a tank in bright paint, a fork with a lamp; with or without a rider."""
    long, wide, tall = size
    body = Paint(pick(rng, ((0.75, 0.08, 0.08), (0.08, 0.15, 0.55), (0.9, 0.45, 0.05), (0.1, 0.1, 0.1))))
    r = 0.155 * long
    top = tall if not rider else 0.66 * tall
    model = Model()
    for x in (-0.5 * long + r, 0.5 * long - r):
        model.wheel((x, r), r, (-0.09, 0.09), TYRE, HUB)
    model.taper(
        (-0.2 * long, 0.16 * long),
        (-0.2 * wide, 0.2 * wide),
        (-0.16 * long, 0.12 * long),
        (-0.16 * wide, 0.16 * wide),
        (0.22 * top, 0.55 * top),
        STEEL,
    )
    model.taper(
        (-0.06 * long, 0.22 * long),
        (-0.2 * wide, 0.2 * wide),
        (-0.02 * long, 0.2 * long),
        (-0.12 * wide, 0.12 * wide),
        (0.5 * top, 0.78 * top),
        body,
    )
    model.box((-0.44 * long, -0.02 * long), (-0.17 * wide, 0.17 * wide), (0.54 * top, 0.64 * top), DARK)
    model.taper(
        (0.32 * long, 0.38 * long),
        (-0.12 * wide, 0.12 * wide),
        (0.2 * long, 0.26 * long),
        (-0.12 * wide, 0.12 * wide),
        (r, 0.86 * top),
        STEEL,
    )
    model.box((0.17 * long, 0.22 * long), (-0.5 * wide, 0.5 * wide), (0.84 * top, 0.9 * top), DARK)
    model.box(
        (0.24 * long, 0.31 * long), (-0.16 * wide, 0.16 * wide), (0.68 * top, 0.86 * top), LAMP, rear=body
    )
    model.taper(
        (0.16 * long, 0.28 * long),
        (-0.2 * wide, 0.2 * wide),
        (0.14 * long, 0.18 * long),
        (-0.14 * wide, 0.14 * wide),
        (0.86 * top, top),
        GLASS,
    )
    model.box((-0.46 * long, -0.42 * long), (-0.14 * wide, 0.14 * wide), (0.52 * top, 0.62 * top), TAIL)
    if rider:
        _rider(model, -0.12 * long, wide, 0.42 * tall, tall, rng)
    return model


def bicycle(size: Size, rng: np.random.Generator, rider: bool) -> Model:
    """Two thin large wheels and a slim frame; with or without a rider."""
    long, wide, tall = size
    frame = Paint(pick(rng, ((0.9, 0.9, 0.2), (0.15, 0.65, 0.75), (0.85, 0.25, 0.2), (0.92, 0.92, 0.92))))
    r = 0.19 * long
    top = tall if not rider else 0.6 * tall
    model = Model()
    for x in (-0.5 * long + r, 0.5 * long - r):
        model.wheel((x, r), r, (-0.035, 0.035), TYRE, SPOKES)
    model.taper(
        (-0.12 * long, 0.0),
        (-0.04, 0.04),
        (-0.17 * long, -0.11 * long),
        (-0.04, 0.04),
        (0.28 * top, 0.86 * top),
        frame,
    )
    model.taper(
        (-0.1 * long, 0.02 * long),
        (-0.04, 0.04),
        (0.16 * long, 0.26 * long),
        (-0.04, 0.04),
        (0.28 * top, 0.78 * top),
        frame,
    )
    model.box((-0.15 * long, 0.24 * long), (-0.035, 0.035), (0.7 * top, 0.78 * top), frame)
    model.box((-0.3 * long, -0.04 * long), (-0.035, 0.035), (0.28 * top, 0.35 * top), frame)
    model.taper(
        (0.29 * long, 0.34 * long),
        (-0.04, 0.04),
        (0.2 * long, 0.25 * long),
        (-0.04, 0.04),
        (r, 0.95 * top),
        frame,
    )
    model.box((0.18 * long, 0.23 * long), (-0.5 * wide, 0.5 * wide), (0.93 * top, top), DARK)
    model.box((-0.22 * long, -0.07 * long), (-0.1 * wide, 0.1 * wide), (0.86 * top, 0.92 * top), DARK)
    model.box((-0.38 * long, -0.34 * long), (-0.06 * wide, 0.06 * wide), (0.45 * top, 0.53 * top), TAIL)
    if rider:
        _rider(model, -0.1 * long, wide, 0.52 * tall, tall, rng)
    return model


def pedestrian(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """Two legs, a torso with arms, a head; legs apart when walking."""
    shirt = Paint(pick(rng, CLOTHES), contrast=0.5)
    return _person(
        size, shirt, Paint(pick(rng, ((0.12, 0.14, 0.25), (0.2, 0.2, 0.2), (0.45, 0.38, 0.28)))), moving, rng
    )


def worker(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A person in a striped orange vest and a helmet."""
    model = _person(size, Paint((1.0, 0.45, 0.05), contrast=0.3), Paint((0.15, 0.2, 0.45)), moving, rng)
    long, wide, tall = size
    for z in (0.56, 0.68):
        model.box(
            (-0.31 * long, 0.31 * long),
            (-0.36 * wide, 0.36 * wide),
            (z * tall, (z + 0.04) * tall),
            Paint((0.95, 1.0, 0.6), glow=0.6),
        )
    model.cone((0.0, 0.0), (0.17, 0.1), (0.94 * tall, tall), Paint((1.0, 0.9, 0.1)))
    return model


def _person(size: Size, shirt: Paint, trousers: Paint, moving: bool, rng: np.random.Generator) -> Model:
    long, wide, tall = size
    hair = Paint(pick(rng, ((0.1, 0.07, 0.05), (0.3, 0.2, 0.1), (0.6, 0.5, 0.3), (0.5, 0.5, 0.5))))
    model = Model()
    stride = 0.3 * long if moving else 0.05 * long
    leg = 0.16 * long
    for side in (-1, 1):
        y = sorted((side * 0.04 * wide, side * 0.3 * wide))
        x = side * stride
        reach = 0.5 * long if moving else 0.3 * long
        foot = (
            sorted((x - leg, min(reach, x + leg + 0.08)))
            if side > 0
            else sorted((max(-reach, x - leg), x + leg))
        )
        model.taper((foot[0], foot[1]), (y[0], y[1]), (-leg, leg), (y[0], y[1]), (0.0, 0.5 * tall), trousers)
        arm = sorted((side * 0.33 * wide, side * 0.5 * wide))
        swing = -side * stride
        model.taper(
            (swing - 0.08, swing + 0.08),
            (arm[0], arm[1]),
            (-0.1, 0.1),
            (arm[0], arm[1]),
            (0.42 * tall, 0.8 * tall),
            shirt,
        )
    if moving:
        model.box((-0.5 * long, -0.5 * long + 0.14), (-0.3 * wide, -0.04 * wide), (0.0, 0.06 * tall), DARK)
        model.box((0.5 * long - 0.2, 0.5 * long), (0.04 * wide, 0.3 * wide), (0.0, 0.06 * tall), DARK)
    else:
        model.box((-0.3 * long, 0.5 * long), (-0.3 * wide, 0.3 * wide), (0.0, 0.04 * tall), DARK)
        model.box(
            (-0.5 * long, -0.2 * long),
            (-0.22 * wide, 0.22 * wide),
            (0.52 * tall, 0.78 * tall),
            Paint(pick(rng, CLOTHES)),
        )
    model.taper(
        (-0.28 * long, 0.28 * long),
        (-0.28 * wide, 0.28 * wide),
        (-0.24 * long, 0.24 * long),
        (-0.34 * wide, 0.34 * wide),
        (0.48 * tall, 0.84 * tall),
        shirt,
    )
    model.box((-0.06, 0.06), (-0.06, 0.06), (0.83 * tall, 0.87 * tall), SKIN)
    model.box((-0.09, 0.1), (-0.08, 0.08), (0.865 * tall, 0.96 * tall), SKIN, rear=hair)
    model.cone((-0.01, 0.0), (0.12, 0.08), (0.94 * tall, tall), hair)
    return model
