"""The nuScenes tables: which versions a data root has, and loading them with the devkit."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from bev_data.errors import InputError, MissingFileError
from bev_data.nuscenes.rows import read_loosely

TABLES: tuple[str, ...] = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)


def list_versions(root: Path) -> list[str]:
    """Names of the folders in a data root that hold nuScenes tables, sorted: `v1.0-*`, and any with samples.

    Raises:
        FileNotFoundError: if the root is not a folder.
    """
    if not root.is_dir():
        raise MissingFileError(f"the data root must be a folder, got {root}; check the path")
    named = {path.name for path in root.glob("v1.0-*") if path.is_dir()}
    return sorted(named | {path.parent.name for path in root.glob("*/sample_data.json")})


def find_version(root: Path) -> str:
    """The version a data root holds; where there are several: trainval before mini before test before others.

    Raises:
        FileNotFoundError: if the root is missing or has no version folder.
    """
    return order_versions(root)[0]


def order_versions(root: Path) -> list[str]:
    """The versions a data root holds: trainval before mini before test before others.

    Raises:
        FileNotFoundError: if the root is missing or has no version folder.
    """
    versions = list_versions(root)
    if not versions:
        raise MissingFileError(
            f"the data root must hold a version folder (v1.0-mini, v1.0-trainval or v1.0-test) with the "
            f"nuScenes tables, got none in {root}; unpack the metadata archive there, or make a world with "
            f"`bev-data synth`"
        )
    preference = ("v1.0-trainval", "v1.0-mini", "v1.0-test")
    known = [name for name in preference if name in versions]
    return [*known, *(name for name in versions if name not in preference)]


def require_tables(root: Path, version: str) -> None:
    """Check that the version's folder and its 13 tables are there.

    Raises:
        FileNotFoundError: naming the first thing that is missing, and the versions there are.
    """
    versions = list_versions(root)
    if version not in versions:
        there = ", ".join(versions) if versions else "none"
        raise MissingFileError(f"{root} must hold the folder {version}, got versions: {there}")
    for table in TABLES:
        path = root / version / f"{table}.json"
        if not path.is_file():
            raise MissingFileError(
                f"the table {table}.json must be in {path.parent}, but it is missing; "
                f"unpack the metadata archive again"
            )


def fingerprint(root: Path, version: str) -> str:
    """Name, size and time of every table file, as one JSON string: it changes when a table is replaced."""
    files = [path for table in TABLES if (path := root / version / f"{table}.json").is_file()]
    stats = [path.stat() for path in files]
    return json.dumps([[p.name, s.st_size, s.st_mtime_ns] for p, s in zip(files, stats, strict=True)])


def load_devkit(root: Path, version: str) -> Any:
    """The devkit's `NuScenes` object, loaded once per process as long as the table files stay as they are.

    Raises:
        FileNotFoundError: if the root, the version or a table is missing.
        ValueError: if a table is damaged.
    """
    require_tables(root, version)
    return _load_devkit(root.resolve(), version, fingerprint(root, version))


@lru_cache(maxsize=1)
def _load_devkit(root: Path, version: str, _fingerprint: str) -> Any:
    from nuscenes import NuScenes

    class DetectionTables(NuScenes):  # type: ignore[misc]
        """What detection needs: neither maps with their masks nor tables of other tasks."""

        def __init__(self) -> None:
            self.version, self.dataroot = version, str(root)
            self.table_names = list(TABLES)
            for name in TABLES:
                setattr(self, name, read_loosely(root / version, name))
            # The reverse index of logs wants a map of each.
            self.log: list[Any] = []
            self.map = [{"token": "", "log_tokens": []}]
            self.__make_reverse_index__(verbose=False)

    try:
        return DetectionTables()
    except KeyError as error:
        raise InputError(
            f"the tables in {root / version} must be whole, got a link to a record that is missing: {error}"
        ) from error
