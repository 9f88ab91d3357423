"""A sample as one picture: its cameras around a BEV plot, with boxes, velocities, lidar points and depth.

The cameras that look ahead stand above the plot and the others below it; the depth of each camera stands
beside the plot. Drawing needs no display.

Shape shorthand: m boxes, n cameras, h w cells of a depth map.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from bev_data.errors import InputError
from bev_data.geometry import boxes_to_frame, invert
from bev_data.infos.info import CameraFrame, Info
from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.pictures.camera import draw_camera
from bev_data.pictures.canvas import Canvas, text_width
from bev_data.pictures.depth import draw_color_bar, draw_depth
from bev_data.pictures.plot import draw_plot
from bev_data.pictures.style import BACKGROUND, FAINT_INK, INK, BoxGroup, Drawing, class_color
from bev_data.samples.dataset import select_boxes
from bev_data.samples.lidar_depth import read_lidar

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_WIDTH = 1920
_PLOT_HEIGHT = 720
# The widest that depth may stand on either side of the plot.
_DEPTH_WIDTH = 560
_GAP = 6
_MARGIN = 16
_TITLE_HEIGHT = 58
_FOOTER_HEIGHT = 58


def draw_sample(
    info: Info,
    root: Path,
    *,
    cameras: Sequence[str] | None = None,
    detections: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    keyego2global: Float[F64, "4 4"] | None = None,
    expected_depth: Float[F32, "n h w"] | None = None,
    score_threshold: float = 0.3,
    bev_range: float = 51.2,
    depth_range: tuple[float, float] = (2.0, 60.0),
    classes: Sequence[str] = CLASSES,
    image_size: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw a key frame.

    Predicted boxes are solid, in the colour of their class and with their score; true boxes are then white
    dashes, else they are solid. The front face of a solid box is filled, and a line leads from the middle of
    its bottom to the front. Arrows in the plot end where a box will be in one second. True boxes are those of
    `classes` with at least one lidar or radar point.

    Args:
        info: the key frame.
        root: data root.
        cameras: names of the cameras to draw; all of the key frame's by default.
        detections: boxes [m,9], scores [m] and labels [m], which index `classes`.
        keyego2global: pose of the frame that the detections are in; that of the key frame by default.
        expected_depth: of the cameras in their order, metres; where it is None, what the lidar measured is
            shown instead.
        score_threshold: predictions with a lower score are not drawn.
        bev_range: the plot shows at least this far in every direction, metres.
        depth_range: depths at either end of the colours, metres.
        classes: names of the detection classes.
        image_size: height and width of the input, to draw what the network sees; None for whole images.

    Raises:
        FileNotFoundError: if an image or the lidar file is missing.
        ValueError: if shapes do not fit each other, a range is empty, or a camera is unknown.
    """
    names = tuple(info.cameras if cameras is None else cameras)
    if not names or not set(info.cameras).issuperset(names):
        raise InputError(f"cameras must be some of {', '.join(info.cameras)}, got {list(names)}")
    if not bev_range > 0:
        raise InputError(f"bev_range must be above 0 m, got {bev_range}")
    if not 0 < depth_range[0] < depth_range[1]:
        raise InputError(f"depth_range must be (low, high) with 0 < low < high in metres, got {depth_range}")
    if expected_depth is not None and (expected_depth.ndim != 3 or len(expected_depth) != len(names)):
        raise InputError(
            f"expected_depth must have the shape [n,h,w] for n = {len(names)} cameras, "
            f"got {list(expected_depth.shape)}"
        )
    pose = info.keyego2global if keyego2global is None else keyego2global
    groups = [_true_boxes(info, pose, classes, dashed=detections is not None)]
    if detections is not None:
        groups.append(_predicted_boxes(detections, score_threshold, classes))
    points = None if info.lidar is None else read_lidar(root, info.lidar)
    drawing = Drawing(
        info, root, names, pose, groups, points, expected_depth, bev_range, depth_range, image_size
    )
    return _draw_page(drawing, [name for name in classes if any(name in group.names for group in groups)])


def _camera_rows(drawing: Drawing) -> list[list[str]]:
    """The cameras that look ahead and those that look back, from left to right as a driver sees them."""
    yaws = {name: _yaw(drawing.info.cameras[name]) for name in drawing.cameras}
    ahead = sorted((name for name in yaws if abs(yaws[name]) <= np.pi / 2), key=lambda name: -yaws[name])
    back = sorted((name for name in yaws if name not in ahead), key=lambda name: yaws[name] % (2 * np.pi))
    return [row for row in (ahead, back) if row]


def _yaw(camera: CameraFrame) -> float:
    """Direction of the optical axis, counter-clockwise from straight ahead, radians."""
    forward = camera.sensor2ego[:2, 2]
    return float(np.arctan2(forward[1], forward[0]))


def _true_boxes(
    info: Info, keyego2global: Float[F64, "4 4"], classes: Sequence[str], *, dashed: bool
) -> BoxGroup:
    annotations = info.annotations
    chosen, labels = select_boxes(annotations, classes, min_points=1)
    boxes = boxes_to_frame(
        invert(keyego2global),
        annotations.centers[chosen],
        annotations.sizes[chosen],
        annotations.rotations[chosen],
        annotations.velocities[chosen],
    )
    return BoxGroup(boxes, [classes[label] for label in labels], None, dashed)


def _predicted_boxes(
    detections: tuple[ArrayLike, ArrayLike, ArrayLike], score_threshold: float, classes: Sequence[str]
) -> BoxGroup:
    boxes, scores = (np.asarray(part, dtype=np.float64) for part in detections[:2])
    labels = np.asarray(detections[2], dtype=np.int64)
    if not boxes.size:
        boxes = boxes.reshape(0, 9)
    if boxes.shape != (len(boxes), 9) or scores.shape != (len(boxes),) or labels.shape != (len(boxes),):
        raise InputError(
            "detections must be boxes [m,9], scores [m] and labels [m], "
            f"got shapes {list(boxes.shape)}, {list(scores.shape)} and {list(labels.shape)}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise InputError(f"labels must be in [0, {len(classes)}), got {labels.min()} to {labels.max()}")
    kept = np.flatnonzero(scores >= score_threshold)
    return BoxGroup(boxes[kept], [classes[label] for label in labels[kept]], scores[kept], dashed=False)


def _draw_page(drawing: Drawing, present: list[str]) -> Image.Image:
    rows = _camera_rows(drawing)
    columns = max(3, *(len(row) for row in rows))
    tile_width = (_WIDTH - (columns - 1) * _GAP) / columns
    tiles = [[draw_camera(drawing, name, tile_width) for name in row] for row in rows]
    heights = [max(tile.height for tile in row) for row in tiles]
    height = _TITLE_HEIGHT + sum(heights) + _PLOT_HEIGHT + len(rows) * _GAP + _FOOTER_HEIGHT
    page = Canvas(_WIDTH, height, BACKGROUND)
    _draw_title(page, drawing)
    top = _TITLE_HEIGHT
    for i, row in enumerate(tiles):
        left = (_WIDTH - len(row) * tile_width - (len(row) - 1) * _GAP) / 2
        for tile in row:
            page.paste(tile, left, top, tile.width, tile.height)
            left += tile_width + _GAP
        top += heights[i] + _GAP
        if i == 0:
            _draw_middle(page, drawing, rows, top)
            top += _PLOT_HEIGHT + _GAP
    _draw_footer(page, drawing, present)
    return page.finished()


def _draw_middle(page: Canvas, drawing: Drawing, rows: list[list[str]], top: float) -> None:
    """The plot, with the depth of the front cameras on its left and that of the rear cameras on its right."""
    left, right = 0.0, float(_WIDTH)
    if _shows_depth(drawing):
        for side, row in enumerate(rows):
            tiles = _depth_tiles(drawing, row)
            width = max(tile.width for tile in tiles)
            x = left if side == 0 else right - width
            y = top + (_PLOT_HEIGHT - sum(tile.height for tile in tiles) - (len(tiles) - 1) * _GAP) / 2
            for tile in tiles:
                page.paste(tile, x, y, tile.width, tile.height)
                y += tile.height + _GAP
            left, right = (width + _GAP, right) if side == 0 else (left, x - _GAP)
    plot = draw_plot(drawing, right - left, _PLOT_HEIGHT)
    page.paste(plot, left, top, plot.width, plot.height)


def _shows_depth(drawing: Drawing) -> bool:
    return drawing.expected_depth is not None or drawing.points is not None


def _depth_tiles(drawing: Drawing, row: list[str]) -> list[Canvas]:
    height = (_PLOT_HEIGHT - (len(row) - 1) * _GAP) / max(3, len(row))
    return [draw_depth(drawing, name, _DEPTH_WIDTH, height) for name in row]


def _draw_title(page: Canvas, drawing: Drawing) -> None:
    middle = _TITLE_HEIGHT / 2
    page.text((_MARGIN, middle), drawing.info.scene, 28, INK)
    page.text((_MARGIN + text_width(drawing.info.scene, 28) + 18, middle), drawing.info.token, 18, FAINT_INK)
    right = float(_WIDTH - _MARGIN)
    for group in drawing.groups:
        text = f"{len(group.boxes)} true" if group.scores is None else f"{len(group.boxes)} predicted"
        page.text((right, middle), text, 20, INK, "rm")
        right -= text_width(text, 20) + 12
        page.line(
            [(right - 48, middle), (right, middle)], INK, 1.2 if group.dashed else 3, 5 if group.dashed else 0
        )
        right -= 48 + 28


def _draw_footer(page: Canvas, drawing: Drawing, present: list[str]) -> None:
    middle = page.height - _FOOTER_HEIGHT / 2
    left = float(_MARGIN)
    for name in present:
        page.rectangle(left, middle - 8, left + 16, middle + 8, class_color(name), radius=3)
        text = name.replace("_", " ")
        page.text((left + 24, middle), text, 18, INK)
        left += 24 + text_width(text, 18) + 26
    if _shows_depth(drawing):
        draw_color_bar(page, drawing.depth_range, _WIDTH - _MARGIN - 8, middle + 2)
