"""One writer at a time, whatever becomes of it; a disk's error names the folder."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from mixctl.shards.errors import InputError
from mixctl.shards.locks import named, only_writer


def test_a_second_writer_is_refused_and_a_later_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "a/results"
    with only_writer(folder):
        with pytest.raises(InputError, match=f"{folder}: another mixctl is writing here: "):
            with only_writer(folder):
                raise AssertionError
        (folder / "x").touch()
    assert [path.name for path in folder.iterdir()] == ["x"]
    with only_writer(folder):
        pass


def test_a_folder_in_which_nothing_came_to_lie_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path / "a/b/c"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def _die_inside(folder: Path) -> None:
    with only_writer(folder):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_lock_of_a_killed_writer_is_gone(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_die_inside, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize("filename", [None, "elsewhere"])
def test_where_it_was_is_said_unless_it_is_known(tmp_path: Path, filename: str | None) -> None:
    given = (filename,) if filename else ()
    with pytest.raises(OSError) as error, named(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *given)
    assert error.value.filename == (filename or str(tmp_path))


def test_an_error_that_no_write_meets_is_not_the_folders(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error, named(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert error.value.filename is None
