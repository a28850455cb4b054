"""Other processes of this machine: the one that workers are forked from, and work done meanwhile.

    later = begin(make_problems, keys, ops, "train")     # a core that would wait works on it
    encoder = load_encoder(folder)
    problems = later()                                   # waits for what is left of it

The process is forked from the one that local workers come from, so it imports nothing. Where it is
lost, by whatever cause, the caller computes the result itself: it is the same one.

Price: a fork, and the result pickled once.
"""

from __future__ import annotations

import gc
import pickle
import signal
from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

import multiprocess.forkserver

from mixctl.pipeline.executor_config import ExecutorName

P = ParamSpec("P")
T = TypeVar("T")


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
    multiprocess.get_context("forkserver").set_forkserver_preload(["mixctl.pipeline.stages"])
    multiprocess.forkserver.ensure_running()
    return True


def begin(function: Callable[P, T], *args: P.args, **named: P.kwargs) -> Callable[[], T]:
    """Returns what gives the function's result, which another process computes from now on.

    Args:
        function: of a module; it, its arguments and its result are pickled.
        args: its arguments.
        named: its arguments by name.
    """
    context = multiprocess.get_context("forkserver")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, args, named), daemon=True)
    process.start()
    theirs.close()

    @cache
    def result() -> T:
        try:
            found: T = mine.recv()
        except (EOFError, OSError):
            found = function(*args, **named)
        mine.close()
        process.join()
        return found

    return result


def _answer(
    pipe: Any, function: Callable[..., object], args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Sends the result; nothing where there is none, or nobody left to read it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    gc.disable()  # each collection would go through all that was imported
    try:
        pipe.send_bytes(pickle.dumps(function(*args, **named)))  # `send` would pickle in Python
    except Exception:
        pipe.close()  # the parent meets the error itself
