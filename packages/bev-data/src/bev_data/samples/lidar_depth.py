"""Depth from lidar: points of a sweep as (u, v, depth) in the images of a key frame.

A depth file (`depth_gt/<image file name>.bin` in the data root) holds these triples as float32: u and v in
pixels of the original image, depth in metres along the optical axis. It is the layout of BEVDepth and
BEVStereo. Files of this package begin with a checksum, which those projects drop as a point of no pixel.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
from jaxtyping import Float
from numpy.typing import NDArray

from bev_data.atomic import atomic_path
from bev_data.errors import InputError, MissingFileError
from bev_data.geometry import invert
from bev_data.infos.info import CameraFrame, Info, LidarFrame

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Pixels left of and above every image from which on checksums lie.
_OUTSIDE = 1 << 14
_VALUES_PER_POINT = 5  # x y z intensity ring
_MEND = "download its archive again, or pass lidar_depth=False where depth is not needed"


def read_lidar(root: Path, lidar: LidarFrame) -> Float[F32, "k 3"]:
    """Points of a sweep in the lidar's frame, metres.

    A file of nuScenes holds x y z intensity ring as float32; a `.npy` file, rows that begin with x y z; a
    `.feather` file of Argoverse 2, columns x, y and z.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is empty or cut off.
    """
    path = root / lidar.file
    if path.suffix == ".npy":
        return _read_table(path)
    if path.suffix == ".feather":
        return _read_feather(path)
    try:
        values = np.fromfile(path, dtype=np.float32)
    except FileNotFoundError:
        raise MissingFileError(f"the lidar file {path} is missing; {_MEND}") from None
    size = path.stat().st_size
    if size == 0 or size % (4 * _VALUES_PER_POINT):
        raise InputError(
            f"a lidar file must hold one or more points of {4 * _VALUES_PER_POINT} bytes, "
            f"got {size} bytes in {path}; {_MEND}"
        )
    points: F32 = values.reshape(-1, _VALUES_PER_POINT)[:, :3]
    return points


def _read_feather(path: Path) -> Float[F32, "k 3"]:
    try:
        table = pyarrow.feather.read_table(path, columns=["x", "y", "z"], memory_map=False)
    except FileNotFoundError:
        raise MissingFileError(f"the lidar file {path} is missing; {_MEND}") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"a lidar file must be whole, got a damaged one: {path} ({error})") from error
    if table.num_rows < 1 or table.num_columns != 3:
        raise InputError(f"a lidar file must hold one or more points x y z, got {table.num_rows} in {path}")
    points: F32 = np.stack([table.column(name).to_numpy() for name in "xyz"], axis=-1).astype(np.float32)
    return points


def _read_table(path: Path) -> Float[F32, "k 3"]:
    try:
        table = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise MissingFileError(f"the lidar file {path} is missing; {_MEND}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"a lidar file must be whole, got a damaged one: {path} ({error})") from error
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 3:
        raise InputError(
            f"a lidar file must hold one or more rows of x y z, got an array of {table.shape} in {path}"
        )
    return np.asarray(table[:, :3], dtype=np.float32)


def project_lidar(
    points: Float[NDArray[Any], "k 3"], lidar: LidarFrame, camera: CameraFrame, *, margin: float = 1.0
) -> Float[F32, "j 3"]:
    """Points that fall into an image, as u, v in its pixels and depth in metres, in the order of the sweep.

    The vehicle moves between sweep and exposure: points go through the map frame by the pose at each moment.

    Args:
        points: in the lidar's frame.
        lidar: calibration and pose of the sweep.
        camera: calibration, pose and size of the image.
        margin: points must lie more than this many pixels inside the image.

    Source: spec of BEVDepth's depth ground truth: depth > 0 and inside the margin.
    """
    lidar2camera = invert(camera.sensor2global) @ lidar.ego2global @ lidar.sensor2ego
    # A row per coordinate, because numbers that lie side by side are worked on together.
    rays = lidar2camera[:3, :3] @ np.asarray(points.T, dtype=np.float64) + lidar2camera[:3, 3:]
    rays = rays[:, rays[2] > 0]
    pixels = camera.intrinsics @ rays
    u, v = pixels[0] / pixels[2], pixels[1] / pixels[2]
    inside = (u > margin) & (u < camera.width - margin) & (v > margin) & (v < camera.height - margin)
    triples: F64 = np.stack([u[inside], v[inside], rays[2, inside]], axis=-1)
    return triples.astype(np.float32)


def depth_points(root: Path, info: Info, cameras: tuple[str, ...]) -> list[Float[F32, "j 3"]]:
    """Triples (u, v, depth) of each camera, computed from the key frame's lidar sweep.

    Raises:
        FileNotFoundError: if the lidar file is missing.
        ValueError: if the key frame has no lidar, or the file is damaged.
    """
    if info.lidar is None:
        raise InputError(
            f"lidar depth needs a lidar sweep, got none for the key frame {info.token}; "
            f"pass lidar_depth=False"
        )
    # In the order of memory that every camera needs.
    points = np.asfortranarray(read_lidar(root, info.lidar), dtype=np.float64)
    return [project_lidar(points, info.lidar, info.cameras[name]) for name in cameras]


def depth_file(root: Path, camera: CameraFrame) -> Path:
    """Where the depth file of an image lies."""
    return root / "depth_gt" / f"{Path(camera.file).name}.bin"


def read_depth_file(root: Path, camera: CameraFrame) -> Float[F32, "j 3"]:
    """Triples (u, v, depth) of an image, from its depth file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    path = depth_file(root, camera)
    mend = "make it with `bev-data depth-gt`"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"the depth file {path} is missing; {mend}") from None
    if len(content) % 12 or not content:
        raise InputError(
            f"a depth file must hold triples of 12 bytes, got {len(content)} bytes in {path}; {mend} again"
        )
    triples = np.frombuffer(content, dtype=np.float32).reshape(-1, 3)
    if _is_checksum(triples[0]):
        triples = triples[1:]
        if _checksum(content[12:]).tobytes() != content[:12]:
            raise InputError(f"a depth file must be whole, got a damaged one: {path}; {mend} again")
    u, v, depth = triples.T
    inside = (u >= 0) & (u <= camera.width) & (v >= 0) & (v <= camera.height)
    if not (inside & (depth > 0) & (depth < np.inf)).all():
        raise InputError(
            f"a depth file must hold pixels of its image and depths above 0 m, got others in {path}; "
            f"{mend} again"
        )
    return triples


def write_depth_file(path: Path, triples: Float[F32, "j 3"]) -> None:
    """Write a depth file, whole or not at all, with a checksum as its first triple.

    That one lies outside of every image at depth 0, where readers of the published layout drop it.

    Raises:
        OSError: if it cannot be written.
    """
    content = triples.tobytes()
    with atomic_path(path) as temporary:
        # Not tofile, which does not tell when a disk is full.
        temporary.write_bytes(_checksum(content).tobytes() + content)


def _checksum(content: bytes) -> Float[F32, "3"]:
    """28 bits of the CRC-32 of depth triples as a triple, left of and above any image.

    Readers of the layout round pixels to 16 bits, into which these fit.
    """
    high, low = divmod(zlib.crc32(content) & 0xFFFFFFF, _OUTSIDE)
    return np.array([-_OUTSIDE - high, -_OUTSIDE - low, 0], dtype=np.float32)


def _is_checksum(triple: Float[F32, "3"]) -> bool:
    return bool((triple[:2] <= -_OUTSIDE).all() and triple[2] == 0)
