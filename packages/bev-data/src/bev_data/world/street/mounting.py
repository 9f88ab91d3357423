"""The sensors: six cameras and a lidar, mounted and timed much as on the cars that recorded nuScenes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.geometry import quaternion_to_matrix
from bev_data.world.street.motion import yaw_rotation

NUSCENES_WIDTH = 1600  # pixels, of the focal lengths below


class _Mount(NamedTuple):
    channel: str
    translation: tuple[float, float, float]
    yaw: float  # degrees, of the optical axis
    focal: float  # pixels at a width of 1600
    center: tuple[float, float]
    delay: int  # microseconds after the lidar's key time


# The turning lidar passes the cameras one after the other, and each fires as it is passed.
_MOUNTS = (
    _Mount("CAM_FRONT", (1.70, 0.016, 1.51), 0.3, 1266.0, (816.0, 459.0), -35_000),
    _Mount("CAM_FRONT_RIGHT", (1.55, -0.493, 1.50), -55.5, 1261.0, (808.0, 463.0), -27_000),
    _Mount("CAM_BACK_RIGHT", (1.01, -0.481, 1.56), -110.0, 1260.0, (807.0, 466.0), -18_000),
    _Mount("CAM_BACK", (0.03, 0.003, 1.58), 180.0, 809.0, (829.0, 450.0), -10_000),
    _Mount("CAM_BACK_LEFT", (1.04, 0.485, 1.59), 108.5, 1257.0, (792.0, 461.0), 0),
    _Mount("CAM_FRONT_LEFT", (1.52, 0.495, 1.51), 55.5, 1273.0, (827.0, 448.0), -43_000),
)
CAMERAS: tuple[str, ...] = tuple(mount.channel for mount in _MOUNTS)
LIDAR = "LIDAR_TOP"
_LIDAR_PLACE = (0.944, 0.0, 1.84)
# Camera axes (x right, y down, z ahead) in the frame x ahead, y left, z up.
_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class Camera(NamedTuple):
    """One calibrated camera.

    Attributes:
        rotation: [3,3] camera -> ego.
        translation: [3] metres.
        focal, cx, cy: pixels; the centre of the top-left pixel is (0, 0).
        delay: microseconds from the lidar's key time to the exposure.
    """

    channel: str
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    focal: float
    cx: float
    cy: float
    width: int
    height: int
    delay: int

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        """[3,3] pixels."""
        return np.array([[self.focal, 0.0, self.cx], [0.0, self.focal, self.cy], [0.0, 0.0, 1.0]])


class Mounting(NamedTuple):
    """All sensors of one car; `lidar_rotation` turns lidar (x right, y ahead, z up) into ego."""

    cameras: tuple[Camera, ...]
    lidar_rotation: NDArray[np.float64]
    lidar_translation: NDArray[np.float64]


def build_mounting(width: int, height: int, rng: np.random.Generator) -> Mounting:
    """A car with its own calibration: mounts vary by centimetres and tenths of a degree, height by 6 cm."""
    scale = width / NUSCENES_WIDTH
    raised = rng.normal(0.0, 0.06)
    cameras = []
    for mount in _MOUNTS:
        jitter = np.deg2rad(rng.normal(0.0, 0.3, 3))
        turned = yaw_rotation(np.deg2rad(mount.yaw) + jitter[0], jitter[1], jitter[2])
        place = np.array(mount.translation) + rng.normal(0.0, 0.01, 3) + [0.0, 0.0, raised]
        # A nuScenes image is 900 rows high; taller or lower pictures keep the row of the horizon in
        # proportion.
        row = (mount.center[1] + rng.normal(0.0, 6.0)) * height / 900
        cameras.append(
            Camera(
                mount.channel,
                turned @ _AXES,
                place,
                mount.focal * scale * rng.uniform(0.995, 1.005),
                (mount.center[0] + rng.normal(0.0, 6.0) + 0.5) * scale - 0.5,
                row - 0.5 * (1 - scale),
                width,
                height,
                mount.delay,
            )
        )
    lidar = quaternion_to_matrix([0.7077955, -0.0064922, 0.0106462, -0.7063073])
    return Mounting(tuple(cameras), lidar, np.array(_LIDAR_PLACE) + np.array([0.0, 0.0, raised]))
