"""A change that is killed before any of its system calls leaves the old build or the new one."""

import os
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.shards import journal as under_test
from mixctl.shards.chunks import HEADER_BYTES, chunk_bytes, chunk_name
from mixctl.shards.errors import InputError
from mixctl.shards.journal import Journal, recover, settle, writer_lock

CHUNKS, BLOCKS, WIDTH = 3, 4, 5
KILLED = 9
_CALLS = ("replace", "fsync", "rename", "unlink", "rmdir", "mkdir", "open")


def make_build(folder):
    """Returns a folder with what a journal touches."""
    blocks = np.arange(CHUNKS * BLOCKS * WIDTH, dtype=np.uint16).reshape(CHUNKS, BLOCKS, WIDTH)
    for name in ("train", "manifest"):
        (folder / name).mkdir(parents=True)
    for chunk, tokens in enumerate(blocks):
        (folder / "train" / chunk_name(chunk)).write_bytes(chunk_bytes(tokens))
    for name in ("train/index.json", "manifest/items.parquet", "mix.json"):
        (folder / name).write_text(f"old {name}")
    return folder


def content(folder):
    """Returns every file below a folder, but for the lock."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def change(folder):
    """Changes two chunks, a table, one more table and the record."""
    journal = Journal(folder)
    journal.add_blocks(2, np.array([0, 3]), np.full((2, WIDTH), 700, dtype=np.uint16))
    journal.add_blocks(0, np.array([1]), np.full((1, WIDTH), 701, dtype=np.uint16))
    for name in ("manifest/items.parquet", "manifest/before-0001.parquet", "mix.json"):
        journal.file(name).parent.mkdir(parents=True, exist_ok=True)
        journal.file(name).write_text(f"new {name}")
    journal.commit("the change")


def killed_at(folder, n_calls, work):
    """Runs the work in a child that dies before its n-th system call; returns whether it did."""
    child = os.fork()
    if child == 0:
        left = [n_calls]

        def counted(real):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(KILLED)
                return real(*arguments, **options)

            return call

        for name in _CALLS:
            setattr(os, name, counted(getattr(os, name)))
        status = 1
        try:
            work(folder)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    folder = make_build(tmp_path_factory.mktemp("journal") / "build")
    old = content(folder)
    change(folder)
    return old, content(folder)


def test_a_change_writes_what_it_says(states):
    old, new = states
    changed = {name for name in new if new[name] != old.get(name)}
    chunks = {f"train/{chunk_name(c)}" for c in (0, 2)}
    tables = {"manifest/items.parquet", "manifest/before-0001.parquet", "mix.json"}
    assert changed == chunks | tables
    blocks = np.frombuffer(new[f"train/{chunk_name(2)}"][HEADER_BYTES:], "<u2").reshape(-1, WIDTH)
    assert blocks[[0, 3]].tolist() == [[700] * WIDTH] * 2
    assert blocks[1].tolist() == list(range(45, 50))


def test_killed_before_any_call_it_is_the_old_build_or_the_new(states, tmp_path):
    old, new = states
    seen, n_calls = [], 0
    while True:
        folder = make_build(tmp_path / f"build{n_calls}")
        if not killed_at(folder, n_calls, change):
            break
        killed_at(folder, n_calls % 7, settle)  # the one that settles it may be killed as well
        settle(folder)
        found = content(folder)
        assert found in (old, new), f"killed before call {n_calls}"
        assert not list(folder.glob(".amend*"))
        seen.append(found == new)
        shutil.rmtree(folder)
        n_calls += 1
    assert n_calls > 30
    assert seen == sorted(seen), "once it counts, it counts"
    assert {False, True} == set(seen)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_killed_again_and_again_while_it_is_completed(tmp_path_factory, kills):
    folder = make_build(tmp_path_factory.mktemp("again") / "build")
    old = content(folder)
    killed_at(folder, kills[0], change)
    for n_calls in kills[1:]:
        killed_at(folder, n_calls, settle)
    settle(folder)
    found = content(folder)
    assert found == old or found["mix.json"] == b"new mix.json"
    if found != old:
        change(make_build(folder.parent / "whole"))
        assert found == content(folder.parent / "whole")


def test_half_a_change_is_no_data_set_and_what_became_of_it_is_said(states, tmp_path, capsys):
    old, new = states
    folder, n_calls, hidden, said = make_build(tmp_path / "build"), 0, 0, set()
    while killed_at(folder, n_calls, change):
        found = content(folder)
        whole = [all(found[n] == of[n] for n in old if n.endswith(".bin")) for of in states]
        if not any(whole):
            assert not (folder / "train/index.json").exists()
            hidden += 1
        settle(folder)
        said.add(capsys.readouterr().err.partition(": ")[2].strip())
        shutil.rmtree(folder)
        make_build(folder)
        n_calls += 1
    assert hidden
    assert said - {""} == {
        "a change that was interrupted before it was ready has been thrown away",
        "the change, which was interrupted, has been completed",
    }


def test_hard_links_keep_the_old_content(tmp_path):
    folder, clone = make_build(tmp_path / "build"), tmp_path / "clone"
    shutil.copytree(folder, clone, copy_function=os.link)
    old = content(folder)
    change(clone)
    assert content(folder) == old
    assert content(clone) != old


def test_one_writer_at_a_time(tmp_path):
    folder, entered, leave = make_build(tmp_path / "build"), threading.Event(), threading.Event()

    def hold():
        with writer_lock(folder):
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    (folder / ".amend").mkdir()
    for second in (settle, lambda f: writer_lock(f).__enter__()):
        with pytest.raises(InputError, match="another mixctl is writing"):
            second(folder)
    leave.set()
    holder.join()
    settle(folder)
    assert not (folder / ".amend").exists()
    assert not (folder / ".work").exists()


def test_a_journal_that_does_not_count_is_forgotten(tmp_path):
    folder = make_build(tmp_path / "build")
    old = content(folder)
    journal = Journal(folder)
    journal.add_blocks(0, np.array([0]), np.zeros((1, WIDTH), np.uint16))
    journal.forget()
    assert content(folder) == old
    recover(folder)
    assert content(folder) == old
    assert under_test.JOURNAL == ".amend"
