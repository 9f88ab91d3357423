"""Collect Python values from all processes of a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from lightning import Trainer

T = TypeVar("T")
K = TypeVar("K")


def gather(trainer: Trainer, value: T) -> list[T]:
    """Give every process the values of all, by rank."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(values, value)
    return values


def merge(parts: Sequence[Mapping[K, T]]) -> dict[K, T]:
    """Join mappings; of a key that several hold, the first value counts."""
    merged: dict[K, T] = {}
    for part in reversed(parts):
        merged.update(part)
    return merged


def on_rank_zero(trainer: Trainer, work: Callable[[], T]) -> T:
    """Run something in the first process alone and give its result to all.

    Raises:
        Exception: in every process, what `work` raised in the first, so that none waits for ever.
    """
    outcome: tuple[T | None, Exception | None] = (None, None)
    if trainer.is_global_zero:
        try:
            outcome = (work(), None)
        except Exception as error:
            if trainer.world_size == 1:
                raise
            outcome = (None, error)
    result, failure = trainer.strategy.broadcast(outcome)
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]
