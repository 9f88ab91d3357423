"""How each kind of road user and scenery is put together from solids.

Every builder takes the size that the annotation states and fills exactly that box: x from -l/2 to l/2 (front at +),
y from -w/2 to w/2, z from 0 to h. Fronts carry white lamps and a windscreen, rears red lamps, so that heading can be
seen.
"""

from collections.abc import Callable

import numpy as np

from bev_data.synthetic.solids import Color, Model, Paint

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

Size = tuple[float, float, float]


def _pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[int(rng.integers(len(colors)))]


def _scaled(color: Color, factor: float) -> Color:
    return (color[0] * factor, color[1] * factor, color[2] * factor)


def _lamps(model: Model, size: Size, z: tuple[float, float], inset: float = 0.12) -> None:
    """White lamps on the front face, red ones on the rear, a plate on both."""
    l, w, _ = size
    wide = 0.2 * w
    for side in (-1, 1):
        y = sorted((side * (0.5 * w - inset * w), side * (0.5 * w - inset * w - wide)))
        model.box((0.5 * l - 0.06, 0.5 * l), (y[0], y[1]), z, LAMP)
        model.box((-0.5 * l, -0.5 * l + 0.06), (y[0], y[1]), z, TAIL)
    low = z[0] - 0.16
    for x in ((0.5 * l - 0.05, 0.5 * l), (-0.5 * l, -0.5 * l + 0.05)):
        model.box(x, (-0.26, 0.26), (low, low + 0.12), PLATE)


def _wheels(model: Model, size: Size, radius: float, places: tuple[float, ...], thick: float = 0.22) -> None:
    _, w, _ = size
    for x in places:
        model.wheel((x, radius), radius, (0.5 * w - thick, 0.5 * w), TYRE, HUB)
        model.wheel((x, radius), radius, (-0.5 * w, -0.5 * w + thick), TYRE, HUB)


def car(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A saloon, an estate or a van: body, cabin of glass with a painted roof, wheels, lamps."""
    l, w, h = size
    color = _pick(rng, CAR_COLORS)
    body, roof = Paint(color), Paint(_scaled(color, 0.92))
    model = Model()
    waist = rng.uniform(0.52, 0.58) * h
    side = 0.5 * w - 0.03
    x0, x1 = -0.5 * l + 0.04, 0.5 * l - 0.04
    model.box((x0, x1), (-side, side), (0.17 * h, 0.42 * h), body, front=DARK)
    model.taper((x0, x1), (-side, side), (x0 + 0.06, x1 - 0.25), (-side + 0.06, side - 0.06), (0.42 * h, waist), body)
    kind = rng.integers(3)
    rear = (-0.46, -0.47, -0.40)[kind] * l
    rear_top = (-0.26, -0.45, -0.36)[kind] * l
    front, front_top = (0.22, 0.26, 0.40)[kind] * l, (0.07, 0.09, 0.20)[kind] * l
    model.taper(
        (rear, front), (-side + 0.07, side - 0.07), (rear_top, front_top), (-side + 0.24, side - 0.24),
        (waist, 0.965 * h), GLASS,
    )  # fmt: skip
    model.taper(
        (rear_top - 0.05, front_top + 0.05), (-side + 0.2, side - 0.2), (rear_top, front_top),
        (-side + 0.25, side - 0.25), (0.955 * h, h), roof,
    )  # fmt: skip
    middle = 0.5 * (rear_top + front_top)
    model.taper(
        (middle - 0.06, middle + 0.06), (-side + 0.06, side - 0.06), (middle - 0.05, middle + 0.05),
        (-side + 0.22, side - 0.22), (waist, 0.96 * h), roof,
    )  # fmt: skip
    _wheels(model, size, 0.19 * h, (-0.31 * l, 0.31 * l))
    _lamps(model, size, (0.33 * h, 0.42 * h))
    return model


def truck(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A cab and, behind a gap, a tall box."""
    l, w, h = size
    cab = Paint(_pick(rng, CAR_COLORS[:5]))
    load = Paint(_pick(rng, ((0.88, 0.88, 0.86), (0.85, 0.72, 0.35), (0.55, 0.65, 0.75))), "panels")
    model = Model()
    split = 0.5 * l - min(2.0, 0.3 * l)
    side = 0.5 * w
    model.box((-0.5 * l, 0.5 * l - 0.15), (-0.38 * w, 0.38 * w), (0.16 * h, 0.24 * h), DARK)
    model.box((-0.5 * l + 0.04, split - 0.15), (-side, side), (0.24 * h, h), load)
    model.box((split, 0.5 * l - 0.04), (-side + 0.06, side - 0.06), (0.17 * h, 0.5 * h), cab)
    model.taper(
        (split, 0.5 * l - 0.04), (-side + 0.06, side - 0.06), (split, 0.5 * l - 0.35), (-side + 0.15, side - 0.15),
        (0.5 * h, 0.82 * h), GLASS, rear=cab, top=cab,
    )  # fmt: skip
    model.box((split, split + 0.5), (-side + 0.1, side - 0.1), (0.5 * h, 0.84 * h), cab)
    _wheels(model, size, 0.155 * h, (-0.36 * l, -0.2 * l, 0.38 * l), 0.3)
    _lamps(model, size, (0.26 * h, 0.33 * h))
    return model


def bus(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """One long body with a band of windows, bright paint, a large windscreen."""
    l, w, h = size
    color = _pick(rng, ((0.80, 0.12, 0.10), (0.10, 0.42, 0.30), (0.92, 0.70, 0.10), (0.85, 0.87, 0.90)))
    paint, second = Paint(color), Paint(_scaled(color, 0.65))
    side = 0.5 * w
    model = Model()
    model.box((-0.5 * l + 0.02, 0.5 * l - 0.02), (-side + 0.02, side - 0.02), (0.1 * h, h), paint)
    model.box((-0.5 * l + 0.5, 0.5 * l - 0.1), (-side, side), (0.1 * h, 0.24 * h), second)
    number = max(4, round(l / 1.6))
    step = (l - 0.6) / number
    for k in range(number):
        x = -0.5 * l + 0.3 + k * step
        model.box((x + 0.08, x + step - 0.08), (-side, side), (0.45 * h, 0.8 * h), GLASS)
    model.box((0.5 * l - 0.1, 0.5 * l), (-side + 0.12, side - 0.12), (0.36 * h, 0.82 * h), GLASS)
    model.box((0.5 * l - 0.1, 0.5 * l), (-0.3 * w, 0.3 * w), (0.86 * h, 0.95 * h), Paint((0.95, 0.65, 0.1), glow=0.8))
    model.box((-0.5 * l, -0.5 * l + 0.1), (-side + 0.35, side - 0.35), (0.55 * h, 0.8 * h), GLASS)
    _wheels(model, size, 0.15 * h, (-0.3 * l, 0.33 * l), 0.3)
    _lamps(model, size, (0.22 * h, 0.28 * h))
    return model


def trailer(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A long box on legs with a drawbar in front, ribbed sides and a striped rear."""
    l, w, h = size
    color = _pick(rng, ((0.20, 0.36, 0.62), (0.62, 0.24, 0.14), (0.30, 0.50, 0.34), (0.78, 0.76, 0.70)))
    load = Paint(color, "panels", 0.45)
    side = 0.5 * w
    model = Model()
    front = 0.5 * l - 0.14 * l
    model.box((-0.5 * l + 0.03, front), (-side, side), (0.3 * h, h), load)
    model.box((-0.5 * l, 0.42 * l), (-0.18 * w, 0.18 * w), (0.2 * h, 0.3 * h), DARK)
    model.box((0.3 * l, 0.5 * l), (-0.07, 0.07), (0.14 * h, 0.2 * h), STEEL)
    for y in (-0.36 * w, 0.36 * w):
        model.box((0.2 * l, 0.2 * l + 0.18), (y - 0.08, y + 0.08), (0.0, 0.3 * h), STEEL)
    model.box((-0.5 * l, -0.5 * l + 0.05), (-side + 0.05, side - 0.05), (0.22 * h, 0.3 * h), Paint((1, 1, 1), "stripes", 0.2))
    _wheels(model, size, 0.125 * h, (-0.38 * l, -0.26 * l), 0.32)
    for y in (-0.4 * w, 0.4 * w):
        model.box((-0.5 * l, -0.5 * l + 0.04), (y - 0.12, y + 0.12), (0.31 * h, 0.36 * h), TAIL)
    return model


def construction_vehicle(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """An excavator in yellow: tracks, a house with a cabin, a boom and a bucket in front."""
    l, w, h = size
    yellow = Paint(_pick(rng, ((0.95, 0.68, 0.06), (0.95, 0.55, 0.08), (0.88, 0.76, 0.15))))
    side = 0.5 * w
    model = Model()
    for y in ((-side, -side + 0.24 * w), (side - 0.24 * w, side)):
        model.taper((-0.44 * l, 0.18 * l), y, (-0.5 * l, 0.24 * l), y, (0.0, 0.13 * h), DARK)
        model.taper((-0.5 * l, 0.24 * l), y, (-0.44 * l, 0.18 * l), y, (0.13 * h, 0.27 * h), DARK, top=STEEL)
    model.box((-0.46 * l, 0.2 * l), (-0.4 * w, 0.4 * w), (0.27 * h, 0.56 * h), yellow, rear=Paint((1, 1, 1), "hazard", 0.2))
    model.box((-0.48 * l, -0.2 * l), (-0.4 * w, 0.4 * w), (0.3 * h, 0.66 * h), yellow, rear=Paint((1, 1, 1), "hazard", 0.2))
    model.taper(
        (-0.1 * l, 0.2 * l), (0.02 * w, 0.4 * w), (-0.06 * l, 0.12 * l), (0.06 * w, 0.36 * w),
        (0.56 * h, 0.95 * h), GLASS, top=yellow,
    )  # fmt: skip
    model.box((-0.08 * l, 0.14 * l), (0.04 * w, 0.38 * w), (0.94 * h, h), yellow)
    model.taper(
        (0.05 * l, 0.22 * l), (-0.16 * w, -0.03 * w), (0.24 * l, 0.34 * l), (-0.16 * w, -0.03 * w),
        (0.45 * h, 0.97 * h), yellow,
    )  # fmt: skip
    model.taper(
        (0.37 * l, 0.44 * l), (-0.15 * w, -0.04 * w), (0.25 * l, 0.37 * l), (-0.15 * w, -0.04 * w),
        (0.2 * h, 0.97 * h), yellow,
    )  # fmt: skip
    model.taper(
        (0.33 * l, 0.44 * l), (-0.3 * w, 0.1 * w), (0.36 * l, 0.5 * l), (-0.3 * w, 0.1 * w), (0.02 * h, 0.24 * h), STEEL,
        front=DARK,
    )  # fmt: skip
    return model


def _rider(model: Model, x: float, width: float, seat: float, h: float, rng: np.random.Generator) -> None:
    shirt = Paint(_pick(rng, CLOTHES), contrast=0.5)
    helmet = Paint(_pick(rng, CLOTHES), contrast=0.2)
    head = 0.13
    model.taper((x - 0.2, x + 0.1), (-0.3 * width, 0.3 * width), (x - 0.02, x + 0.22), (-0.34 * width, 0.34 * width), (seat, h - 0.27), shirt)
    for side in (-1, 1):
        y = sorted((side * 0.2 * width, side * 0.42 * width))
        model.taper((x - 0.12, x + 0.12), (y[0], y[1]), (x - 0.1, x + 0.2), (y[0], y[1]), (0.3 * seat, seat + 0.05), DARK)
        arm = sorted((side * 0.34 * width, side * 0.5 * width))
        model.taper((x + 0.25, x + 0.45), (arm[0], arm[1]), (x, x + 0.2), (arm[0], arm[1]), (seat + 0.12, h - 0.32), shirt)
    model.cone((x + 0.14, 0.0), (head, head * 0.8), (h - 0.26, h), helmet)


def motorcycle(size: Size, rng: np.random.Generator, rider: bool) -> Model:
    """Two fat wheels, a tank in bright paint, a fork with a lamp; with or without a rider."""
    l, w, h = size
    body = Paint(_pick(rng, ((0.75, 0.08, 0.08), (0.08, 0.15, 0.55), (0.9, 0.45, 0.05), (0.1, 0.1, 0.1))))
    r = 0.155 * l
    top = h if not rider else 0.66 * h
    model = Model()
    for x in (-0.5 * l + r, 0.5 * l - r):
        model.wheel((x, r), r, (-0.09, 0.09), TYRE, HUB)
    model.taper((-0.2 * l, 0.16 * l), (-0.2 * w, 0.2 * w), (-0.16 * l, 0.12 * l), (-0.16 * w, 0.16 * w), (0.22 * top, 0.55 * top), STEEL)
    model.taper((-0.06 * l, 0.22 * l), (-0.2 * w, 0.2 * w), (-0.02 * l, 0.2 * l), (-0.12 * w, 0.12 * w), (0.5 * top, 0.78 * top), body)
    model.box((-0.44 * l, -0.02 * l), (-0.17 * w, 0.17 * w), (0.54 * top, 0.64 * top), DARK)
    model.taper((0.32 * l, 0.38 * l), (-0.12 * w, 0.12 * w), (0.2 * l, 0.26 * l), (-0.12 * w, 0.12 * w), (r, 0.86 * top), STEEL)
    model.box((0.17 * l, 0.22 * l), (-0.5 * w, 0.5 * w), (0.84 * top, 0.9 * top), DARK)
    model.box((0.24 * l, 0.31 * l), (-0.16 * w, 0.16 * w), (0.68 * top, 0.86 * top), LAMP, rear=body)
    model.taper((0.16 * l, 0.28 * l), (-0.2 * w, 0.2 * w), (0.14 * l, 0.18 * l), (-0.14 * w, 0.14 * w), (0.86 * top, top), GLASS)
    model.box((-0.46 * l, -0.42 * l), (-0.14 * w, 0.14 * w), (0.52 * top, 0.62 * top), TAIL)
    if rider:
        _rider(model, -0.12 * l, w, 0.42 * h, h, rng)
    return model


def bicycle(size: Size, rng: np.random.Generator, rider: bool) -> Model:
    """Two thin large wheels and a slim frame; with or without a rider."""
    l, w, h = size
    frame = Paint(_pick(rng, ((0.9, 0.9, 0.2), (0.15, 0.65, 0.75), (0.85, 0.25, 0.2), (0.92, 0.92, 0.92))))
    r = 0.19 * l
    top = h if not rider else 0.6 * h
    model = Model()
    for x in (-0.5 * l + r, 0.5 * l - r):
        model.wheel((x, r), r, (-0.035, 0.035), TYRE, SPOKES)
    model.taper((-0.12 * l, 0.0), (-0.04, 0.04), (-0.17 * l, -0.11 * l), (-0.04, 0.04), (0.28 * top, 0.86 * top), frame)
    model.taper((-0.1 * l, 0.02 * l), (-0.04, 0.04), (0.16 * l, 0.26 * l), (-0.04, 0.04), (0.28 * top, 0.78 * top), frame)
    model.box((-0.15 * l, 0.24 * l), (-0.035, 0.035), (0.7 * top, 0.78 * top), frame)
    model.box((-0.3 * l, -0.04 * l), (-0.035, 0.035), (0.28 * top, 0.35 * top), frame)
    model.taper((0.29 * l, 0.34 * l), (-0.04, 0.04), (0.2 * l, 0.25 * l), (-0.04, 0.04), (r, 0.95 * top), frame)
    model.box((0.18 * l, 0.23 * l), (-0.5 * w, 0.5 * w), (0.93 * top, top), DARK)
    model.box((-0.22 * l, -0.07 * l), (-0.1 * w, 0.1 * w), (0.86 * top, 0.92 * top), DARK)
    model.box((-0.38 * l, -0.34 * l), (-0.06 * w, 0.06 * w), (0.45 * top, 0.53 * top), TAIL)
    if rider:
        _rider(model, -0.1 * l, w, 0.52 * h, h, rng)
    return model


def pedestrian(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """Two legs, a torso with arms, a head; legs apart when walking."""
    l, w, h = size
    shirt = Paint(_pick(rng, CLOTHES), contrast=0.5)
    return _person(size, shirt, Paint(_pick(rng, ((0.12, 0.14, 0.25), (0.2, 0.2, 0.2), (0.45, 0.38, 0.28)))), moving, rng)


def worker(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A person in a striped orange vest and a helmet."""
    model = _person(size, Paint((1.0, 0.45, 0.05), contrast=0.3), Paint((0.15, 0.2, 0.45)), moving, rng)
    l, w, h = size
    for z in (0.56, 0.68):
        model.box((-0.31 * l, 0.31 * l), (-0.36 * w, 0.36 * w), (z * h, (z + 0.04) * h), Paint((0.95, 1.0, 0.6), glow=0.6))
    model.cone((0.0, 0.0), (0.17, 0.1), (0.94 * h, h), Paint((1.0, 0.9, 0.1)))
    return model


def _person(size: Size, shirt: Paint, trousers: Paint, moving: bool, rng: np.random.Generator) -> Model:
    l, w, h = size
    hair = Paint(_pick(rng, ((0.1, 0.07, 0.05), (0.3, 0.2, 0.1), (0.6, 0.5, 0.3), (0.5, 0.5, 0.5))))
    model = Model()
    stride = 0.3 * l if moving else 0.05 * l
    leg = 0.16 * l
    for side in (-1, 1):
        y = sorted((side * 0.04 * w, side * 0.3 * w))
        x = side * stride
        reach = 0.5 * l if moving else 0.3 * l
        foot = sorted((x - leg, min(reach, x + leg + 0.08))) if side > 0 else sorted((max(-reach, x - leg), x + leg))
        model.taper((foot[0], foot[1]), (y[0], y[1]), (-leg, leg), (y[0], y[1]), (0.0, 0.5 * h), trousers)
        arm = sorted((side * 0.33 * w, side * 0.5 * w))
        swing = -side * stride
        model.taper((swing - 0.08, swing + 0.08), (arm[0], arm[1]), (-0.1, 0.1), (arm[0], arm[1]), (0.42 * h, 0.8 * h), shirt)
    if moving:
        model.box((-0.5 * l, -0.5 * l + 0.14), (-0.3 * w, -0.04 * w), (0.0, 0.06 * h), DARK)
        model.box((0.5 * l - 0.2, 0.5 * l), (0.04 * w, 0.3 * w), (0.0, 0.06 * h), DARK)
    else:
        model.box((-0.3 * l, 0.5 * l), (-0.3 * w, 0.3 * w), (0.0, 0.04 * h), DARK)
        model.box((-0.5 * l, -0.2 * l), (-0.22 * w, 0.22 * w), (0.52 * h, 0.78 * h), Paint(_pick(rng, CLOTHES)))
    model.taper((-0.28 * l, 0.28 * l), (-0.28 * w, 0.28 * w), (-0.24 * l, 0.24 * l), (-0.34 * w, 0.34 * w), (0.48 * h, 0.84 * h), shirt)
    model.box((-0.06, 0.06), (-0.06, 0.06), (0.83 * h, 0.87 * h), SKIN)
    model.box((-0.09, 0.1), (-0.08, 0.08), (0.865 * h, 0.96 * h), SKIN, rear=hair)
    model.cone((-0.01, 0.0), (0.12, 0.08), (0.94 * h, h), hair)
    return model


def traffic_cone(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """Orange with two white collars on a black foot."""
    l, w, h = size
    orange = Paint((1.0, 0.32, 0.03), contrast=0.2, glow=0.25)
    white = Paint((0.97, 0.97, 0.97), contrast=0.15, glow=0.25)
    model = Model()
    model.box((-0.5 * l, 0.5 * l), (-0.5 * w, 0.5 * w), (0.0, 0.05 * h), DARK)
    levels, reach = (0.05, 0.34, 0.52, 0.64, 0.82, 1.0), 0.42 * min(l, w)
    for k, paint in enumerate((orange, white, orange, white, orange)):
        low, high = levels[k], levels[k + 1]
        model.cone((0.0, 0.0), (reach * (1.08 - 0.93 * low), reach * (1.08 - 0.93 * high)), (low * h, high * h), paint)
    return model


def barrier(size: Size, rng: np.random.Generator, moving: bool) -> Model:
    """A wide plank striped in red and white above a concrete or plastic foot; its front is its broad side."""
    l, w, h = size
    stripes = Paint((1.0, 1.0, 1.0), "stripes", 0.2)
    model = Model()
    if rng.random() < 0.5:
        foot = Paint((0.72, 0.70, 0.66), "concrete")
        model.taper((-0.5 * l, 0.5 * l), (-0.5 * w, 0.5 * w), (-0.22 * l, 0.22 * l), (-0.49 * w, 0.49 * w), (0.0, 0.5 * h), foot)
        model.box((-0.2 * l, 0.2 * l), (-0.49 * w, 0.49 * w), (0.5 * h, h), stripes)
    else:
        for y in (-0.44 * w, 0.44 * w):
            model.box((-0.5 * l, 0.5 * l), (y - 0.06 * w, y + 0.06 * w), (0.0, 0.08 * h), DARK)
            model.box((-0.08, 0.08), (y - 0.05, y + 0.05), (0.08 * h, h), STEEL)
        for z in (0.2, 0.62):
            model.box((-0.12, 0.12), (-0.5 * w, 0.5 * w), (z * h, (z + 0.34) * h), stripes)
    return model


Builder = Callable[[Size, np.random.Generator, bool], Model]


def building(size: Size, rng: np.random.Generator) -> Model:
    """A house with windows or bricks, a ground floor of shops, a roof with an edge."""
    l, w, h = size
    color = _pick(rng, ((0.72, 0.62, 0.50), (0.60, 0.40, 0.32), (0.68, 0.68, 0.66), (0.80, 0.74, 0.60), (0.45, 0.48, 0.52)))
    floor = min(3.3, 0.5 * h)
    model = Model()
    lower = Paint(_scaled(color, rng.uniform(0.6, 0.9)), "shops" if rng.random() < 0.5 else "brick", 0.4)
    upper = Paint(color, "windows" if rng.random() < 0.75 else "brick", 0.4)
    model.box((-0.5 * l, 0.5 * l), (-0.5 * w, 0.5 * w), (-3.0, floor), lower)
    model.box((-0.5 * l, 0.5 * l), (-0.5 * w, 0.5 * w), (floor, h - 0.4), upper)
    model.box((-0.5 * l - 0.2, 0.5 * l + 0.2), (-0.5 * w - 0.2, 0.5 * w + 0.2), (h - 0.4, h), Paint(_scaled(color, 0.6), "concrete"))
    return model


def wall(size: Size, rng: np.random.Generator) -> Model:
    """A garden wall or a hedge."""
    l, w, h = size
    hedge = rng.random() < 0.5
    paint = Paint((0.20, 0.34, 0.14), "leaves", 0.6) if hedge else Paint((0.62, 0.45, 0.36), "brick", 0.4)
    model = Model()
    model.box((-0.5 * l, 0.5 * l), (-0.5 * w, 0.5 * w), (-2.0, h), paint)
    return model


def tree(size: Size, rng: np.random.Generator) -> Model:
    """A trunk below a crown of three tapered blocks of leaves."""
    l, _, h = size
    leaves = Paint(_pick(rng, ((0.22, 0.42, 0.14), (0.30, 0.45, 0.16), (0.38, 0.40, 0.12), (0.16, 0.34, 0.18))), "leaves", 0.6)
    bark = Paint((0.30, 0.22, 0.16), contrast=0.7)
    r = 0.5 * l
    model = Model()
    model.cone((0.0, 0.0), (0.16, 0.12), (-1.0, 0.5 * h), bark)
    low = 0.36 * h
    model.cone((0.0, 0.0), (0.55 * r, r), (low, low + 0.2 * h), leaves)
    model.cone((0.0, 0.0), (r, 0.85 * r), (low + 0.2 * h, 0.72 * h), leaves)
    model.cone((0.0, 0.0), (0.85 * r, 0.3 * r), (0.72 * h, h), leaves)
    return model


def post(size: Size, rng: np.random.Generator) -> Model:
    """A street lamp or a sign on a pole."""
    _, _, h = size
    model = Model()
    model.cone((0.0, 0.0), (0.09, 0.06), (-1.0, h), STEEL)
    if rng.random() < 0.5:
        model.box((-0.1, 1.4), (-0.06, 0.06), (h - 0.12, h), STEEL)
        model.box((0.9, 1.5), (-0.14, 0.14), (h - 0.2, h - 0.08), PLATE)
    else:
        sign = Paint(_pick(rng, ((0.10, 0.25, 0.65), (0.80, 0.10, 0.10), (0.95, 0.80, 0.10))), contrast=0.2)
        model.box((-0.04, 0.04), (-0.35, 0.35), (0.62 * h, 0.62 * h + 0.7), STEEL, front=sign, rear=sign)
    return model
