"""3D boxes as lines and areas of an image, cut where they leave it or pass behind the camera.

Cutting happens before the division by depth, in (u·z, v·z, z): there the borders of an image are planes
through the optical centre, and what lies behind the camera needs no special case.

Shape shorthand: m boxes, k points.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from bev_data.geometry import transform_points

F64 = NDArray[np.float64]
Point = tuple[float, float]
Segment = tuple[Point, Point]

# Nothing nearer than this is drawn, metres.
NEAR = 0.1

# Corners in half sizes: the front face (upper left, upper right, lower right, lower left), then the rear.
_CORNERS = np.array([[x, y, z] for x in (1, -1) for y, z in ((1, 1), (-1, 1), (-1, -1), (1, -1))])
_EDGES = [
    pair for i in range(4) for pair in ((i, (i + 1) % 4), (i + 4, (i + 1) % 4 + 4), (i, i + 4))
]  # front, rear, along


class ProjectedBox(NamedTuple):
    """What an image shows of a box, in pixels.

    Attributes:
        edges: the visible parts of the twelve edges.
        front: outline of the front face; empty where the image shows none of it.
        heading: from the centre of the bottom to its front edge; None where it is not seen.
        depth: of the centre along the optical axis, metres.
    """

    edges: list[Segment]
    front: list[Point]
    heading: Segment | None
    depth: float


def box_corners(boxes: Float[F64, "m 9"]) -> Float[F64, "m 8 3"]:
    """Corners of boxes: the front face (upper left and right, lower right and left), then the rear face."""
    half = _CORNERS * boxes[:, None, 3:6] / 2
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    turned = [cos * half[..., 0] - sin * half[..., 1], sin * half[..., 0] + cos * half[..., 1], half[..., 2]]
    corners: F64 = np.stack(turned, axis=-1) + boxes[:, None, :3]
    return corners


def project_boxes(
    boxes: Float[F64, "m 9"],
    frame2camera: Float[F64, "4 4"],
    intrinsics: Float[F64, "3 3"],
    size: tuple[float, float],
) -> list[ProjectedBox | None]:
    """Boxes as an image shows them; None for a box of which it shows nothing.

    Args:
        boxes: x y z l w h yaw vx vy, z at the centre.
        frame2camera: frame of the boxes -> camera.
        intrinsics: of the image.
        size: width and height of the image in pixels.
    """
    return [_project(corners, frame2camera, intrinsics, size) for corners in box_corners(boxes)]


def _project(
    corners: Float[F64, "8 3"],
    frame2camera: Float[F64, "4 4"],
    intrinsics: Float[F64, "3 3"],
    size: tuple[float, float],
) -> ProjectedBox | None:
    bottom = corners[[2, 3, 6, 7]]
    points = np.concatenate([corners, bottom.mean(axis=0)[None], bottom[:2].mean(axis=0)[None]])
    in_camera = transform_points(frame2camera, points)
    rays = in_camera @ intrinsics.T
    planes = _view_planes(*size)
    edges = [_cut_segment(rays[i], rays[j], planes) for i, j in _EDGES]
    seen = [edge for edge in edges if edge is not None]
    front = _cut_polygon(rays[:4], planes)
    if not seen and not front:
        return None
    return ProjectedBox(seen, front, _cut_segment(rays[8], rays[9], planes), float(in_camera[:8, 2].mean()))


def _view_planes(width: float, height: float) -> Float[F64, "5 4"]:
    """Half-spaces (a, b, c, d) with a·uz + b·vz + c·z + d >= 0 of what an image sees."""
    return np.array(
        [[0, 0, 1, -NEAR], [1, 0, 0.5, 0], [-1, 0, width - 0.5, 0], [0, 1, 0.5, 0], [0, -1, height - 0.5, 0]],
        dtype=np.float64,
    )


def _distances(points: Float[F64, "k 3"], plane: Float[F64, "4"]) -> Float[F64, "k"]:
    distances: F64 = points @ plane[:3] + plane[3]
    return distances


def _cut_segment(start: Float[F64, "3"], end: Float[F64, "3"], planes: Float[F64, "5 4"]) -> Segment | None:
    first, last = 0.0, 1.0
    for plane in planes:
        a, b = _distances(np.stack([start, end]), plane)
        if a < 0 and b < 0:
            return None
        if a < 0:
            first = max(first, a / (a - b))
        elif b < 0:
            last = min(last, a / (a - b))
    if first >= last:
        return None
    step = end - start
    return _pixel(start + first * step), _pixel(start + last * step)


def _cut_polygon(polygon: Float[F64, "k 3"], planes: Float[F64, "5 4"]) -> list[Point]:
    """Source: Sutherland and Hodgman, "Reentrant polygon clipping" (1974)."""
    corners = list(polygon)
    for plane in planes:
        if not corners:
            return []
        distances = _distances(np.stack(corners), plane)
        kept = []
        for i, (corner, distance) in enumerate(zip(corners, distances, strict=True)):
            previous = distances[i - 1]
            if (previous < 0) != (distance < 0):
                kept.append(corners[i - 1] + (corner - corners[i - 1]) * previous / (previous - distance))
            if distance >= 0:
                kept.append(corner)
        corners = kept
    return [_pixel(corner) for corner in corners]


def _pixel(ray: Float[F64, "3"]) -> Point:
    return float(ray[0] / ray[2]), float(ray[1] / ray[2])
