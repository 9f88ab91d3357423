"""A turning lidar: one ray per beam and azimuth, against the solids and the ground that the cameras see."""

import numpy as np
from numpy.typing import NDArray

from bev_data.jit import kernel
from bev_data.world.sensors.raster import hit_solid
from bev_data.world.street.terrain import march_to_ground

BEAMS = 32
COLUMNS = 1084
LOWEST, HIGHEST = np.deg2rad(-30.67), np.deg2rad(10.67)
REACH = 85.0  # metres
CLOSEST = 1.0


@kernel
def cast_solids(
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    poses: NDArray[np.float64],
    solid_model: NDArray[np.int32],
    solid_face: NDArray[np.int32],
    solid_low: NDArray[np.float64],
    solid_high: NDArray[np.float64],
    face_plane: NDArray[np.float64],
    distance: NDArray[np.float64],
    face_hit: NDArray[np.int32],
) -> None:
    """Shorten `distance` [COLUMNS, BEAMS] to the nearest solid on each ray and note its face.

    `rotation` turns lidar into world: x right, y forward, z up.
    """
    step = (HIGHEST - LOWEST) / (BEAMS - 1)
    turn = 2.0 * np.pi / COLUMNS
    for solid in range(solid_model.shape[0]):
        x0, y0, z0, cos, sin = poses[solid_model[solid]]
        middle = 0.5 * (solid_low[solid] + solid_high[solid])
        radius = 0.5 * np.sqrt(np.sum((solid_high[solid] - solid_low[solid]) ** 2))
        wx = x0 + cos * middle[0] - sin * middle[1] - origin[0]
        wy = y0 + sin * middle[0] + cos * middle[1] - origin[1]
        wz = z0 + middle[2] - origin[2]
        away = np.sqrt(wx * wx + wy * wy + wz * wz)
        if away - radius > REACH:
            continue
        lx = rotation[0, 0] * wx + rotation[1, 0] * wy + rotation[2, 0] * wz
        ly = rotation[0, 1] * wx + rotation[1, 1] * wy + rotation[2, 1] * wz
        lz = rotation[0, 2] * wx + rotation[1, 2] * wy + rotation[2, 2] * wz
        beam0, beam1, column0, columns = 0, BEAMS - 1, 0, COLUMNS
        if away > radius:
            half = np.arcsin(radius / away)
            up = np.arcsin(lz / away)
            beam0 = max(0, int(np.ceil((up - half - LOWEST) / step)))
            beam1 = min(BEAMS - 1, int(np.floor((up + half - LOWEST) / step)))
            flat = np.sqrt(lx * lx + ly * ly)
            if flat > radius:
                azimuth, wide = np.arctan2(lx, ly), np.arcsin(radius / flat)
                column0 = int(np.ceil((azimuth - wide) / turn))
                columns = int(np.floor((azimuth + wide) / turn)) - column0 + 1
        ex = -cos * (x0 - origin[0]) - sin * (y0 - origin[1])
        ey = sin * (x0 - origin[0]) - cos * (y0 - origin[1])
        ez = origin[2] - z0
        for k in range(columns):
            column = (column0 + k) % COLUMNS
            sa, ca = np.sin(column * turn), np.cos(column * turn)
            for beam in range(beam0, beam1 + 1):
                elevation = LOWEST + beam * step
                ax, ay, az = sa * np.cos(elevation), ca * np.cos(elevation), np.sin(elevation)
                dx = rotation[0, 0] * ax + rotation[0, 1] * ay + rotation[0, 2] * az
                dy = rotation[1, 0] * ax + rotation[1, 1] * ay + rotation[1, 2] * az
                dz = rotation[2, 0] * ax + rotation[2, 1] * ay + rotation[2, 2] * az
                t, face = hit_solid(
                    face_plane, solid_face[solid], solid_face[solid + 1],
                    ex, ey, ez, cos * dx + sin * dy, -sin * dx + cos * dy, dz,
                )  # fmt: skip
                if face >= 0 and t < distance[column, beam]:
                    distance[column, beam] = t
                    face_hit[column, beam] = face


@kernel
def cast_ground(
    heights: NDArray[np.float64],
    steepest: float,
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    distance: NDArray[np.float64],
    face_hit: NDArray[np.int32],
) -> None:
    """Shorten `distance` to the ground where that is nearer; its face is -1, that of nothing -2."""
    step = (HIGHEST - LOWEST) / (BEAMS - 1)
    turn = 2.0 * np.pi / COLUMNS
    for column in range(COLUMNS):
        for beam in range(BEAMS):
            elevation, azimuth = LOWEST + beam * step, column * turn
            ax, ay, az = (
                np.sin(azimuth) * np.cos(elevation),
                np.cos(azimuth) * np.cos(elevation),
                np.sin(elevation),
            )
            dx = rotation[0, 0] * ax + rotation[0, 1] * ay + rotation[0, 2] * az
            dy = rotation[1, 0] * ax + rotation[1, 1] * ay + rotation[1, 2] * az
            dz = rotation[2, 0] * ax + rotation[2, 1] * ay + rotation[2, 2] * az
            stop = min(REACH, distance[column, beam])
            t = march_to_ground(heights, steepest, origin[0], origin[1], origin[2], dx, dy, dz, CLOSEST, stop)
            if t > 0.0:
                distance[column, beam] = t
                face_hit[column, beam] = -1
            elif distance[column, beam] > REACH or distance[column, beam] < CLOSEST:
                face_hit[column, beam] = -2


def beam_directions() -> NDArray[np.float64]:
    """Unit vectors [COLUMNS, BEAMS, 3] in the lidar's frame; ring 0 is the lowest."""
    azimuth = np.arange(COLUMNS)[:, None] * (2 * np.pi / COLUMNS)
    elevation = np.linspace(LOWEST, HIGHEST, BEAMS)[None, :]
    across = np.sin(azimuth) * np.cos(elevation)
    ahead = np.cos(azimuth) * np.cos(elevation)
    return np.stack([across, ahead, np.broadcast_to(np.sin(elevation), across.shape)], axis=-1)
