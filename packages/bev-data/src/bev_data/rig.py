"""Infos of one's own rig: checked, completed and kept where `open_infos` finds them.

`docs/rig.md` explains the schema by an example.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from bev_data.checks.files import FileChecker
from bev_data.checks.problem import Problem
from bev_data.errors import InputError
from bev_data.infos.info import CameraFrame, Info, LidarFrame
from bev_data.infos.infos import Infos
from bev_data.locations import infos_path
from bev_data.nuscenes.taxonomy import CATEGORY_TO_CLASS

_RIGID = 1e-6  # how far a rotation may be from one
_SHOWN = 5  # problems in an error's message


def save_rig(
    infos: Sequence[Info],
    root: Path | str,
    *,
    version: str,
    split: str,
    cameras: Sequence[str] | None = None,
    files: bool = True,
) -> Infos:
    """Check key frames and write them to the infos file that training and evaluation open.

    Args:
        infos: key frames, scene by scene, in the order of time; `prev` indexes this sequence.
        root: data root that files are relative to.
        version: a name for the data.
        split: a name for the part of it.
        cameras: names in order; those of the first key frame where it is None.
        files: read every image and lidar file too.

    Raises:
        ValueError: naming what is wrong, the first five of all problems.
    """
    problems = check_rig(infos, root if files else None)
    if problems:
        shown = "; ".join(problem.message for problem in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(f"key frames must follow the schema of a rig, got: {shown}{more}")
    made = Infos.from_list(infos, version=version, split=split, cameras=cameras)
    return made.save(infos_path(Path(root), version, split))


def complete_key_frames(infos: Sequence[Info], cameras: Sequence[str]) -> list[Info]:
    """Key frames that have an image of each of these cameras, with `prev` reaching over those left out."""
    kept: list[Info] = []
    place: dict[int, int] = {}
    for row, info in enumerate(infos):
        if not set(cameras) <= set(info.cameras):
            continue
        before = info.prev
        while before is not None and before not in place:
            before = infos[before].prev
        place[row] = len(kept)
        kept.append(dataclasses.replace(info, prev=None if before is None else place[before]))
    return kept


def check_rig(infos: Sequence[Info], root: Path | str | None = None) -> list[Problem]:
    """Everything about key frames that would end in an error or in wrong geometry.

    Args:
        infos: key frames, scene by scene; an `Infos` too.
        root: data root, to read images and lidar files as well; None to leave files alone.
    """
    problems = [problem for row in range(len(infos)) for problem in _of_key_frame(infos, row)]
    tokens = [info.token for info in infos]
    problems += [
        Problem("link", f"each key frame must have its own token, got {token!r} {tokens.count(token)} times")
        for token in sorted({token for token in tokens if tokens.count(token) > 1})
    ]
    if root is not None and not problems:
        checker = FileChecker(Path(root), infos, decode=True, sweeps=True)
        problems = [problem for row in range(len(infos)) for problem in checker(row)[1]]
    return problems


def _of_key_frame(infos: Sequence[Info], row: int) -> Iterator[Problem]:
    info = infos[row]
    name = f"key frame {info.token}"
    names = set(infos[0].cameras)
    if set(info.cameras) != names or not names:
        yield Problem(
            "link",
            f"{name} must have an image of each of {sorted(names)}, got {sorted(info.cameras)}; leave it out "
            f"by `complete_key_frames`",
        )
    if info.prev is not None:
        before = infos[info.prev] if 0 <= info.prev < row else None
        if before is None or before.scene != info.scene or before.timestamp >= info.timestamp:
            yield Problem(
                "time",
                f"prev of {name} must be an earlier row of its scene and an earlier moment, got {info.prev}",
            )
    newer = info.cameras
    for step, sweep in enumerate(info.sweeps):
        for camera, frame in sweep.items():
            if camera not in names:
                yield Problem("link", f"sweep {step} of {name} must be of its cameras, got {camera!r}")
            elif camera in newer and frame.timestamp >= newer[camera].timestamp:
                yield Problem("time", f"sweep {step} of {camera} of {name} must be older than the one before")
        newer = {**newer, **sweep}
    for where, camera_frame in _frames(info):
        yield from (Problem("calibration", f"{where} of {name} {fault}") for fault in _faults(camera_frame))
    yield from (Problem("box", f"{name} {fault}") for fault in _box_faults(info))


def _frames(info: Info) -> Iterator[tuple[str, CameraFrame | LidarFrame]]:
    for step, frames in enumerate((info.cameras, *info.sweeps)):
        for camera, frame in frames.items():
            yield (f"sweep {step - 1} of {camera}" if step else camera), frame
    if info.lidar is not None:
        yield "lidar", info.lidar


def _faults(frame: CameraFrame | LidarFrame) -> Iterator[str]:
    for field in ("sensor2ego", "ego2global"):
        if not _is_rigid(getattr(frame, field)):
            yield f"must have a rigid 4x4 {field} (rotation and translation), got {getattr(frame, field)!r}"
    if Path(frame.file).is_absolute() or ".." in Path(frame.file).parts:
        yield f"must have a file within the data root and relative to it, got {frame.file}"
    if isinstance(frame, LidarFrame):
        return
    matrix = np.asarray(frame.intrinsics)
    if (
        matrix.shape != (3, 3)
        or not np.isfinite(matrix).all()
        or not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and (matrix[2] == [0, 0, 1]).all())
    ):
        yield f"must have 3x3 intrinsics with focal lengths above 0 and a last row 0 0 1, got {matrix!r}"
    if not all(isinstance(side, (int, np.integer)) and side > 0 for side in (frame.width, frame.height)):
        yield f"must have the size of its image, got {frame.width}x{frame.height}"


def _is_rigid(matrix: ArrayLike) -> bool:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return False
    rotation = matrix[:3, :3]
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < _RIGID
    return bool(orthonormal and np.linalg.det(rotation) > 0 and (matrix[3] == [0, 0, 0, 1]).all())


def _box_faults(info: Info) -> Iterator[str]:
    a = info.annotations
    lengths = {len(getattr(a, field.name)) for field in dataclasses.fields(a)}
    if len(lengths) > 1:
        yield f"must have as many entries in each field of its annotations, got {sorted(lengths)}"
        return
    if not len(a):
        return
    if not ((a.sizes > 0).all() and np.isfinite(a.centers).all() and np.isfinite(a.rotations).all()):
        yield "must have boxes with finite centres and rotations and sizes above 0 m"
    if not np.allclose(np.linalg.norm(a.rotations, axis=1), 1, atol=1e-3):
        yield "must have boxes with quaternions of length 1"
    if not set(a.categories) & set(CATEGORY_TO_CLASS):
        yield (
            f"must have categories of nuScenes or its ten detection classes, got only others: "
            f"{sorted(set(a.categories))}"
        )
