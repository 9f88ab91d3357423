"""The colour of what every pixel sees: texture, sun, shadow, haze and sky.

Texture is anchored to the surface and read from the mip level whose texel is as large as the pixel's footprint: what is
finer than two pixels has been averaged away, for texture that aliases differs from frame to frame and stereo cannot
match it. On the ground, which is seen under a flat angle, several looks along the footprint keep it sharp across.
"""

import numpy as np
from numpy.typing import NDArray

from bev_data.synthetic.jit import kernel
from bev_data.synthetic.terrain import DOMAIN, ground_height
from bev_data.synthetic.textures import (
    DETAIL_BITS,
    DETAIL_TEXEL,
    PATTERN_BITS,
    level_of,
    sample_color,
    sample_tone,
)

MAP_BITS = 11
MAP_TEXEL = DOMAIN / (1 << MAP_BITS)
UNIT = 1.5 / 255.0  # texels of colour reach up to 1.5
HAZE = 1.0 / 420.0  # per metre


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

    Args:
        shadows: [models, 22] six half planes nx, ny, c of a convex outline in x, y; then its middle x, y, z and
            its radius.
        dark: which part of the light the shadow takes.
    """
    rows, columns = nearness.shape
    for index in range(shadows.shape[0]):
        outline = shadows[index]
        wx, wy, wz, radius = outline[18] - origin[0], outline[19] - origin[1], outline[20] - origin[2], outline[21]
        x = rotation[0, 0] * wx + rotation[1, 0] * wy + rotation[2, 0] * wz
        y = rotation[0, 1] * wx + rotation[1, 1] * wy + rotation[2, 1] * wz
        z = rotation[0, 2] * wx + rotation[1, 2] * wy + rotation[2, 2] * wz
        if z < -radius or z > 60.0:
            continue
        near = max(z - radius, 1.0)
        # The outline is flat: above and below its middle there is little of it.
        tall = 0.25 * radius + 0.5
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


@kernel
def ground_color(
    ground: NDArray[np.uint8],
    detail: NDArray[np.uint8],
    x: float, y: float,
    along_x: float, along_y: float,
    across: float, along: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Colour of the ground under a footprint of `along` metres in the direction given and `across` metres athwart."""
    looks = 1
    while looks < 4 and along > 1.6 * looks * across:
        looks += 1
    size = max(across, along / looks)
    map_level = level_of(size / MAP_TEXEL, MAP_BITS)
    detail_level = level_of(size / DETAIL_TEXEL, DETAIL_BITS)
    red, green, blue, tone = 0.0, 0.0, 0.0, 0.0
    for look in range(looks):
        shift = along * ((look + 0.5) / looks - 0.5)
        px, py = x + shift * along_x, y + shift * along_y
        r, g, b = sample_color(ground, MAP_BITS, map_level, px / MAP_TEXEL, py / MAP_TEXEL)
        red, green, blue = red + r, green + g, blue + b
        tone += sample_tone(detail, DETAIL_BITS, detail_level, px / DETAIL_TEXEL, py / DETAIL_TEXEL)
    factor = UNIT / looks * (1.0 + 0.55 * (tone / (looks * 127.5) - 1.0))
    return red * factor, green * factor, blue * factor


@kernel
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
    glow = 0.5 * facing**24
    white = 0.97
    return (
        red + (white - red) * amount + glow,
        green + (white - green) * amount + 0.92 * glow,
        blue + (white - blue) * amount + 0.8 * glow,
    )


@kernel
def shade_picture(
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    focal: float,
    cx: float,
    cy: float,
    gain: float,
    light: NDArray[np.float64],
    poses: NDArray[np.float64],
    solid_model: NDArray[np.int32],
    face_solid: NDArray[np.int32],
    face_plane: NDArray[np.float64],
    face_u: NDArray[np.float64],
    face_v: NDArray[np.float64],
    face_color: NDArray[np.float64],
    face_look: NDArray[np.float64],
    atlas: NDArray[np.uint8],
    tile_size: NDArray[np.float64],
    detail: NDArray[np.uint8],
    ground: NDArray[np.uint8],
    heights: NDArray[np.float64],
    nearness: NDArray[np.float32],
    face: NDArray[np.int32],
    shade: NDArray[np.float32],
    samples: int,
    picture: NDArray[np.uint8],
) -> None:
    """Colour a picture of samples x samples looks per pixel.

    Args:
        light: sun x, y, z; strength of sun, of sky light, exposure; horizon r, g, b; zenith r, g, b; clouds; drift.
        gain: exposure of this one picture.
    """
    rows, columns = picture.shape[0], picture.shape[1]
    scale = 255.0 * gain * light[5] / (samples * samples)
    for row in range(rows):
        for column in range(columns):
            red, green, blue = 0.0, 0.0, 0.0
            for look in range(samples * samples):
                i, j = column * samples + look % samples, row * samples + look // samples
                u, v = (i - cx) / focal, (j - cy) / focal
                dx = rotation[0, 0] * u + rotation[0, 1] * v + rotation[0, 2]
                dy = rotation[1, 0] * u + rotation[1, 1] * v + rotation[1, 2]
                dz = rotation[2, 0] * u + rotation[2, 1] * v + rotation[2, 2]
                near = nearness[j, i]
                if near == 0.0:
                    length = np.sqrt(u * u + v * v + 1.0)
                    r, g, b = sky_color(light, detail, dx / length, dy / length, dz / length)
                    red, green, blue = red + r, green + g, blue + b
                    continue
                depth = 1.0 / near
                step = depth / focal
                one = face[j, i]
                if one < 0:
                    px, py = origin[0] + depth * dx, origin[1] + depth * dy
                    _, slope_x, slope_y = ground_height(heights, px, py)
                    flat = np.sqrt(dx * dx + dy * dy) + 1e-9
                    sink = max(1e-3, (slope_x * dx + slope_y * dy - dz) / np.sqrt(flat * flat + dz * dz))
                    r, g, b = ground_color(
                        ground, detail, px, py, dx / flat, dy / flat, step, min(step / sink, 40.0 * step)
                    )
                    sun = max(0.0, light[2] - slope_x * light[0] - slope_y * light[1])
                    lit = light[4] + light[3] * sun
                    lit *= shade[j, i]
                    r, g, b = r * lit, g * lit, b * lit
                else:
                    pose = poses[solid_model[face_solid[one]]]
                    wx, wy = origin[0] + depth * dx - pose[0], origin[1] + depth * dy - pose[1]
                    x, y, z = pose[3] * wx + pose[4] * wy, pose[3] * wy - pose[4] * wx, origin[2] + depth * dz - pose[2]
                    s = face_u[one, 0] * x + face_u[one, 1] * y + face_u[one, 2] * z + face_u[one, 3]
                    t = face_v[one, 0] * x + face_v[one, 1] * y + face_v[one, 2] * z + face_v[one, 3]
                    nx = pose[3] * face_plane[one, 0] - pose[4] * face_plane[one, 1]
                    ny = pose[4] * face_plane[one, 0] + pose[3] * face_plane[one, 1]
                    nz = face_plane[one, 2]
                    slant = -(nx * dx + ny * dy + nz * dz) / np.sqrt(u * u + v * v + 1.0)
                    size = step / np.sqrt(max(slant, 0.05))
                    level = level_of(size / DETAIL_TEXEL, DETAIL_BITS)
                    tone = sample_tone(detail, DETAIL_BITS, level, s / DETAIL_TEXEL, t / DETAIL_TEXEL)
                    sun = max(0.0, nx * light[0] + ny * light[1] + nz * light[2])
                    lit = light[4] * (0.85 + 0.15 * nz) + light[3] * sun
                    lit += face_look[one, 1] * max(0.0, 1.0 - lit)
                    lit *= 1.0 + face_look[one, 0] * (tone / 127.5 - 1.0)
                    r, g, b = face_color[one, 0] * lit, face_color[one, 1] * lit, face_color[one, 2] * lit
                    pattern = int(face_look[one, 2])
                    if pattern > 0:
                        texel = tile_size[pattern] / (1 << PATTERN_BITS)
                        level = level_of(size / texel, PATTERN_BITS)
                        pr, pg, pb = sample_color(atlas[pattern], PATTERN_BITS, level, s / texel, t / texel)
                        r, g, b = r * pr * UNIT, g * pg * UNIT, b * pb * UNIT
                haze = 1.0 - 1.0 / (1.0 + HAZE * depth)
                red += r + (light[6] - r) * haze
                green += g + (light[7] - g) * haze
                blue += b + (light[8] - b) * haze
            picture[row, column, 0] = min(255.0, max(0.0, red * scale))
            picture[row, column, 1] = min(255.0, max(0.0, green * scale))
            picture[row, column, 2] = min(255.0, max(0.0, blue * scale))
