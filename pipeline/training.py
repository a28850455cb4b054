"""A stock `litgpt pretrain` as a child process: started, followed, stopped after a checkpoint.

LitGPT writes `model_config.yaml` after `lit_model.pth`, in one go: a checkpoint is complete when
it is there and not empty. Whatever the trainer did after that checkpoint is thrown away with it: a
resume reads on from there. Folders that were cut short, and those of later steps, are removed
before a start, since LitGPT would read or keep them.

The child dies with its parent (`child.py`, Linux), so that no trainer goes on alone over data that
is not decided yet; where a rank of it survives, the next amendment refuses and names the process.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mixctl.evals.checkpoint import CONFIG_NAME, STATE_NAME
from mixctl.shards.errors import StageError

LITGPT = (str(Path(sys.executable).with_name("litgpt")), "pretrain")
FINAL = "final"
_STEP_FOLDER = re.compile(r"step-(\d+)$")
_STEP_LINE = re.compile(rb"step (\d+) \|")
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10.0
_TAIL_BYTES = 3000


class TrainerEndedError(StageError):
    """The trainer ended before it had written the checkpoint that was waited for."""


@dataclass(frozen=True)
class Trainer:
    """Where and how a build is trained on.

    Attributes:
        build: the build; its litgpt.yaml is used as it is.
        out_dir: LitGPT's folder of checkpoints.
        log: the file that the trainer's output is appended to.
        command: what `litgpt pretrain` is called as.
    """

    build: Path
    out_dir: Path
    log: Path
    command: Sequence[str] = LITGPT

    def checkpoint(self, step: int) -> Path:
        """Returns the folder of the checkpoint of a step, as LitGPT names it."""
        return self.out_dir / f"step-{step:08d}"

    def run(self, start: int, stop: int | None, progress: Callable[[int], None]) -> None:
        """Trains on from the checkpoint of step `start` until that of `stop` is complete.

        Args:
            start: 0 begins the run.
            stop: None trains to the end and waits for `final`.
            progress: called with the last step that the log names, now and then.

        Raises:
            TrainerEndedError: when the trainer ends without having got there.
        """
        self.remove_later(start)
        goal = self.out_dir / FINAL if stop is None else self.checkpoint(stop)
        with self.log.open("ab") as log:
            begin = log.tell()
            child = start_child(self._arguments(start), log.fileno())
            try:
                while child.poll() is None and (stop is None or not is_complete(goal)):
                    time.sleep(_POLL_SECONDS)
                    progress(_last_step(self.log, begin))
            finally:
                stop_child(child)
        if not is_complete(goal) or (stop is None and child.returncode):
            raise TrainerEndedError(_ended(child.returncode, goal, self.log))

    def _arguments(self, start: int) -> list[str]:
        told = ["--config", str(self.build / "litgpt.yaml"), "--out_dir", str(self.out_dir)]
        resumed = ["--resume", str(self.checkpoint(start) / STATE_NAME)] if start else []
        return [*self.command, *told, *resumed]

    def remove_later(self, step: int) -> None:
        """Removes checkpoints of later steps than this one, and those that were cut short."""
        for folder in self.out_dir.glob("step-*"):
            found = _STEP_FOLDER.search(folder.name)
            if found and (int(found[1]) > step or not is_complete(folder)):
                shutil.rmtree(folder)
        shutil.rmtree(self.out_dir / FINAL, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Returns whether LitGPT has written all of a checkpoint."""
    try:
        return (folder / CONFIG_NAME).stat().st_size > 0 and (folder / STATE_NAME).is_file()
    except OSError:
        return False


def start_child(
    command: Sequence[str], log: int, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Returns a running trainer, in a process group of its own, that ends when this process does.

    Args:
        command: what is run.
        log: the file descriptor that its output goes to.
        folder: where it runs; None: here.
    """
    environment = {**os.environ, "LITDATA_DISABLE_VERSION_CHECK": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "mixctl.pipeline.child", str(os.getpid()), *command],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # an interrupt is for us: the trainer is stopped in order
    )


def stop_child(child: subprocess.Popen[bytes]) -> None:
    """Stops a trainer with all its processes, and waits until they are gone."""
    for what, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, what)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)


def _last_step(log: Path, begin: int) -> int:
    """Returns the last step that the trainer has logged since a place in the file; 0: none."""
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL_BYTES))
        steps = _STEP_LINE.findall(file.read())
    return int(steps[-1]) if steps else 0


def _ended(code: int | None, goal: Path, log: Path) -> str:
    tail = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
    how = f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"
    return f"litgpt pretrain ended ({how}) before {goal} was complete; the end of {log}:\n{tail}"
