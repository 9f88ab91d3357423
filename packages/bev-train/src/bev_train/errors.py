"""Errors that a user can mend, told in one sentence."""

import re

# Errors that are explained without a traceback, in this process or out of a worker's.
# InputError is bev_data's too.
_MENDABLE = frozenset(
    {
        "InputError",
        "NonFiniteError",
        "MisconfigurationException",
        "FileNotFoundError",
        "IsADirectoryError",
        "NotADirectoryError",
        "PermissionError",
        "WriteError",
    }
)


class InputError(Exception):
    """Wrong input: the message says what is wrong and how to mend it.

    Not a ValueError, because argument parsers catch those while they try one type after another.
    """


class NonFiniteError(RuntimeError):
    """A loss or gradient of training is NaN or infinite; the message names where it began."""


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
    # By name: Lightning and torch need not be loaded to tell what their errors are.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & _MENDABLE:
        return one_line(_beyond_traceback(str(error)))
    if "ProcessRaisedException" in kinds:
        message = _beyond_traceback(str(error))
        return one_line(message) if message != str(error) else None
    return None


def _beyond_traceback(text: str) -> str:
    """Cut off the traceback that a worker process puts before the message of its error."""
    names = "|".join(_MENDABLE)
    *_, message = re.split(rf"^(?:[\w.]+\.)?(?:{names}): ", text, flags=re.MULTILINE)
    return message
