"""What every experiment of a mix file says: its arms, windows, schedule and placement mode.

    name: arc-leak
    kind: contamination
    during: [10%, 90%]                       # default: all steps but the first
    schedule: uniform                        # uniform | even | {steps: [..]} | {every: 100}
    arms:
      - {name: holdout, items: 1000, copies: 0}
      - {name: x16, items: 200, copies: 16}

A kind adds fields of its own by subclassing `ExperimentConfig`. Unknown keys are errors.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
NAME_RULE = "letters, digits, '.', '_' and '-', beginning with a letter or digit"
MOST_COPIES = 2**31 - 1
"""the manifest counts copies in 32 bits"""
Name = Annotated[str, StringConstraints(max_length=200)]


def check_name(value: str) -> str:
    """Returns the name itself, when it may stand in a file name; raises ValueError when not."""
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError(f"{value!r} is not a valid name: {NAME_RULE}")
    return value


class Strict(BaseModel):
    """Base of everything read from a mix file: unknown keys refused, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GivenSteps(Strict):
    """Copy c falls in the c-th of these steps (repeated in turn when there are more copies)."""

    steps: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)


class EverySteps(Strict):
    """Copies fall `every` steps apart, from the first step of the window."""

    every: Annotated[int, Field(ge=1)]


def _schedule(value: Any) -> Any:
    """Returns the schedule as the class that its key names: a wrong one gives one message."""
    if isinstance(value, (GivenSteps, EverySteps)) or value in ("uniform", "even"):
        return value
    if isinstance(value, dict) and set(value) == {"steps"}:
        return GivenSteps.model_validate(value)
    if isinstance(value, dict) and set(value) == {"every"}:
        return EverySteps.model_validate(value)
    raise ValueError("must be uniform, even, {steps: [10, 20]} or {every: 100}")


def _bound(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("must be a step (1000), a percentage ('25%') or tokens ('30B')")
    return value


def _arm_items(value: Any) -> Any:
    if value is None or value == "rest" or (type(value) is int and value >= 0):
        return value
    raise ValueError("must be a number of items, 0 or more, or 'rest'")


Schedule = Annotated[
    Literal["uniform", "even"] | GivenSteps | EverySteps, BeforeValidator(_schedule)
]
Bound = Annotated[int | str, BeforeValidator(_bound)]
"""A step (1000), a share of all steps ("25%") or a number of tokens ("30B")."""
Window = Annotated[list[Bound], Field(min_length=2, max_length=2)]
Mode = Literal["overwrite"]


class Arm(Strict):
    """A condition: how many items it takes and how often each is placed."""

    name: Name
    items: Annotated[int | Literal["rest"] | None, BeforeValidator(_arm_items)] = None
    copies: Annotated[int, Field(ge=0, le=MOST_COPIES)]
    during: Window | None = None
    schedule: Schedule | None = None
    placement: Mode | None = None

    _name = field_validator("name")(check_name)


class ExperimentConfig(Strict):
    """The fields that all kinds share."""

    name: Name
    kind: str
    arms: list[Arm] = []
    during: Window | None = None
    schedule: Schedule = "uniform"
    placement: Mode = "overwrite"

    _name = field_validator("name")(check_name)

    @model_validator(mode="after")
    def _arms_are_distinct(self) -> ExperimentConfig:
        names = [arm.name.lower() for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"arm names must differ by more than case: {', '.join(twice)}")
        if sum(arm.items == "rest" for arm in self.arms) > 1:
            raise ValueError("only one arm can take the rest of the items")
        return self
