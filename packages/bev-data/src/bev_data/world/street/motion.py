"""Where a thing is at a time: paths of lines and arcs, travelled at speeds that change linearly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Path:
    """Lines and arcs that join smoothly; before its start and after its end it goes on straight.

    Attributes:
        x, y, yaw: start, metres and radians.
        pieces: length in metres and curvature in 1/m (positive to the left) of each.
    """

    x: float
    y: float
    yaw: float
    pieces: tuple[tuple[float, float], ...] = ()

    def at(self, s: float) -> tuple[float, float, float]:
        """Place and direction after s metres."""
        x, y, yaw = self.x, self.y, self.yaw
        for length, curvature in self.pieces:
            if s <= 0.0:
                break
            part = min(s, length)
            s -= part
            turn = part * curvature
            # A chord of an arc: its length over the arc's is sin(turn / 2) / (turn / 2).
            chord = part * float(np.sinc(turn / (2 * np.pi)))
            x, y = x + chord * float(np.cos(yaw + turn / 2)), y + chord * float(np.sin(yaw + turn / 2))
            yaw += turn
        return x + s * float(np.cos(yaw)), y + s * float(np.sin(yaw)), yaw


@dataclass(frozen=True)
class Speed:
    """Speed that changes linearly between knots.

    Attributes:
        knots: time in seconds and speed in m/s; constant before the first and after the last.
    """

    knots: tuple[tuple[float, float], ...]

    def at(self, t: float) -> float:
        """Metres per second."""
        times, speeds = zip(*self.knots, strict=True)
        return float(np.interp(t, times, speeds))

    def travelled(self, t: float) -> float:
        """Metres since t = 0; negative before."""
        return self._since_first(t) - self._since_first(0.0)

    def _since_first(self, t: float) -> float:
        begin, speed = self.knots[0]
        if t <= begin:
            return (t - begin) * speed
        total = 0.0
        for (t0, v0), (t1, v1) in zip(self.knots[:-1], self.knots[1:], strict=True):
            end = min(t, t1)
            reached = v0 + (v1 - v0) * (end - t0) / (t1 - t0)
            total += 0.5 * (v0 + reached) * (end - t0)
            if t <= t1:
                return total
        return total + (t - self.knots[-1][0]) * self.knots[-1][1]


@dataclass(frozen=True)
class Motion:
    """A path, the place on it at t = 0, and the speed along it."""

    path: Path
    start: float = 0.0
    speed: Speed = Speed(((0.0, 0.0),))

    def at(self, t: float) -> tuple[float, float, float]:
        """x, y, yaw."""
        return self.path.at(self.start + self.speed.travelled(t))

    def moves(self, until: float) -> bool:
        """Whether it travels at all before a time."""
        return bool(abs(self.speed.travelled(until)) > 0.01)


def standing(x: float, y: float, yaw: float) -> Motion:
    """Something that stays where it is."""
    return Motion(Path(x, y, yaw))


def straight(x: float, y: float, yaw: float, speed: float, passing: float = 0.0) -> Motion:
    """Something that moves along a line and is at x, y at the time `passing`."""
    return Motion(Path(x, y, yaw), -speed * passing, Speed(((0.0, speed),)))


def turning_path(
    entry: tuple[float, float, float], leaving: tuple[float, float, float], radius: float, before: float
) -> Path:
    """From one lane into another by an arc.

    Of the arguments:
        entry, leaving: a place on each lane and its direction, which must differ.
        radius: of the arc, metres.
        before: metres of straight lane before the arc begins.
    """
    x, y, yaw = entry
    ox, oy, other = leaving
    turn = float((other - yaw + np.pi) % (2 * np.pi) - np.pi)
    # Where the two lines cross, as a distance from the entry point.
    across = np.cos(yaw) * np.sin(other) - np.sin(yaw) * np.cos(other)
    corner = ((ox - x) * np.sin(other) - (oy - y) * np.cos(other)) / across
    first = float(corner - radius * np.tan(abs(turn) / 2)) - before
    begin = (x + first * float(np.cos(yaw)), y + first * float(np.sin(yaw)))
    return Path(*begin, yaw, ((before, 0.0), (radius * abs(turn), float(np.sign(turn)) / radius)))


def yaw_rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> NDArray[np.float64]:
    """Rotation about z, then y, then x of the turned frame; nose down is positive pitch."""
    cz, sz, cy, sy, cx, sx = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(roll),
        np.sin(roll),
    )
    return np.array(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )
