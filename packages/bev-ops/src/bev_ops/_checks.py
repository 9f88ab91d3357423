"""Argument checks shared by the ops: every message names the argument, the rule and what was given."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Shapes:
    """Binds axis letters to sizes over the arguments of one call.

    ``shapes.expect("depth", depth, "B N D H W")`` checks the number of axes, and that letters seen before
    have the size they had then.
    """

    def __init__(self, op: str) -> None:
        self._op = op
        self._sizes: dict[str, tuple[int, str]] = {}

    def bind(self, source: str, **sizes: int) -> None:
        """Give axis letters the sizes that `source` has."""
        for letter, size in sizes.items():
            self._sizes[letter] = size, source

    def expect(self, name: str, tensor: Tensor, axes: str) -> None:
        """Check one argument; an axis given as a number must have that size.

        Raises:
            TypeError: if the argument is not a tensor.
            ValueError: if it has another number of axes, or an axis of another size.
        """
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{self._op}: {name} must be a tensor [{axes}], got {type(tensor).__name__}")
        letters = axes.split()
        shape = tuple(tensor.shape)
        if len(shape) != len(letters):
            raise ValueError(f"{self._op}: {name} must have shape [{axes}], got {list(shape)}")
        for letter, size in zip(letters, shape, strict=True):
            wanted, source = (int(letter), "") if letter.isdigit() else self._sizes.get(letter, (size, name))
            if size != wanted:
                where = f" ({letter} = {wanted} as in {source})" if source else ""
                raise ValueError(f"{self._op}: {name} must have shape [{axes}]{where}, got {list(shape)}")
            # Not setdefault: torch 2.4 cannot trace it.
            if not letter.isdigit() and letter not in self._sizes:
                self._sizes[letter] = size, name


def expect_floating(op: str, **tensors: Tensor) -> None:
    """Check that the arguments are floating-point.

    Raises:
        ValueError: naming the first argument that is not.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{op}: {name} must be floating-point, got {tensor.dtype}")


def expect_one_device(op: str, **tensors: Tensor) -> None:
    """Check that all arguments lie on one device.

    Raises:
        ValueError: naming the devices found.
    """
    devices = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        found = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{op}: all arguments must be on one device, got {found}")


def expect_choice(op: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Check a named option.

    Raises:
        ValueError: listing the choices.
    """
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def expect_size(op: str, name: str, size: Sequence[int], least: int = 0) -> tuple[int, int]:
    """Check a (height, width) and return it as integers.

    Raises:
        ValueError: if it is not two integers of at least `least`.
    """
    sizes = tuple(size)
    if len(sizes) != 2 or any(not isinstance(one, int) or one < least for one in sizes):
        raise ValueError(f"{op}: {name} must be two integers (H, W) from {least} up, got {size!r}")
    return sizes[0], sizes[1]


def expect_grid(op: str, grid_shape: Sequence[int]) -> tuple[int, int, int]:
    """Check a (Z, Y, X) grid shape and return it as integers.

    Raises:
        ValueError: if it is not three positive integers.
    """
    sizes = tuple(grid_shape)
    if len(sizes) != 3 or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"{op}: grid_shape must be three positive integers (Z, Y, X), got {grid_shape!r}")
    return sizes[0], sizes[1], sizes[2]


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype sums run in: float64 where any argument has it, else float32, never half."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
