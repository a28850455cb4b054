"""Runs a stage through a datatrove executor, with one progress bar: here, on Slurm, or on Ray.

The process that builds waits for each stage to end, since what the next one does (which spare
sequences are clean, where documents end) is computed from its files. On Slurm that is `sbatch
--wait` on datatrove's job array, on Ray the wait of datatrove itself. So it may run in a job of its
own, and nothing but the executors' own means keeps the stages apart.

A task that ended is marked in the stage's folder, so a second run does the others alone; the
folder's name holds the digest of everything the stage depends on, so nothing stale is taken for
done. datatrove logs every task to that folder and to the terminal; here the terminal gets the bar
alone. Wrong input that a task met elsewhere is written to the folder, and raised here.

Price: on Slurm and Ray the build folder must be on a file system that all nodes share.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.interrupt import raise_if_interrupted
from mixctl.pipeline.local_executor import QuietLocalExecutor, WorkerEnded, silent_log
from mixctl.shards.errors import InputError, StageError, VerificationError
from mixctl.shards.files import digest_bytes

_POLL_SECONDS = 0.2
_MOST_NAMED = 5
_PROBLEMS = "problems"


class WaitingSlurmExecutor(SlurmPipelineExecutor):
    """datatrove's Slurm executor, without its last job, which adds up statistics.

    Its own `run` returns when the job array has ended, since `sbatch_args` say `wait`.
    """

    def launch_merge_stats(self) -> None:
        """Does nothing: no one reads them, and the build would wait for one more job."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        with _reported(self, rank):
            return super()._run_for_rank(rank, local_rank, node_rank)


class ReportingRayExecutor(RayPipelineExecutor):
    """datatrove's Ray executor, whose tasks leave wrong input in the stage's folder."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        with _reported(self, rank):
            return super()._run_for_rank(rank, local_rank, node_rank)


class _Reported(TypedDict):
    """What a task leaves behind when it meets wrong input or a damaged build."""

    input: bool
    problems: list[str]


@contextlib.contextmanager
def _reported(executor: PipelineExecutor, rank: int) -> Iterator[None]:
    """Writes what a task found wrong to where the process that waits for it looks."""
    try:
        yield
    except (InputError, VerificationError) as error:
        is_input = isinstance(error, InputError)
        problems = error.problems if isinstance(error, InputError) else error.findings
        with executor.logging_dir.open(f"{_PROBLEMS}/{rank:05d}.json", "w") as file:
            json.dump(_Reported(input=is_input, problems=problems), file)
        raise


def run_stage(
    label: str, steps: list[PipelineStep], folder: Path, n_tasks: int, config: ExecutorConfig
) -> None:
    """Runs the steps over all tasks; tasks that ended in an earlier run are not run again.

    Args:
        label: what the progress bar says.
        steps: a datatrove pipeline.
        folder: where the stage keeps its log and its marks of completion.
        n_tasks: number of tasks.
        config: where tasks run, how many at a time, what each may use.

    Raises:
        InputError: raised in a task, with its message.
        VerificationError: raised in a task, with its findings.
        StageError: when tasks did not end: killed, or failed on Slurm or Ray; what ended is kept.
        Interrupted: when Ctrl-C was pressed meanwhile, even where the exception itself got lost.
    """
    logger.remove()
    log = folder / "log"
    with _progress(label, log / "completions", n_tasks):
        if config.name == "local":
            _run_here(QuietLocalExecutor(steps, n_tasks, config.workers or 1, str(log)), log)
        else:
            run = _run_on_slurm if config.name == "slurm" else _run_on_ray
            run(steps, log, n_tasks, config)
    raise_if_interrupted()


def _run_here(executor: QuietLocalExecutor, log: Path) -> None:
    """Runs the tasks in worker processes of this machine."""
    try:
        with silent_log():
            executor.run()
    except WorkerEnded as error:
        why = f"; a worker ended with exit code {error.exit_code}"
        if error.exit_code == -signal.SIGKILL:
            why = "; a worker was killed, as for want of memory (fewer workers need less)"
        _raise_unfinished(executor, log, why)


def _run_on_slurm(
    steps: list[PipelineStep], log: Path, n_tasks: int, config: ExecutorConfig
) -> None:
    """Runs the tasks as a job array, and ends what is left of it when this process is stopped."""
    name = f"mixctl-{digest_bytes(str(log).encode(), 8)}"
    executor = WaitingSlurmExecutor(
        steps,
        tasks=n_tasks,
        time=str(config.time),
        partition=str(config.partition),
        cpus_per_task=config.cpus_per_task,
        mem_per_cpu_gb=config.mem_per_cpu_gb,
        workers=config.workers or -1,
        job_name=name,
        qos=config.qos,
        env_command=config.env_command or f"export PATH={Path(sys.executable).parent}:$PATH",
        sbatch_args={"wait": "", **config.sbatch_args},
        logging_dir=str(log),
    )
    _forget_problems(executor)
    _cancel(name)  # a build that was killed may have left tasks behind, which write the same files
    why = ""
    try:
        with silent_log():
            executor.run()
    except subprocess.CalledProcessError as error:
        why = f"; sbatch ended with exit code {error.returncode}"
    finally:
        _cancel(name)
    _raise_problems(executor, log, why)


def _cancel(job_name: str) -> None:
    """Ends all jobs of that name and waits until they are gone."""
    subprocess.run(["scancel", f"--name={job_name}"], check=False)
    command = ["squeue", "--noheader", f"--name={job_name}"]
    while subprocess.run(command, check=False, capture_output=True).stdout.strip():
        time.sleep(_POLL_SECONDS)


def _run_on_ray(steps: list[PipelineStep], log: Path, n_tasks: int, config: ExecutorConfig) -> None:
    """Runs the tasks on the Ray cluster of `address`, else of RAY_ADDRESS, else one made here."""
    import ray

    if not ray.is_initialized():
        ray.init(address=config.address, log_to_driver=False, include_dashboard=False)
    with silent_log():
        executor = ReportingRayExecutor(
            steps,
            tasks=n_tasks,
            workers=config.workers or -1,
            logging_dir=str(log),
            cpus_per_task=config.cpus_per_task,
            mem_per_cpu_gb=config.mem_per_cpu_gb,
            time=config.seconds,
        )
        _forget_problems(executor)
        executor.run()
    _raise_problems(executor, log, "")


def _forget_problems(executor: PipelineExecutor) -> None:
    """Removes what tasks of an earlier run left."""
    for name in executor.logging_dir.list_files(_PROBLEMS):
        executor.logging_dir.rm(name)


def _raise_problems(executor: PipelineExecutor, log: Path, why: str) -> None:
    """Raises what tasks found wrong, else StageError when some did not end."""
    reported: list[_Reported] = []
    for name in executor.logging_dir.list_files(_PROBLEMS):
        with executor.logging_dir.open(name) as file:
            reported.append(json.load(file))
    for kind, error in ((True, InputError), (False, VerificationError)):
        if found := [p for one in reported if one["input"] == kind for p in one["problems"]]:
            raise error(found)
    _raise_unfinished(executor, log, why)


def _raise_unfinished(executor: PipelineExecutor, log: Path, why: str) -> None:
    """Raises StageError when some tasks did not end, with the reason where it is known."""
    if unfinished := executor.get_incomplete_ranks():
        named = ", ".join(map(str, unfinished[:_MOST_NAMED]))
        more = ", ..." if len(unfinished) > _MOST_NAMED else ""
        raise StageError(
            f"{len(unfinished)} of {executor.world_size} tasks did not end (tasks {named}{more})"
            f"{why}: see {log}; the same command runs these alone again"
        )


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
