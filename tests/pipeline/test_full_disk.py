"""A disk that is really full: a small file system of its own, which takes root to mount.

One message that names the file, exit code 1, the old state kept; with room again the same command
goes on to the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evals import tiny
from tests.faults.scenes import state_of
from tests.pipeline.test_cli import mixctl
from tests.support.workspace import Workspace, quiz

DISK_BYTES = 24 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Returns the root of a file system of 24 MiB."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(root)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system takes root")
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def leave(disk: Path, n_bytes: int) -> Path:
    """Returns the file that takes all of the disk but so many bytes."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        left = free.f_bavail * free.f_frsize - n_bytes
        while left > 0:
            left -= file.write(b"x" * min(left, 1 << 20))
    return ballast


def check_full(done: subprocess.CompletedProcess[str], disk: Path) -> None:
    """Checks what a command says that met the end of the disk."""
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1, done.stderr
    assert len(said) == 1 and said[0].endswith(
        "No space left on device; what is done is kept: the same command goes on from there"
    )
    assert str(disk) in said[0]
    assert "Traceback" not in done.stderr


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "free_bytes", [pytest.param(0, marks=SLOW), 100_000, pytest.param(1_000_000, marks=SLOW)]
)
def test_a_build(disk: Path, shared: Workspace, tmp_path: Path, free_bytes: int) -> None:
    mix, out = shared.mix(quiz(), name="full.yaml"), disk / "out"
    ballast = leave(disk, free_bytes)
    arguments = ["build", str(mix), "--control", "--out"]
    check_full(mixctl(*arguments, out), disk)
    assert not (out / "mix.json").exists()
    assert mixctl("show", out).returncode == 2
    ballast.unlink()
    assert mixctl(*arguments, out).returncode == 0
    assert mixctl(*arguments, tmp_path / "whole").returncode == 0
    found, whole = state_of(out), state_of(tmp_path / "whole")
    own = {"mix.json", "litgpt.yaml", "litgpt-control.yaml"}  # the folder's name is in them
    assert {name for name in whole if found.get(name) != whole[name]} <= own
    assert found.keys() == whole.keys()


def test_an_eval_over_an_older_one(disk: Path, tmp_path: Path) -> None:
    arms = {"holdout": (6, 0), "x2": (6, 2)}
    build = tiny.make_build(tmp_path / "build", {"facts": ("documents", tiny.documents(arms))})
    for step in (5, 10):
        folder = tmp_path / f"run/step-{step:08d}"
        tiny.make_checkpoint(folder, tiny.tiny_model(step), build, step)
    out = disk / "results"
    first = ["eval", build, tmp_path / "run/step-00000005", "--out", out]
    assert mixctl(*first).returncode == 0
    old = state_of(out)
    ballast = leave(disk, 8192)
    both = ["eval", build, tmp_path / "run", "--out", out]
    check_full(mixctl(*both), disk)
    kept = state_of(out)
    assert {name: kept[name] for name in old} == old
    ballast.unlink()
    assert mixctl(*both).returncode == 0
    assert mixctl("report", out, "--json").returncode == 0
    assert len(list((out / "samples").glob("*.parquet"))) == 2
