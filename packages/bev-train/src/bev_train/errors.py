"""Errors that a user can mend, told in one sentence."""

import re
import sys

from bev_data.errors import InputError, WriteError


class NonFiniteError(RuntimeError):
    """A loss or gradient of training is NaN or infinite; the message names where it began."""


# What is explained without a traceback; everything else is a bug and keeps its own.
_MENDABLE: tuple[type[Exception], ...] = (InputError, WriteError, NonFiniteError)


def root_message(error: BaseException) -> str:
    """Say what stands at the root of a chain of errors, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(str(error))


def one_line(text: str) -> str:
    """Fold white space."""
    return " ".join(text.split())


def explain(error: BaseException) -> str | None:
    """Put an error that the user can mend into one sentence.

    Args:
        error: whatever ended a run, in this process or in a worker.

    Returns:
        The sentence, or None where the error is no fault of the input and deserves its traceback.
    """
    if isinstance(error, (*_MENDABLE, *_of_lightning())):
        return one_line(_beyond_traceback(str(error), type(error)))
    return None


def _of_lightning() -> tuple[type[Exception], ...]:
    """Lightning's own word for wrong settings, where Lightning is loaded: nothing loads it to tell."""
    module = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (module.MisconfigurationException,) if module else ()


def _beyond_traceback(text: str, kind: type[BaseException]) -> str:
    """Cut off the traceback that a loader puts before the message of a worker's error."""
    *_, message = re.split(rf"^(?:[\w.]+\.)?{kind.__name__}: ", text, flags=re.MULTILINE)
    return message
