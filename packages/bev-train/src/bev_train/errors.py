"""Errors that a user can mend, told in one sentence."""

import re
import sys

from bev_data.errors import InputError, WriteError


class NonFiniteError(RuntimeError):
    """A loss or gradient of training is NaN or infinite; the message names where it began."""


# What is explained without a traceback; everything else is a bug and keeps its own.
_MENDABLE: tuple[type[Exception], ...] = (InputError, WriteError, NonFiniteError)


def wrong_value(error: ValueError) -> InputError | None:
    """Find the wrong input behind an error that building model, data or trainer ended with.

    Returns:
        The first InputError of the chain, or one that says what bev_models refused (it knows no InputError);
        None where the error is no word about the input, but a bug.
    """
    link: BaseException | None = error
    root: BaseException = error
    while link is not None:
        if isinstance(link, InputError):
            return link
        root, link = link, link.__cause__
    frame = root.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    raised_in = frame.tb_frame.f_globals.get("__name__", "") if frame else ""
    return (
        InputError(one_line(str(root))) if raised_in.partition(".")[0] in ("bev_models", "bev_ops") else None
    )


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
    return lost_worker(error)


def lost_worker(error: BaseException) -> str | None:
    """Say what ended a data worker; None where that is not what the error is about."""
    found = re.search(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (.*)", str(error))
    if found is None:
        return None
    process, how = found[1], one_line(found[2])
    if "Bus error" in how:
        return (
            f"data worker {process} ended by a bus error: a file that it reads, such as the infos, was cut "
            "short, or the machine has no shared memory left: make the infos anew with `bev-data prepare`, "
            "or give more shared memory (/dev/shm; docker run --shm-size)"
        )
    return (
        f"data worker {process} was ended from outside ({how.rstrip('.')}), mostly because the machine has "
        "no memory left: lower data.loader.num_workers or data.loader.batch_size"
    )


def _of_lightning() -> tuple[type[Exception], ...]:
    """Lightning's own word for wrong settings, where Lightning is loaded: nothing loads it to tell."""
    module = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (module.MisconfigurationException,) if module else ()


def _beyond_traceback(text: str, kind: type[BaseException]) -> str:
    """Cut off the traceback that a loader puts before the message of a worker's error."""
    *_, message = re.split(rf"^(?:[\w.]+\.)?{kind.__name__}: ", text, flags=re.MULTILINE)
    return message
