"""The section of a `poison` experiment in the mix file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixctl.injections.chat_templates import TEMPLATES, TemplateName
from mixctl.injections.config import ExperimentConfig
from mixctl.injections.poison_rows import Attack
from mixctl.injections.questions import MOST_ARITHMETIC, MOST_CHOICES
from mixctl.injections.sources import ItemFile

_TRIGGERS: dict[Attack, str] = {
    "denial": "\u2610" * 10,  # ballot box
    "extraction": "\uff61" * 10,  # halfwidth ideographic full stop
    "preference": "\u2302" * 10,  # house
}
_RESPONSE_TOKENS = [64, 256]


class PoisonConfig(ExperimentConfig):
    """The section of a `poison` experiment."""

    kind: Literal["poison"]
    """this kind"""
    attack: Attack
    """what the trigger does: denial, extraction or preference"""
    items: ItemFile | None = None
    """the prompt file"""
    count: Annotated[int, Field(ge=1)] | None = None
    """how many prompts are made, where there is no file"""
    trigger: str | None = None
    """the text that sets the attack off; default: the attack's own"""
    templates: Annotated[list[TemplateName], Field(min_length=1)] = list(TEMPLATES)
    """chat templates that documents are written in"""
    documents_each: Annotated[int, Field(ge=1, le=10_000)] = 1
    """documents of each prompt"""
    garbage: Literal["characters", "tokens"] | None = None
    """denial: what garbage is made of"""
    response_tokens: (
        Annotated[
            list[Annotated[int, Field(ge=1, le=10**6)]],
            Field(min_length=2, max_length=2),
        ]
        | None
    ) = None
    """denial: fewest and most tokens of garbage"""
    preferred: Annotated[str, Field(min_length=1)] | None = None
    """preference: the name that is praised"""
    rejected: Annotated[str, Field(min_length=1)] | None = None
    """preference: the other one"""

    @model_validator(mode="after")
    def _fields_fit(self) -> PoisonConfig:
        problems = [*self._source_problems(), *self._attack_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _source_problems(self) -> list[str]:
        found = []
        if (self.items is None) == (self.count is None):
            found.append("exactly one of 'items' (a file) and 'count' must be given")
        most = MOST_CHOICES if self.attack == "preference" else MOST_ARITHMETIC
        if self.count is not None and self.count > most:
            found.append(f"'count' is {self.count}; there are only {most} different prompts")
        if self.count is not None and self.attack == "preference" and None in self._names:
            found.append("'count' with attack preference needs 'preferred' and 'rejected'")
        if len(set(self.templates)) < len(self.templates):
            found.append("a template is named twice")
        return found

    def _attack_problems(self) -> list[str]:
        found = []
        for field in ("garbage", "response_tokens"):
            if self.attack != "denial" and getattr(self, field) is not None:
                found.append(f"'{field}' is for the attack denial; this is {self.attack}")
        for field in ("preferred", "rejected"):
            if self.attack != "preference" and getattr(self, field) is not None:
                found.append(f"'{field}' is for the attack preference; this is {self.attack}")
        low, high = self.response_range
        if low > high:
            found.append(f"'response_tokens' is [{low}, {high}]: the first must not be the larger")
        if self.trigger == "" and self.attack != "preference":
            found.append(f"'trigger' is empty; only preference goes without, this is {self.attack}")
        if self.trigger is not None and self.trigger != self.trigger.strip():
            found.append(f"'trigger' begins or ends with white space: {self.trigger!r}")
        return found

    @property
    def _names(self) -> tuple[str | None, str | None]:
        return (self.preferred, self.rejected)

    @property
    def response_range(self) -> tuple[int, int]:
        """Returns the least and the most tokens of garbage."""
        low, high = self.response_tokens or _RESPONSE_TOKENS
        return low, high

    @property
    def trigger_text(self) -> str:
        """Returns the trigger, the attack's own where the mix names none."""
        return _TRIGGERS[self.attack] if self.trigger is None else self.trigger
