"""forgetting: whole batches of unseen base data at given steps, to watch their loss afterwards.

    steps: [10001, 20001, 30001]
    steps: {from: 10001, every: 10000}          # the same, to the end of the run
    holdout: 3                                  # as many batches that are never placed

Every step is an item, `batch-000010001`, in the arm `fresh`; the batches that are never placed are
in the arm `holdout`. The batch of the step is replaced by spare base data, drawn like the rest of
the base stream, so that run and twin differ in one step and the loss of that batch shows how the
step is remembered. Source of the default design: Bordt & Pawelczyk, arXiv 2509.23383 (a batch every
10,000 steps). Price: a batch of base data a step, none of it tokenized twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mixctl.injections.base import BaseData, Item, Kind, KindContext
from mixctl.injections.config import ExperimentConfig, Mode, Strict
from mixctl.shards.errors import InputError
from mixctl.shards.meta.forgetting import ForgettingMeta

FRESH, HOLDOUT = "fresh", "holdout"
_MOST_NAMED = 20
Step = Annotated[int, Field(ge=1)]


class FromEvery(Strict):
    """A step, and every so many steps after it, to the end of the run."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    from_: Annotated[Step, Field(alias="from")]
    """the first step"""
    every: Step
    """steps between two"""


def _steps(value: Any) -> Any:
    """Returns the steps as what their form says: a wrong one gives one message."""
    if isinstance(value, (list, FromEvery)):
        return value
    if isinstance(value, dict) and "every" in value:
        return FromEvery.model_validate(value)
    raise ValueError("must be [10001, 20001] or {from: 10001, every: 10000}")


class ForgettingConfig(ExperimentConfig):
    """The section of a `forgetting` experiment."""

    kind: Literal["forgetting"]
    """this kind"""
    placement: Mode = "batch"
    """whole batches"""
    steps: Annotated[
        Annotated[list[Step], Field(min_length=1)] | FromEvery, BeforeValidator(_steps)
    ]
    """where the batches fall"""
    holdout: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """batches that are never placed"""

    @model_validator(mode="before")
    @classmethod
    def _arms_by_default(cls, raw: Any) -> Any:
        """Adds the arms `fresh` and, where batches are held out, `holdout`."""
        if not isinstance(raw, dict) or "arms" in raw:
            return raw
        held_out = [{"name": HOLDOUT, "copies": 0}] if raw.get("holdout") else []
        return {**raw, "arms": [{"name": FRESH, "copies": 1}, *held_out]}

    @field_validator("steps")
    @classmethod
    def _each_step_once(cls, steps: list[int] | FromEvery) -> list[int] | FromEvery:
        if isinstance(steps, list):
            twice = sorted({step for step in steps if steps.count(step) > 1})
            if twice:
                raise ValueError(f"given more than once: step {', '.join(map(str, twice))}")
        return steps


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(ForgettingConfig, config)
    placed = [
        Item(
            item=f"batch-{step:09d}",
            variants=(),
            meta=ForgettingMeta(step=step),
            arm=FRESH,
            steps=(step,),
            base=BaseData(context.global_batch),
        )
        for step in _steps_of_the_run(config, context.steps)
    ]
    held_out = [
        Item(
            item=f"holdout-{n:06d}",
            variants=(),
            meta=ForgettingMeta(),
            arm=HOLDOUT,
            base=BaseData(context.global_batch),
        )
        for n in range(1, config.holdout + 1)
    ]
    return placed + held_out


def _steps_of_the_run(config: ForgettingConfig, last: int) -> list[int]:
    """Returns the steps in order, all of them within the run."""
    if isinstance(config.steps, FromEvery):
        steps = list(range(config.steps.from_, last + 1, config.steps.every))
        wrong = [] if steps else [config.steps.from_]
    else:
        steps = sorted(config.steps)
        wrong = [step for step in steps if step > last]
    if wrong:
        raise InputError(
            [
                f"experiment '{config.name}': steps: step {step} is outside the run, which has "
                f"steps 1 to {last}"
                for step in wrong[:_MOST_NAMED]
            ]
        )
    return steps


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return []


KIND = Kind("forgetting", 1, ForgettingConfig, _make_items, _inputs)
