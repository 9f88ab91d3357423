"""Which earlier images go with a key frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from bev_data.errors import InputError
from bev_data.infos.info import CameraFrame, Info
from bev_data.infos.infos import Infos


@dataclass(frozen=True)
class History:
    """The frames before the key frame.

    Attributes:
        source: "key_frames": earlier key frames of the scene (0.5 s apart in nuScenes). "sweeps": camera
            images before the key frame (about 1/12 s apart in nuScenes).
        frames: how many; 0 for a detector that sees the key frame only.
        stride: take every stride-th: frame j is the (j * stride)-th key frame or image back. The published
            "key4" is `source="sweeps", stride=5`, the published "2key" is `source="key_frames"`.
        missing: where a scene has nothing that old. "repeat": frame j is the oldest there is, and the key
            frame itself at a scene's start; a sweep that some camera lacks is replaced by the next nearer
            one. "drop": such key frames are left out.
        max_gap: seconds that may lie between a frame and the next older one; what lies behind a larger gap
            counts as missing. None for any.
    """

    source: Literal["key_frames", "sweeps"] = "key_frames"
    frames: int = 1
    stride: int = 1
    missing: Literal["repeat", "drop"] = "repeat"
    max_gap: float | None = None

    def __post_init__(self) -> None:
        if self.source not in ("key_frames", "sweeps"):
            raise InputError(f"history.source must be 'key_frames' or 'sweeps', got {self.source!r}")
        if self.frames < 0:
            raise InputError(f"history.frames must be 0 or more, got {self.frames}")
        if self.stride < 1:
            raise InputError(f"history.stride must be 1 or more, got {self.stride}")
        if self.missing not in ("repeat", "drop"):
            raise InputError(f"history.missing must be 'repeat' or 'drop', got {self.missing!r}")
        if self.max_gap is not None and not self.max_gap > 0:
            raise InputError(f"history.max_gap must be above 0 s, got {self.max_gap}")

    def reaches(self, newer: int, older: int) -> bool:
        """Whether the gap between two moments in microseconds is small enough."""
        return self.max_gap is None or newer - older <= self.max_gap * 1e6


def usable_key_frames(
    infos: Infos, history: History, cameras: Sequence[str]
) -> Int64[NDArray[np.int64], "k"]:
    """Indices of the key frames that a dataset with this history has.

    Raises:
        ValueError: if there is none, or the history reaches back further than the infos do.
    """
    reach = history.frames * history.stride
    if history.source == "sweeps" and reach > infos.header.num_sweeps:
        raise InputError(
            f"history.frames * history.stride must be at most {infos.header.num_sweeps}, the number of "
            f"sweeps that the infos hold, got {reach}; collect more with `bev-data infos --sweeps {reach}`"
        )
    complete = np.ones(len(infos), dtype=bool)
    if history.missing == "drop" and history.source == "sweeps":
        wanted = range(history.stride, reach + 1, history.stride)
        for step in wanted:
            complete &= infos.has_sweep(step - 1, cameras)
        if history.max_gap is not None:
            for row in np.flatnonzero(complete):
                complete[row] = len(_usable_sweeps(infos[int(row)], history, cameras)) >= reach
    elif history.missing == "drop":
        before, times = infos.prev, infos.timestamps
        if history.max_gap is not None:
            before = np.where(times - times[before] <= history.max_gap * 1e6, before, -1)
        origin = np.arange(len(infos), dtype=np.int64)
        for _ in range(reach):
            origin = np.where(origin >= 0, before[origin], -1)
        complete = origin >= 0
    if not complete.any():
        unit = "key frames" if history.source == "key_frames" else "sweeps"
        raise InputError(
            f"no key frame of split {infos.split} has {history.frames} frames of history, "
            f"every {history.stride} {unit}; lower history.frames or history.stride, "
            f"or set history.missing to 'repeat'"
        )
    return np.flatnonzero(complete)


def history_frames(
    infos: Infos, info: Info, history: History, cameras: Sequence[str]
) -> list[dict[str, CameraFrame]]:
    """Images of all frames of a sample, the key frame first."""
    frames = [info.cameras]
    if history.source == "sweeps":
        sweeps = _usable_sweeps(info, history, cameras)
        complete = [all(name in sweep for name in cameras) for sweep in sweeps]
        for step in range(history.stride, history.frames * history.stride + 1, history.stride):
            there = [i for i, whole in enumerate(complete[:step]) if whole]
            frames.append(sweeps[there[-1]] if there else info.cameras)
        return frames
    current = info
    for _ in range(history.frames):
        for _ in range(history.stride):
            if current.prev is not None:
                before = infos[current.prev]
                if history.reaches(current.timestamp, before.timestamp):
                    current = before
        frames.append(current.cameras)
    return frames


def _usable_sweeps(info: Info, history: History, cameras: Sequence[str]) -> Sequence[dict[str, CameraFrame]]:
    """The images before a key frame, up to the first large gap of a camera."""
    times = {name: info.cameras[name].timestamp for name in cameras}
    for step, sweep in enumerate(info.sweeps):
        for name in set(sweep) & set(times):
            if not history.reaches(times[name], sweep[name].timestamp):
                return info.sweeps[:step]
            times[name] = sweep[name].timestamp
    return info.sweeps
