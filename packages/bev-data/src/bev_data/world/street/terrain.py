"""The ground: a height field of gentle hills, and where a ray meets it.

The height is stored on a grid of one metre and bilinear in between; cameras, lidar and the road users that
stand on it all read this one function, so that their geometry agrees to the last digit. It repeats after
`DOMAIN` metres, and so needs no border.
"""

import numpy as np
from numpy.typing import NDArray

from bev_data.jit import inlined, kernel

DOMAIN = 256.0  # metres
GRID = 256  # cells of the height field, one metre each
FAR = 160.0  # metres, beyond which a ray sees no ground


def hills(rng: np.random.Generator) -> NDArray[np.float64]:
    """Heights [GRID, GRID] in metres, indexed y, x.

    They are the sum of five waves of 50 to 180 m, each with a slope of up to 0.3 to 0.9 degrees.
    """
    y, x = np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij")
    heights = np.zeros((GRID, GRID))
    for wanted in (1.5, 2.0, 3.0, 4.0, 5.0):
        direction = rng.uniform(0, 2 * np.pi)
        # Whole numbers of waves per domain, so that the field repeats without a seam.
        waves = np.round([wanted * np.cos(direction), wanted * np.sin(direction)])
        number = 2 * np.pi * waves / DOMAIN
        slope = np.deg2rad(rng.uniform(0.3, 0.9))
        heights += (
            slope / np.hypot(*number) * np.sin(number[0] * x + number[1] * y + rng.uniform(0, 2 * np.pi))
        )
    return heights


@inlined
def ground_height(heights: NDArray[np.float64], x: float, y: float) -> tuple[float, float, float]:
    """Height and its two slopes at a place."""
    mask = GRID - 1
    left, low = int(np.floor(x)), int(np.floor(y))
    a, b = x - left, y - low
    i0, i1, j0, j1 = left & mask, (left + 1) & mask, low & mask, (low + 1) & mask
    h00, h01, h10, h11 = heights[j0, i0], heights[j0, i1], heights[j1, i0], heights[j1, i1]
    bottom, top = h00 + (h01 - h00) * a, h10 + (h11 - h10) * a
    slope_x = (h01 - h00) * (1.0 - b) + (h11 - h10) * b
    return bottom + (top - bottom) * b, slope_x, top - bottom


@kernel
def march_to_ground(
    heights: NDArray[np.float64],
    steepest: float,
    ox: float, oy: float, oz: float,
    dx: float, dy: float, dz: float,
    start: float,
    stop: float,
) -> float:  # fmt: skip
    """First crossing of the ray o + t d with the ground at t >= start, or 0.0 if there is none before `stop`.

    Steps that no slope up to `steepest` can cross lead up to the surface; Newton's method ends on it.
    """
    t = start
    closing = steepest * np.sqrt(dx * dx + dy * dy) - dz
    if closing <= 0.0:
        return 0.0
    for _ in range(400):
        height, slope_x, slope_y = ground_height(heights, ox + t * dx, oy + t * dy)
        gap = oz + t * dz - height
        if gap < 0.02:
            for _ in range(8):
                approach = dz - slope_x * dx - slope_y * dy
                if approach > -1e-6:
                    break
                step = -gap / approach
                t += step
                if abs(step) < 1e-6 * t:
                    break
                height, slope_x, slope_y = ground_height(heights, ox + t * dx, oy + t * dy)
                gap = oz + t * dz - height
            return t if start <= t < stop else 0.0
        t += max(gap / closing, 1e-3)
        if t > stop:
            break
    return 0.0


@kernel
def trace_ground(
    heights: NDArray[np.float64],
    steepest: float,
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    focal: float,
    cx: float,
    cy: float,
    nearness: NDArray[np.float32],
    face: NDArray[np.int32],
) -> None:
    """Put the ground into a picture where it lies before what is there: `nearness` = 1 / depth, `face` = -1.

    Rows are walked upward: 1 / depth of a plane is linear in the row, so the two pixels below tell where the
    ground will be met, and one Newton step with its check is enough; only at the crest of a hill, where that
    fails, is the ray marched. `rotation` turns camera into world.
    """
    rows, columns = nearness.shape
    last = np.zeros(columns)
    growth = np.zeros(columns)
    pixel = 1.0 / focal
    ox, oy, oz = origin[0], origin[1], origin[2]
    for row in range(rows - 1, -1, -1):
        v = (row - cy) * pixel
        seen = False
        for column in range(columns):
            u = (column - cx) * pixel
            dx = rotation[0, 0] * u + rotation[0, 1] * v + rotation[0, 2]
            dy = rotation[1, 0] * u + rotation[1, 1] * v + rotation[1, 2]
            dz = rotation[2, 0] * u + rotation[2, 1] * v + rotation[2, 2]
            before = last[column]
            t = 0.0
            guess = before + growth[column]
            if nearness[row, column] > 1.5 * guess and guess > 1.0 / FAR:
                # Hidden for certain: go on along the same plane, unseen.
                last[column] = guess
                seen = True
                continue
            found = False
            if before > 0.0 and guess > 1.0 / FAR:
                t = 1.0 / guess
                for _ in range(3):
                    height, slope_x, slope_y = ground_height(heights, ox + t * dx, oy + t * dy)
                    approach = dz - slope_x * dx - slope_y * dy
                    if approach > -0.004:
                        break
                    step = (height - oz - t * dz) / approach
                    t += step
                    if abs(step) < 1e-3 * t:
                        found = True
                        break
            if not found:
                start = 0.9 / before if before > 0.0 else 0.3
                t = march_to_ground(heights, steepest, ox, oy, oz, dx, dy, dz, start, FAR)
            if t > 0.0:
                seen = True
                near = 1.0 / t
                growth[column] = near - before if before > 0.0 else 0.0
                last[column] = near
                if near > nearness[row, column]:
                    nearness[row, column] = near
                    face[row, column] = -1
            else:
                growth[column] = 0.0
                last[column] = 0.0 if before == 0.0 else max(0.98 * before, 1.0 / FAR)
        if not seen:
            break
