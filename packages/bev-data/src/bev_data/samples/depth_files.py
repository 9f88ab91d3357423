"""`bev-data depth-gt`: the depth file of every key-frame image, in parallel."""

from functools import partial
from pathlib import Path

from tqdm import tqdm

from bev_data.errors import InputError
from bev_data.infos.info import CameraFrame
from bev_data.infos.infos import Infos
from bev_data.parallel import parallel_map
from bev_data.samples.lidar_depth import depth_file, depth_points, read_depth_file, write_depth_file


def write_depth_files(
    root: Path, infos: Infos, *, workers: int = 1, overwrite: bool = False, progress: bool = True
) -> tuple[int, int]:
    """Write the depth files of all key frames; those that are there are kept.

    Files appear whole or not at all, so a run that was stopped goes on where it was.

    Args:
        root: data root; files go to `depth_gt/` in it.
        infos: the key frames, in a file so that workers can open it.
        workers: number of processes.
        overwrite: write those that are there too.
        progress: show a progress bar.

    Returns:
        Number of files written and number kept.

    Raises:
        FileNotFoundError: if a lidar file is missing.
        ValueError: if a lidar file is damaged or a key frame has no lidar.
        OSError: if a file cannot be written.
    """
    write = partial(_write_key_frame, root, infos, overwrite)
    counts = parallel_map(write, range(len(infos)), workers)
    title = f"depth of {infos.split}"
    written = sum(tqdm(counts, total=len(infos), desc=title, unit="frame", disable=not progress))
    return written, len(infos) * len(infos.cameras) - written


def _write_key_frame(root: Path, infos: Infos, overwrite: bool, row: int) -> int:
    info = infos[row]
    todo = tuple(name for name in infos.cameras if overwrite or not _is_whole(root, info.cameras[name]))
    if not todo:
        return 0
    for name, points in zip(todo, depth_points(root, info, todo), strict=True):
        write_depth_file(depth_file(root, info.cameras[name]), points)
    return len(todo)


def _is_whole(root: Path, camera: CameraFrame) -> bool:
    try:
        read_depth_file(root, camera)
    except (FileNotFoundError, InputError):
        return False
    return True
