"""Ctrl-C and SIGTERM that cannot get lost.

Python raises an exception of a signal wherever it happens to be; in a hook that runs after a fork,
or while an object is destroyed, the exception is dropped and the work goes on. The handler here
remembers that it was called, so that the end of every stage can ask. In an import it is worse: the
exception leaves locks of the import system taken for ever, for which other threads then wait, or
comes out as another error, or is dropped; in the start of a worker it leaves one that complains of
what it was not told. So there the handler has itself called again a little later.

    catch_signals()                      # before a command runs
    raise_if_interrupted()               # at the end of a stage
    end_children(); end_now(130)         # to end the program

A scheduler ends a job by SIGTERM, and by SIGKILL some seconds later: both signals are met alike,
and one that arrives while the program ends, ends it at once. A forked child inherits the handler; a
SIGTERM ends it as if it had none, else it would raise where its parent means to end it, and be
waited for for ever.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 2.0
_AGAIN_SECONDS = 0.01
_IMPORT_SECONDS = 10.0
"""an import that takes longer is broken off"""
_WHOLE = ("<frozen importlib._bootstrap>", "multiprocessing/popen_forkserver.py")
"""the files of what is not broken off, as frames name them: imports, and starts of workers"""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. Python ends a process that met a plain KeyboardInterrupt by signal."""


class InterruptHandler:
    """Raises Interrupted where a signal arrives, and remembers it."""

    def __init__(self) -> None:
        """Has seen nothing."""
        self.seen: int | None = None
        self._process = os.getpid()
        self._patient_until = math.inf

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Is called by Python when the signal arrives."""
        if signal_number == signal.SIGTERM and os.getpid() != self._process:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        self.seen = signal_number
        self._patient_until = min(self._patient_until, time.monotonic() + _IMPORT_SECONDS)
        self._interrupt(signal_number, frame)

    def _interrupt(self, _: int, frame: FrameType | None) -> None:
        """Raises; where that would harm it has itself called again, as the handler of an alarm."""
        if _is_whole(frame) and time.monotonic() < self._patient_until:
            signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            return
        signal.setitimer(signal.ITIMER_REAL, 0)  # no second one while the program ends
        sys.unraisablehook = _say_nothing
        raise Interrupted


def _is_whole(frame: FrameType | None) -> bool:
    """Returns whether the frame, or one that it was called from, is not to be broken off."""
    while frame is not None and not frame.f_code.co_filename.endswith(_WHOLE):
        frame = frame.f_back
    return frame is not None


def _say_nothing(_: object) -> None:
    """What was half made when the signal came may fail to be destroyed: nobody needs to read it."""


def catch_signals() -> InterruptHandler:
    """Returns the handler that both signals have from now on."""
    handler = InterruptHandler()
    for number in SIGNALS:
        signal.signal(number, handler)
    return handler


def raise_if_interrupted() -> None:
    """Returns nothing, when the handler is not ours or has seen no signal.

    Raises:
        Interrupted: when a signal arrived and the exception was lost on its way.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, InterruptHandler) and handler.seen is not None:
        raise Interrupted


def end_children() -> None:
    """Ends the processes that this one started and that nobody ends any more.

    By SIGKILL where SIGTERM does not: Python drops a signal that meets it right after a fork. One
    that arrives here meanwhile ends this process at once.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(_GRACE_SECONDS)
        child.kill()
    for stray in forked_children():
        with suppress(ProcessLookupError):
            os.kill(stray, signal.SIGKILL)


def end_now(exit_code: int) -> NoReturn:
    """Ends this process without waiting for its other threads; what runs at exit has run."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(exit_code)


def forked_children() -> list[int]:
    """Returns the processes forked from this one that run its program still (Linux; else none).

    A signal between a fork and the line of multiprocessing that notes the child leaves one that
    `active_children` does not know. Programs of their own, as its resource tracker, end by
    themselves.
    """
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        found += [int(number) for number in children.read_text().split()]
    mine = _command("self")
    return [number for number in found if _command(str(number)) == mine]


def _command(process: str) -> bytes | None:
    """Returns the command line of a process, None when it has ended."""
    try:
        return Path("/proc", process, "cmdline").read_bytes() or None
    except OSError:
        return None
