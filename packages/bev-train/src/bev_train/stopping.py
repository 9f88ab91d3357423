"""Signals: SIGTERM and Ctrl-C stop training after the step in progress, and at once when they come again."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Training ended because a signal asked for it; what it did is saved where `saved` says.

    Not an Exception: nothing that recovers from errors may swallow it.
    """

    def __init__(self, signum: int) -> None:
        """Say which signal.

        Args:
            signum: its number.
        """
        super().__init__(f"stopped by {_name(signum)}")
        self.code = 128 + signum
        self.saved = ""


class Signals:
    """What signals have asked this process for.

    At first a signal ends the process at once: there is nothing to lose. While `patient`, the first one is
    noted for the loop to look at, which ends with all that it did saved.
    """

    def __init__(self) -> None:
        """Begin with nothing asked for."""
        self.listening = False
        self.reset()

    def reset(self) -> None:
        """Forget what was asked for."""
        self.asked: int | None = None
        self.patient = False
        self.at_once: Callable[[], Any] | None = None
        self._process = os.getpid()

    def install(self) -> None:
        """Take the signals, if a command line listens to them; libraries put handlers of their own there."""
        if self.listening:
            for number in _SIGNALS:
                signal.signal(number, self.handle)

    def handle(self, number: int, _: FrameType | None) -> None:
        """Take a signal."""
        # Forks belong to the process that made them, which ends them.
        if os.getpid() != self._process:
            return
        if self.patient and self.asked is None:
            self.asked = number
            _say(f"{_name(number)}: stopping after this step; once more stops at once")
            return
        _say(f"error: stopped by {_name(number)}")
        if self.at_once is not None:
            self.at_once()
        # Without clean-up, for threads may hold locks: no file is ever half-written under its name.
        os._exit(128 + number)


SIGNALS = Signals()


@contextmanager
def listening() -> Iterator[None]:
    """Take SIGTERM and SIGINT for the time of a block; outside the main thread nothing is taken."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    SIGNALS.reset()
    SIGNALS.listening = True
    try:
        SIGNALS.install()
    except ValueError:
        SIGNALS.listening = False
    try:
        yield
    finally:
        if SIGNALS.listening:
            for number, handler in before.items():
                signal.signal(number, handler)
        SIGNALS.listening = False


def outlive_signals(_: int) -> None:
    """Let a data worker outlive the first signal, which terminals and schedulers send to all processes.

    The step in progress may need its samples; its parent ends it afterwards.
    """
    told: list[int] = []

    def handle(number: int, _: Any) -> None:
        if told:
            os._exit(128 + number)
        told.append(number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, handle)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _say(text: str) -> None:
    # Not by print, in the middle of which the signal may have come.
    os.write(2, f"\n{text}\n".encode())
