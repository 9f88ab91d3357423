"""Checks of the files of a key frame: images, lidar, and whether they fit poses, calibrations and boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from bev_data.checks.problem import Problem
from bev_data.errors import InputError
from bev_data.geometry import boxes_to_frame, invert, transform_points
from bev_data.infos.info import CameraFrame, Info, LidarFrame
from bev_data.samples.images import open_image
from bev_data.samples.lidar_depth import depth_file, project_lidar, read_depth_file, read_lidar

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_LIDAR_RANGE = 500.0  # metres
_POINTS_IN_IMAGE = 10  # at least, of a sweep of this many:
_POINTS_IN_SWEEP = 500
# Boxes and lidar fit where this share of the boxes with some points holds about as many as annotated. Real
# key frames reach 1; with boxes given by the middle of their bottom 0.61 and 0.74, by that of their top 0.43.
_FITTING_OF_FEW, _FITTING_OF_MANY = 0.5, 0.85
_SOME_POINTS = 5
_SOME_BOXES, _MANY_BOXES = 2, 10

_AGAIN = "unpack the archive that holds it again"


@dataclass(frozen=True)
class FileChecker:
    """Checks key frames; travels to worker processes.

    Attributes:
        root: data root.
        infos: in a file, where there are several workers.
        decode: decode images as a whole; otherwise only their header and end are read.
        sweeps: check the images between key frames too.
    """

    root: Path
    infos: Sequence[Info]
    decode: bool
    sweeps: bool

    def __call__(self, row: int) -> tuple[int, list[Problem]]:
        """Number of images read and problems found of one key frame."""
        info = self.infos[row]
        images = list(info.cameras.values())
        if self.sweeps:
            images += self._own_sweeps(info)
        problems = [problem for frame in images for problem in self._image(frame)]
        problems += self._lidar(info)
        return len(images), problems

    def _own_sweeps(self, info: Info) -> list[CameraFrame]:
        """The images between this key frame and the one before it: others belong to earlier key frames."""
        since = {} if info.prev is None else self.infos[info.prev].cameras
        return [
            frame
            for step in info.sweeps
            for name, frame in step.items()
            if name not in since or frame.timestamp > since[name].timestamp
        ]

    def _image(self, frame: CameraFrame) -> Iterator[Problem]:
        path = self.root / frame.file
        try:
            with open_image(path, frame) as image:
                if self.decode:
                    image.load()
                elif image.format == "JPEG" and not _ends_whole(path):
                    raise OSError("its end is missing")
        except FileNotFoundError:
            yield Problem("missing file", f"the image {path} is missing; {_AGAIN}", frame.file)
        except InputError as error:
            yield Problem("damaged file", str(error), frame.file)
        except (OSError, SyntaxError, ValueError) as error:
            yield Problem(
                "damaged file",
                f"the image must be whole, got a damaged file: {path} ({error}); {_AGAIN}",
                frame.file,
            )

    def _lidar(self, info: Info) -> Iterator[Problem]:
        lidar = info.lidar
        if lidar is None:
            return
        try:
            points = read_lidar(self.root, lidar)
        except FileNotFoundError as error:
            yield Problem("missing file", str(error), lidar.file)
            return
        except (InputError, OSError) as error:
            yield Problem("damaged file", str(error), lidar.file)
            return
        path = self.root / lidar.file
        if not np.isfinite(points).all() or np.abs(points).max() > _LIDAR_RANGE:
            yield Problem(
                "damaged file",
                f"lidar points must be within {_LIDAR_RANGE:g} m, got others in {path}; {_AGAIN}",
                lidar.file,
            )
            return
        yield from self._depth(info, lidar, points)
        yield from _fit_of_boxes(info, lidar, points)

    def _depth(self, info: Info, lidar: LidarFrame, points: Float[F32, "k 3"]) -> Iterator[Problem]:
        for name, camera in info.cameras.items():
            triples = project_lidar(points, lidar, camera)
            if len(points) >= _POINTS_IN_SWEEP and len(triples) < _POINTS_IN_IMAGE:
                yield Problem(
                    "lidar",
                    f"lidar must land in the images, got {len(triples)} of {len(points)} points in {name} of "
                    f"the key frame {info.token} of {info.scene}: calibration or poses do not fit",
                )
            file = depth_file(self.root, camera)
            if not file.is_file():
                continue
            try:
                kept = read_depth_file(self.root, camera)
            except InputError as error:
                yield Problem("damaged file", str(error))
                continue
            if kept.shape != triples.shape or not np.allclose(kept, triples, atol=0.05):
                yield Problem(
                    "lidar",
                    f"the depth file {file} must hold the lidar points of its image, but differs; "
                    f"remove it and run `bev-data depth-gt`",
                )


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return True
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64))
        return b"\xff\xd9" in file.read()


def points_in_boxes(points: Float[F64, "k 3"], boxes: Float[F64, "m 9"]) -> Int64[NDArray[np.int64], "m"]:
    """Number of points inside each box x y z l w h yaw vx vy."""
    counts = np.zeros(len(boxes), dtype=np.int64)
    for i, (x, y, z, length, width, height, yaw) in enumerate(boxes[:, :7]):
        near = np.abs(points[:, :2] - (x, y)).max(axis=1) <= np.hypot(length, width) / 2
        offset = points[near] - (x, y, z)
        cos, sin = np.cos(yaw), np.sin(yaw)
        along = offset[:, 0] * cos + offset[:, 1] * sin
        across = offset[:, 1] * cos - offset[:, 0] * sin
        inside = (
            (np.abs(along) <= length / 2)
            & (np.abs(across) <= width / 2)
            & (np.abs(offset[:, 2]) <= height / 2)
        )
        counts[i] = inside.sum()
    return counts


def _fit_of_boxes(info: Info, lidar: LidarFrame, points: Float[F32, "k 3"]) -> Iterator[Problem]:
    a = info.annotations
    chosen = np.flatnonzero(a.num_lidar_pts >= _SOME_POINTS)
    if len(chosen) < _SOME_BOXES:
        return
    boxes = boxes_to_frame(
        invert(info.keyego2global),
        a.centers[chosen],
        a.sizes[chosen],
        a.rotations[chosen],
        a.velocities[chosen],
    )
    in_ego = transform_points(lidar.sensor2ego, points.astype(np.float64))
    found, expected = points_in_boxes(in_ego, boxes), a.num_lidar_pts[chosen]
    fitting = np.abs(found - expected) <= 2 + 0.3 * expected
    if fitting.mean() >= (_FITTING_OF_FEW if len(chosen) < _MANY_BOXES else _FITTING_OF_MANY):
        return
    raised = boxes.copy()
    raised[:, 2] += boxes[:, 5] / 2
    reason = "poses, calibration or boxes are of another frame"
    if (np.abs(points_in_boxes(in_ego, raised) - expected) <= 2 + 0.3 * expected).mean() > fitting.mean():
        reason = "they fit better half their height up: are centres given that are the middle of the bottom?"
    yield Problem(
        "box",
        f"boxes must contain their lidar points, got {fitting.sum()} of {len(chosen)} that do in the key "
        f"frame {info.token} of {info.scene}: {reason}",
    )
