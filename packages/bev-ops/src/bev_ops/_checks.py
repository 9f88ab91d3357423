"""Argument checks shared by the ops: every message names the argument, the rule and what was given."""

import math
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)
# What the kernels compute with.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# float32 tells so many rows or columns apart.
_MAX_SIDE = 2**24
_NUMBERED = ("D", "H", "W", "h", "w")
# Cells are numbered in 32 bits.
_MAX_CELLS = 2**31
# More than any machine holds; views of repeated elements can have more than 64-bit numbers count.
_MAX_ELEMENTS = 2**40


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
            ValueError: if it is not dense, has another number of axes, an axis of another size, or is too
                large.
        """
        expect_dense(self._op, f"a tensor [{axes}]", **{name: tensor})
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
        expect_countable(self._op, name, shape)
        if not torch.compiler.is_compiling():
            self._expect_numbered(name, dict(zip(letters, shape, strict=True)))

    def _expect_numbered(self, name: str, sizes: dict[str, int]) -> None:
        for letter, size in sizes.items():
            if letter in _NUMBERED and size > _MAX_SIDE:
                raise ValueError(
                    f"{self._op}: {name} must have at most 2^24 elements along {letter}, got {size}"
                )


# Signatures of calls whose arguments passed all checks: what the checks look at, and nothing else.
_passed: set[tuple[object, ...]] = set()
_MOST_PASSED = 4096


def signature(
    op: str, grid: Sequence[int], options: tuple[object, ...], *tensors: Tensor
) -> tuple[object, ...] | None:
    """All that the checks of an op's arguments look at; none where it cannot be told in short.

    Checks cost many times what a kernel's call costs, and a program makes the same calls again and again.
    """
    if torch.compiler.is_compiling() or type(grid) is not tuple:
        return None
    for value in grid + options:
        # What is equal need not be alike: 4.0 is no size.
        if type(value) not in (int, str):
            return None
    parts: list[object] = [op, grid, options]
    for tensor in tensors:
        # Subclasses may change their minds about any of these, and nested tensors have no shape.
        if type(tensor) not in _PLAIN or tensor.layout is not torch.strided or tensor.is_nested:
            return None
        parts += (tensor.shape, tensor.dtype, tensor.device)
    return tuple(parts)


def passed(known: tuple[object, ...] | None) -> bool:
    """Whether a call of this signature passed its checks before."""
    return known in _passed


def remember(known: tuple[object, ...] | None) -> None:
    """Note that a call of this signature passed its checks."""
    if known is not None:
        if len(_passed) >= _MOST_PASSED:
            _passed.clear()
        _passed.add(known)


def expect_dense(op: str, what: str, **tensors: Tensor) -> None:
    """Check that the arguments are tensors with strides.

    Raises:
        TypeError: naming the first argument that is not a tensor.
        ValueError: naming the first that is sparse, nested or otherwise laid out.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: {name} must be {what}, got {type(tensor).__name__}")
        if tensor.layout != torch.strided or tensor.is_nested:
            layout = "nested" if tensor.is_nested else str(tensor.layout)
            raise ValueError(f"{op}: {name} must be dense, got a tensor of layout {layout}")


def expect_countable(op: str, name: str, shape: Sequence[int], what: str = "") -> None:
    """Check that a tensor is not beyond all machines.

    Args:
        op: who asks.
        name: the argument that asks for so much.
        shape: of the argument, or of what it asks for.
        what: what it asks for; none: the argument itself.

    Raises:
        ValueError: if it has 2^40 elements or more.
    """
    # Not while torch traces: it would make guards of what no shape in a program comes near.
    if torch.compiler.is_compiling():
        return
    if math.prod(shape) >= _MAX_ELEMENTS:
        subject = f"the {what} that {name} asks for" if what else name
        raise ValueError(f"{op}: {subject} must have fewer than 2^40 elements, got {list(shape)}")


def expect_floating(op: str, **tensors: Tensor) -> None:
    """Check that the arguments are floating-point, of 16, 32 or 64 bits.

    Raises:
        ValueError: naming the first argument that is not.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise ValueError(f"{op}: {name} must be floating-point of 16, 32 or 64 bits, got {tensor.dtype}")


def expect_real(op: str, **tensors: Tensor) -> None:
    """Check that the arguments are floating-point or whole numbers.

    Raises:
        ValueError: naming the first argument that is neither.
    """
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool or tensor.dtype.is_complex or tensor.is_quantized:
            raise ValueError(f"{op}: {name} must be integer or floating-point, got {tensor.dtype}")


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
        ValueError: if it is not two integers from `least` to 2^24.
    """
    sizes = _integers(size)
    if len(sizes) != 2 or min(sizes) < least or max(sizes) > _MAX_SIDE:
        raise ValueError(
            f"{op}: {name} must be two integers (H, W) from {least} up, at most 2^24, got {size!r}"
        )
    return sizes[0], sizes[1]


def expect_grid(op: str, grid_shape: Sequence[int]) -> tuple[int, int, int]:
    """Check a (Z, Y, X) grid shape and return it as integers.

    Raises:
        ValueError: if it is not three integers from 1 to 2^24, or has 2^31 cells seen from above.
    """
    sizes = _integers(grid_shape)
    if len(sizes) != 3 or min(sizes) < 1 or max(sizes) > _MAX_SIDE:
        raise ValueError(
            f"{op}: grid_shape must be three positive integers (Z, Y, X), at most 2^24, got {grid_shape!r}"
        )
    if sizes[1] * sizes[2] >= _MAX_CELLS:
        raise ValueError(f"{op}: grid_shape must have Y * X below 2^31, got {grid_shape!r}")
    return sizes[0], sizes[1], sizes[2]


def expect_groups(op: str, groups: int, channels: int) -> int:
    """Check a number of groups and return it as an integer.

    Raises:
        ValueError: if there are no channels, or the groups do not divide them.
    """
    if channels == 0:
        raise ValueError(f"{op}: reference and source must have at least one channel (C), got 0")
    sizes = _integers((groups,))
    if not sizes or sizes[0] < 1 or channels % sizes[0]:
        raise ValueError(f"{op}: groups must divide the {channels} channels, got {groups!r}")
    return sizes[0]


def expect_metres(op: str, name: str, numbers: Sequence[float], *, positive: bool = False) -> None:
    """Check an (x, y, z) in metres.

    Raises:
        ValueError: if it is not three finite, or positive, numbers.
    """
    try:
        sizes = [float(number) for number in numbers]
    except (TypeError, ValueError):
        sizes = []
    if len(sizes) != 3 or not all(math.isfinite(one) and (one > 0 or not positive) for one in sizes):
        rule = "positive" if positive else "finite"
        raise ValueError(f"{op}: {name} must be three {rule} numbers (x, y, z) in metres, got {numbers!r}")


def _integers(numbers: Iterable[int]) -> tuple[int, ...]:
    """Whatever counts as integers (torch's and numpy's, too), or nothing."""
    try:
        # torch's symbolic integers stay what they are.
        return tuple(one if isinstance(one, int) else operator.index(one) for one in numbers)
    except TypeError:
        return ()


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype sums run in: float64 where any argument has it, else float32, never half."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
