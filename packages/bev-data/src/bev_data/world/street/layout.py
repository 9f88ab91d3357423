"""A scene in the making: kinds of road users, who takes part in it, and how nobody touches another."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.jit import kernel
from bev_data.world.street.ground import HALF_STREET, Road
from bev_data.world.street.motion import Motion, standing
from bev_data.world.things import people, street_things, vehicles
from bev_data.world.things.paints import Builder
from bev_data.world.things.solids import Model

STEP = 0.25  # seconds between the instants at which two things must not touch


class Kind(NamedTuple):
    """A category of nuScenes: its look and its usual length, width, height in metres."""

    category: str
    build: Builder
    size: tuple[float, float, float]


KINDS: dict[str, Kind] = {
    "car": Kind("vehicle.car", vehicles.car, (4.6, 1.95, 1.73)),
    "truck": Kind("vehicle.truck", vehicles.truck, (6.9, 2.5, 2.85)),
    "construction_vehicle": Kind("vehicle.construction", vehicles.construction_vehicle, (6.4, 2.8, 3.2)),
    "bus": Kind("vehicle.bus.rigid", vehicles.bus, (10.5, 2.9, 3.45)),
    "trailer": Kind("vehicle.trailer", vehicles.trailer, (9.0, 2.7, 3.7)),
    "barrier": Kind("movable_object.barrier", street_things.barrier, (0.5, 2.5, 1.0)),
    "motorcycle": Kind("vehicle.motorcycle", people.motorcycle, (2.1, 0.8, 1.5)),
    "bicycle": Kind("vehicle.bicycle", people.bicycle, (1.75, 0.62, 1.35)),
    "pedestrian": Kind("human.pedestrian.adult", people.pedestrian, (0.75, 0.68, 1.77)),
    "child": Kind("human.pedestrian.child", people.pedestrian, (0.55, 0.52, 1.3)),
    "worker": Kind("human.pedestrian.construction_worker", people.worker, (0.75, 0.7, 1.78)),
    "traffic_cone": Kind("movable_object.trafficcone", street_things.traffic_cone, (0.42, 0.42, 1.05)),
}
CYCLES = ("motorcycle", "bicycle")
PEOPLE = ("pedestrian", "child", "worker")


@dataclass(frozen=True)
class RoadUser:
    """Something with an annotated box.

    Attributes:
        kind: a key of `KINDS`.
        size: length, width, height in metres.
        attribute: name of its nuScenes attribute, or "".
    """

    kind: str
    size: tuple[float, float, float]
    motion: Motion
    model: Model
    attribute: str


@dataclass(frozen=True)
class Scenery:
    """Something without a box that hides what is behind it."""

    place: tuple[float, float, float]
    model: Model


@kernel
def touches(tracks: NDArray[np.float64], one: NDArray[np.float64]) -> bool:
    """Whether an upright box meets any other at any instant.

    Args:
        tracks: [others, instants, 5] x, y, yaw, half length, half width.
        one: [instants, 5].
    """
    for k in range(tracks.shape[0]):
        for t in range(one.shape[0]):
            ex, ey = tracks[k, t, 0] - one[t, 0], tracks[k, t, 1] - one[t, 1]
            reach = np.hypot(tracks[k, t, 3], tracks[k, t, 4]) + np.hypot(one[t, 3], one[t, 4])
            if ex * ex + ey * ey > reach * reach:
                continue
            turn = tracks[k, t, 2] - one[t, 2]
            c, s = abs(np.cos(turn)), abs(np.sin(turn))
            apart = False
            for first in range(2):
                yaw = one[t, 2] if first == 0 else tracks[k, t, 2]
                long, wide = (one[t, 3], one[t, 4]) if first == 0 else (tracks[k, t, 3], tracks[k, t, 4])
                ol, ow = (tracks[k, t, 3], tracks[k, t, 4]) if first == 0 else (one[t, 3], one[t, 4])
                along = abs(ex * np.cos(yaw) + ey * np.sin(yaw))
                athwart = abs(ey * np.cos(yaw) - ex * np.sin(yaw))
                if along > long + ol * c + ow * s or athwart > wide + ol * s + ow * c:
                    apart = True
            if not apart:
                return True
    return False


@dataclass
class Layout:
    """A scene in the making; things that would touch others are refused.

    Attributes:
        duration: seconds.
        roads: the main street, along which the ego comes, and the one that crosses it.
    """

    duration: float
    rng: np.random.Generator
    roads: list[Road] = field(default_factory=list)
    ego: Motion = field(default_factory=lambda: standing(0.0, 0.0, 0.0))
    users: list[RoadUser] = field(default_factory=list)
    scenery: list[Scenery] = field(default_factory=list)
    tracks: list[NDArray[np.float64]] = field(default_factory=list)

    def free(self, motion: Motion, length: float, width: float, margin: float) -> bool:
        """Take the room that a motion needs, if nobody has it."""
        times = np.arange(-STEP, self.duration + 2 * STEP, STEP)
        if motion.moves(self.duration):
            places = np.array([motion.at(float(t)) for t in times])
        else:
            places = np.tile(motion.at(0.0), (len(times), 1))
        half = np.tile([0.5 * length, 0.5 * width], (len(times), 1))
        track = np.concatenate([places, half], axis=1)
        wider = track + np.array([0.0, 0.0, 0.0, margin, margin])
        if self.tracks and touches(np.stack(self.tracks), wider):
            return False
        self.tracks.append(track)
        return True

    def add(self, kind: str, motion: Motion, state: str = "parked", margin: float = 0.3) -> bool:
        """Add a road user, 15 % larger or smaller than usual, unless it would touch another.

        Of the arguments:
            state: what it does while it stands: "parked", "stopped", or for cycles "ridden".
        """
        usual = KINDS[kind].size
        common = self.rng.uniform(0.88, 1.12)
        scales = common * self.rng.uniform(0.96, 1.04, 3)
        size = (usual[0] * scales[0], usual[1] * scales[1], usual[2] * scales[2])
        moving = motion.moves(self.duration)
        ridden = moving or state == "ridden"
        if kind in CYCLES and ridden:
            size = (size[0], size[1], size[2] * (1.13 if kind == "motorcycle" else 1.28))
        if not self.free(motion, size[0], size[1], margin):
            return False
        model = KINDS[kind].build(size, self.rng, ridden if kind in CYCLES else moving)
        self.users.append(RoadUser(kind, size, motion, model, _attribute(kind, moving, ridden, state)))
        return True

    def near(self, reach: float) -> tuple[Road, float, float]:
        """A street that the ego comes by, a place along it within `reach` of the ego, and when."""
        time = float(self.rng.uniform(0.0, self.duration))
        x, y, _ = self.ego.at(time)
        sides = [abs((y - road.y) * road.ux - (x - road.x) * road.uy) for road in self.roads]
        along = [(x - road.x) * road.ux + (y - road.y) * road.uy for road in self.roads]
        first = int(np.argmin(sides))
        index = 1 - first if sides[1 - first] < 30.0 and self.rng.random() < 0.3 else first
        return self.roads[index], along[index] + float(self.rng.uniform(-reach, reach)), time

    def off_street(self, x: float, y: float, room: float) -> bool:
        """Whether a disc leaves all streets free."""
        return all(
            abs((y - road.y) * road.ux - (x - road.x) * road.uy) > HALF_STREET + room for road in self.roads
        )


def _attribute(kind: str, moving: bool, ridden: bool, state: str) -> str:
    if kind in CYCLES:
        return "cycle.with_rider" if ridden else "cycle.without_rider"
    if kind in PEOPLE:
        return "pedestrian.moving" if moving else "pedestrian.standing"
    if kind in ("barrier", "traffic_cone"):
        return ""
    return "vehicle.moving" if moving else f"vehicle.{state}"
