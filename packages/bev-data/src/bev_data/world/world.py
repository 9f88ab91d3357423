"""A whole world on disk: which scenes, in parallel, resumable."""

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nuscenes.utils import splits
from tqdm import tqdm

from bev_data.atomic import atomic_path
from bev_data.errors import InputError
from bev_data.parallel import cores
from bev_data.world.database.record import WorldSpec, record_scene
from bev_data.world.database.rows import TableRows, join
from bev_data.world.street.mounting import CAMERAS, LIDAR
from bev_data.world.things.textures import textures

REVISION = 1  # of everything that decides how a world looks
SPEC_FILE = "synthetic.json"
_UNFINISHED = ".unfinished"  # folder with the rows of finished scenes until all are


def write_world(
    out: Path,
    *,
    scenes: int = 10,
    seed: int = 0,
    image_size: tuple[int, int] = (800, 450),
    val_scenes: int | None = None,
    key_frames: int = 20,
    sweep_hz: int = 8,
    supersample: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Render a nuScenes database: v1.0-mini for up to ten scenes, v1.0-trainval for more.

    A world that was begun with the same arguments is gone on with; one that is complete is left as it is.

    Args:
        out: a folder that is missing, empty, or holds this very world.
        scenes: at least 2, so that both splits have one.
        seed: another number, another world.
        image_size: width and height in pixels, 16 : 9.
        val_scenes: how many of the scenes are for validation; by default 2 of 10 and 1 of 8.
        key_frames: annotated instants of each scene, at 2 Hz.
        sweep_hz: images per second and camera: an even number from 4 to 24, or 0 for key frames only;
            nuScenes has 12, the default renders ten scenes within 90 s on two cores.
        supersample: looks per pixel in each direction; by default as many as make 800 looks across the width.
        workers: threads; by default one per core. The result does not depend on it.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        InputError: if an argument is out of its range, or `out` holds something else.
    """
    spec = _checked(scenes, seed, image_size, val_scenes, key_frames, sweep_hz, supersample)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    out = Path(out)
    version, names = scene_names(spec)
    if not _prepare(out, spec, version):
        return out
    textures()  # built once, before the threads ask for them
    images = scenes * len(CAMERAS) * (key_frames + (key_frames - 1) * spec.sweeps_between)
    lock = threading.Lock()
    with (
        ThreadPoolExecutor(workers or cores()) as pool,
        tqdm(total=images, unit="image", desc=f"{version}, {scenes} scenes", disable=not progress) as bar,
    ):

        def advance(number: int) -> None:
            with lock:
                bar.update(number)

        stop = threading.Event()
        jobs = {pool.submit(_scene_rows, out, spec, k, names[k], advance, stop): k for k in range(scenes)}
        try:
            finished = {jobs[job]: job.result() for job in as_completed(jobs)}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    _write_tables(out, version, join([finished[k] for k in range(scenes)]))
    return out


def scene_names(spec: WorldSpec) -> tuple[str, list[str]]:
    """Version of the database, and the official name of each scene: those of the training split first."""
    training = spec.scenes - spec.val_scenes
    if spec.scenes <= 10 and training <= len(splits.mini_train) and spec.val_scenes <= len(splits.mini_val):
        return "v1.0-mini", [*splits.mini_train[:training], *splits.mini_val[: spec.val_scenes]]
    return "v1.0-trainval", [*splits.train[:training], *splits.val[: spec.val_scenes]]


def _checked(
    scenes: int,
    seed: int,
    image_size: tuple[int, int],
    val_scenes: int | None,
    key_frames: int,
    sweep_hz: int,
    supersample: int | None,
) -> WorldSpec:
    most = len(splits.train) + len(splits.val)
    if not 2 <= scenes <= most:
        raise InputError(f"scenes must be 2 to {most}, one for validation at least, got {scenes}")
    if val_scenes is None:
        val_scenes = max(1, round(scenes / 5)) if scenes <= 10 else max(2, round(scenes / 8))
        val_scenes = min(val_scenes, len(splits.val))
        val_scenes = max(val_scenes, scenes - len(splits.train))
    if not 1 <= val_scenes < scenes:
        raise InputError(f"val_scenes must be 1 to {scenes - 1} of {scenes} scenes, got {val_scenes}")
    if val_scenes > len(splits.val) or scenes - val_scenes > len(splits.train):
        raise InputError(
            f"nuScenes names {len(splits.train)} training and {len(splits.val)} validation scenes, "
            f"got {scenes - val_scenes} and {val_scenes}"
        )
    width, height = image_size
    if width < 128 or abs(width * 9 / 16 - height) > 1:
        raise InputError(
            f"image_size must be 16 : 9 and at least 128 pixels wide, such as 800x450, got {width}x{height}"
        )
    if key_frames < 2:
        raise InputError(f"key_frames must be at least 2, got {key_frames}")
    if sweep_hz and (sweep_hz % 2 or not 4 <= sweep_hz <= 24):
        raise InputError(
            f"sweep_hz must be an even number from 4 to 24, or 0 for key frames only, got {sweep_hz}"
        )
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    if supersample is None:
        supersample = max(1, round(800 / width))
    if not 1 <= supersample <= 8:
        raise InputError(f"supersample must be 1 to 8 looks per pixel and direction, got {supersample}")
    return WorldSpec(scenes, val_scenes, seed, (width, height), key_frames, sweep_hz, supersample)


def _prepare(out: Path, spec: WorldSpec, version: str) -> bool:
    """Make the folders; False if the world is complete already."""
    described: dict[str, Any] = {"revision": REVISION, "version": version, **asdict(spec)}
    described["image_size"] = list(spec.image_size)
    mark = out / SPEC_FILE
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} must be a folder, got a file")
    if mark.is_file():
        found = json.loads(mark.read_text())
        different = sorted(
            key for key in described.keys() | found.keys() if described.get(key) != found.get(key)
        )
        if different:
            listed = ", ".join(f"{key} {found.get(key)} instead of {described.get(key)}" for key in different)
            raise InputError(
                f"{out} must be empty or hold the same world, got one with {listed}: "
                "choose another folder, or remove it"
            )
        if (out / version).is_dir():
            return False
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} must be empty or hold a world begun by this command, got other files in it")
    for folder in ("samples", "sweeps"):
        for channel in CAMERAS:
            (out / folder / channel).mkdir(parents=True, exist_ok=True)
    (out / "samples" / LIDAR).mkdir(exist_ok=True)
    (out / "maps").mkdir(exist_ok=True)
    (out / _UNFINISHED).mkdir(exist_ok=True)
    with atomic_path(mark) as temporary:
        temporary.write_text(json.dumps(described, indent=1) + "\n")
    return True


class _StoppedError(Exception):
    """Another scene failed, or the user asked to stop."""


def _scene_rows(
    out: Path, spec: WorldSpec, number: int, name: str, advance: Callable[[int], None], stop: threading.Event
) -> TableRows:
    """Rows of one scene: read if it was finished before, else rendered."""
    kept = out / _UNFINISHED / f"{name}.json"
    if kept.is_file():
        rows: TableRows = json.loads(kept.read_text())
        advance(sum(row["fileformat"] == "jpg" for row in rows["sample_data"]))
        return rows

    def advance_or_stop(images: int) -> None:
        if stop.is_set():
            raise _StoppedError
        advance(images)

    rows = record_scene(out, spec, number, name, advance_or_stop)
    with atomic_path(kept) as temporary:
        temporary.write_text(json.dumps(rows))
    return rows


def _write_tables(out: Path, version: str, tables: TableRows) -> None:
    """All tables appear at once, and last: a folder with tables is a complete world."""
    staged = out / _UNFINISHED / version
    staged.mkdir(exist_ok=True)
    for name, rows in tables.items():
        (staged / f"{name}.json").write_text(json.dumps(rows, indent=0))
    staged.replace(out / version)
    shutil.rmtree(out / _UNFINISHED)
