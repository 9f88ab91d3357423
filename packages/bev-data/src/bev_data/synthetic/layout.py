"""Who and what is where in a scene: a crossing of two streets, the ego's drive, road users, scenery."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bev_data.synthetic import people, street_things, vehicles
from bev_data.synthetic.ground import HALF_ROAD, HALF_STREET, LANE, PARKING, Road
from bev_data.synthetic.jit import kernel
from bev_data.synthetic.motion import Motion, Path, Speed, standing, straight, turning_path
from bev_data.synthetic.paints import Builder
from bev_data.synthetic.solids import Model
from bev_data.synthetic.terrain import DOMAIN

EGO_SIZE = (4.1, 1.75, 1.6)
EGO_AHEAD = 1.4  # metres from the rear axle to the middle of the car
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


def plan(duration: float, behaviour: str, rng: np.random.Generator) -> Layout:
    """Lay out a scene.

    Of the arguments:
        duration: seconds.
        behaviour: what the ego does: "straight", "turn" or "stop".
    """
    layout = Layout(duration, rng)
    heading = rng.uniform(0.0, 2 * np.pi)
    other = heading + np.deg2rad(rng.uniform(78.0, 102.0))
    middle = 0.5 * DOMAIN
    layout.roads = [Road(middle, middle, float(np.cos(a)), float(np.sin(a))) for a in (heading, other)]
    layout.ego = _drive(layout, behaviour)
    length, width, _ = EGO_SIZE
    ahead = Motion(layout.ego.path, layout.ego.start + EGO_AHEAD, layout.ego.speed)
    layout.free(ahead, length, width, 0.0)
    _scenery(layout)
    _traffic(layout)
    _large(layout)
    _sites(layout)
    _parked(layout)
    _people(layout)
    return layout


def _drive(layout: Layout, behaviour: str) -> Motion:
    rng, main, cross = layout.rng, layout.roads[0], layout.roads[1]
    lane = -0.5 * LANE
    if behaviour == "turn":
        speed = rng.uniform(4.0, 6.0)
        covered = speed * layout.duration
        left = rng.random() < 0.5
        direction = cross.yaw if left else cross.yaw + np.pi
        entry = (*main.at(-60.0, lane), main.yaw)
        leaving = (*cross.at(0.0, lane if left else -lane), direction)
        radius = rng.uniform(11.0, 14.0) if left else rng.uniform(8.0, 10.0)
        before = rng.uniform(0.25, 0.5) * covered
        path = turning_path(entry, leaving, radius, before)
        faster = speed * rng.uniform(1.0, 1.3)
        return Motion(
            path, 0.0, Speed(((0.0, faster), (0.3 * layout.duration, speed), (layout.duration, faster)))
        )
    if behaviour == "stop":
        speed = rng.uniform(5.0, 8.0)
        braking = speed / rng.uniform(1.8, 2.6)
        begin = rng.uniform(0.15, 0.3) * layout.duration
        halt = begin + braking
        again = halt + rng.uniform(1.2, 2.5)
        profile = Speed(
            ((0.0, speed), (begin, speed), (halt, 0.0), (again, 0.0), (again + speed / 1.6, speed))
        )
        start = -(HALF_ROAD + 5.5) - profile.travelled(halt) - EGO_AHEAD
    else:
        speed = rng.uniform(4.0, 8.5)
        late = speed * rng.uniform(0.8, 1.25)
        profile = Speed(((0.0, speed), (0.4 * layout.duration, late), (layout.duration + 0.1, speed)))
        start = -rng.uniform(0.25, 0.9) * profile.travelled(layout.duration)
    return Motion(Path(*main.at(start, lane), main.yaw), 0.0, profile)


def _scenery(layout: Layout) -> None:
    rng = layout.rng
    places: list[tuple[float, float, float]] = []
    for road in layout.roads:
        for side in (-1.0, 1.0):
            s = -112.0 + rng.uniform(0.0, 8.0)
            while s < 112.0:
                length, depth = rng.uniform(9.0, 19.0), rng.uniform(8.0, 12.0)
                set_back = HALF_STREET + rng.uniform(1.0, 5.5)
                x, y = road.at(s + 0.5 * length, side * (set_back + 0.5 * depth))
                yaw = road.yaw + (np.pi if side < 0 else 0.0)
                clear = (
                    all(layout.off_street(*road.at(s + k * length, side * set_back), 0.0) for k in (0.0, 1.0))
                    or abs(s) > 60
                )
                if rng.random() < 0.72 and clear and layout.off_street(x, y, 0.3 * depth):
                    size = (length, depth, float(rng.uniform(4.5, 14.0)))
                    if layout.free(standing(x, y, yaw), length, depth, 0.5):
                        layout.scenery.append(Scenery((x, y, yaw), street_things.building(size, rng)))
                elif clear and rng.random() < 0.6:
                    size = (length, 0.5, float(rng.uniform(0.9, 2.0)))
                    wx, wy = road.at(s + 0.5 * length, side * (HALF_STREET + 0.6))
                    if layout.free(standing(wx, wy, yaw), length, 0.5, 0.2):
                        layout.scenery.append(Scenery((wx, wy, yaw), street_things.wall(size, rng)))
                s += length + rng.uniform(0.5, 5.0)
            for s in np.arange(-100.0, 100.0, rng.uniform(9.0, 14.0)):
                s += rng.uniform(-2.0, 2.0)
                if abs(s) > HALF_STREET + 2.0:
                    places.append((*road.at(s, side * (HALF_STREET + rng.uniform(0.6, 1.6))), road.yaw))
                if abs(s) > HALF_STREET and rng.random() < 0.6:
                    x, y = road.at(s + 4.0, side * (HALF_ROAD + 0.5))
                    yaw = road.yaw + (0.5 if side < 0 else -0.5) * np.pi
                    if layout.free(standing(x, y, yaw), 0.25, 0.25, 0.1):
                        size = (0.2, 0.2, float(rng.uniform(4.6, 6.5)))
                        layout.scenery.append(Scenery((x, y, yaw), street_things.post(size, rng)))
        for s in (-119.0, 119.0):  # a house closes the view down the street
            x, y = road.at(s, 0.0)
            size = (40.0, 10.0, float(rng.uniform(9.0, 16.0)))
            layout.scenery.append(Scenery((x, y, road.yaw + 0.5 * np.pi), street_things.building(size, rng)))
    for x, y, yaw in places:
        crown = float(rng.uniform(2.2, 4.2))
        # Room for the crown, so that nothing tall stands in its leaves.
        if rng.random() < 0.8 and layout.free(standing(x, y, yaw), 0.8 * crown, 0.8 * crown, 0.0):
            size = (crown, crown, float(rng.uniform(4.5, 8.5)))
            layout.scenery.append(Scenery((x, y, float(rng.uniform(0, 6.28))), street_things.tree(size, rng)))


def _several(layout: Layout, number: int, place: Callable[[], bool]) -> None:
    """Place a number of things, with a few tries for each."""
    for _ in range(number):
        for _ in range(15):
            if place():
                break


def _traffic(layout: Layout) -> None:
    """Vehicles in the lanes: before and behind the ego, oncoming, crossing, and some that wait."""
    rng, ego = layout.rng, layout.ego
    vehicles = ("car", "car", "car", "truck", "bus", "motorcycle", "bicycle", "construction_vehicle")

    def convoy(gap: float) -> None:
        kind = str(rng.choice(vehicles[:7]))
        layout.add(kind, Motion(ego.path, ego.start + EGO_AHEAD + gap, ego.speed), "stopped")

    if rng.random() < 0.6:
        convoy(rng.uniform(13.0, 22.0))
    if rng.random() < 0.4:
        convoy(-rng.uniform(11.0, 18.0))

    def drive(kind: str, lane: float) -> bool:
        road, s, time = layout.near(18.0)
        side = 1.0 if rng.random() < 0.6 else -1.0
        slow = {"bicycle": (2.5, 5.0), "construction_vehicle": (1.0, 3.0)}.get(kind, (3.0, 9.0))
        speed = rng.uniform(*slow)
        yaw = road.yaw + (np.pi if side > 0 else 0.0)
        motion = straight(*road.at(s, side * lane), yaw, speed, time)
        if not layout.add(kind, motion):
            return False
        if kind == "truck" and rng.random() < 0.6:
            length = layout.users[-1].size[0]
            behind = 0.5 * length + 0.5 * KINDS["trailer"].size[0] * 1.16 + 0.3
            layout.add("trailer", Motion(motion.path, motion.start - behind, motion.speed), margin=0.0)
        return True

    def wait(kind: str) -> bool:
        road, s, _ = layout.near(20.0)
        side = 1.0 if rng.random() < 0.7 else -1.0
        yaw = road.yaw + (np.pi if side > 0 else 0.0)
        return layout.add(
            kind, standing(*road.at(s, side * 0.5 * LANE), yaw), "ridden" if kind in CYCLES else "stopped"
        )

    for kind, number in (("car", 3), ("truck", 2), ("bus", 1), ("motorcycle", 2), ("bicycle", 1)):
        _several(layout, int(rng.integers(1, number + 1)), partial(drive, kind, 0.5 * LANE))
    _several(layout, int(rng.integers(1, 4)), partial(drive, "bicycle", LANE - 0.55))
    if rng.random() < 0.35:
        drive("construction_vehicle", 0.5 * LANE)
    if rng.random() < 0.4:
        wait(str(rng.choice(vehicles)))


def _park(layout: Layout, kind: str) -> bool:
    """Try to leave a vehicle in a parking strip; some stand against the traffic."""
    rng = layout.rng
    road, s, _ = layout.near(23.0)
    side = 1.0 if rng.random() < 0.5 else -1.0
    yaw = road.yaw + (np.pi if (side > 0) != (rng.random() < 0.15) else 0.0)
    if abs(s) < HALF_ROAD + 6.0:
        return False
    left = side * (LANE + 0.5 * PARKING + rng.uniform(-0.1, 0.15))
    return layout.add(kind, standing(*road.at(s, left), yaw + rng.normal(0.0, 0.03)), margin=0.5)


def _large(layout: Layout) -> None:
    """Long vehicles are parked first, while there is room."""
    for kind, low, high in (("trailer", 1, 4), ("bus", 1, 3), ("truck", 1, 3)):
        _several(layout, int(layout.rng.integers(low, high)), partial(_park, layout, kind))


def _parked(layout: Layout) -> None:
    """Cars in the parking strips, cycles on the pavement."""
    rng = layout.rng

    def lean(kind: str) -> bool:
        road, s, _ = layout.near(20.0)
        side = 1.0 if rng.random() < 0.5 else -1.0
        yaw = road.yaw + rng.choice([0.5, -0.5, 0.0, 1.0]) * np.pi + rng.normal(0.0, 0.2)
        if abs(s) < HALF_STREET:
            return False
        return layout.add(kind, standing(*road.at(s, side * (HALF_ROAD + rng.uniform(0.9, 2.4))), yaw))

    for kind, low, high in (("car", 4, 8), ("motorcycle", 1, 2)):
        _several(layout, int(rng.integers(low, high)), partial(_park, layout, kind))
    for kind in CYCLES:
        _several(layout, int(rng.integers(1, 4)), partial(lean, kind))


def _sites(layout: Layout) -> None:
    """Building sites (a machine, barriers, cones, workers), and rows of cones or barriers alone."""
    rng = layout.rng

    def site() -> bool:
        road, s, _ = layout.near(18.0)
        side = 1.0 if rng.random() < 0.5 else -1.0
        if abs(s) < HALF_STREET + 6.0:
            return False
        yaw = road.yaw + float(rng.uniform(0.0, 2 * np.pi))
        if not layout.add(
            "construction_vehicle", standing(*road.at(s, side * (HALF_ROAD + 0.7)), yaw), margin=0.4
        ):
            return False
        edge = LANE + 0.45
        for k in range(int(rng.integers(4, 7))):
            along = s - 6.0 + 2.4 * k
            layout.add(
                "traffic_cone",
                standing(*road.at(along, side * (edge + rng.uniform(0, 0.3))), road.yaw),
                margin=0.05,
            )
        for end in (-6.5, 6.5):
            if rng.random() < 0.75:
                across = road.yaw + (0.0 if rng.random() < 0.5 else np.pi)
                layout.add("barrier", standing(*road.at(s + end, side * (LANE + 1.9)), across), margin=0.05)
        for _ in range(int(rng.integers(1, 3))):
            place = road.at(s + rng.uniform(-6.0, 6.0), side * (LANE + rng.uniform(1.2, 5.0)))
            layout.add("worker", standing(*place, float(rng.uniform(0.0, 6.28))), margin=0.1)
        return True

    def row(kind: str) -> bool:
        road, s, _ = layout.near(18.0)
        side = 1.0 if rng.random() < 0.5 else -1.0
        if abs(s) < HALF_STREET:
            return False
        left = side * rng.choice([LANE + 0.35, HALF_ROAD - 0.4, HALF_ROAD + 0.6])
        step = rng.uniform(1.6, 3.0) if kind == "traffic_cone" else rng.uniform(2.95, 3.4)
        yaw = road.yaw + 0.5 * np.pi * (1.0 if side < 0 else -1.0)
        placed = 0
        for k in range(int(rng.integers(2, 5))):
            motion = standing(*road.at(s + step * k, left), yaw + rng.normal(0.0, 0.05))
            placed += layout.add(kind, motion, margin=0.05)
        return placed > 0

    _several(layout, int(rng.integers(2, 4)), site)
    _several(layout, int(rng.integers(1, 3)), partial(row, "traffic_cone"))
    _several(layout, int(rng.integers(2, 5)), partial(row, "barrier"))


def _people(layout: Layout) -> None:
    """Walkers on the pavements, people that stand, and some that cross the street."""
    rng = layout.rng

    def walk() -> bool:
        road, s, time = layout.near(18.0)
        side = 1.0 if rng.random() < 0.5 else -1.0
        yaw = road.yaw + (np.pi if rng.random() < 0.5 else 0.0)
        kind = "child" if rng.random() < 0.12 else "pedestrian"
        place = road.at(s, side * (HALF_ROAD + rng.uniform(0.7, 2.5)))
        return layout.add(kind, straight(*place, yaw, rng.uniform(0.8, 1.7), time), margin=0.15)

    def stand() -> bool:
        road, s, _ = layout.near(18.0)
        side = 1.0 if rng.random() < 0.5 else -1.0
        place = road.at(s, side * (HALF_ROAD + rng.uniform(0.4, 3.0)))
        return layout.add("pedestrian", standing(*place, float(rng.uniform(0.0, 6.28))), margin=0.15)

    def cross() -> bool:
        road, s, time = layout.near(15.0)
        yaw = road.yaw + (0.5 if rng.random() < 0.5 else -0.5) * np.pi
        return layout.add(
            "pedestrian", straight(*road.at(s, 0.0), yaw, rng.uniform(1.0, 1.8), time), margin=0.5
        )

    _several(layout, int(rng.integers(4, 9)), walk)
    _several(layout, int(rng.integers(3, 7)), stand)
    _several(layout, int(rng.integers(1, 4)), cross)
