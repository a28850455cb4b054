"""datatrove's local executor, with worker processes that may be killed.

A task is run, logged and marked as done by datatrove. Its own `run` of all tasks waits for ever for
the task of a worker that was killed, as systems do for want of memory, and each task connects to a
process that keeps count, 10 ms. Here every worker has a pipe of its own, by which it is told the
next task and says how that ended; this process waits for what is said and for workers that end. The
standard library's ProcessPoolExecutor notices the end of a worker too, but not always before others
end, and can wait for ever for what a killed one was saying (both seen with Python 3.11).

    QuietLocalExecutor(steps, 18, 2, "stage/log").run()      # 18 tasks, two at a time

What ended is kept. Price: a twentieth of a second to start two workers, a millisecond a task.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler

from datatrove.executor import LocalPipelineExecutor
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats

from mixctl.pipeline.orphans import end_with_parent
from mixctl.pipeline.workers import start_forkserver

end_with_parent()  # here, since the process that local workers are forked from only imports


class WorkerEnded(Exception):
    """A worker ended before the last task did; the other workers were ended then."""

    def __init__(self, exit_code: int | None) -> None:
        """Keeps its exit code; minus the number of the signal that ended it."""
        self.exit_code = exit_code
        super().__init__(f"a worker ended with exit code {exit_code}")


class TaskTraceback(Exception):
    """Where a task in another process raised, as text: the cause of what is raised here."""


class QuietLocalExecutor(LocalPipelineExecutor):
    """datatrove's local executor, writing its log to the stage's folder only."""

    def run(self) -> None:
        """Runs the tasks that have not ended, as many at a time as there are workers.

        Raises:
            WorkerEnded: when a worker was killed, or ended itself.
            Exception: what a task raised, the first to do so; tasks beside it are ended.
        """
        ranks = self.get_incomplete_ranks()
        workers = min(self.workers, len(ranks))
        if ranks:
            self.save_executor_as_json()
        if workers > 1:
            _run_side_by_side(self, ranks, workers)
        else:
            for rank in ranks:
                _run_task(self, rank)

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        _remember_library_folders()
        with silent_log():
            return super()._run_for_rank(rank, local_rank, node_rank)


def _run_task(executor: QuietLocalExecutor, rank: int) -> None:
    """Runs one task with steps of its own: they count what they do."""
    own = copy(executor)
    own.pipeline = deepcopy(executor.pipeline)
    try:
        own._run_for_rank(rank)
    except SystemExit as error:  # it would end this program as if all were done
        raise RuntimeError(f"task {rank} called sys.exit({error.code})") from error


def _run_side_by_side(executor: QuietLocalExecutor, ranks: Sequence[int], n_workers: int) -> None:
    """Runs the tasks in worker processes, which have ended when this returns or raises."""
    rest, workers = iter(ranks), list[_Worker]()
    start_forkserver()
    try:
        for _ in range(n_workers):
            workers.append(_Worker(executor))
        for worker in workers:
            worker.give(next(rest))
        busy = list(workers)
        while busy:
            worker = _next_to_end(busy)
            worker.take()
            rank = next(rest, None)
            worker.give(rank)
            if rank is None:
                busy.remove(worker)
    except BaseException:
        for worker in workers:
            worker.process.kill()
        raise
    finally:
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


class _Worker:
    """A process that runs a task after another, and the pipe to it."""

    def __init__(self, executor: QuietLocalExecutor) -> None:
        """Starts it; it waits to be told."""
        context = get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, executor))
        self.process.start()
        theirs.close()  # so that its end is the end of the pipe

    def give(self, rank: int | None) -> None:
        """Tells it the next task, or that there is none."""
        try:
            self.pipe.send(rank)
        except OSError:
            if rank is not None:
                raise self._ended() from None

    def take(self) -> None:
        """Raises what its task raised, or WorkerEnded; it has said something, or has ended."""
        try:
            said = self.pipe.recv() if self.pipe.poll() else self._ended()
        except (EOFError, OSError):
            said = self._ended()
        if isinstance(said, BaseException):
            raise said
        if said is not None:
            error, where = said
            raise error from TaskTraceback(where)

    def _ended(self) -> WorkerEnded:
        self.process.join()
        return WorkerEnded(self.process.exitcode)


def _next_to_end(busy: Sequence[_Worker]) -> _Worker:
    """Returns a worker that has said something or has ended, after waiting for one."""
    ends = [(worker.pipe, worker.process.sentinel) for worker in busy]
    ready = wait([one for both in ends for one in both])
    return next(one for one, both in zip(busy, ends, strict=True) if any(e in ready for e in both))


def _work(pipe: Connection, executor: QuietLocalExecutor) -> None:
    """Runs the tasks that the pipe names, in a process of its own, until it is told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    with contextlib.suppress(EOFError, BrokenPipeError):
        while (rank := pipe.recv()) is not None:
            try:
                _run_task(executor, rank)
            except Exception as error:
                pipe.send((_fit_to_send(error), traceback.format_exc()))
            else:
                pipe.send(None)


def _fit_to_send(error: Exception) -> Exception:
    """Returns the error, or one that says the same where it cannot be sent or made anew there."""
    try:
        ForkingPickler.dumps(error)
        deepcopy(error)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@cache
def _remember_library_folders() -> None:
    """Has the log look up where libraries are once in this process, not for each of its outputs.

    loguru asks sysconfig every time, 5 ms, and datatrove opens three outputs a task: of a build of
    short tasks that is a twentieth. Where loguru does it otherwise some day, nothing changes here.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from loguru._better_exceptions import ExceptionFormatter

        once = staticmethod(cache(ExceptionFormatter._get_lib_dirs))
        ExceptionFormatter._get_lib_dirs = once  # type: ignore[method-assign]


@contextlib.contextmanager
def silent_log() -> Iterator[None]:
    """Sends what the log would print to nowhere; datatrove binds its handler to sys.stderr."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        logger.remove()
        try:
            yield
        finally:
            logger.remove()
