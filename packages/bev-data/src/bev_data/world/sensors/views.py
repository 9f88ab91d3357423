"""What the sensors of a scene record at a time."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.world.sensors.lidar import BEAMS, COLUMNS, beam_directions, cast_ground, cast_solids
from bev_data.world.sensors.raster import count_owners, draw_solids
from bev_data.world.sensors.shading import cast_shadows, shade_picture
from bev_data.world.street.ground import shadow_outlines
from bev_data.world.street.mounting import Camera
from bev_data.world.street.scene import Pose, Scene
from bev_data.world.street.terrain import trace_ground
from bev_data.world.things.textures import textures


class View(NamedTuple):
    """What a camera sees, at pixel centres.

    Attributes:
        image: [height, width, 3] RGB.
        depth: [height, width] metres along the optical axis; infinite in the sky.
        user: [height, width] index of the road user, -1 for anything else.
        alone: [users] pixels that each road user would cover if nothing stood before it.
        seen: [users] pixels that it does cover. Both count samples: supersample ** 2 of them per pixel.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    user: NDArray[np.int32]
    alone: NDArray[np.int64]
    seen: NDArray[np.int64]


class Scan(NamedTuple):
    """A lidar sweep.

    Attributes:
        points: [points, 5] x, y, z in the lidar's frame, intensity 0 to 255, ring.
        user: [points] index of the road user hit, -1 for anything else.
    """

    points: NDArray[np.float32]
    user: NDArray[np.int32]


def camera_pose(scene: Scene, camera: Camera, t: float) -> Pose:
    """Camera in the world at a time."""
    ego = scene.ego_pose(t)
    return Pose(ego.rotation @ camera.rotation, ego.rotation @ camera.translation + ego.translation)


def render(scene: Scene, camera: Camera, t: float, *, supersample: int = 1) -> View:
    """Take a picture, with the depth and the road user of every pixel.

    Args:
        scene: what there is to see.
        camera: one of the scene's rig.
        t: seconds after the first key frame.
        supersample: rays per pixel in each direction. With more than one, `depth` and `user` are those of the
            ray nearest to the pixel's centre.
    """
    image, nearness, face, alone = _expose(scene, camera, t, supersample, count=True)
    middle = slice(supersample // 2, None, supersample)
    seen = np.zeros(len(scene.users), np.int64)
    count_owners(face, scene.owner, seen)
    with np.errstate(divide="ignore"):
        depth = 1.0 / nearness[middle, middle]
    return View(image, depth, scene.owner[face[middle, middle]], alone, seen)


def photograph(scene: Scene, camera: Camera, t: float, *, supersample: int = 1) -> NDArray[np.uint8]:
    """Only the image of `render`, in less time."""
    return _expose(scene, camera, t, supersample, count=False)[0]


def _expose(
    scene: Scene, camera: Camera, t: float, n: int, *, count: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Image; 1 / depth and face of every ray; rays that would meet each road user if it were alone."""
    rows, columns = camera.height * n, camera.width * n
    pose = camera_pose(scene, camera, t)
    view = (
        pose.rotation, pose.translation, camera.focal * n,
        (camera.cx + 0.5) * n - 0.5, (camera.cy + 0.5) * n - 0.5,
    )  # fmt: skip
    poses = scene.poses(t)
    nearness = np.zeros((rows, columns), np.float32)
    face = np.full((rows, columns), -1, np.int32)
    stamp = np.full((rows, columns) if count else (0, 0), -1, np.int32)
    alone = np.zeros(len(poses), np.int64)
    g = scene.geometry
    draw_solids(
        *view, poses, scene.balls, g.solid_model, g.solid_face, g.solid_low, g.solid_high, g.face_plane,
        nearness, face, stamp, alone,
    )  # fmt: skip
    trace_ground(scene.heights, scene.steepest, *view, nearness, face)
    shade = np.ones((rows, columns), np.float32)
    if scene.moving:
        moving = np.array(scene.moving)
        outline = scene.outline[moving]
        shadows = shadow_outlines(poses[moving], outline[:, :3], outline[:, 3:], scene.light[:3])
        cast_shadows(*view, shadows, scene.shadow_depth, nearness, face, shade)
    image = np.empty((camera.height, camera.width, 3), np.uint8)
    tiles = textures()
    shade_picture(
        *view, _gain(scene, camera, t), scene.light, scene.surfaces(poses), tiles.atlas, tiles.tile_size,
        tiles.detail, scene.ground, scene.heights, nearness, face, shade, n, image,
    )  # fmt: skip
    return image, nearness, face, alone[: len(scene.users)]


def scan(scene: Scene, t: float) -> Scan:
    """Turn the lidar once, all rays at one instant; there are points from 1 to 85 m."""
    ego = scene.ego_pose(t)
    rotation = ego.rotation @ scene.mounting.lidar_rotation
    origin = ego.rotation @ scene.mounting.lidar_translation + ego.translation
    distance = np.full((COLUMNS, BEAMS), 1e9)
    face = np.full((COLUMNS, BEAMS), -2, np.int32)
    g = scene.geometry
    cast_solids(
        rotation, origin, scene.poses(t), g.solid_model, g.solid_face, g.solid_low, g.solid_high,
        g.face_plane, distance, face,
    )  # fmt: skip
    cast_ground(scene.heights, scene.steepest, rotation, origin, distance, face)
    hit = face > -2
    place = beam_directions()[hit] * distance[hit][:, None]
    ring = np.broadcast_to(np.arange(BEAMS), hit.shape)[hit]
    brightness = np.where(face[hit] >= 0, g.face_color.mean(axis=1)[face[hit]], 0.3)
    intensity = np.clip(255.0 * brightness / (1.0 + distance[hit] / 15.0), 1.0, 255.0).round()
    return Scan(np.column_stack([place, intensity, ring]).astype(np.float32), scene.owner[face[hit]])


def _gain(scene: Scene, camera: Camera, t: float) -> float:
    """Exposure of one picture: cameras differ a little, and none repeats itself exactly."""
    channel = sum(camera.channel.encode())
    rng = np.random.default_rng([*scene.exposure_seed, channel, round(1000 * t) + 1000])
    return float(np.clip(rng.normal(1.0, 0.03), 0.92, 1.08))
