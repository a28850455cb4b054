"""The names of the executors, apart from their settings: the command line needs no more to begin.

The settings are a pydantic model, a tenth of a second to import, in which what is slow in a command
has begun already: the process that workers are forked from, or the one that imports the loader.
"""

from __future__ import annotations

from typing import Literal, get_args

ExecutorName = Literal["local", "slurm", "ray"]
EXECUTORS: tuple[str, ...] = get_args(ExecutorName)
