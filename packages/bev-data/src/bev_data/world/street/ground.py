"""The ground seen from above: asphalt, pavement, grass, paint, patches, shadows of what stands still."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.jit import kernel
from bev_data.world.street.terrain import DOMAIN
from bev_data.world.things.textures import DETAIL_BITS, mip_chain, packed, textures

MAP_BITS = 11  # of the width of the ground's picture
MAP_TEXEL = DOMAIN / (1 << MAP_BITS)  # metres
LANE = 3.4  # metres
PARKING = 2.6
PAVEMENT = 3.6
HALF_ROAD = LANE + PARKING
HALF_STREET = HALF_ROAD + PAVEMENT


class Road(NamedTuple):
    """A straight two-way street through a point; `s` runs along (ux, uy), `l` to its left."""

    x: float
    y: float
    ux: float
    uy: float

    def at(self, s: float, left: float) -> tuple[float, float]:
        """The place at s metres along and `left` metres to the left of the centre line."""
        return self.x + s * self.ux - left * self.uy, self.y + s * self.uy + left * self.ux

    @property
    def yaw(self) -> float:
        """Direction of growing s, radians."""
        return float(np.arctan2(self.uy, self.ux))


@kernel
def paint_surfaces(
    detail: NDArray[np.uint8],
    roads: NDArray[np.float64],
    tones: NDArray[np.float64],
    picture: NDArray[np.uint8],
    drivable: NDArray[np.uint8],
) -> None:
    """Lay grass, pavement with joints and a curb, and asphalt, each with stains of half a metre to 60 m.

    Of the arguments:
        roads: [roads, 4] x, y, ux, uy.
        tones: [4, 3] colours of asphalt, parking strip, pavement, grass.
    """
    size = picture.shape[0]
    mask = (1 << DETAIL_BITS) - 1
    for j in range(size):
        y = (j + 0.5) * MAP_TEXEL
        for i in range(size):
            x = (i + 0.5) * MAP_TEXEL
            nearest, along = 1e9, 0.0
            for k in range(roads.shape[0]):
                ex, ey = x - roads[k, 0], y - roads[k, 1]
                side = abs(ex * roads[k, 3] - ey * roads[k, 2])
                if side < nearest:
                    nearest, along = side, ex * roads[k, 2] + ey * roads[k, 3]
            fine = detail[((j & mask) << DETAIL_BITS) + (i & mask)] / 127.5 - 1.0
            turned = int(0.31 * i + 0.17 * j + 4096) & mask
            other = int(0.31 * j - 0.17 * i + 4096) & mask
            coarse = detail[(turned << DETAIL_BITS) + other] / 127.5 - 1.0
            stain = 1.0 + 0.2 * fine + 0.14 * coarse
            kind, factor = 3, stain
            if nearest < LANE + 0.1:
                kind = 0
                # Tyres polish two tracks per lane.
                track = abs(abs(nearest - 0.5 * LANE) - 0.75)
                factor = stain * (0.9 + 0.12 * min(1.0, track / 0.4))
            elif nearest < HALF_ROAD:
                kind = 1
            elif nearest < HALF_STREET:
                kind = 2
                slab = min(abs(along) % 1.2, (nearest - HALF_ROAD) % 1.2)
                factor = stain * (0.72 if slab < 0.1 else 1.0)
                if nearest < HALF_ROAD + 0.25:
                    factor = 1.25 * (0.8 if abs(along) % 2.0 < 0.15 else 1.0)
            for c in range(3):
                picture[j, i, c] = int(min(255.0, max(0.0, 170.0 * tones[kind, c] * factor)))
            drivable[j, i] = 255 if nearest < HALF_ROAD else 0


@kernel
def paint_patches(patches: NDArray[np.float64], picture: NDArray[np.uint8]) -> None:
    """Blend rectangles into the picture.

    Each of `patches` [patches, 10] is x, y, ux, uy, half length, half width, red, green, blue, opacity.
    """
    size = picture.shape[0]
    for k in range(patches.shape[0]):
        x, y, ux, uy, long, wide = patches[k, :6]
        reach_x = abs(ux) * long + abs(uy) * wide + MAP_TEXEL
        reach_y = abs(uy) * long + abs(ux) * wide + MAP_TEXEL
        for j in range(max(0, int((y - reach_y) / MAP_TEXEL)), min(size, int((y + reach_y) / MAP_TEXEL) + 1)):
            for i in range(
                max(0, int((x - reach_x) / MAP_TEXEL)), min(size, int((x + reach_x) / MAP_TEXEL) + 1)
            ):
                ex, ey = (i + 0.5) * MAP_TEXEL - x, (j + 0.5) * MAP_TEXEL - y
                inside = min(long - abs(ex * ux + ey * uy), wide - abs(ey * ux - ex * uy)) / MAP_TEXEL + 0.5
                if inside > 0.0:
                    a = min(1.0, inside) * patches[k, 9]
                    for c in range(3):
                        old = picture[j, i, c]
                        # What lies below shows through, so that stains go on under paint.
                        new = patches[k, 6 + c] * 170.0 * (0.8 + 0.2 * old / 90.0)
                        picture[j, i, c] = int(min(255.0, old + (new - old) * a))


@kernel
def paint_shadows(shadows: NDArray[np.float64], dark: float, picture: NDArray[np.uint8]) -> None:
    """Darken convex outlines, as `shading.cast_shadows` takes them; twice in shadow is no darker."""
    size = picture.shape[0]
    shade = np.zeros((size, size), np.uint8)
    for k in range(shadows.shape[0]):
        outline = shadows[k]
        x, y, radius = outline[18], outline[19], outline[21]
        for j in range(max(0, int((y - radius) / MAP_TEXEL)), min(size, int((y + radius) / MAP_TEXEL) + 1)):
            py = (j + 0.5) * MAP_TEXEL
            for i in range(
                max(0, int((x - radius) / MAP_TEXEL)), min(size, int((x + radius) / MAP_TEXEL) + 1)
            ):
                px = (i + 0.5) * MAP_TEXEL
                inside = 1.0
                for e in range(6):
                    gap = outline[3 * e + 2] - outline[3 * e] * px - outline[3 * e + 1] * py
                    inside = min(inside, gap * 4.0)
                    if inside <= 0.0:
                        break
                if inside > 0.0:
                    shade[j, i] = max(shade[j, i], int(inside * 255.0))
    for j in range(size):
        for i in range(size):
            if shade[j, i] > 0:
                keep = 1.0 - (1.0 - dark) * shade[j, i] / 255.0
                for c in range(3):
                    picture[j, i, c] = int(picture[j, i, c] * keep)


def shadow_outlines(
    poses: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], sun: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shadows of upright boxes on level ground: six half planes and a disc around each, [boxes, 22].

    The shadow is the box's footprint swept along the sun's direction: its edges are those of the footprint
    and two along the sweep.

    Of the arguments:
        poses: [boxes, 5] x, y, z, cos(yaw), sin(yaw).
        low, high: [boxes, 3] bounds in the boxes' frames.
        sun: unit vector toward the sun.
    """
    cos, sin = poses[:, 3], poses[:, 4]
    corners = np.stack([np.stack([x[:, 0], y[:, 1]], 1) for x in (low, high) for y in (low, high)], 1)
    places = poses[:, None, :2] + np.stack(
        [
            cos[:, None] * corners[..., 0] - sin[:, None] * corners[..., 1],
            sin[:, None] * corners[..., 0] + cos[:, None] * corners[..., 1],
        ],
        -1,
    )
    sweep = -sun[:2] / sun[2]
    everything = np.concatenate([places + low[:, None, 2:] * sweep, places + high[:, None, 2:] * sweep], 1)
    athwart = np.array([-sweep[1], sweep[0]]) / np.hypot(*sweep)
    normals = np.stack(
        [
            np.stack([cos, sin], 1), -np.stack([cos, sin], 1), np.stack([-sin, cos], 1), -np.stack([-sin,
            cos], 1), np.broadcast_to(athwart, (len(poses), 2)), np.broadcast_to(-athwart, (len(poses), 2)),
        ],
        1,
    )  # fmt: skip
    offsets = np.einsum("nek,nck->nec", normals, everything).max(axis=2)
    planes = np.concatenate([normals, offsets[..., None]], 2).reshape(len(poses), 18)
    middle = 0.5 * (everything.min(1) + everything.max(1))
    radius = np.linalg.norm(everything - middle[:, None], axis=2).max(1)
    return np.column_stack([planes, middle, poses[:, 2], radius])


def paint_ground(
    roads: list[Road],
    patches: NDArray[np.float64],
    shadows: NDArray[np.float64],
    dark: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """The ground's picture with all its levels, packed, and the mask of where one may drive."""
    size = 1 << MAP_BITS
    picture = np.empty((size, size, 3), np.uint8)
    drivable = np.empty((size, size), np.uint8)
    tones = np.array([[0.30, 0.30, 0.31], [0.37, 0.36, 0.35], [0.56, 0.53, 0.49], [0.27, 0.36, 0.17]])
    tones *= rng.uniform(0.88, 1.12, (4, 1)) * rng.uniform(0.96, 1.04, (4, 3))
    if rng.random() < 0.35:  # gravel instead of grass
        tones[3] = np.array([0.45, 0.41, 0.34]) * rng.uniform(0.85, 1.1)
    paint_surfaces(textures().detail, np.array(roads), tones, picture, drivable)
    paint_patches(patches, picture)
    paint_shadows(shadows, dark, picture)
    return packed(mip_chain(picture)), drivable
