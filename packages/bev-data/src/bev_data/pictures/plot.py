"""The scene from above: boxes, velocities, lidar points and the ego vehicle; x points up, y to the left.

Shape shorthand: k points, m boxes.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from bev_data.geometry import invert, transform_points
from bev_data.pictures.box_projection import box_corners
from bev_data.pictures.canvas import Canvas, Point
from bev_data.pictures.style import FAINT_INK, BoxGroup, Drawing

F64 = NDArray[np.float64]
ToPlot = Callable[[Float[F64, "k 2"]], list[Point]]

_BACKGROUND = (20, 26, 34)
_RING = (56, 67, 82)
_GROUND_POINT = np.array([58, 78, 96])
_HIGH_POINT = np.array([150, 205, 215])
# From the ground to this height lidar points turn from dark to bright, metres.
_POINT_HEIGHT = 2.5

# nuScenes' vehicle, a Renault Zoe, in the ego frame, which lies on its rear axle; metres.
_EGO_REAR, _EGO_FRONT, _EGO_HALF_WIDTH = -0.95, 3.13, 0.87

# Slower than this no arrow is drawn, m/s: it would lie below the outline.
_STANDING = 0.3


def draw_plot(drawing: Drawing, width: float, height: float) -> Canvas:
    """Draw the scene from above; the shorter side shows `bev_range` either way."""
    plot = Canvas(width, height, _BACKGROUND)
    pixels_per_metre = min(width, height) / 2 / drawing.bev_range

    def to_plot(points: Float[F64, "k 2"]) -> list[Point]:
        return [
            (width / 2 - y * pixels_per_metre, height / 2 - x * pixels_per_metre) for x, y in points.tolist()
        ]

    _draw_lidar(plot, drawing, to_plot)
    _draw_rings(plot, drawing.bev_range, to_plot)
    _draw_ego(plot, to_plot)
    for group in drawing.groups:
        _draw_group(plot, group, to_plot)
    return plot


def _draw_lidar(plot: Canvas, drawing: Drawing, to_plot: ToPlot) -> None:
    lidar = drawing.info.lidar
    if drawing.points is None or lidar is None:
        return
    lidar2key = invert(drawing.keyego2global) @ lidar.ego2global @ lidar.sensor2ego
    points = transform_points(lidar2key, drawing.points.astype(np.float64))
    points = points[np.argsort(points[:, 2])]
    share = np.clip(points[:, 2:] / _POINT_HEIGHT, 0, 1)
    colors = (_GROUND_POINT + share * (_HIGH_POINT - _GROUND_POINT)).astype(np.uint8)
    plot.dots(np.array(to_plot(points[:, :2])), colors, 1)


def _draw_rings(plot: Canvas, bev_range: float, to_plot: ToPlot) -> None:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if bev_range / step < 6 or step == 100)
    (center,) = to_plot(np.zeros((1, 2)))
    farthest = float(np.hypot(plot.width, plot.height)) / min(plot.width, plot.height) * bev_range
    for radius in range(step, int(farthest) + 1, step):
        # Ahead and behind, on the road, is where boxes would cover a label.
        ((x, y),) = to_plot(radius * np.array([[-1.0, -1.0]]) / np.sqrt(2))
        plot.circle(center, float(np.hypot(x - center[0], y - center[1])), _RING, 1)
        if radius <= bev_range:
            plot.text((x, y), f"{radius} m", 15, FAINT_INK, "mm", plate=_BACKGROUND)


def _draw_ego(plot: Canvas, to_plot: ToPlot) -> None:
    side, middle = _EGO_HALF_WIDTH, (_EGO_REAR + _EGO_FRONT) / 2
    outline = [(_EGO_FRONT, side), (_EGO_FRONT, -side), (_EGO_REAR, -side), (_EGO_REAR, side)]
    plot.polygon(to_plot(np.array(outline)), (226, 232, 240))
    arrow = [(_EGO_FRONT - 0.3, 0), (middle, -side * 0.7), (middle, side * 0.7)]
    plot.polygon(to_plot(np.array(arrow)), _BACKGROUND)


def _draw_group(plot: Canvas, group: BoxGroup, to_plot: ToPlot) -> None:
    # Left and right corner of the front, then those of the rear the other way round.
    for i, corners in enumerate(box_corners(group.boxes)[:, [0, 1, 5, 4], :2]):
        outline = to_plot(corners)
        color = group.color(i)
        if group.dashed:
            plot.line([*outline, outline[0]], color, 1.2, dash=5)
            _draw_velocity(plot, group.boxes[i], (*color, 170), to_plot)
            continue
        quarter = corners[[0, 1]] + (corners[[3, 2]] - corners[[0, 1]]) / 4
        plot.polygon(outline, (*color, 60))
        plot.polygon(to_plot(np.concatenate([corners[:2], quarter[::-1]])), (*color, 210))
        plot.line([*outline, outline[0]], color, 1.6)
        _draw_velocity(plot, group.boxes[i], (*color, 255), to_plot)


def _draw_velocity(
    plot: Canvas, box: Float[F64, "9"], color: tuple[int, int, int, int], to_plot: ToPlot
) -> None:
    """An arrow from the centre of a box to where it will be in one second."""
    velocity = box[7:9]
    speed = float(np.hypot(*velocity))
    if not speed > _STANDING:  # NaN, an unknown velocity, too
        return
    tip = box[:2] + velocity
    along, across = velocity / speed, np.array([-velocity[1], velocity[0]]) / speed
    barb = min(0.4 * speed, 0.9)
    head = np.stack([tip, tip - barb * (along - 0.5 * across), tip - barb * (along + 0.5 * across)])
    plot.line(to_plot(np.stack([box[:2], tip])), color, 1.5)
    plot.polygon(to_plot(head), color)
