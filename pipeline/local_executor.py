"""datatrove's local executor, with worker processes that may be killed.

A task is run, logged and marked as done by datatrove. Its own `run` of all tasks waits for ever for
the task of a worker that was killed, as systems do for want of memory, and each task connects to a
process that keeps count, 10 ms; so here the workers are those of the standard library, which
notices. What ended is kept, and the stage ends with an error that names what did not.

    QuietLocalExecutor(steps, 18, 2, "stage/log").run()      # 18 tasks, two at a time

Price: a twentieth of a second to start two workers, a millisecond a task.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from copy import copy, deepcopy
from functools import cache, partial
from multiprocessing import active_children, get_context

from datatrove.executor import LocalPipelineExecutor
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats

from mixctl.pipeline.orphans import end_with_parent

end_with_parent()  # here, since the process that local workers are forked from only imports


class WorkerKilled(Exception):
    """A worker ended before its task did; the other workers were ended then."""


class QuietLocalExecutor(LocalPipelineExecutor):
    """datatrove's local executor, writing its log to the stage's folder only."""

    def run(self) -> None:
        """Runs the tasks that have not ended, as many at a time as there are workers.

        Raises:
            WorkerKilled: when a worker was killed.
            Exception: what a task raised, the first of them; tasks beside it are ended.
        """
        ranks = self.get_incomplete_ranks()
        workers = min(self.workers, len(ranks))
        if ranks:
            self.save_executor_as_json()
        if workers > 1:
            _run_side_by_side(partial(_run_task, self), ranks, workers)
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
    own._run_for_rank(rank)


def _run_side_by_side(run_task: partial[None], ranks: Sequence[int], workers: int) -> None:
    """Runs the tasks in worker processes, which have ended when this returns or raises."""
    before = active_children()
    context = get_context("forkserver")
    pool = ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        tasks = [pool.submit(run_task, rank) for rank in ranks]
        ended = wait(tasks, return_when=FIRST_EXCEPTION).done
        for task in tasks:
            if task in ended:
                task.result()
    except BaseException as error:
        for worker in active_children():
            if worker not in before:
                worker.kill()
        if isinstance(error, BrokenProcessPool):
            raise WorkerKilled from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
