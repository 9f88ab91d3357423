"""Ranges of numbers in configurations: stated where a number is declared, held wherever it comes from."""

import dataclasses
import math
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Numbers that are allowed.

    Attributes:
        low: the least of them.
        high: the greatest.
        open: leave `low` itself out.
    """

    low: float
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: object) -> bool:
        """Whether a number is allowed; NaN and infinity never are."""
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return (value > self.low if self.open else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        """As an error says it."""
        low = f"{'above' if self.open else 'at least'} {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


def within(default: Any, low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """Declare a number of a configuration, or a tuple of numbers, with its range.

    Args:
        default: its value where nothing is said; None takes part in no range.
        low: the least allowed value.
        high: the greatest.
        above: leave `low` itself out.
    """
    return dataclasses.field(default=default, metadata={"range": Range(low, high, above)})


def check_ranges(config: Any, name: str) -> None:
    """Hold every number of a configuration to its range.

    Args:
        config: a dataclass with numbers that `within` declared.
        name: of the configuration, as errors call it.

    Raises:
        ValueError: if a number is out of its range.
    """
    for field in dataclasses.fields(config):
        allowed = field.metadata.get("range")
        value = getattr(config, field.name)
        if allowed is None or value is None:
            continue
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if number not in allowed:
                raise ValueError(f"{name}{field.name} must be {allowed}, got {value}")
