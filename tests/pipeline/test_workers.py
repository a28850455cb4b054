"""When the process that workers are forked from is started."""

import pytest

from mixctl.pipeline.workers import start_workers


@pytest.mark.parametrize(
    ("executor", "workers", "starts"),
    [
        (None, 2, True),
        ("local", 2, True),
        (None, None, False),
        ("local", 1, False),
        ("ray", 4, False),
    ],
)
def test_workers_are_started_where_tasks_run_here_and_are_several(
    executor, workers, starts
) -> None:
    assert start_workers(executor, workers) is starts
