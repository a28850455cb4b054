"""datatrove steps that go wrong in known ways, importable wherever a task runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Literal

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from mixctl.shards.errors import InputError

How = Literal["raise", "kill", "input"]


class CountRuns(PipelineStep):
    """Leaves a file a run of a task; the task `unlucky` ends badly while the folder says so."""

    name = "Count runs"
    type = "TEST"

    def __init__(self, folder: Path, unlucky: int = -1, how: How = "raise") -> None:
        super().__init__()
        self.folder, self.unlucky, self.how = folder, unlucky, how

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        n_runs = len(list(self.folder.glob(f"{rank}-*")))
        (self.folder / f"{rank}-{n_runs}").touch()
        if rank == self.unlucky and not (self.folder / "mended").exists():
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "input":
                raise InputError(f"corpus: row {rank}: is wrong")
            raise OSError("the disk is full")
        yield from ()
