"""The thirteen tables of nuScenes: rows of one scene, and all scenes joined."""

import hashlib
from itertools import pairwise
from typing import Any

from bev_data.nuscenes.versions import TABLES
from bev_data.world.street.mounting import CAMERAS, LIDAR

JsonRow = dict[str, Any]
TableRows = dict[str, list[JsonRow]]

# TableRows that are the same in every world.
_CATEGORIES = (
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.wheelchair",
    "human.pedestrian.stroller",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.construction_worker",
    "animal",
    "vehicle.car",
    "vehicle.motorcycle",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.truck",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.trailer",
    "movable_object.barrier",
    "movable_object.trafficcone",
    "movable_object.pushable_pullable",
    "movable_object.debris",
    "static_object.bicycle_rack",
)
_ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
_VISIBILITY = (("v0-40", 0, 40), ("v40-60", 40, 60), ("v60-80", 60, 80), ("v80-100", 80, 100))
LOCATIONS = ("singapore-onenorth", "boston-seaport", "singapore-queenstown", "singapore-hollandvillage")


def token(*words: object) -> str:
    """The token of a row: 32 hexadecimal digits that depend on the words alone."""
    return hashlib.md5("/".join(map(str, words)).encode(), usedforsecurity=False).hexdigest()


def category_token(name: str) -> str:
    """Token of a category by its name."""
    return token("category", name)


def attribute_tokens(name: str) -> list[str]:
    """Token of an attribute by its name, in a list; empty for ""."""
    return [token("attribute", name)] if name else []


def sensor_token(channel: str) -> str:
    """Token of a sensor by its channel."""
    return token("sensor", channel)


def visibility_token(fraction: float) -> str:
    """Token of the bin that a visible fraction, 0 to 1, falls into."""
    return str(1 + sum(fraction >= edge for edge in (0.4, 0.6, 0.8)))


def fixed_tables() -> TableRows:
    """Categories, attributes, visibilities and sensors."""
    return {
        "category": [
            {
                "token": category_token(name),
                "name": name,
                "description": name.replace(".", ", ").replace("_", " "),
            }
            for name in _CATEGORIES
        ],
        "attribute": [
            {
                "token": token("attribute", name),
                "name": name,
                "description": name.replace(".", ", ").replace("_", " "),
            }
            for name in _ATTRIBUTES
        ],
        "visibility": [
            {
                "token": str(index),
                "level": level,
                "description": f"visibility of whole object is between {low} and {high}%",
            }
            for index, (level, low, high) in enumerate(_VISIBILITY, 1)
        ],
        "sensor": [
            {"token": sensor_token(channel), "channel": channel, "modality": "camera"} for channel in CAMERAS
        ]
        + [{"token": sensor_token(LIDAR), "channel": LIDAR, "modality": "lidar"}],
    }


def chain(rows: list[JsonRow]) -> None:
    """Set `prev` and `next` along rows that are in order of time."""
    for before, after in pairwise(rows):
        before["next"], after["prev"] = after["token"], before["token"]


def join(scenes: list[TableRows]) -> TableRows:
    """All thirteen tables of a world from the rows of its scenes."""
    tables = fixed_tables()
    for name in TABLES:
        if name not in tables:
            tables[name] = [row for scene in scenes for row in scene[name]]
    return {name: tables[name] for name in TABLES}
