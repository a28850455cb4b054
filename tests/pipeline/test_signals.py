"""Ctrl-C and SIGTERM, for real: one line, an exit code, nothing left running, and it goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.evals import tiny
from tests.pipeline.test_cli import mixctl
from tests.support.workspace import Workspace, documents, quiz

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
KEPT = "what is done is kept: the same command goes on from there"
PATIENCE_SECONDS = 300


def running_of(session: int) -> list[str]:
    """Returns the commands of the session's processes that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (path / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            if int(of) == session and state != "Z":
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def signalled(arguments: list[str], number: int, begun: Callable[[], bool]) -> tuple[int, str]:
    """Returns exit code and words of a command that was sent a signal once it had begun."""
    child = subprocess.Popen(
        [sys.executable, "-m", "mixctl.pipeline.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while child.poll() is None and not begun():
            time.sleep(0.01)
        child.send_signal(number)
        _, said = child.communicate(timeout=PATIENCE_SECONDS)
    finally:
        child.kill()  # one that hangs is a failure, not a test run without end
    end = time.monotonic() + 20
    while (left := running_of(child.pid)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left
    return child.returncode, said


def check(arguments: list[str], number: int, begun: Callable[[], bool], out: Path) -> None:
    """Checks one command: what it says, that nothing runs on, that it is finished by itself."""
    code, said = signalled(arguments, number, begun)
    assert code == 128 + number
    lines = [line for line in said.splitlines() if WORDS[signal.Signals(number)] in line]
    assert lines == [f"{WORDS[signal.Signals(number)]}; {KEPT}"]
    assert "Traceback" not in said
    done = mixctl(*arguments)
    assert done.returncode == 0, done.stderr
    assert out.exists()


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_a_build(workspace: Workspace, number: int, workers: str) -> None:
    out = workspace.folder / "out"
    arguments = ["build", str(workspace.mix()), "--out", str(out), "--workers", workers]
    begun = ".work/tokens-*/log/executor.json"
    check(arguments, number, lambda: any(out.glob(begun)), out / "mix.json")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
@pytest.mark.parametrize(("stage", "said"), [("tokens", "mix"), ("mix", "mix"), ("mix", "command")])
def test_a_build_that_is_killed_leaves_nothing_running(
    workspace: Workspace, stage: str, said: str
) -> None:
    """Whether the mix file says how many workers there are, or the command line does."""
    out, two = workspace.folder / "out", {"workers": 2}
    mix = workspace.mix(executor=two) if said == "mix" else workspace.mix()
    arguments = ["build", str(mix), "--out", str(out)]
    arguments += [] if said == "mix" else ["--workers", "2"]
    begun = f".work/{stage}-*/log/executor.json"
    code, _ = signalled(arguments, signal.SIGKILL, lambda: any(out.glob(begun)))
    assert code == -signal.SIGKILL
    assert mixctl(*arguments).returncode == 0


def test_a_relayout(built: Path, shared: Workspace, tmp_path: Path) -> None:
    out, other = tmp_path / "out", shared.trainer("two.yaml", devices=2)
    arguments = ["relayout", str(built), "--trainer", str(other), "--out", str(out)]
    check(arguments, signal.SIGTERM, (out / ".work").exists, out / "mix.json")


def test_an_amendment(built: Path, shared: Workspace, tmp_path: Path) -> None:
    out, additions = tmp_path / "out", shared.folder / "additions.yaml"
    shutil.copytree(built, out)
    late = {**documents(), "name": "late"}
    additions.write_text(yaml.safe_dump({"experiments": [late]}))
    arguments = ["amend", str(out), str(additions), "--after-step", "100"]
    check(arguments, signal.SIGTERM, (out / ".work").exists, out / "mix.json")


def test_an_eval(tmp_path: Path) -> None:
    arms = {"holdout": (6, 0), "x2": (6, 2)}
    build = tiny.make_build(tmp_path / "build", {"facts": ("documents", tiny.documents(arms))})
    for step in range(1, 9):
        folder = tmp_path / f"run/step-{step:08d}"
        tiny.make_checkpoint(folder, tiny.tiny_model(step), build, step)
    out = tmp_path / "results"
    arguments = ["eval", str(build), str(tmp_path / "run"), "--out", str(out)]
    check(arguments, signal.SIGTERM, (out / "samples").exists, out / "report.html")


def test_before_anything_was_done(workspace: Workspace) -> None:
    arguments = ["check", str(workspace.mix(quiz()))]
    code, _ = signalled(arguments, signal.SIGTERM, lambda: True)
    assert code in (143, -signal.SIGTERM)  # before Python listens, the kernel answers
