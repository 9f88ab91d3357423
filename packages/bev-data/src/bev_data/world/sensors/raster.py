"""Which face a pixel sees, and at what depth: convex solids into a buffer of 1 / depth.

In a picture the 1 / depth of a plane is linear in the pixel. A ray enters a convex solid where it crosses
the last of the front planes, that is the one with the smallest 1 / depth among them, and this counts only
if it has not yet left by a back plane, all of which have a smaller one. So on a row of pixels each face
shows in one span, whose ends come from linear inequalities, and in it every pixel costs one addition and
one comparison. Depth is exact.
"""

import numpy as np
from numpy.typing import NDArray

from bev_data.jit import kernel

NEAREST = 0.2  # metres along the optical axis; nothing nearer is drawn
MOST_FACES = 32  # of one solid


@kernel
def out_of_view(
    x: float, y: float, z: float, radius: float, focal: float, cx: float, cy: float, columns: int, rows: int
) -> bool:
    """Whether a ball, in camera coordinates, lies outside the picture for certain."""
    if z + radius < NEAREST:
        return True
    left, right = cx + 0.5, columns - 0.5 - cx
    above, below = cy + 0.5, rows - 0.5 - cy
    return bool(
        -x * focal - z * left > radius * np.sqrt(focal * focal + left * left)
        or x * focal - z * right > radius * np.sqrt(focal * focal + right * right)
        or -y * focal - z * above > radius * np.sqrt(focal * focal + above * above)
        or y * focal - z * below > radius * np.sqrt(focal * focal + below * below)
    )


@kernel
def solid_in_camera(
    rotation: NDArray[np.float64],
    pose: NDArray[np.float64],
    origin: NDArray[np.float64],
    turn: NDArray[np.float64],
) -> tuple[float, float, float]:
    """Model -> camera rotation into `turn`, and the camera's place in the model's frame.

    `rotation` turns camera into world; `pose` is x, y, z, cos(yaw), sin(yaw) of the model.
    """
    cos, sin = pose[3], pose[4]
    for axis in range(3):
        turn[axis, 0] = rotation[0, axis] * cos + rotation[1, axis] * sin
        turn[axis, 1] = -rotation[0, axis] * sin + rotation[1, axis] * cos
        turn[axis, 2] = rotation[2, axis]
    ex, ey, ez = origin[0] - pose[0], origin[1] - pose[1], origin[2] - pose[2]
    return cos * ex + sin * ey, -sin * ex + cos * ey, ez


@kernel
def screen_bounds(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    turn: NDArray[np.float64],
    ex: float, ey: float, ez: float,
    focal: float, cx: float, cy: float,
    columns: int, rows: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """First and last column and row that bounds in a model's frame can cover; an empty range if none."""
    left, right, top, bottom = 1e9, -1e9, 1e9, -1e9
    behind = 0
    for corner in range(8):
        x = (high[0] if corner & 1 else low[0]) - ex
        y = (high[1] if corner & 2 else low[1]) - ey
        z = (high[2] if corner & 4 else low[2]) - ez
        depth = turn[2, 0] * x + turn[2, 1] * y + turn[2, 2] * z
        if depth < NEAREST:
            behind += 1
            continue
        u = focal * (turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] * z) / depth + cx
        v = focal * (turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] * z) / depth + cy
        left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    if behind == 8:
        return 0, -1, 0, -1
    if behind > 0:
        return 0, columns - 1, 0, rows - 1
    return (
        max(0, int(np.ceil(max(left, -1.0)))),
        min(columns - 1, int(np.floor(min(right, 1e6)))),
        max(0, int(np.ceil(max(top, -1.0)))),
        min(rows - 1, int(np.floor(min(bottom, 1e6)))),
    )


@kernel
def draw_face(
    one: int,
    face: int,
    count: int,
    lines: NDArray[np.float64],
    limits: NDArray[np.float64],
    bounds: tuple[int, int, int, int],
    nearness: NDArray[np.float32],
    face_seen: NDArray[np.int32],
    stamp: NDArray[np.int32],
    mark: int,
) -> int:
    """Draw one front face of a solid.

    `lines` [faces + 2, 4] holds 1 / depth of its planes: per column, per row, constant; and 1 for front ones.

    Returns how many pixels were not yet stamped with `mark`: with -1, stamps are left alone.
    """
    number = 0
    for other in range(count + 2):
        if other == one:
            continue
        a = lines[one, 0] - lines[other, 0]
        b = lines[one, 1] - lines[other, 1]
        c = lines[one, 2] - lines[other, 2]
        if lines[other, 3] < 0.5:
            a, b, c = -a, -b, -c
        # Now the face shows where a * column + b * row + c <= 0.
        if abs(a) < 1e-14:
            a = 1e-14 if a >= 0.0 else -1e-14
        limits[number, 0] = -b / a
        limits[number, 1] = -c / a
        limits[number, 2] = a
        number += 1
    counted = 0
    for row in range(bounds[2], bounds[3] + 1):
        low, high = bounds[0] - 0.5, bounds[1] + 0.5
        for k in range(number):
            edge = limits[k, 0] * row + limits[k, 1]
            if limits[k, 2] > 0.0:
                high = min(high, edge)
            else:
                low = max(low, edge)
        if low > high:
            continue
        # A hair's breadth more than exact, so that rounding leaves no gap between two faces.
        first = max(bounds[0], int(np.ceil(low - 1e-3)))
        last = min(bounds[1], int(np.floor(high + 1e-3)))
        value = lines[one, 0] * first + lines[one, 1] * row + lines[one, 2]
        for column in range(first, last + 1):
            near = np.float32(value)
            if near > nearness[row, column]:
                nearness[row, column] = near
                face_seen[row, column] = face
            value += lines[one, 0]
        if mark >= 0:
            for column in range(first, last + 1):
                if stamp[row, column] != mark:
                    stamp[row, column] = mark
                    counted += 1
    return counted


@kernel
def draw_solids(
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    focal: float,
    cx: float,
    cy: float,
    poses: NDArray[np.float64],
    balls: NDArray[np.float64],
    solid_model: NDArray[np.int32],
    solid_face: NDArray[np.int32],
    solid_low: NDArray[np.float64],
    solid_high: NDArray[np.float64],
    face_plane: NDArray[np.float64],
    nearness: NDArray[np.float32],
    face_seen: NDArray[np.int32],
    stamp: NDArray[np.int32],
    alone: NDArray[np.int64],
) -> None:
    """Draw all models where nothing nearer is: `nearness` = 1 / depth, `face_seen` = index of the face.

    Of the arguments:
        rotation: camera -> world; `origin` the camera's place.
        poses: [models, 5] x, y, z, cos(yaw), sin(yaw).
        balls: [models, 2] height of the middle and radius of a ball around each model.
        stamp: [rows, columns] scratch filled with -1, or empty: then `alone` is not counted.
        alone: [models] pixels that each model would cover if nothing else were there.
    """
    rows, columns = nearness.shape
    counting = stamp.shape[0] == rows
    turn = np.empty((3, 3))
    lines = np.empty((MOST_FACES + 2, 4))
    limits = np.empty((MOST_FACES + 2, 3))
    model, hidden = -1, False
    ex, ey, ez = 0.0, 0.0, 0.0
    for solid in range(solid_model.shape[0]):
        if solid_model[solid] != model:
            model = solid_model[solid]
            ex, ey, ez = solid_in_camera(rotation, poses[model], origin, turn)
            x, y, z = -ex, -ey, balls[model, 0] - ez
            hidden = out_of_view(
                turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] * z,
                turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] * z,
                turn[2, 0] * x + turn[2, 1] * y + turn[2, 2] * z,
                balls[model, 1], focal, cx, cy, columns, rows,
            )  # fmt: skip
        if hidden:
            continue
        bounds = screen_bounds(
            solid_low[solid], solid_high[solid], turn, ex, ey, ez, focal, cx, cy, columns, rows
        )
        if bounds[0] > bounds[1] or bounds[2] > bounds[3]:
            continue
        start = solid_face[solid]
        count = solid_face[solid + 1] - start
        for k in range(count):
            plane = face_plane[start + k]
            gap = plane[3] - plane[0] * ex - plane[1] * ey - plane[2] * ez
            lines[k, 3] = 1.0 if gap < 0.0 else 0.0
            if abs(gap) < 1e-9:
                gap = 1e-9
            nx = turn[0, 0] * plane[0] + turn[0, 1] * plane[1] + turn[0, 2] * plane[2]
            ny = turn[1, 0] * plane[0] + turn[1, 1] * plane[1] + turn[1, 2] * plane[2]
            nz = turn[2, 0] * plane[0] + turn[2, 1] * plane[1] + turn[2, 2] * plane[2]
            lines[k, 0] = nx / (focal * gap)
            lines[k, 1] = ny / (focal * gap)
            lines[k, 2] = (nz - (nx * cx + ny * cy) / focal) / gap
        # Two more planes: the nearest depth that is drawn, and infinity.
        lines[count] = np.array([0.0, 0.0, 1.0 / NEAREST, 1.0])
        lines[count + 1] = np.array([0.0, 0.0, 1e-4, 0.0])
        for k in range(count):
            if lines[k, 3] > 0.5:
                mark = model if counting else -1
                alone[model] += draw_face(
                    k, start + k, count, lines, limits, bounds, nearness, face_seen, stamp, mark
                )


@kernel
def hit_solid(
    face_plane: NDArray[np.float64],
    start: int,
    stop: int,
    ex: float, ey: float, ez: float,
    dx: float, dy: float, dz: float,
) -> tuple[float, int]:  # fmt: skip
    """Where a ray enters the solid with faces start to stop: distance and face; 0.0 and -1 if nowhere.

    The ray is given in the model's frame.
    """
    enter, leave, seen = 0.0, 1e9, -1
    for face in range(start, stop):
        gap = (
            face_plane[face, 3]
            - face_plane[face, 0] * ex
            - face_plane[face, 1] * ey
            - face_plane[face, 2] * ez
        )
        speed = face_plane[face, 0] * dx + face_plane[face, 1] * dy + face_plane[face, 2] * dz
        if abs(speed) < 1e-12:
            if gap < 0.0:
                return 0.0, -1
            continue
        t = gap / speed
        if speed < 0.0:
            if t > enter:
                enter, seen = t, face
        elif t < leave:
            leave = t
        if enter > leave:
            return 0.0, -1
    return enter, seen


@kernel
def count_owners(face_seen: NDArray[np.int32], owner: NDArray[np.int32], seen: NDArray[np.int64]) -> None:
    """Add to `seen` [owners] the pixels whose face is theirs; `owner` [faces + 1] is -1 for faces of none."""
    for row in range(face_seen.shape[0]):
        for column in range(face_seen.shape[1]):
            one = owner[face_seen[row, column]]
            if one >= 0:
                seen[one] += 1
