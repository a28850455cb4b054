"""Workers of this machine: a killed one ends the stage, what ended is kept, none is left."""

import multiprocessing
import time

import pytest

from mixctl.pipeline import local_executor
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.shards.errors import InputError, StageError
from tests.support.steps import END_OF_WAIT_SECONDS, ComplainAtOnce, CountRuns

TWO = ExecutorConfig(workers=2)


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_task_runs_once_in_steps_of_its_own(tmp_path, runs, n_workers):
    config = ExecutorConfig(workers=n_workers)
    for _ in range(2):
        run_stage("count", [CountRuns(runs)], tmp_path / "stage", 5, config)
    assert names(runs) == [f"{rank}-0" for rank in range(5)]
    assert names(tmp_path / "stage/log/completions") == [f"{rank:05d}" for rank in range(5)]


@pytest.mark.parametrize(
    ("n_tasks", "unlucky", "waits", "left"),
    [(4, 3, 2, "2 of 4 tasks did not end (tasks 2, 3)"), (2, 1, 0, "2 of 2"), (2, 0, 1, "2 of 2")],
)
def test_a_worker_that_is_killed_ends_the_stage_and_its_task_runs_again(
    tmp_path, runs, n_tasks, unlucky, waits, left
):
    """As the system does it for want of memory. datatrove's own executor waits for ever."""
    stage, steps = tmp_path / "stage", [CountRuns(runs, unlucky, how="kill", waits=waits)]
    with pytest.raises(StageError) as error:
        run_stage("count", steps, stage, n_tasks, TWO)
    assert str(error.value).startswith(left)
    assert "; a worker was killed, as for want of memory (fewer workers" in str(error.value)
    assert multiprocessing.active_children() == []
    (runs / "mended").touch()
    run_stage("count", steps, stage, n_tasks, TWO)
    once = {f"{rank}-0" for rank in range(n_tasks)}
    assert set(names(runs)) == once | {f"{unlucky}-1", f"{waits}-1", "mended"}


def test_a_killed_worker_is_not_waited_for_when_it_leaves_a_process(tmp_path, runs):
    steps = [CountRuns(runs, unlucky=1, how="leave", waits=0)]
    with pytest.raises(StageError, match="; a worker was killed"):
        run_stage("count", steps, tmp_path / "stage", 2, TWO)
    (runs / "mended").touch()  # which that process waits for


def test_a_worker_that_ends_itself_is_said(tmp_path, runs):
    steps = [CountRuns(runs, unlucky=1, how="end", waits=0)]
    with pytest.raises(StageError, match="; a worker ended with exit code 3: see"):
        run_stage("count", steps, tmp_path / "stage", 2, TWO)


def test_complaints_longer_than_a_pipe_do_not_wait_for_one_another(tmp_path, runs):
    with pytest.raises(OSError, match="long long") as error:
        run_stage("count", [ComplainAtOnce(runs)], tmp_path / "stage", 2, TWO)
    assert "in run" in str(error.value.__cause__), "where it was raised"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_task_that_would_end_the_program_is_an_error(tmp_path, runs, n_workers):
    steps, config = [CountRuns(runs, unlucky=1, how="exit")], ExecutorConfig(workers=n_workers)
    with pytest.raises(RuntimeError, match=r"task 1 called sys.exit\(0\)"):
        run_stage("count", steps, tmp_path / "stage", 2, config)


@pytest.mark.parametrize("how", ["unfit", "local"])
def test_an_error_that_cannot_be_sent_is_told_in_words(tmp_path, runs, how):
    steps = [CountRuns(runs, unlucky=1, how=how)]
    with pytest.raises(RuntimeError, match=f"^{how.title()}: shard.bin is not what it was$"):
        run_stage("count", steps, tmp_path / "stage", 2, TWO)


@pytest.mark.parametrize(("how", "error"), [("input", InputError), ("raise", OSError)])
def test_what_a_task_raises_is_raised_at_once_and_ends_those_beside_it(tmp_path, runs, how, error):
    steps = [CountRuns(runs, unlucky=1, how=how, waits=0)]
    begin = time.monotonic()
    with pytest.raises(error, match="row 1: is wrong|the disk is full"):
        run_stage("count", steps, tmp_path / "stage", 40, TWO)
    assert time.monotonic() - begin < END_OF_WAIT_SECONDS / 2
    assert multiprocessing.active_children() == []
    assert len(names(runs)) < 40, "no other task is begun"


def test_libraries_are_looked_up_once_for_the_logs_of_all_tasks(tmp_path, monkeypatch):
    """Each task has its log all the same, with what datatrove says in it."""
    from loguru._better_exceptions import ExceptionFormatter

    looked = []
    monkeypatch.setattr(
        ExceptionFormatter, "_get_lib_dirs", staticmethod(lambda: looked.append(1) or [])
    )
    local_executor._remember_library_folders.cache_clear()
    run_stage("count", [CountRuns(tmp_path)], tmp_path / "stage", 3, ExecutorConfig(workers=1))
    assert looked == [1]
    logs = sorted((tmp_path / "stage/log/logs").iterdir())
    assert [f"done for rank={rank}" in log.read_text() for rank, log in enumerate(logs)] == [
        True
    ] * 3
