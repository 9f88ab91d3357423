"""One key frame on disk: its images, poses, calibrations and annotations.

Files are relative to the data root. Matrices are float64 with `p_b = a2b @ p_a`, in metres.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One image of one camera.

    Attributes:
        file: path of the image, relative to the data root.
        timestamp: moment of exposure in microseconds.
        sensor2ego: extrinsic calibration.
        ego2global: pose of the vehicle at the exposure.
        intrinsics: in pixels of the image as it is on disk.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """

    file: str
    timestamp: int
    sensor2ego: Float[F64, "4 4"]
    ego2global: Float[F64, "4 4"]
    intrinsics: Float[F64, "3 3"]
    width: int
    height: int

    @property
    def sensor2global(self) -> Float[F64, "4 4"]:
        """Camera frame -> map frame."""
        return self.ego2global @ self.sensor2ego

    @property
    def horizon(self) -> float:
        """Row of the image where the plane of the vehicle vanishes, straight ahead of the camera, in pixels.

        Above the image it is negative; infinite for a camera that looks straight up or down.
        """
        ahead = self.sensor2ego[:3, 2] * [1.0, 1.0, 0.0]
        _, down, along = self.sensor2ego[:3, :3].T @ ahead
        if along < 1e-9:
            return float("-inf") if self.sensor2ego[2, 2] < 0 else float("inf")
        return float(self.intrinsics[1, 1] * down / along + self.intrinsics[1, 2])


@dataclass(frozen=True, eq=False)
class LidarFrame:
    """One lidar sweep: a file of float32 x y z intensity ring, in the frame of the sensor.

    Attributes:
        file: path of the points, relative to the data root.
        timestamp: end of the sweep in microseconds.
        sensor2ego: extrinsic calibration.
        ego2global: pose of the vehicle at the timestamp.
    """

    file: str
    timestamp: int
    sensor2ego: Float[F64, "4 4"]
    ego2global: Float[F64, "4 4"]


@dataclass(frozen=True, eq=False)
class Annotations:
    """The boxes of a key frame in the map frame, of all categories.

    Attributes:
        tokens: of the annotations.
        categories: raw nuScenes categories.
        centers: in metres.
        sizes: length, width, height in metres.
        rotations: quaternions (w, x, y, z).
        velocities: x and y in m/s; NaN where the tables do not tell.
        num_lidar_pts: lidar points inside a box; -1 where that is not known.
        num_radar_pts: radar points inside a box; -1 where that is not known.
        attributes: the first attribute of a box; "" where it has none.
    """

    tokens: tuple[str, ...]
    categories: tuple[str, ...]
    centers: Float[F64, "m 3"]
    sizes: Float[F64, "m 3"]
    rotations: Float[F64, "m 4"]
    velocities: Float[F64, "m 2"]
    num_lidar_pts: Int64[NDArray[np.int64], "m"]
    num_radar_pts: Int64[NDArray[np.int64], "m"]
    attributes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def has_points(self, least: int) -> NDArray[np.bool_]:
        """Which boxes hold so many lidar and radar points; those whose points nobody counted do."""
        return enough_points(self.num_lidar_pts, self.num_radar_pts, least)

    @classmethod
    def empty(cls) -> "Annotations":
        """No boxes: those of a key frame of the test split."""
        none = np.zeros(0, dtype=np.int64)
        return cls(
            (),
            (),
            np.zeros((0, 3)),
            np.zeros((0, 3)),
            np.zeros((0, 4)),
            np.zeros((0, 2)),
            none,
            none.copy(),
            (),
        )


def enough_points(
    lidar: Int64[NDArray[np.int64], "m"], radar: Int64[NDArray[np.int64], "m"], least: int
) -> NDArray[np.bool_]:
    """Which boxes with these numbers of points, -1 for unknown, hold at least so many."""
    enough: NDArray[np.bool_] = (lidar < 0) | (np.maximum(lidar, 0) + np.maximum(radar, 0) >= least)
    return enough


@dataclass(frozen=True, eq=False)
class Info:
    """One key frame.

    Attributes:
        token: nuScenes sample token.
        scene: name of the scene.
        timestamp: in microseconds.
        prev: index of the previous key frame of the scene within the same `Infos`; None at its start.
        cameras: the images of the key frame, by camera.
        sweeps: the images before it, index 0 the nearest; a camera may be missing.
        lidar: the sweep of the key frame; None where the rig has no lidar.
        annotations: boxes; none in a test split.
    """

    token: str
    scene: str
    timestamp: int
    prev: int | None
    cameras: dict[str, CameraFrame]
    sweeps: tuple[dict[str, CameraFrame], ...]
    lidar: LidarFrame | None
    annotations: Annotations

    @property
    def keyego2global(self) -> Float[F64, "4 4"]:
        """Ego pose at the lidar sweep of the key frame, or at its first image where there is no lidar."""
        return next(iter(self.cameras.values())).ego2global if self.lidar is None else self.lidar.ego2global
