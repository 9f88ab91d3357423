"""The image of one camera with boxes on it.

Shape shorthand: m boxes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from bev_data.geometry import invert
from bev_data.pictures.box_projection import Point, ProjectedBox, Segment, project_boxes
from bev_data.pictures.canvas import Canvas
from bev_data.pictures.style import SHADE, BoxGroup, Drawing, Rgb, write_camera_name
from bev_data.samples.augment import Placing, evaluation_transform
from bev_data.samples.images import read_image

F64 = NDArray[np.float64]


def draw_camera(drawing: Drawing, name: str, width: float) -> Canvas:
    """Draw the image of a camera, `width` pixels wide."""
    camera = drawing.info.cameras[name]
    photo = read_photo(drawing, name)
    tile = Canvas(width, width * photo.image.height / photo.image.width)
    tile.paste(photo.image, 0, 0, tile.width, tile.height)
    key2camera = invert(camera.sensor2global) @ drawing.keyego2global
    for group in drawing.groups:
        _draw_group(tile, group, key2camera, photo.to_canvas(tile) @ camera.intrinsics)
    write_camera_name(tile, name)
    return tile


class Photo(NamedTuple):
    """An image of a camera, as it is on disk or as the network sees it.

    Attributes:
        image: RGB.
        matrix: pixel of the image on disk (u, v, 1) -> pixel of this one.
    """

    image: Image.Image
    matrix: Float[F64, "3 3"]

    def to_canvas(self, tile: Canvas) -> Float[F64, "3 3"]:
        """Pixel of the image on disk -> place on a canvas that this image fills.

        In an image the centre of the first pixel is (0, 0), on a canvas it is half a pixel from the corner.
        """
        x, y = tile.width / self.image.width, tile.height / self.image.height
        scaled: F64 = np.array([[x, 0, x / 2], [0, y, y / 2], [0, 0, 1]]) @ self.matrix
        return scaled


def read_photo(drawing: Drawing, name: str) -> Photo:
    """The image of a camera."""
    camera = drawing.info.cameras[name]
    image = read_image(drawing.root, camera)
    if drawing.image_size is None:
        return Photo(image, np.eye(3))
    height, width = drawing.image_size
    transform = evaluation_transform(image.size, (width, height), Placing(camera.horizon))
    return Photo(transform.apply(image), transform.matrix())


def _draw_group(
    tile: Canvas, group: BoxGroup, key2camera: Float[F64, "4 4"], intrinsics: Float[F64, "3 3"]
) -> None:
    projected = project_boxes(group.boxes, key2camera, intrinsics, (tile.width, tile.height))
    visible = [(i, box) for i, box in enumerate(projected) if box is not None]
    visible.sort(key=lambda item: -item[1].depth)
    for i, box in visible:
        if group.dashed:
            _draw_dashed(tile, box, group.color(i))
        else:
            _draw_solid(tile, box, group.color(i))
    if group.scores is not None:
        _write_scores(tile, group, group.scores, visible[::-1])


def _lines(box: ProjectedBox) -> list[Segment]:
    return box.edges if box.heading is None else [*box.edges, box.heading]


def _height(box: ProjectedBox) -> float:
    rows = [y for line in box.edges for _, y in line]
    return max(rows, default=0.0) - min(rows, default=0.0)


def _draw_solid(tile: Canvas, box: ProjectedBox, color: Rgb) -> None:
    tile.polygon(box.front, (*color, 95))
    # Thick lines would hide what is small.
    width = 2 if _height(box) > 40 else 1.2
    for line in _lines(box):
        tile.line(line, color, width)


def _draw_dashed(tile: Canvas, box: ProjectedBox, color: Rgb) -> None:
    for line in _lines(box):
        # A dark line below the dashes keeps them apart from bright ground.
        tile.line(line, (0, 0, 0, 110), 2.5)
        tile.line(line, color, 1, dash=5)


def _write_scores(
    tile: Canvas, group: BoxGroup, scores: Float[F64, "m"], boxes: list[tuple[int, ProjectedBox]]
) -> None:
    """Write scores above boxes, nearest first, where they cover neither each other nor what is small."""
    taken: list[Point] = []
    for i, box in boxes:
        if _height(box) < 20:
            continue
        x, y = min((point for line in box.edges for point in line), key=lambda point: point[1])
        x, y = min(max(x, 20), tile.width - 20), max(y - 5, 20)
        if all(abs(x - other[0]) > 38 or abs(y - other[1]) > 19 for other in taken):
            tile.text((x, y), f"{scores[i]:.2f}", 14, group.color(i), "mb", SHADE)
            taken.append((x, y))
