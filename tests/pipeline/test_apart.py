"""Work that another process does meanwhile: it is done there, and never lost."""

import os
import signal
import time
from pathlib import Path

import pytest

from mixctl.pipeline.apart import begin, start_workers
from mixctl.shards.errors import InputError


def squares_and_process(n: int) -> tuple[list[int], int]:
    """Returns the squares below n, and which process made them."""
    return [i * i for i in range(n)], os.getpid()


def killed_in_the_other(here: int) -> str:
    """Ends its process without a word, unless that is `here`."""
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done here"


def refuses(where: Path) -> None:
    """Notes that it was called, and raises."""
    with where.open("a") as file:
        file.write(f"{os.getpid()}\n")
    raise InputError("no")


def notes(where: Path) -> str:
    """Writes which process it is called in, all at once."""
    partial = where.with_suffix(".partial")
    partial.write_text(str(os.getpid()))
    partial.rename(where)
    return "noted"


def test_another_process_does_the_work_and_its_result_is_asked_for_often() -> None:
    later = begin(squares_and_process, 30_000)
    found, process = later()
    assert found == [i * i for i in range(30_000)]
    assert process != os.getpid()
    assert later() is later()


def test_it_works_before_it_is_asked(tmp_path: Path) -> None:
    later = begin(notes, tmp_path / "note")
    until = time.monotonic() + 120
    while not (tmp_path / "note").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert int((tmp_path / "note").read_text()) != os.getpid()
    assert later() == "noted"


def test_what_a_lost_process_was_to_do_is_done_here() -> None:
    assert begin(killed_in_the_other, os.getpid())() == "done here"


def test_an_error_is_raised_where_the_result_is_asked_for(tmp_path: Path) -> None:
    later = begin(refuses, tmp_path / "calls")
    with pytest.raises(InputError, match="no"):
        later()
    there, here = (tmp_path / "calls").read_text().split()
    assert int(here) == os.getpid() != int(there)


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
