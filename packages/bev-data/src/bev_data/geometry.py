"""Rigid transforms in float64: quaternions (w, x, y, z), 4x4 matrices `a2b` with `p_b = a2b @ p_a`, boxes."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from bev_data.errors import InputError

F64 = NDArray[np.float64]


def quaternion_to_matrix(quaternion: ArrayLike) -> Float[F64, "... 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), which need not be normalised.

    Raises:
        ValueError: if a quaternion has length zero.
    """
    q = np.asarray(quaternion, dtype=np.float64)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if not (norm > 0).all():
        first = q.reshape(-1, 4)[np.flatnonzero(~(norm.reshape(-1) > 0))[0]]
        raise InputError(f"a rotation quaternion must have a length above 0, got {first.tolist()}")
    w, x, y, z = np.moveaxis(q / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(rotation: Float[F64, "3 3"]) -> Float[F64, "4"]:
    """Quaternion (w, x, y, z) of a rotation matrix, with w >= 0.

    Source: Shepperd, "Quaternion from rotation matrix" (1978): the largest of four candidates is divided by.
    """
    r = np.asarray(rotation, dtype=np.float64)
    squares = np.array(
        [
            1 + r[0, 0] + r[1, 1] + r[2, 2],
            1 + r[0, 0] - r[1, 1] - r[2, 2],
            1 - r[0, 0] + r[1, 1] - r[2, 2],
            1 - r[0, 0] - r[1, 1] + r[2, 2],
        ]
    )
    differences = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    largest = int(np.argmax(squares))
    q = np.empty(4)
    if largest == 0:
        q[0], q[1:] = squares[0], differences
    else:
        i = largest - 1
        q[0], q[1:] = differences[i], r[i] + r[:, i]
        q[largest] = squares[largest]
    q /= np.linalg.norm(q)
    return -q if q[0] < 0 else q


def pose(rotation: ArrayLike, translation: ArrayLike) -> Float[F64, "4 4"]:
    """4x4 matrix of a quaternion (w, x, y, z) and a translation in metres, as in the tables."""
    matrix = np.eye(4)
    matrix[:3, :3] = quaternion_to_matrix(rotation)
    matrix[:3, 3] = translation
    return matrix


def invert(a2b: Float[F64, "... 4 4"]) -> Float[F64, "... 4 4"]:
    """Inverse of rigid transforms; transposing the rotation is exact, a general inverse is not."""
    inverse = np.zeros_like(a2b)
    rotation = np.swapaxes(a2b[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ a2b[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def transform_points(a2b: Float[F64, "4 4"], points: Float[F64, "k 3"]) -> Float[F64, "k 3"]:
    """Points of frame a, expressed in frame b."""
    moved: F64 = points @ a2b[:3, :3].T + a2b[:3, 3]
    return moved


def boxes_to_frame(
    global2frame: Float[F64, "4 4"],
    centers: Float[F64, "m 3"],
    sizes: Float[F64, "m 3"],
    rotations: Float[F64, "m 4"],
    velocities: Float[F64, "m 2"],
) -> Float[F64, "m 9"]:
    """Boxes of the map frame as rows x y z l w h yaw vx vy of another frame.

    Yaw is the heading of a box's forward axis, projected on the frame's x-y plane. Velocities are taken as
    horizontal in the map; NaN stays NaN.
    """
    rotation = global2frame[:3, :3]
    heading = (rotation @ quaternion_to_matrix(rotations))[:, :, 0] if len(rotations) else np.zeros((0, 3))
    boxes = np.empty((len(centers), 9))
    boxes[:, 0:3] = transform_points(global2frame, centers)
    boxes[:, 3:6] = sizes
    boxes[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    boxes[:, 7:9] = velocities @ rotation[:2, :2].T
    return boxes
