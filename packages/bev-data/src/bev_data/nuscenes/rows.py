"""Rows of the nuScenes tables as typed records: read fast, checked field by field, lean in memory.

Only the fields that infos and checks need are kept. The table of a full release has millions of rows: as
dictionaries, which the devkit makes of them, they fill several times the memory.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from bev_data.errors import InputError, MissingFileError

# What columns hold without wrapping around.
Whole = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Row(msgspec.Struct, gc=False):
    """A row of any table."""

    token: str


class SceneRow(Row, gc=False):
    """A drive of some twenty seconds."""

    name: str
    first_sample_token: str
    nbr_samples: Whole


class SampleRow(Row, gc=False):
    """A key frame; `timestamp` in microseconds."""

    scene_token: str
    timestamp: Whole
    prev: str
    next: str


class SensorRow(Row, gc=False):
    """A sensor of the rig."""

    channel: str
    modality: Literal["camera", "lidar", "radar"]


class CalibratedSensorRow(Row, gc=False):
    """A sensor as it was mounted: metres, a quaternion (w, x, y, z), a 3x3 matrix in pixels for a camera."""

    sensor_token: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    camera_intrinsic: list[list[float]]


class SampleDataRow(Row, gc=False):
    """A recording of one sensor, in a file; `is_valid` is false where a stand-in was put for one dropped."""

    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp: Whole
    is_key_frame: bool
    height: Pixels
    width: Pixels
    filename: str
    prev: str
    next: str
    is_valid: bool = True


class EgoPoseRow(Row, gc=False):
    """Where the vehicle was: metres and a quaternion (w, x, y, z) in the map."""

    timestamp: Whole
    rotation: tuple[float, float, float, float]
    translation: tuple[float, float, float]


class AnnotationRow(Row, gc=False):
    """A box in the map frame; `size` is width, length, height in metres, -1 points are not known."""

    sample_token: str
    instance_token: str
    attribute_tokens: list[str]
    translation: tuple[float, float, float]
    size: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    prev: str
    next: str
    num_lidar_pts: Whole
    num_radar_pts: Whole


class InstanceRow(Row, gc=False):
    """An object through a scene."""

    category_token: str


class NamedRow(Row, gc=False):
    """A category or an attribute."""

    name: str


R = TypeVar("R", bound=Row)

# What stands for null and NaN: a lidar's pictures have no size, points were not counted.
_UNKNOWN = {"width": 0, "height": 0, "num_lidar_pts": -1, "num_radar_pts": -1}


def read_rows(folder: Path, table: str, kind: type[R]) -> list[R]:
    """Rows of a table.

    Args:
        folder: of the version, with the tables.
        table: its name, without the ending.
        kind: what its rows are.

    Raises:
        FileNotFoundError: if the table is missing.
        ValueError: if it is damaged, or a row lacks a field or has one of another type.
    """
    content = _read(folder, table)
    try:
        return msgspec.json.decode(content, type=list[kind])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # What other publishers write is read too, though not as fast.
        content = _parse(folder, table)
    rows = [_mended(row, kind) for row in content] if isinstance(content, list) else content
    try:
        return msgspec.convert(rows, type=list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise InputError(
            f"the table must have rows as in nuScenes, got another one: {folder / table}.json ({error}); "
            f"write it in that format, or download it again if it is nuScenes' own"
        ) from error


def read_loosely(folder: Path, table: str) -> list[dict[str, Any]]:
    """Rows of a table with all their fields: JSON with a byte-order mark and NaN, too.

    Raises:
        FileNotFoundError: if the table is missing.
        ValueError: if it is damaged.
    """
    rows = _parse(folder, table)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"the table must be a list of rows, got something else in {folder / table}.json")
    return rows


def _parse(folder: Path, table: str) -> Any:
    try:
        return json.loads(_read(folder, table))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the table must be JSON, got a damaged file: {folder / table}.json ({error}); unpack the "
            f"metadata archive again"
        ) from error


def _read(folder: Path, table: str) -> bytes:
    try:
        return (folder / f"{table}.json").read_bytes()
    except FileNotFoundError:
        raise MissingFileError(
            f"the table {table}.json must be in {folder}, but it is missing; unpack the metadata archive "
            f"again"
        ) from None


def _mended(row: Any, kind: type[Row]) -> Any:
    """A row whose whole numbers are whole: microseconds with a fraction, counts that are not known."""
    if not isinstance(row, dict):
        return row
    mended = dict(row)
    for field in msgspec.structs.fields(kind):
        value = mended.get(field.name)
        if field.type not in (Whole, Pixels) or isinstance(value, int):
            continue
        if isinstance(value, float) and math.isfinite(value):
            mended[field.name] = round(value)
        elif field.name in mended and field.name in _UNKNOWN:
            mended[field.name] = _UNKNOWN[field.name]
    return mended
