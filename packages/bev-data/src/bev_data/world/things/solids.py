"""Convex solids, the stuff of everything that stands on the ground.

A solid is a handful of planes n . p <= c with a paint on each, in the frame of its model (x forward, y
left, z up, origin on the ground below the centre). A convex solid needs no edges to be drawn: a ray enters
it where it crosses the last of its front planes.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.world.things.textures import PATTERNS

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Paint:
    """How a face looks.

    Attributes:
        color: red, green, blue; 0 to 1.
        pattern: a name of `textures.PATTERNS`.
        contrast: how strongly the noise of all scales shows; 0 to 1.
        glow: 0 for a surface that is lit by the sun alone, 1 for a lamp.
    """

    color: Color
    pattern: str = "plain"
    contrast: float = 0.35
    glow: float = 0.0


class Geometry(NamedTuple):
    """Solids of many models in arrays, ready for the kernels.

    Attributes:
        solid_model: [solids] which model a solid belongs to; sorted.
        solid_face: [solids + 1] first face of each solid.
        solid_low, solid_high: [solids, 3] bounds in the model's frame.
        face_solid: [faces].
        face_plane: [faces, 4] outward normal and offset: n . p = c.
        face_u, face_v: [faces, 4] texture axes and their offset, metres.
        face_color: [faces, 3].
        face_look: [faces, 3] contrast, glow, pattern.
    """

    solid_model: NDArray[np.int32]
    solid_face: NDArray[np.int32]
    solid_low: NDArray[np.float64]
    solid_high: NDArray[np.float64]
    face_solid: NDArray[np.int32]
    face_plane: NDArray[np.float64]
    face_u: NDArray[np.float64]
    face_v: NDArray[np.float64]
    face_color: NDArray[np.float64]
    face_look: NDArray[np.float64]


class Solid(NamedTuple):
    """Planes [faces, 4] with their paints, and the bounds they span."""

    planes: NDArray[np.float64]
    paints: tuple[Paint, ...]
    low: tuple[float, float, float]
    high: tuple[float, float, float]


@dataclass
class Model:
    """Solids that move together."""

    solids: list[Solid] = field(default_factory=list)

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        paint: Paint,
        *,
        front: Paint | None = None,
        rear: Paint | None = None,
        top: Paint | None = None,
    ) -> None:
        """Add an upright box; `front` is the face toward +x."""
        self.taper(x, y, x, y, z, paint, front=front, rear=rear, top=top)

    def taper(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        top_x: tuple[float, float],
        top_y: tuple[float, float],
        z: tuple[float, float],
        paint: Paint,
        *,
        front: Paint | None = None,
        rear: Paint | None = None,
        top: Paint | None = None,
    ) -> None:
        """Add a block whose top rectangle differs from its bottom one: a cabin, a bonnet."""
        rise = z[1] - z[0]
        planes = []
        for axis, low, high in ((0, x, top_x), (1, y, top_y)):
            for side, sign in ((1, 1.0), (0, -1.0)):
                normal = np.zeros(3)
                normal[axis] = sign * rise
                normal[2] = -sign * (high[side] - low[side])
                normal /= np.linalg.norm(normal)
                planes.append([*normal, normal[axis] * low[side] + normal[2] * z[0]])
        planes += [[0.0, 0.0, 1.0, z[1]], [0.0, 0.0, -1.0, -z[0]]]
        self.solids.append(
            Solid(
                np.array(planes),
                (front or paint, rear or paint, paint, paint, top or paint, paint),
                (min(x[0], top_x[0]), min(y[0], top_y[0]), z[0]),
                (max(x[1], top_x[1]), max(y[1], top_y[1]), z[1]),
            )
        )

    def cone(
        self,
        center: tuple[float, float],
        radius: tuple[float, float],
        z: tuple[float, float],
        paint: Paint,
        *,
        sides: int = 8,
        top: Paint | None = None,
    ) -> None:
        """Add a regular frustum about a vertical axis; `radius` at bottom and top is that of the faces."""
        angles = (np.arange(sides)) * 2 * np.pi / sides
        tilt = np.arctan2(radius[0] - radius[1], z[1] - z[0])
        normals = np.stack(
            [np.cos(angles) * np.cos(tilt), np.sin(angles) * np.cos(tilt), np.full(sides, np.sin(tilt))], 1
        )
        offsets = (
            normals[:, 0] * center[0]
            + normals[:, 1] * center[1]
            + np.cos(tilt) * radius[0]
            + np.sin(tilt) * z[0]
        )
        caps = np.array([[0.0, 0.0, 1.0, z[1]], [0.0, 0.0, -1.0, -z[0]]])
        reach = max(radius)
        # Corners lie outside the circle that the faces touch, except along the axes of an even number of
        # sides.
        corner = reach if sides % 4 == 0 else reach / np.cos(np.pi / sides)
        self.solids.append(
            Solid(
                np.concatenate([np.column_stack([normals, offsets]), caps]),
                (paint,) * sides + (top or paint, paint),
                (center[0] - corner, center[1] - corner, z[0]),
                (center[0] + corner, center[1] + corner, z[1]),
            )
        )

    def wheel(
        self, center: tuple[float, float], radius: float, y: tuple[float, float], paint: Paint, hub: Paint
    ) -> None:
        """Add a wheel of eight sides about an axis along y; `center` is x, z."""
        angles = np.arange(8) * np.pi / 4
        normals = np.stack([np.cos(angles), np.zeros(8), np.sin(angles)], 1)
        offsets = normals[:, 0] * center[0] + normals[:, 2] * center[1] + radius
        caps = np.array([[0.0, 1.0, 0.0, y[1]], [0.0, -1.0, 0.0, -y[0]]])
        self.solids.append(
            Solid(
                np.concatenate([np.column_stack([normals, offsets]), caps]),
                (paint,) * 8 + (hub, hub),
                (center[0] - radius, y[0], center[1] - radius),
                (center[0] + radius, y[1], center[1] + radius),
            )
        )


def assemble(models: list[Model], rng: np.random.Generator) -> Geometry:
    """Join models into arrays; every model's textures start at a random place."""
    solid_model, solid_face, face_solid = [], [0], []
    low, high, planes, shifts = [], [], [], []
    paints: list[Paint] = []
    for index, model in enumerate(models):
        shift = rng.uniform(0.0, 10.0, 2)
        for solid in model.solids:
            solid_model.append(index)
            low.append(solid.low)
            high.append(solid.high)
            planes.append(solid.planes)
            paints += solid.paints
            shifts += [
                shift + rng.uniform(0.0, 1.0, 2) * (paint.pattern == "plain") for paint in solid.paints
            ]
            face_solid += [len(solid_model) - 1] * len(solid.paints)
            solid_face.append(len(paints))
    plane = np.concatenate(planes)
    u, v = _texture_axes(plane[:, :3])
    offset = np.array(shifts)
    return Geometry(
        solid_model=np.array(solid_model, np.int32),
        solid_face=np.array(solid_face, np.int32),
        solid_low=np.array(low, np.float64),
        solid_high=np.array(high, np.float64),
        face_solid=np.array(face_solid, np.int32),
        face_plane=np.ascontiguousarray(plane),
        face_u=np.column_stack([u, offset[:, 0]]),
        # Patterns with a foot and a top (windows, bricks) start at the ground.
        face_v=np.column_stack(
            [v, np.where([paint.pattern == "plain" for paint in paints], offset[:, 1], 0.0)]
        ),
        face_color=np.array([paint.color for paint in paints]),
        face_look=np.array([[paint.contrast, paint.glow, PATTERNS[paint.pattern][0]] for paint in paints]),
    )


def _texture_axes(normal: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two directions in each face: horizontal and up the slope; x and y on a level face."""
    level = np.abs(normal[:, 2]) > 0.999
    u = np.where(
        level[:, None], [1.0, 0.0, 0.0], np.stack([-normal[:, 1], normal[:, 0], np.zeros(len(normal))], 1)
    )
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    return u, np.cross(normal, u)


def surfaces(
    geometry: Geometry, faces: NDArray[np.int64], poses: NDArray[np.float64], light: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What shading needs to know of each face, in the world's frame: [faces, 16].

    Columns: 0 to 2 normal; 3 to 6 and 7 to 10 texture axes u and v with their offsets, metres; 11 to 13
    colour in its light; 14 contrast of the noise; 15 pattern.
    """
    pose = poses[geometry.solid_model[geometry.face_solid[faces]]]
    cos, sin = pose[:, 3], pose[:, 4]

    def turned(axis: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, z = axis[:, 0], axis[:, 1], axis[:, 2]
        return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1)

    normal, u, v = (turned(axes[faces]) for axes in (geometry.face_plane, geometry.face_u, geometry.face_v))
    offset_u = geometry.face_u[faces, 3] - np.sum(u * pose[:, :3], axis=1)
    offset_v = geometry.face_v[faces, 3] - np.sum(v * pose[:, :3], axis=1)
    lit = light[4] * (0.85 + 0.15 * normal[:, 2]) + light[3] * np.maximum(0.0, normal @ light[:3])
    lit += geometry.face_look[faces, 1] * np.maximum(0.0, 1.0 - lit)
    color = geometry.face_color[faces] * lit[:, None]
    return np.column_stack([normal, u, offset_u, v, offset_v, color, geometry.face_look[faces][:, [0, 2]]])
