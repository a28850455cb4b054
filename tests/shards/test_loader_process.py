"""The stock loader checked by another process: it says what a check in this one says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import litdata  # noqa: F401  (all of it: what is missing is imported again)
import pytest

from mixctl.shards import loader_process, verify_loader
from mixctl.shards.layout import train_layout, val_layout
from mixctl.shards.loader_process import LoaderProcess
from mixctl.shards.record import BuildRecord, Geometry, read_record, write_record
from mixctl.shards.verify_loader import check_loader
from tests.support.sample import record, topology
from tests.support.slots import write_slots


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, BuildRecord]:
    """Returns a folder with train/ and val/ and its record; the loader is checked elsewhere."""
    sample, folder = topology(max_tokens=16 * 8 * 20), tmp_path / "build"
    size = 8 * sample.sequence_tokens * 2
    layout, val = train_layout(sample, 2, size), val_layout(sample, 32, 2, size)
    write_slots(folder / "train", layout, sample.sequence_tokens)
    write_slots(folder / "val", val, sample.sequence_tokens)
    geometry = Geometry.of(sample, layout, val, 32, "uint16")
    write_record(folder, record(geometry=geometry.model_dump(), control=False))
    made = read_record(folder)
    monkeypatch.delitem(sys.modules, "litdata")
    return folder, made


def asked(folder: Path, made: BuildRecord, full: bool) -> LoaderProcess:
    """Returns a process that was told what to look at."""
    process = LoaderProcess()
    process.ask(folder, made, full)
    return process


def not_here(*given: object) -> None:
    raise AssertionError("the check was made in this process")


@pytest.mark.parametrize("full", [False, True])
def test_it_says_what_a_check_here_says(build, full, monkeypatch, tmp_path) -> None:
    """Of a sound build, and of one whose index has two chunks in each other's place."""
    folder, made = build[0].relative_to(tmp_path), build[1]
    (tmp_path / "torch.py").write_text("raise SystemExit('imported from the folder of the user')")
    monkeypatch.chdir(tmp_path)
    for sound in (True, False):
        if not sound:
            swap_chunks(folder / "train/index.json")
        expected = check_loader(folder, made, full)
        assert (expected[0] == []) == sound and expected[1] > 0
        with monkeypatch.context() as patch:
            patch.setattr(verify_loader, "check_loader", not_here)
            with closing(asked(folder, made, full)) as check:
                assert check.result() == expected


def swap_chunks(index: Path) -> None:
    content = json.loads(index.read_text())
    names = [chunk["filename"] for chunk in content["chunks"]]
    for chunk, name in zip(content["chunks"], [names[1], names[0], *names[2:]], strict=True):
        chunk["filename"] = name
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "program", ["raise SystemExit(1)", "print('no answer')", "print('[[]')", "print(7)"]
)
def test_where_it_gives_no_answer_the_check_is_made_here(build, program, monkeypatch) -> None:
    monkeypatch.setattr(loader_process, "_PROGRAM", program)
    with closing(asked(*build, full=False)) as check:
        assert check.result() == check_loader(*build, full=False)


def test_where_there_can_be_no_process_the_check_is_made_here(build, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with closing(asked(*build, full=False)) as check:
        assert check.result() == check_loader(*build, full=False)


def test_what_it_raises_is_raised_here(build) -> None:
    """The process cannot even read the record: what comes of it is what comes of it here."""
    folder, made = build
    (folder / "train/index.json").unlink()
    with pytest.raises(Exception, match="train") as alone:
        check_loader(folder, made, full=False)
    with closing(asked(folder, made, full=False)) as check, pytest.raises(type(alone.value)):
        check.result()


def test_whoever_leaves_leaves_no_process_behind(build) -> None:
    with pytest.raises(KeyboardInterrupt), closing(asked(*build, full=True)) as check:
        group = check._process.pid  # which leads a session, so that Ctrl-C is no matter of its own
        assert os.getpgid(group) == group
        raise KeyboardInterrupt
    assert not is_left(group)


def is_left(group: int) -> bool:
    """Returns whether processes of the group are still there five seconds later."""
    for _ in range(250):
        if not any(of == group and state != "Z" for state, of in processes()):
            return False
        time.sleep(0.02)
    return True


def processes() -> list[tuple[str, int]]:
    """Returns (state, group) of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            found.append((state, int(group)))
    return found


def pool_of(leader: int) -> list[int]:
    """Returns the processes that the process has begun, once there are some."""
    for _ in range(400):
        children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
        if children:
            return [int(child) for child in children]
        time.sleep(0.02)
    raise AssertionError("it began no process")


def test_where_it_is_killed_the_check_is_made_here_and_nothing_is_left(build) -> None:
    """Also when it has begun processes of its own, which would wait for it for ever."""
    with closing(asked(*build, full=True)) as check:
        leader = check._process.pid
        assert pool_of(leader)
        os.kill(leader, signal.SIGKILL)
        assert check.result() == check_loader(*build, full=True)
        assert not is_left(leader)


def test_it_ends_when_whoever_asks_has_ended(build) -> None:
    with closing(asked(*build, full=True)) as check:
        leader = check._process.pid
        assert pool_of(leader)
        check._process.stdin.close()  # as the end of this process would
        check._process.wait(timeout=10)
        assert check._process.returncode == -signal.SIGKILL


def test_another_record_is_not_answered_for(build) -> None:
    folder, made = build
    other = made.model_copy(update={"self_digest": "another"})
    with closing(asked(folder, other, full=False)) as check:
        assert check._process.stdout.read() == b""


def test_it_is_asked_before_it_answers() -> None:
    with (
        closing(LoaderProcess()) as process,
        pytest.raises(ValueError, match="^the check of the loader was not asked for$"),
    ):
        process.result()


@pytest.mark.parametrize("full", [False, True])
def test_one_that_has_ended_before_it_is_asked(build, full, monkeypatch) -> None:
    """What it cannot be told is no error, neither then nor when it is closed."""
    monkeypatch.setattr(loader_process, "_PROGRAM", "raise SystemExit(1)")
    with closing(LoaderProcess()) as process:
        assert process._process.stdout.read() == b""
        process.ask(*build, full)
        assert process.result() == check_loader(*build, full)
    with pytest.raises(KeyboardInterrupt), closing(LoaderProcess()) as process:
        assert process._process.stdout.read() == b""
        process.ask(*build, full)
        raise KeyboardInterrupt


def test_a_path_is_that_of_the_folder_in_which_it_is_asked(build, monkeypatch, tmp_path) -> None:
    """Not of the one in which it began, where another build is of that name."""
    folder, made = build
    other = tmp_path / "other"
    shutil.copytree(folder, other / folder.name)
    swap_chunks(other / folder.name / "train/index.json")
    monkeypatch.chdir(other)
    with closing(LoaderProcess()) as process, monkeypatch.context() as patch:
        patch.setattr(verify_loader, "check_loader", not_here)
        monkeypatch.chdir(folder.parent)
        process.ask(Path(folder.name), made, full=False)
        assert process.result()[0] == []


def test_in_a_folder_that_is_gone_the_check_is_made_here(build, monkeypatch, tmp_path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    with closing(LoaderProcess()) as process:
        gone.rmdir()
        process.ask(*build, full=False)
        monkeypatch.chdir(tmp_path)
        assert process.result() == check_loader(*build, full=False)


def test_one_that_is_lost_ends(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "litdata")
    process = LoaderProcess()
    leader = process._process.pid
    del process
    assert not is_left(leader)
