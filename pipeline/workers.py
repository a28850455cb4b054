"""The process that local workers are forked from, started before it is needed.

    start_workers("local", 2)     # imports what tasks need while this process reads the mix file

Price: one import of this package, on a core that would wait.
"""

from __future__ import annotations

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import signal

from mixctl.pipeline.executor_names import ExecutorName

_PRELOADED = ["mixctl.pipeline.preload"]


def start_workers(executor: ExecutorName | None, workers: int | None) -> bool:
    """Returns whether the process that local workers are forked from is there; starts it.

    It imports this package meanwhile: without it each worker of each stage imports all anew, a
    second of processor each.

    Args:
        executor: that tasks run with, as the command line says.
        workers: how many at a time, likewise; a build with one needs no other process.
    """
    if executor not in (None, "local") or (workers or 1) == 1:
        return False
    start_forkserver()
    return True


def start_forkserver() -> None:
    """Starts the process that workers are forked from, unless it is there already.

    Ctrl-C, which a terminal sends to all processes, is kept from it: it would print where it was
    while it imported. It ends when this process does.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    multiprocessing.resource_tracker.ensure_running()  # else that is done next, and ends the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which it inherits
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
