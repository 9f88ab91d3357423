"""The two rulers of the detector: BEV cells and depth bins. No range is stated anywhere else."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def _count(name: str, low: float, high: float, step: float) -> int:
    """Number of steps between two limits.

    Raises:
        ValueError: if the limits are not finite and ordered, or not a whole number of steps apart.
    """
    if not (all(map(math.isfinite, (low, high, step))) and step > 0 and high > low):
        raise ValueError(f"{name} must be finite with low < high and a positive step, got {low, high, step}")
    count = (high - low) / step
    if abs(count - round(count)) > 1e-4 or round(count) < 1:
        raise ValueError(f"{name} must span a whole number of steps, got {low, high, step}: {count} steps")
    return round(count)


@dataclass(frozen=True)
class BEVGrid:
    """A bird's-eye-view grid in keyego: (low, high, cell size) in metres per axis.

    Attributes:
        x: forward.
        y: left.
        z: up; the published grid has one cell of 8 m, summed away by lift-splat in any case.
    """

    x: tuple[float, float, float] = (-51.2, 51.2, 0.8)
    y: tuple[float, float, float] = (-51.2, 51.2, 0.8)
    z: tuple[float, float, float] = (-5.0, 3.0, 8.0)

    def __post_init__(self) -> None:
        for name, axis in (("x", self.x), ("y", self.y), ("z", self.z)):
            _count(f"BEV grid axis {name}", *axis)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X) in cells."""
        return _count("z", *self.z), _count("y", *self.y), _count("x", *self.x)

    @property
    def low(self) -> tuple[float, float, float]:
        """Low corner (x, y, z), metres."""
        return self.x[0], self.y[0], self.z[0]

    @property
    def cell(self) -> tuple[float, float, float]:
        """Cell size (x, y, z), metres."""
        return self.x[2], self.y[2], self.z[2]


@dataclass(frozen=True)
class DepthBins:
    """Equal depth bins along the optical axis; bin i covers [start + i*step, start + (i+1)*step) metres."""

    start: float = 2.0
    stop: float = 58.0
    step: float = 0.5

    def __post_init__(self) -> None:
        _count("depth bins", self.start, self.stop, self.step)
        if self.start <= 0:
            raise ValueError(f"depth bins must start in front of the camera (start > 0 m), got {self.start}")

    @property
    def count(self) -> int:
        """Number of bins."""
        return _count("depth bins", self.start, self.stop, self.step)

    def edges(self) -> Float[Tensor, "d"]:
        """Near edge of each bin, metres: where the detector places a bin's features."""
        return self.start + self.step * torch.arange(self.count, dtype=torch.float32)

    def centers(self) -> Float[Tensor, "d"]:
        """Middle of each bin, metres."""
        return self.edges() + self.step / 2

    def index(self, depth: float) -> int:
        """Index of the bin that begins at `depth`.

        Raises:
            ValueError: if no bin begins there and it is not the end of the last one.
        """
        position = (depth - self.start) / self.step
        if abs(position - round(position)) > 1e-4 or not 0 <= round(position) <= self.count:
            raise ValueError(
                f"a depth range must begin and end on the border of a depth bin "
                f"({self.start} m + k * {self.step} m up to {self.stop} m), got {depth} m"
            )
        return round(position)
