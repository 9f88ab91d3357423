"""The colour of what every pixel sees: texture, sun, shadow, haze and sky.

Texture is anchored to the surface and read from the mip level whose texel is as large as the pixel's
footprint: what is finer than two pixels has been averaged away, for texture that aliases differs from frame
to frame and stereo cannot match it. On the ground, which is seen under a flat angle, several looks along
the footprint keep it sharp across.
"""

import numpy as np
from numpy.typing import NDArray

from bev_data.jit import inlined, kernel
from bev_data.world.street.ground import MAP_BITS, MAP_TEXEL
from bev_data.world.street.terrain import ground_height
from bev_data.world.things.textures import (
    DETAIL_BITS,
    DETAIL_TEXEL,
    PATTERN_BITS,
    PATTERN_TEXELS,
    level_of,
    sample_color,
    sample_tone,
)

UNIT = 1.5 / 255.0  # texels of colour reach up to 1.5
HAZE = 1.0 / 420.0  # per metre
ROUGHNESS = 0.55  # contrast of the ground's finest texture


@kernel
def cast_shadows(
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    focal: float,
    cx: float,
    cy: float,
    shadows: NDArray[np.float64],
    dark: float,
    nearness: NDArray[np.float32],
    face: NDArray[np.int32],
    shade: NDArray[np.float32],
) -> None:
    """Darken the ground (`shade` = 1 in the sun) below models that move.

    Of the arguments:
        shadows: [models, 22] six half planes nx, ny, c of a convex outline in x, y; then its middle x, y, z
            and its radius.
        dark: which part of the light the shadow takes.
    """
    rows, columns = nearness.shape
    for index in range(shadows.shape[0]):
        outline = shadows[index]
        wx, wy, wz, radius = (
            outline[18] - origin[0],
            outline[19] - origin[1],
            outline[20] - origin[2],
            outline[21],
        )
        x = rotation[0, 0] * wx + rotation[1, 0] * wy + rotation[2, 0] * wz
        y = rotation[0, 1] * wx + rotation[1, 1] * wy + rotation[2, 1] * wz
        z = rotation[0, 2] * wx + rotation[1, 2] * wy + rotation[2, 2] * wz
        if z < -radius or z > 60.0:
            continue
        near = max(z - radius, 1.0)
        # The outline is as flat as the ground: above and below its middle there is little of it.
        tall = 0.12 * radius + 0.25
        left, right = 0, columns - 1
        top, bottom = 0, rows - 1
        if z > radius + 1.0:
            left = max(0, int(cx + focal * min((x - radius) / near, (x - radius) / (z + radius))))
            right = min(columns - 1, int(cx + focal * max((x + radius) / near, (x + radius) / (z + radius))))
            top = max(0, int(cy + focal * min((y - tall) / near, (y - tall) / (z + radius))))
            bottom = min(rows - 1, int(cy + focal * max((y + tall) / near, (y + tall) / (z + radius))))
        for row in range(top, bottom + 1):
            v = (row - cy) / focal
            for column in range(left, right + 1):
                if face[row, column] != -1 or nearness[row, column] == 0.0:
                    continue
                t = 1.0 / nearness[row, column]
                u = (column - cx) / focal
                px = origin[0] + t * (rotation[0, 0] * u + rotation[0, 1] * v + rotation[0, 2])
                py = origin[1] + t * (rotation[1, 0] * u + rotation[1, 1] * v + rotation[1, 2])
                inside = 1.0
                for k in range(6):
                    gap = outline[3 * k + 2] - outline[3 * k] * px - outline[3 * k + 1] * py
                    inside = min(inside, gap * 5.0)
                    if inside <= 0.0:
                        break
                if inside > 0.0:
                    shade[row, column] = min(shade[row, column], 1.0 - dark * inside)


@inlined
def ground_color(
    ground: NDArray[np.uint32],
    detail: NDArray[np.uint8],
    x: float, y: float,
    along_x: float, along_y: float,
    across: float, along: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Colour of the ground under a footprint: `along` metres in the direction given, `across` athwart.

    Waves longer than a texel of the map come from the map, shorter ones from the noise tile, which fades
    out where the footprint has outgrown them.
    """
    looks = 1 + int(along > 2.0 * max(across, 0.7 * MAP_TEXEL))
    part = along / looks
    level = level_of((max(across, part) * (1.0 / MAP_TEXEL)) ** 2, MAP_BITS)
    red, green, blue = 0.0, 0.0, 0.0
    for look in range(looks):
        shift = part * (look + 0.5) - 0.5 * along
        px, py = x + shift * along_x, y + shift * along_y
        r, g, b = sample_color(ground, 0, MAP_BITS, level, px * (1.0 / MAP_TEXEL), py * (1.0 / MAP_TEXEL))
        red, green, blue = red + r, green + g, blue + b
    factor = UNIT / looks
    looks = 1 + int(along > 2.0 * across) + int(along > 4.0 * across)
    part = along / looks
    size = max(across, part)
    strength = ROUGHNESS * min(1.0, 2.0 - size / MAP_TEXEL)
    if strength > 0.0:
        level = level_of((size * (1.0 / DETAIL_TEXEL)) ** 2, DETAIL_BITS)
        tone = 0.0
        for look in range(looks):
            shift = part * (look + 0.5) - 0.5 * along
            px, py = x + shift * along_x, y + shift * along_y
            tone += sample_tone(
                detail, DETAIL_BITS, level, px * (1.0 / DETAIL_TEXEL), py * (1.0 / DETAIL_TEXEL)
            )
        factor *= 1.0 + strength * (tone / (looks * 127.5) - 1.0)
    return red * factor, green * factor, blue * factor


@inlined
def sky_color(
    light: NDArray[np.float64], detail: NDArray[np.uint8], dx: float, dy: float, dz: float
) -> tuple[float, float, float]:
    """Colour of the sky in a unit direction: a gradient, clouds, and a glow around the sun."""
    up = max(dz, 0.0)
    blend = np.sqrt(min(1.0, up * 1.6))
    red = light[6] + (light[9] - light[6]) * blend
    green = light[7] + (light[10] - light[7]) * blend
    blue = light[8] + (light[11] - light[8]) * blend
    reach = 30.0 / (up + 0.12)
    cloud = sample_tone(detail, DETAIL_BITS, 1, dx * reach + light[13], dy * reach + light[13]) / 127.5 - 1.0
    amount = light[12] * max(0.0, min(1.0, 0.45 + 1.1 * cloud)) * min(1.0, 6.0 * up)
    facing = max(0.0, dx * light[0] + dy * light[1] + dz * light[2])
    glow = 0.0
    if facing > 0.7:
        square = facing * facing
        fourth = square * square
        eighth = fourth * fourth
        glow = 0.5 * eighth * eighth * eighth
    white = 0.97
    return (
        red + (white - red) * amount + glow,
        green + (white - green) * amount + 0.92 * glow,
        blue + (white - blue) * amount + 0.8 * glow,
    )


@inlined
def face_color(
    surface: NDArray[np.float64],
    one: int,
    atlas: NDArray[np.uint32],
    tile_size: NDArray[np.float64],
    detail: NDArray[np.uint8],
    x: float, y: float, z: float,
    area: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Colour of face `one` at a place of the world, over a footprint of `area` square metres."""
    s = surface[one, 3] * x + surface[one, 4] * y + surface[one, 5] * z + surface[one, 6]
    t = surface[one, 7] * x + surface[one, 8] * y + surface[one, 9] * z + surface[one, 10]
    level = level_of(area * (1.0 / DETAIL_TEXEL**2), DETAIL_BITS)
    tone = sample_tone(detail, DETAIL_BITS, level, s * (1.0 / DETAIL_TEXEL), t * (1.0 / DETAIL_TEXEL))
    lit = 1.0 + surface[one, 14] * (tone * (1.0 / 127.5) - 1.0)
    red, green, blue = surface[one, 11] * lit, surface[one, 12] * lit, surface[one, 13] * lit
    pattern = int(surface[one, 15])
    if pattern > 0:
        texels = (1 << PATTERN_BITS) / tile_size[pattern]
        level = level_of(area * texels * texels, PATTERN_BITS)
        pr, pg, pb = sample_color(
            atlas, pattern * PATTERN_TEXELS, PATTERN_BITS, level, s * texels, t * texels
        )
        red, green, blue = red * pr * UNIT, green * pg * UNIT, blue * pb * UNIT
    return red, green, blue


@kernel
def shade_picture(
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    focal: float,
    cx: float,
    cy: float,
    gain: float,
    light: NDArray[np.float64],
    surface: NDArray[np.float64],
    atlas: NDArray[np.uint32],
    tile_size: NDArray[np.float64],
    detail: NDArray[np.uint8],
    ground: NDArray[np.uint32],
    heights: NDArray[np.float64],
    nearness: NDArray[np.float32],
    face: NDArray[np.int32],
    shade: NDArray[np.float32],
    samples: int,
    picture: NDArray[np.uint8],
) -> None:
    """Colour a picture for which samples x samples rays per pixel were traced.

    A pixel whose rays all meet one surface is coloured once, with the texture of its whole footprint; only
    at edges is every ray coloured and the mean taken.

    Of the arguments:
        gain: exposure of this one picture.
        light: sun x, y, z; strength of sun, of sky light, exposure; horizon r, g, b; zenith r, g, b;
            clouds; drift.
        surface: as `surfaces` makes it.
    """
    rows, columns = picture.shape[0], picture.shape[1]
    rays = samples * samples
    pixel = 1.0 / focal
    for row in range(rows):
        for column in range(columns):
            i, j = column * samples, row * samples
            looks = 1
            for jj in range(j, j + samples):
                for ii in range(i, i + samples):
                    if face[jj, ii] != face[j, i] or (nearness[jj, ii] == 0.0) != (nearness[j, i] == 0.0):
                        looks = rays
            red, green, blue = 0.0, 0.0, 0.0
            jj, ii = j, i - 1
            for _ in range(looks):
                ii += 1
                if ii == i + samples:
                    jj, ii = jj + 1, i
                one, near, lit = face[jj, ii], float(nearness[jj, ii]), float(shade[jj, ii])
                ray_i, ray_j, width = float(ii), float(jj), pixel
                if looks < rays:
                    # The nearness of a plane is linear: at the centre it is the mean of two opposite corners.
                    last_j, last_i = j + samples - 1, i + samples - 1
                    near = 0.5 * (near + nearness[last_j, last_i])
                    lit = 0.5 * (lit + shade[last_j, last_i])
                    ray_i, ray_j, width = 0.5 * (i + last_i), 0.5 * (j + last_j), samples * pixel
                u, v = (ray_i - cx) * pixel, (ray_j - cy) * pixel
                dx = rotation[0, 0] * u + rotation[0, 1] * v + rotation[0, 2]
                dy = rotation[1, 0] * u + rotation[1, 1] * v + rotation[1, 2]
                dz = rotation[2, 0] * u + rotation[2, 1] * v + rotation[2, 2]
                long = np.sqrt(u * u + v * v + 1.0)
                if near == 0.0:
                    short = 1.0 / long
                    r, g, b = sky_color(light, detail, dx * short, dy * short, dz * short)
                    red, green, blue = red + r, green + g, blue + b
                    continue
                depth = 1.0 / near
                step = width * depth
                px, py = origin[0] + depth * dx, origin[1] + depth * dy
                if one < 0:
                    _, slope_x, slope_y = ground_height(heights, px, py)
                    flat = 1.0 / np.sqrt(dx * dx + dy * dy + 1e-9)
                    sink = max(1e-3, slope_x * dx + slope_y * dy - dz)
                    stretch = step * min(40.0, long / sink)
                    r, g, b = ground_color(ground, detail, px, py, dx * flat, dy * flat, step, stretch)
                    sun = max(0.0, light[2] - slope_x * light[0] - slope_y * light[1])
                    lit *= light[4] + light[3] * sun
                    r, g, b = r * lit, g * lit, b * lit
                else:
                    slant = -(surface[one, 0] * dx + surface[one, 1] * dy + surface[one, 2] * dz)
                    area = step * step * long / max(slant, 0.05 * long)
                    pz = origin[2] + depth * dz
                    r, g, b = face_color(surface, one, atlas, tile_size, detail, px, py, pz, area)
                clear = near / (near + HAZE)
                red += light[6] + (r - light[6]) * clear
                green += light[7] + (g - light[7]) * clear
                blue += light[8] + (b - light[8]) * clear
            scale = 255.0 * gain * light[5] / looks
            picture[row, column, 0] = int(min(255.0, max(0.0, red * scale)))
            picture[row, column, 1] = int(min(255.0, max(0.0, green * scale)))
            picture[row, column, 2] = int(min(255.0, max(0.0, blue * scale)))
