"""Rows of the nuScenes tables as typed records: read fast, checked field by field, lean in memory.

Only the fields that infos and checks need are kept. The table of a full release has millions of rows: as
dictionaries, which the devkit makes of them, they fill several times the memory.
"""

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from bev_data.errors import InputError, MissingFileError


class Row(msgspec.Struct, gc=False):
    """A row of any table."""

    token: str


class SceneRow(Row, gc=False):
    """A drive of some twenty seconds."""

    name: str
    first_sample_token: str
    nbr_samples: int


class SampleRow(Row, gc=False):
    """A key frame; `timestamp` in microseconds."""

    scene_token: str
    timestamp: int
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
    """A recording of one sensor, in a file."""

    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp: int
    is_key_frame: bool
    height: int
    width: int
    filename: str
    prev: str
    next: str


class EgoPoseRow(Row, gc=False):
    """Where the vehicle was: metres and a quaternion (w, x, y, z) in the map."""

    timestamp: int
    rotation: tuple[float, float, float, float]
    translation: tuple[float, float, float]


class AnnotationRow(Row, gc=False):
    """A box in the map frame; `size` is width, length, height in metres."""

    sample_token: str
    instance_token: str
    attribute_tokens: list[str]
    translation: tuple[float, float, float]
    size: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    prev: str
    next: str
    num_lidar_pts: int
    num_radar_pts: int


class InstanceRow(Row, gc=False):
    """An object through a scene."""

    category_token: str


class NamedRow(Row, gc=False):
    """A category or an attribute."""

    name: str


class MapRow(Row, gc=False):
    """A map mask, and the logs that drove on it."""

    filename: str
    log_tokens: list[str]


R = TypeVar("R", bound=Row)


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
    path = folder / f"{table}.json"
    again = "unpack the metadata archive again"
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
    except FileNotFoundError:
        raise MissingFileError(
            f"the table {table}.json must be in {folder}, but it is missing; {again}"
        ) from None
    except msgspec.ValidationError as error:
        raise InputError(
            f"the table must have rows as in nuScenes, got another one: {path} ({error}); {again}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the table must be JSON, got a damaged file: {path} ({error}); {again}") from error
