"""The `executor:` section of a mix file: where tasks run. It decides no byte of the build.

    executor: {name: slurm, partition: cpu, time: "04:00:00", mem_per_cpu_gb: 4, workers: 64}

The words are those of datatrove's executors, which run the tasks. `--executor` and `--workers` on
the command line go before the section, which is no part of the build record: the same mix gives the
same record wherever it was built.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Annotated

from pydantic import Field, field_validator

from mixctl.injections.config import Strict
from mixctl.pipeline.executor_names import ExecutorName


class ExecutorConfig(Strict):
    """Where tasks run, and what each of them may use."""

    name: ExecutorName = "local"
    """local, slurm or ray"""
    workers: Annotated[int, Field(ge=1)] | None = None
    """tasks at a time"""
    cpus_per_task: Annotated[int, Field(ge=1)] = 1
    """of each task"""
    mem_per_cpu_gb: Annotated[int, Field(ge=1)] = 2
    """gigabytes"""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+:\d\d:\d\d$")] | None = None
    """slurm: limit of a task, hh:mm:ss"""
    partition: Annotated[str, Field(min_length=1)] | None = None
    """slurm"""
    qos: str | None = None
    """slurm"""
    env_command: str | None = None
    """slurm: a command that makes mixctl available on a node"""
    sbatch_args: dict[str, str | int] = {}
    """slurm: further arguments of sbatch"""
    address: str | None = None
    """ray: of the cluster"""

    @field_validator("time", mode="before")
    @classmethod
    def _time_is_text(cls, value: object) -> object:
        """Explains YAML's own reading of 4:00:00, which is the number 14400."""
        if isinstance(value, int):
            raise ValueError(
                'write the time in quotes: "04:00:00" (YAML takes 4:00:00 for a number)'
            )
        return value

    def chosen(self, name: str | None, workers: int | None) -> ExecutorConfig:
        """Returns the section with what the command line says instead, where it says something."""
        changes = {"name": name, "workers": workers}
        given = {key: value for key, value in changes.items() if value is not None}
        return ExecutorConfig.model_validate({**self.model_dump(), **given})

    @property
    def seconds(self) -> int | None:
        """Returns the time that a task may take."""
        if self.time is None:
            return None
        days, _, clock = self.time.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    def problems(self) -> list[str]:
        """Returns why tasks cannot be run so from here, a sentence each."""
        if self.name == "slurm":
            return [*self._missing(), *_slurm_problems()]
        if self.name == "ray" and find_spec("ray") is None:
            return ["executor: ray: Ray is not installed: pip install 'mixctl[ray]'"]
        return []

    def _missing(self) -> list[str]:
        return [
            f"executor: {key}: is missing: Slurm asks for it ({example})"
            for key, example in (("partition", "partition: cpu"), ("time", 'time: "04:00:00"'))
            if getattr(self, key) is None
        ]


def _slurm_problems() -> list[str]:
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        return [
            "executor: slurm: mixctl runs inside a task of a job array already: use a plain job"
        ]
    if shutil.which("sbatch") is None:
        return ["executor: slurm: no sbatch on the PATH: run mixctl on a node of a Slurm cluster"]
    return []
