"""What every experiment of a mix file says: its arms, windows, schedule and placement mode.

    name: arc-leak
    kind: contamination
    during: [10%, 90%]                       # default: all steps but the first
    schedule: uniform                        # or even, {steps: [..]}, {ramp: [0, 1]}
    arms:
      - {name: holdout, items: 1000, copies: 0}
      - {name: x16, items: 200, copies: 16}
      - {name: rest, items: rest, share: 0.1%}   # as many copies as fill a share of the run

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

from mixctl.injections.quantities import parse_share, parse_tokens

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
    """the steps, from 1"""


class EverySteps(Strict):
    """Copies fall `every` steps apart, from the first step of the window."""

    every: Annotated[int, Field(ge=1)]
    """steps between two copies"""


def _bound(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("must be a step (1000), a percentage ('25%') or tokens ('30B')")
    return value


def _arm_items(value: Any) -> Any:
    if value is None or value == "rest" or (type(value) is int and value >= 0):
        return value
    raise ValueError("must be a number of items, 0 or more, or 'rest'")


Bound = Annotated[int | str, BeforeValidator(_bound)]
"""A step (1000), a share of all steps ("25%") or a number of tokens ("30B")."""
Window = Annotated[list[Bound], Field(min_length=2, max_length=2)]


Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Ramp(Strict):
    """The density of copies changes linearly over the window, from the first weight to the last."""

    ramp: list[Weight] = Field(min_length=2, max_length=2)
    """density at the first and at the last step of the window"""

    @field_validator("ramp", mode="before")
    @classmethod
    def _whole_numbers_too(cls, value: Any) -> Any:
        """Takes [0, 1] for [0.0, 1.0]."""
        if not isinstance(value, list):
            return value
        return [float(x) if type(x) is int else x for x in value]

    @model_validator(mode="after")
    def _not_all_zero(self) -> Ramp:
        if sum(self.ramp) == 0:
            raise ValueError("one of the two weights must be above 0")
        return self


class CopyWindows(Strict):
    """Copy c falls in the c-th of these windows (in turn when there are more copies)."""

    windows: list[Window] = Field(min_length=1)
    """a window a copy, in turn"""


_SCHEDULES: dict[str, type[Strict]] = {
    "steps": GivenSteps,
    "every": EverySteps,
    "ramp": Ramp,
    "windows": CopyWindows,
}


def _schedule(value: Any) -> Any:
    """Returns the schedule as the class that its key names: a wrong one gives one message."""
    if isinstance(value, tuple(_SCHEDULES.values())) or value in ("uniform", "even"):
        return value
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _SCHEDULES:
        return _SCHEDULES[next(iter(value))].model_validate(value)
    raise ValueError(
        "must be uniform, even, {steps: [10, 20]}, {every: 100}, {ramp: [0, 1]} or "
        "{windows: [[0%, 25%], [50%, 75%]]}"
    )


Schedule = Annotated[
    Literal["uniform", "even"] | GivenSteps | EverySteps | Ramp | CopyWindows,
    BeforeValidator(_schedule),
]
Mode = Literal["overwrite", "boundary", "sequence", "batch", "mark"]
"""How a payload enters its sequence; `mark` changes no byte."""
Variants = Literal["cycle", "first", "each"]
"""Which payload of an item a copy takes: each in turn, always the first, each its own."""


NearDuplicates = Literal["cluster", "remove", "keep"]
"""Near-duplicate items go to one arm, or all but the first are left out, or are told apart."""


class Split(Strict):
    """A payload is cut into pieces that are placed apart; `anew` cuts every copy elsewhere."""

    pieces: Annotated[int, Field(ge=2, le=100_000)] | None = None
    """so many pieces, as equal as can be"""
    at_most: Annotated[int, Field(ge=1)] | None = None
    """pieces of at most so many tokens"""
    anew: bool = False
    """whether every copy is cut at other places"""

    @model_validator(mode="after")
    def _one_rule(self) -> Split:
        if (self.pieces is None) == (self.at_most is None):
            raise ValueError("exactly one of 'pieces' and 'at_most' (tokens) must be given")
        return self


def _split(value: Any) -> Any:
    if value is None or value == "whole" or isinstance(value, Split):
        return value
    if isinstance(value, dict):
        return Split.model_validate(value)
    raise ValueError("must be whole, {pieces: 4} or {at_most: 512}, with 'anew: true' if wanted")


Splitting = Annotated[Literal["whole"] | Split | None, BeforeValidator(_split)]


class Arm(Strict):
    """A condition: how many items it takes and how often each is placed.

    The dose is a number of copies, or a budget: `tokens`, or a `share` of the run's tokens. A
    budget is spent on the arm's items in turn, to the last copy that does not exceed it.
    """

    name: Name
    """unique in the experiment"""
    items: Annotated[int | Literal["rest"] | None, BeforeValidator(_arm_items)] = None
    """how many items it takes, drawn at random; `rest`: all that remain"""
    copies: Annotated[int, Field(ge=0, le=MOST_COPIES)] | None = None
    """how often each of its items is placed; 0 makes a holdout"""
    tokens: int | str | None = None
    """a budget instead of copies: so many tokens (2M)"""
    share: str | None = None
    """a budget instead of copies: so much of the run's tokens (0.1%)"""
    during: Window | None = None
    """the window of its copies, instead of the experiment's: [25%, 75%], steps, or tokens"""
    schedule: Schedule | None = None
    """instead of the experiment's"""
    placement: Mode | None = None
    """instead of the experiment's"""
    variants: Variants | None = None
    """instead of the experiment's"""
    split: Splitting = None
    """instead of the experiment's"""

    _name = field_validator("name")(check_name)

    @field_validator("tokens")
    @classmethod
    def _tokens_are_a_number(cls, value: int | str | None) -> int | None:
        tokens = None if value is None else parse_tokens(value)
        if tokens is not None and tokens < 1:
            raise ValueError("a budget must be at least 1 token; copies: 0 makes a holdout")
        return tokens

    @field_validator("share")
    @classmethod
    def _share_is_a_percentage(cls, value: str | None) -> str | None:
        if value is not None and not parse_share(value):
            raise ValueError("a share must be above 0%; copies: 0 makes a holdout")
        return value

    @model_validator(mode="after")
    def _one_dose(self) -> Arm:
        if sum(dose is not None for dose in (self.copies, self.tokens, self.share)) != 1:
            raise ValueError("exactly one of 'copies', 'tokens' and 'share' must be given")
        if isinstance(self.schedule, CopyWindows) and self.during is not None:
            raise ValueError("'during' and the schedule's 'windows' are both given")
        return self

    @property
    def held_out(self) -> bool:
        """Returns whether the arm's items are never placed."""
        return self.copies == 0


class ExperimentConfig(Strict):
    """The fields that all kinds share."""

    name: Name
    """unique in the mix, case ignored"""
    kind: str
    """which kind of experiment"""
    arms: list[Arm] = []
    """the conditions; items in no arm are unused"""
    during: Window | None = None
    """the window of all copies: start < step <= stop, in percent, steps or tokens; default: every
    step but the first"""
    schedule: Schedule = "uniform"
    """when copies fall within the window"""
    placement: Mode = "overwrite"
    """how a payload enters its sequence"""
    variants: Variants = "cycle"
    """which payload of an item a copy takes"""
    split: Splitting = None
    """how payloads are cut into pieces that are placed apart"""
    near_duplicates: NearDuplicates = "cluster"
    """what becomes of near-duplicate items"""

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


class AbsentConfig(ExperimentConfig):
    """An experiment whose items must occur nowhere in the run.

    `expected_tokens` is for `mixctl plan`, which sees no corpus: the base tokens, whole sequences,
    that are expected to be replaced.
    """

    expected_tokens: int | str | None = None
    """for `plan`: the base tokens that are expected to be replaced"""

    @field_validator("expected_tokens")
    @classmethod
    def _expected_tokens_are_a_number(cls, value: int | str | None) -> int | None:
        return None if value is None else parse_tokens(value)
