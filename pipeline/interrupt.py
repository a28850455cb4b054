"""Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever it happens to be; in a hook that runs after a fork, or
while an object is destroyed, the exception is dropped and the work goes on. The handler here
remembers that it was called, so that the end of every stage can ask.

    signal.signal(signal.SIGINT, InterruptHandler())
    raise_if_interrupted()               # at the end of a stage
    end_children()                       # before the program ends

A process that was started a moment before the signal, and that ignores it (the server of a
multiprocessing manager does), would be waited for without end when Python ends.
"""

from __future__ import annotations

import multiprocessing
import signal
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. Python ends a process that met a plain KeyboardInterrupt inside exec by signal."""


class InterruptHandler:
    """Raises Interrupted where the signal arrives, and remembers it."""

    def __init__(self) -> None:
        """Has seen nothing."""
        self.seen = False

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Is called by Python when the signal arrives."""
        self.seen = True
        raise Interrupted


def raise_if_interrupted() -> None:
    """Returns nothing, when the handler is not ours or has seen no signal.

    Raises:
        Interrupted: when Ctrl-C was pressed and the exception was lost on its way.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, InterruptHandler) and handler.seen:
        raise Interrupted


def end_children() -> None:
    """Ends the processes that this one started and that nobody ends any more."""
    import multiprocess  # datatrove's; `mixctl --help` does without

    for child in [*multiprocessing.active_children(), *multiprocess.active_children()]:
        child.terminate()
