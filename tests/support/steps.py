"""datatrove steps that go wrong in known ways, importable wherever a task runs."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from mixctl.shards.errors import InputError

How = Literal["raise", "kill", "input", "exit", "end", "unfit", "local", "leave"]
END_OF_WAIT_SECONDS = 600


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


class Unfit(Exception):
    """Can be sent to another process, and not be made there."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"{path} is not what it was")


def _local_error(path: str) -> Exception:
    """Returns an error that no other process knows."""

    class Local(Exception):
        pass

    return Local(f"{path} is not what it was")


class CountRuns(PipelineStep):
    """Leaves a file a run of a task; the task `unlucky` ends badly while the folder says so.

    The task `waits` does not end by itself; the other ends badly when it has begun.
    """

    name = "Count runs"
    type = "TEST"

    def __init__(
        self, folder: Path, unlucky: int = -1, how: How = "raise", waits: int = -1
    ) -> None:
        super().__init__()
        self.folder, self.unlucky, self.how, self.waits = folder, unlucky, how, waits

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        n_runs = len(list(self.folder.glob(f"{rank}-*")))
        (self.folder / f"{rank}-{n_runs}").touch()
        mended = (self.folder / "mended").exists()
        if rank == self.waits and not mended:
            time.sleep(END_OF_WAIT_SECONDS)
        if rank == self.unlucky and not mended:
            _wait_for(self.folder / f"{self.waits}-0" if self.waits >= 0 else self.folder)
            if self.how == "leave" and os.fork() == 0:  # a process that has the pipe too
                _wait_for(self.folder / "mended")
                os._exit(0)
            if self.how in ("kill", "leave"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "end":
                os._exit(3)
            if self.how == "exit":
                sys.exit(0)
            if self.how == "unfit":
                raise Unfit(path="shard.bin")
            if self.how == "local":
                raise _local_error("shard.bin")
            if self.how == "input":
                raise InputError(f"corpus: row {rank}: is wrong")
            raise OSError("the disk is full")
        yield from ()


class ComplainAtOnce(PipelineStep):
    """Both of two tasks raise what is longer than a pipe, when both have begun."""

    name = "Complain"
    type = "TEST"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        (self.folder / f"{rank}").touch()
        for other in range(world_size):
            _wait_for(self.folder / f"{other}")
        raise OSError("long " * 200_000)
        yield from ()
