"""What happens in a scene: the ego's drive, traffic, parked vehicles, building sites, people, scenery."""

from collections.abc import Callable
from functools import partial

import numpy as np

from bev_data.world.street.ground import HALF_ROAD, HALF_STREET, LANE, PARKING, Road
from bev_data.world.street.layout import CYCLES, KINDS, Layout, Scenery
from bev_data.world.street.motion import Motion, Path, Speed, standing, straight, turning_path
from bev_data.world.street.terrain import DOMAIN
from bev_data.world.things import street_things

EGO_SIZE = (4.1, 1.75, 1.6)
EGO_AHEAD = 1.4  # metres from the rear axle to the middle of the car


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
