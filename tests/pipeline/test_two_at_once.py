"""Two processes on one folder: the second is refused and told why, the first is undisturbed.

The first one is a real process that is stopped (SIGSTOP) in the middle of its work.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from mixctl.shards.record import read_record
from tests.evals import tiny
from tests.faults.scenes import state_of
from tests.pipeline.test_cli import mixctl
from tests.support.workspace import Workspace, documents, quiz

Arguments = list[str | Path]


@contextmanager
def halted(arguments: Arguments, begun: Callable[[], bool]) -> Iterator[None]:
    """Runs a command up to where it has begun, and to its end afterwards."""
    child = subprocess.Popen(
        [sys.executable, "-m", "mixctl.pipeline.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while child.poll() is None and not begun():
            time.sleep(0.005)
        child.send_signal(signal.SIGSTOP)
        assert child.poll() is None, "it ended before it could be halted"
        yield
        child.send_signal(signal.SIGCONT)
        _, said = child.communicate(timeout=300)
        assert child.returncode == 0, said
    finally:
        child.kill()


def is_locked(lock: Path) -> bool:
    """Returns whether a process holds the lock, which begins a moment after its file is there."""
    held = Path("/proc/locks")
    if not held.exists():
        return lock.exists()  # macOS
    inode = f":{lock.stat().st_ino}" if lock.exists() else None
    return inode is not None and any(
        line.split()[5].endswith(inode) for line in held.read_text().splitlines()
    )


def refused(arguments: Arguments, *words: str) -> None:
    """Checks that a command ends with exit code 2 and a message that holds the words."""
    done = mixctl(*arguments)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any(all(word in line for word in words) for line in said), done.stderr
    assert "Traceback" not in done.stderr


def build_arguments(shared: Workspace, out: Path, name: str = "one.yaml") -> Arguments:
    return ["build", shared.mix(quiz(), name=name), "--out", out]


@pytest.fixture(scope="module")
def whole(shared: Workspace, tmp_path_factory) -> Path:
    """Returns the build that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert mixctl(*build_arguments(shared, out, "whole.yaml")).returncode == 0
    return out


def check_same(out: Path, whole: Path) -> None:
    own = {"mix.json", "litgpt.yaml"}  # the folder's name is in them
    found, expected = state_of(out), state_of(whole)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} <= own
    assert mixctl("verify", out, "--full").returncode == 0


def test_others_in_a_folder_that_is_being_built(shared: Workspace, whole: Path, tmp_path) -> None:
    out, other = tmp_path / "out", shared.trainer("wide.yaml", devices=2)
    building = build_arguments(shared, out)
    with halted(building, lambda: any(out.glob(".work/*-*"))):
        refused(building, str(out), "another mixctl is at work in this folder")
        refused(["relayout", whole, "--trainer", other, "--out", out], str(out))
        refused(["eval", out, tmp_path / "run", "--out", tmp_path / "r"], "not a finished build")
        refused(["amend", out, additions(tmp_path, shared), "--after-step", "9"], str(out))
        assert not (tmp_path / "r").exists()
    check_same(out, whole)


def additions(folder: Path, shared: Workspace) -> Path:
    late = {**documents(), "name": "late", "items": str(shared.folder / "documents.jsonl")}
    path = folder / "additions.yaml"
    path.write_text(yaml.safe_dump({"experiments": [late]}))
    return path


def test_others_in_a_build_that_is_being_amended(shared: Workspace, whole: Path, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    amending: Arguments = ["amend", out, additions(tmp_path, shared), "--after-step", "100"]
    with halted(amending, lambda: is_locked(out / ".work/lock")):
        refused(amending, "another mixctl is writing to this build: try again when it has ended")
        refused(build_arguments(shared, out, "whole.yaml"), str(out), "another mixctl is at work")
    assert len(read_record(out).amendments) == 1
    assert mixctl("verify", out, "--full").returncode == 0


def test_two_evals_into_one_folder(tmp_path: Path) -> None:
    arms = {"holdout": (6, 0), "x2": (6, 2)}
    build = tiny.make_build(tmp_path / "build", {"facts": ("documents", tiny.documents(arms))})
    for step in range(1, 7):
        folder = tmp_path / f"run/step-{step:08d}"
        tiny.make_checkpoint(folder, tiny.tiny_model(step), build, step)
    out = tmp_path / "results"
    one: Arguments = ["eval", build, tmp_path / "run/step-00000001", "--out", out]
    every: Arguments = ["eval", build, tmp_path / "run", "--out", out]
    with halted(every, (out / "samples").exists):
        refused(one, f"{out}: another mixctl is writing here: try again when it has ended")
    assert len(list((out / "samples").glob("*.parquet"))) == 6
    assert mixctl(*one).returncode == 0
    assert len(list((out / "samples").glob("*.parquet"))) == 1
    assert not list(out.glob(".*"))
