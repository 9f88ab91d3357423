"""Depth as colour: what the network predicts, or what the lidar measured over a dimmed image.

Shape shorthand: h w cells of a depth map.
"""

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from bev_data.pictures.camera import read_photo
from bev_data.pictures.canvas import Canvas
from bev_data.pictures.style import FAINT_INK, INK, Drawing, write_camera_name
from bev_data.samples.lidar_depth import project_lidar

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# From near to far, at equal steps of the logarithm: a metre means more nearby.
_COLORS = np.array(
    [
        (255, 247, 190),
        (255, 190, 80),
        (242, 110, 75),
        (205, 60, 120),
        (145, 50, 165),
        (90, 50, 175),
        (50, 55, 150),
    ]
)
_TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200)


def draw_depth(drawing: Drawing, name: str, width: float, height: float) -> Canvas:
    """Draw the depth of a camera, as large as fits into `width` x `height`."""
    if drawing.expected_depth is not None:
        depth = drawing.expected_depth[drawing.cameras.index(name)]
        tile = _fitting(depth.shape[1] / depth.shape[0], width, height)
        tile.paste(Image.fromarray(_colors(depth, drawing.depth_range)), 0, 0, tile.width, tile.height)
    else:
        photo = read_photo(drawing, name)
        tile = _fitting(photo.image.width / photo.image.height, width, height)
        dimmed = photo.image.convert("L").point(lambda value: value * 0.4)
        tile.paste(dimmed, 0, 0, tile.width, tile.height)
        if drawing.points is not None and drawing.info.lidar is not None:
            seen = project_lidar(drawing.points, drawing.info.lidar, drawing.info.cameras[name])
            seen = seen[np.argsort(-seen[:, 2])]
            to_canvas = photo.to_canvas(tile)[:2]
            places = seen[:, :2] @ to_canvas[:, :2].T + to_canvas[:, 2]
            tile.dots(places, _colors(seen[:, 2], drawing.depth_range), 2)
    write_camera_name(tile, name)
    return tile


def draw_color_bar(page: Canvas, depth_range: tuple[float, float], right: float, middle: float) -> None:
    """Draw the colours of depth with metres below them, up to the right border."""
    low, high = depth_range
    width, height = 360, 14
    left, top = right - width, middle - height
    depths = np.geomspace(low, high, width, dtype=np.float32)[None]
    page.paste(Image.fromarray(_colors(depths, depth_range)), left, top, width, height)
    for tick in _TICKS:
        if low <= tick <= high:
            x = left + width * float(np.log(tick / low) / np.log(high / low))
            page.line([(x, top + height), (x, top + height + 4)], FAINT_INK, 1)
            page.text((x, top + height + 6), str(tick), 14, FAINT_INK, "mt")
    page.text((left - 14, top + height / 2), "depth, m", 18, INK, "rm")


def _fitting(aspect: float, width: float, height: float) -> Canvas:
    used = min(width, height * aspect)
    return Canvas(used, used / aspect)


def _colors(depth: Float[F32, "..."], depth_range: tuple[float, float]) -> UInt8[NDArray[np.uint8], "... 3"]:
    low, high = depth_range
    share = np.log(np.clip(depth, low, high) / low) / np.log(high / low)
    stops = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(share, stops, _COLORS[:, i]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)
