"""One scene, ready to be seen: ground, solids, light, rig, and where everything is at any time."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.world.street.ground import (
    HALF_ROAD,
    HALF_STREET,
    LANE,
    PARKING,
    Road,
    paint_ground,
    shadow_outlines,
)
from bev_data.world.street.layout import Layout, RoadUser
from bev_data.world.street.motion import Motion, yaw_rotation
from bev_data.world.street.mounting import Mounting, build_mounting
from bev_data.world.street.planning import plan
from bev_data.world.street.terrain import ground_height, hills
from bev_data.world.things.solids import Geometry, assemble, surfaces

BEHAVIOURS = ("straight", "turn", "stop")
KEY_PERIOD = 0.5  # seconds between key frames


class Pose(NamedTuple):
    """Rotation [3,3] and translation [3] of a frame in another."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Everything about a scene that does not depend on the time.

    Attributes:
        number: which scene of the world this is.
        heights: [GRID, GRID] metres.
        steepest: a bound on the slope of the ground.
        ground: picture of the ground with its mip levels.
        drivable: mask of where one may drive, y up.
        geometry: solids of the road users, then of the scenery.
        users: road users; user k is model k of the geometry.
        balls: [models, 2] height of the middle and radius of a ball around each model.
        still: [models, 5] x, y, z, cos(yaw), sin(yaw) at time 0.
        moving: indices of the users that move.
        moving_faces: their faces.
        owner: [faces + 1] road user of each face, -1 for scenery; the last, -1 too, serves face -1, which is
            none.
        surface: what `solids.surfaces` gives at time 0.
        light: as `shading.shade_picture` takes it.
        shadow_depth: which part of the light a shadow takes.
        sway: [4, 3] amplitude, frequency and phase of the ego's pitch (two waves) and roll (two waves).
    """

    number: int
    behaviour: str
    mounting: Mounting
    ego: Motion
    heights: NDArray[np.float64]
    steepest: float
    ground: NDArray[np.uint32]
    drivable: NDArray[np.uint8]
    geometry: Geometry
    users: tuple[RoadUser, ...]
    balls: NDArray[np.float64]
    outline: NDArray[np.float64]
    still: NDArray[np.float64]
    moving: tuple[int, ...]
    moving_faces: NDArray[np.int64]
    owner: NDArray[np.int32]
    surface: NDArray[np.float64]
    light: NDArray[np.float64]
    shadow_depth: float
    sway: NDArray[np.float64]
    exposure_seed: tuple[int, int]

    def ego_pose(self, t: float) -> Pose:
        """Ego in the world at a time: on the ground, tilted with it, and swaying about it."""
        x, y, yaw = self.ego.at(t)
        height, slope_x, slope_y = ground_height(self.heights, x, y)
        ahead = slope_x * np.cos(yaw) + slope_y * np.sin(yaw)
        left = slope_y * np.cos(yaw) - slope_x * np.sin(yaw)
        waves = self.sway[:, 0] * np.sin(2 * np.pi * self.sway[:, 1] * t + self.sway[:, 2])
        pitch, roll = waves[0] + waves[1] - np.arctan(ahead), waves[2] + waves[3] + np.arctan(left)
        return Pose(yaw_rotation(yaw, pitch, roll), np.array([x, y, height]))

    def user_pose(self, index: int, t: float) -> NDArray[np.float64]:
        """x, y, z, cos(yaw), sin(yaw) of a road user's frame: below its centre, on the ground."""
        user = self.users[index]
        x, y, yaw = user.motion.at(t)
        return np.array([x, y, _footing(self.heights, x, y, yaw, user.size), np.cos(yaw), np.sin(yaw)])

    def surfaces(self, poses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every face as shading needs it, with the models at `poses`."""
        surface = self.surface.copy()
        surface[self.moving_faces] = surfaces(self.geometry, self.moving_faces, poses, self.light)
        return surface

    def poses(self, t: float) -> NDArray[np.float64]:
        """[models, 5] at a time."""
        poses = self.still.copy()
        for index in self.moving:
            poses[index] = self.user_pose(index, t)
        return poses


def _footing(
    heights: NDArray[np.float64], x: float, y: float, yaw: float, size: tuple[float, float, float]
) -> float:
    """Height at which a body of this length and width stands: the mean below its corners."""
    total = 0.0
    for along in (-0.4 * size[0], 0.4 * size[0]):
        for left in (-0.4 * size[1], 0.4 * size[1]):
            px = x + along * np.cos(yaw) - left * np.sin(yaw)
            py = y + along * np.sin(yaw) + left * np.cos(yaw)
            total += ground_height(heights, px, py)[0]
    return 0.25 * total


def build_scene(number: int, seed: int, key_frames: int, width: int, height: int) -> Scene:
    """Build a scene; the same arguments give the same scene.

    Of the arguments:
        number: index of the scene in its world.
        key_frames: annotated instants, half a second apart.
        width, height: of the images, pixels.
    """
    rng = np.random.default_rng([seed, number])
    duration = (key_frames - 1) * KEY_PERIOD
    behaviour = BEHAVIOURS[(number + seed) % len(BEHAVIOURS)]
    layout = plan(max(duration, KEY_PERIOD), behaviour, rng)
    heights = hills(rng)
    cell = np.abs(np.stack([np.diff(heights, axis=a, append=np.take(heights, [0], a)) for a in (0, 1)]))
    steepest = float(np.hypot(cell[0].max(), cell[1].max()))
    mounting = build_mounting(width, height, rng)
    light = _light(rng)
    geometry = assemble([u.model for u in layout.users] + [s.model for s in layout.scenery], rng)
    models = len(layout.users) + len(layout.scenery)
    low, high = np.full((models, 3), np.inf), np.full((models, 3), -np.inf)
    np.minimum.at(low, geometry.solid_model, geometry.solid_low)
    np.maximum.at(high, geometry.solid_model, geometry.solid_high)
    still = np.zeros((models, 5))
    for index, user in enumerate(layout.users):
        x, y, yaw = user.motion.at(0.0)
        still[index] = x, y, _footing(heights, x, y, yaw, user.size), np.cos(yaw), np.sin(yaw)
    for index, thing in enumerate(layout.scenery, len(layout.users)):
        x, y, yaw = thing.place
        still[index] = x, y, ground_height(heights, x, y)[0], np.cos(yaw), np.sin(yaw)
    moving = tuple(k for k, user in enumerate(layout.users) if user.motion.moves(duration))
    model_of_face = geometry.solid_model[geometry.face_solid]
    fixed = np.setdiff1d(np.arange(models), moving)
    outline = np.concatenate([low, high], axis=1)
    # Below the ground nothing throws a shadow.
    bottom = np.maximum(low, [-np.inf, -np.inf, 0.0])
    shadows = shadow_outlines(still[fixed], bottom[fixed], high[fixed], light[:3])
    ground, drivable = paint_ground(layout.roads, _markings(layout), shadows, 1.0 - _shadow_depth(light), rng)
    reach = np.maximum(np.abs(low), np.abs(high))
    balls = np.column_stack(
        [
            0.5 * (low[:, 2] + high[:, 2]),
            np.hypot(np.hypot(reach[:, 0], reach[:, 1]), 0.5 * (high[:, 2] - low[:, 2])),
        ]
    )
    return Scene(
        number=number,
        behaviour=behaviour,
        mounting=mounting,
        ego=layout.ego,
        heights=heights,
        steepest=steepest,
        ground=ground,
        drivable=drivable,
        geometry=geometry,
        users=tuple(layout.users),
        balls=balls,
        outline=outline,
        still=still,
        moving=moving,
        moving_faces=np.flatnonzero(np.isin(model_of_face, moving)),
        owner=np.append(np.where(model_of_face < len(layout.users), model_of_face, -1), -1).astype(np.int32),
        surface=surfaces(geometry, np.arange(len(model_of_face)), still, light),
        light=light,
        shadow_depth=_shadow_depth(light),
        sway=_sway(rng),
        exposure_seed=(seed, number),
    )


def _sway(rng: np.random.Generator) -> NDArray[np.float64]:
    """Pitch of about 1 degree and roll of about half, each of two waves, smooth from image to image."""
    amplitude = np.deg2rad(np.array([1.0, 0.8, 0.5, 0.4])) * rng.uniform(0.8, 1.2, 4)
    frequency = np.array([0.45, 1.1, 0.35, 0.9]) * rng.uniform(0.8, 1.2, 4)
    return np.column_stack([amplitude, frequency, rng.uniform(0.0, 2 * np.pi, 4)])


def _light(rng: np.random.Generator) -> NDArray[np.float64]:
    """A sunny, hazy, golden or overcast hour."""
    azimuth = rng.uniform(0.0, 2 * np.pi)
    mood = rng.random()
    if mood < 0.5:  # sunny
        elevation, sun, sky, clouds = (
            np.deg2rad(rng.uniform(35, 62)),
            rng.uniform(0.75, 0.95),
            0.5,
            rng.uniform(0.2, 0.7),
        )
        horizon, zenith = np.array([0.76, 0.85, 0.94]), np.array([0.25, 0.47, 0.80])
    elif mood < 0.75:  # late
        elevation, sun, sky, clouds = (
            np.deg2rad(rng.uniform(25, 36)),
            rng.uniform(0.7, 0.9),
            0.45,
            rng.uniform(0.1, 0.5),
        )
        horizon, zenith = np.array([0.96, 0.84, 0.68]), np.array([0.38, 0.52, 0.74])
    else:  # overcast
        elevation, sun, sky, clouds = (
            np.deg2rad(rng.uniform(45, 65)),
            rng.uniform(0.15, 0.3),
            0.85,
            rng.uniform(0.5, 0.9),
        )
        horizon, zenith = np.array([0.82, 0.84, 0.86]), np.array([0.60, 0.65, 0.71])
    direction = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation))
    exposure = rng.uniform(0.9, 1.12)
    return np.array([*direction, sun, sky, exposure, *horizon, *zenith, clouds, rng.uniform(0.0, 512.0)])


def _shadow_depth(light: NDArray[np.float64]) -> float:
    """Which part of the light on level ground comes from the sun alone."""
    sun = light[3] * light[2]
    return float(sun / (sun + light[4])) * 0.9


def _markings(layout: Layout) -> NDArray[np.float64]:
    """Paint and repairs on the streets, as `ground.paint_patches` takes them."""
    rng = layout.rng
    rows: list[tuple[float, ...]] = []

    def mark(
        road: Road,
        s: float,
        left: float,
        long: float,
        wide: float,
        color: tuple[float, float, float],
        a: float,
    ) -> None:
        x, y = road.at(s, left)
        rows.append((x, y, road.ux, road.uy, 0.5 * long, 0.5 * wide, *color, a))

    white, yellow = (0.86, 0.86, 0.83), (0.85, 0.66, 0.16)
    center = yellow if rng.random() < 0.5 else white
    dashed = rng.random() < 0.6
    for road in layout.roads:
        for _ in range(70):  # repairs and spots
            tone = rng.uniform(0.16, 0.42)
            s, left = rng.uniform(-110, 110), rng.uniform(-HALF_ROAD, HALF_ROAD)
            mark(
                road,
                s,
                left,
                rng.uniform(0.4, 6.0),
                rng.uniform(0.3, 1.8),
                (tone, tone, tone),
                rng.uniform(0.3, 0.75),
            )
        for _ in range(60):  # cracks filled with tar
            s, left = rng.uniform(-110, 110), rng.uniform(-LANE, LANE)
            mark(road, s, left, rng.uniform(0.12, 0.2), rng.uniform(1.0, 6.0), (0.13, 0.13, 0.13), 0.8)
        stop = HALF_STREET + 0.5
        for s in np.arange(-112.0, 112.0, 5.0):
            if abs(s) < stop + 2.5:
                continue
            if dashed:
                mark(road, s, 0.0, 2.5, 0.16, center, 0.9)
            else:
                mark(road, s, 0.14, 5.0, 0.12, center, 0.9)
                mark(road, s, -0.14, 5.0, 0.12, center, 0.9)
            for side in (-1.0, 1.0):
                mark(road, s, side * LANE, 5.0, 0.12, white, 0.8)
        for s in np.arange(-108.0, 108.0, 6.5):
            if abs(s) > stop + 4.0:
                for side in (-1.0, 1.0):
                    mark(road, s, side * (LANE + 0.5 * PARKING), 0.12, PARKING, white, 0.7)
        for end in (-1.0, 1.0):
            for left in np.arange(-HALF_ROAD + 0.5, HALF_ROAD, 1.1):
                mark(road, end * (HALF_ROAD + 1.9), left, 3.0, 0.55, white, 0.9)
            mark(road, end * (HALF_ROAD + 4.4), end * 0.5 * LANE, 0.4, LANE - 0.3, white, 0.9)
    return np.array(rows)
