"""The trace of a closed loop: what was measured, what was decided, in control-trace.json.

The file lies in the folder of the build, whose data it changed. It is written before the data is
changed, all or nothing, so that a loop that is killed finds its own decision again.

    at step 40 the probes of `facts` gave 0.011, the set point was 0.016 -> 32 texts until step 60
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mixctl.shards.errors import InputError
from mixctl.shards.files import write_text

TRACE_NAME = "control-trace.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Steered(_Part):
    """An experiment that is steered: its arm, the way, the set point at the end of the run."""

    arm: str
    controller: str
    options: dict[str, Any]
    set_point: float


class Decision(_Part):
    """What one experiment got after a checkpoint.

    Attributes:
        experiment: its name.
        after_step: of the checkpoint; 0 before the run.
        until_step: the last step that the texts may lie in; at the end of the run equal to
            `after_step`.
        value: mean probability of its probes there; None before the run.
        set_point: what it should have been.
        texts: texts placed in the steps between.
        state: of the controller after the decision.
    """

    experiment: str
    after_step: int
    until_step: int
    value: float | None
    set_point: float
    texts: int
    state: dict[str, float]


class ControlTrace(_Part):
    """All of control-trace.json; `off`: measured, but nothing was placed."""

    format: int = 1
    every: int
    steps: int
    off: bool
    experiments: dict[str, Steered]
    decisions: list[Decision] = []

    def at(self, step: int) -> dict[str, Decision]:
        """Returns the decisions after a step, by experiment; empty when there are none."""
        return {one.experiment: one for one in self.decisions if one.after_step == step}

    def of(self, experiment: str) -> list[Decision]:
        """Returns the decisions on one experiment, by step."""
        return [one for one in self.decisions if one.experiment == experiment]

    def texts_before(self, experiment: str, step: int) -> int:
        """Returns the texts that were decided on before those after a step."""
        return sum(one.texts for one in self.of(experiment) if one.after_step < step)

    def plus(self, decisions: list[Decision]) -> ControlTrace:
        """Returns the trace with more decisions."""
        return self.model_copy(update={"decisions": [*self.decisions, *decisions]})


def write_trace(build: Path, trace: ControlTrace) -> None:
    """Writes control-trace.json, all or nothing."""
    text = json.dumps(trace.model_dump(mode="json"), sort_keys=True, indent=1)
    write_text(build / TRACE_NAME, text + "\n")


def read_trace(build: Path) -> ControlTrace | None:
    """Returns the trace of the loop on a build; None where there was none.

    Raises:
        InputError: when the file is broken.
    """
    path = build / TRACE_NAME
    try:
        return ControlTrace.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InputError(f"{path}: no trace of mixctl control ({error})") from None
