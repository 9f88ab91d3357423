"""What the parts of a picture share: colours, groups of boxes, and the scene that is drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from bev_data.infos.info import Info
from bev_data.pictures.canvas import Canvas

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rgb = tuple[int, int, int]

# Far apart in hue, and bright enough for both asphalt and the dark plot.
CLASS_COLORS: dict[str, Rgb] = {
    "car": (255, 165, 40),
    "truck": (255, 88, 72),
    "construction_vehicle": (205, 140, 95),
    "bus": (255, 105, 180),
    "trailer": (205, 110, 255),
    "barrier": (125, 135, 255),
    "motorcycle": (255, 235, 70),
    "bicycle": (160, 240, 60),
    "pedestrian": (60, 185, 255),
    "traffic_cone": (55, 235, 205),
}
_OTHER_CLASS = (235, 235, 235)

BACKGROUND = (13, 17, 23)
INK = (226, 232, 240)
FAINT_INK = (148, 160, 176)
WHITE = (255, 255, 255)
SHADE = (0, 0, 0, 150)


class BoxGroup(NamedTuple):
    """Boxes in keyego that are drawn in one way.

    Attributes:
        boxes: x y z l w h yaw vx vy.
        names: classes.
        scores: 0 to 1; None for true boxes.
        dashed: white dashes instead of solid lines in the colours of the classes.
    """

    boxes: Float[F64, "m 9"]
    names: list[str]
    scores: Float[F64, "m"] | None
    dashed: bool

    def color(self, i: int) -> Rgb:
        """Colour of one box."""
        return WHITE if self.dashed else class_color(self.names[i])


@dataclass(frozen=True)
class Drawing:
    """All that is drawn, checked and in one frame.

    Attributes:
        info: the key frame.
        root: data root.
        cameras: names of those that are drawn, in the order of `expected_depth`.
        keyego2global: pose of the frame of boxes and plot.
        groups: boxes, the first group at the bottom.
        points: lidar points in the lidar's frame; None where the rig has no lidar.
        expected_depth: metres [n,h,w]; None where nothing was predicted.
        bev_range: what the plot shows at least in every direction, metres.
        depth_range: depths at either end of the colour bar, metres.
        image_size: height and width of the input where images are drawn as the network sees them.
    """

    info: Info
    root: Path
    cameras: tuple[str, ...]
    keyego2global: Float[F64, "4 4"]
    groups: list[BoxGroup]
    points: Float[F32, "k 3"] | None
    expected_depth: Float[F32, "n h w"] | None
    bev_range: float
    depth_range: tuple[float, float]
    image_size: tuple[int, int] | None


def class_color(name: str) -> Rgb:
    """Colour of a class; light grey for names that nuScenes does not have."""
    return CLASS_COLORS.get(name, _OTHER_CLASS)


def write_camera_name(tile: Canvas, name: str) -> None:
    """Write which camera a tile belongs to into its corner."""
    text = name.removeprefix("CAM_").replace("_", " ").lower()
    tile.text((10, 16), text, 18, INK, plate=SHADE)
