"""Runs a stage through a datatrove executor, with one progress bar.

datatrove logs every task to the stage's folder and to the terminal; here the terminal gets the bar
alone. A task that ended is marked in the stage's folder, so a second run does the others; the
folder's name holds the digest of everything the stage depends on, so nothing stale is taken for
done.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixctl.pipeline.interrupt import raise_if_interrupted

_POLL_SECONDS = 0.2


class QuietLocalExecutor(LocalPipelineExecutor):
    """datatrove's local executor, writing its log to the stage's folder only."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        with _silent_log():
            return super()._run_for_rank(rank, local_rank, node_rank)


@contextlib.contextmanager
def _silent_log() -> Iterator[None]:
    """Sends what the log would print to nowhere; datatrove binds its handler to sys.stderr."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        logger.remove()
        try:
            yield
        finally:
            logger.remove()


def run_stage(
    label: str, steps: list[PipelineStep], folder: Path, n_tasks: int, workers: int
) -> None:
    """Runs the steps over all tasks; tasks that ended in an earlier run are not run again.

    Args:
        label: what the progress bar says.
        steps: a datatrove pipeline.
        folder: where the stage keeps its log and its marks of completion.
        n_tasks: number of tasks.
        workers: tasks at a time.

    Raises:
        InputError: raised in a task, with its message.
        Interrupted: when Ctrl-C was pressed meanwhile, even where the exception itself got lost.
    """
    logger.remove()
    executor = QuietLocalExecutor(
        pipeline=steps,
        tasks=n_tasks,
        workers=max(1, min(workers, n_tasks)),
        logging_dir=str(folder / "log"),
    )
    with _progress(label, folder / "log" / "completions", n_tasks), _silent_log():
        executor.run()
    raise_if_interrupted()


@contextlib.contextmanager
def _progress(label: str, completions: Path, n_tasks: int) -> Iterator[None]:
    """Shows a bar that follows the marks of completion; one plain line when not on a terminal."""
    console = Console(file=sys.stderr)
    start = time.monotonic()
    if not console.is_terminal:
        yield
        console.print(f"{label}: done in {time.monotonic() - start:.1f} s", highlight=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task, ended = bar.add_task(label, total=n_tasks), threading.Event()

        def follow() -> None:
            while not ended.wait(_POLL_SECONDS):
                bar.update(task, completed=_count(completions))

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
            bar.update(task, completed=n_tasks)
        finally:
            ended.set()
            follower.join()


def _count(folder: Path) -> int:
    try:
        return len(os.listdir(folder))
    except FileNotFoundError:
        return 0
