"""The section of a `watermark` experiment: the fields of its three methods.

A field of another method that is set to anything but its default is an error, so that nothing is
set in vain.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mixctl.injections.config import ExperimentConfig
from mixctl.injections.sources import ItemFile

Method = Literal["green-list", "strings", "gaussian"]
Share = Annotated[float, Field(gt=0, lt=1)]

_FIELDS: dict[str, tuple[Method, ...]] = {
    "items": ("green-list", "strings"),
    "count": ("green-list", "gaussian"),
    "gamma": ("green-list",),
    "delta": ("green-list",),
    "context_width": ("green-list",),
    "tolerance": ("green-list",),
    "secret": ("green-list",),
    "already": ("green-list",),
    "ngrams": ("green-list",),
    "tokens_each": ("green-list",),
    "made_of": ("strings",),
    "length": ("strings",),
    "unit": ("gaussian",),
    "sigma": ("gaussian",),
    "n_null": ("strings", "gaussian"),
}
_N_NULL: dict[Method, int] = {"green-list": 0, "strings": 1000, "gaussian": 100}


class WatermarkConfig(ExperimentConfig):
    """The section of a `watermark` experiment."""

    kind: Literal["watermark"]
    """this kind"""
    method: Method
    """green-list, strings or gaussian"""
    items: ItemFile | None = None
    """green-list: documents; strings: documents with their collection"""
    count: Annotated[int, Field(ge=1, le=10**7)] | None = None
    """how many are made, where there is no file"""

    gamma: Share = 0.25
    """green-list: share of the vocabulary that is green"""
    delta: Annotated[float, Field(gt=0, le=100)] = 2.0
    """green-list: what is added to the logits of green tokens"""
    context_width: Annotated[int, Field(ge=0, le=16)] = 2
    """green-list: tokens before that seed the list"""
    tolerance: Annotated[float, Field(ge=0)] = 1.0
    """green-list: by how much less likely a replacement may be, in nats"""
    secret: Annotated[str, Field(min_length=1)] | None = None
    """green-list: the key; default: from the seed"""
    already: bool = False
    """green-list: whether the documents carry the mark already"""
    ngrams: str | None = None
    """green-list: documents that the n-gram model learns from"""
    tokens_each: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """green-list: length of a made document"""

    made_of: Literal["characters", "tokens"] = "characters"
    """strings: what they are made of"""
    length: Annotated[int, Field(ge=1, le=10_000)] = 20
    """strings: of each, in characters or tokens"""

    unit: Literal["batch", "sequence"] = "batch"
    """gaussian: what is marked, a whole batch or a sequence"""
    sigma: Annotated[float, Field(gt=0)] = 0.075
    """gaussian: standard deviation of the noise"""
    n_null: Annotated[int, Field(ge=0, le=10**6)] | None = None
    """strings or seeds that are never placed, for comparison"""

    @model_validator(mode="before")
    @classmethod
    def _marks_change_no_byte(cls, value: Any) -> Any:
        """Returns the section with placement: mark where a gaussian one names none."""
        if isinstance(value, dict) and value.get("method") == "gaussian":
            return {"placement": "mark", **value}
        return value

    @model_validator(mode="after")
    def _fields_fit(self) -> WatermarkConfig:
        problems = [*self._foreign_fields(), *self._source_problems(), *self._placement_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _foreign_fields(self) -> list[str]:
        return [
            f"'{field}' is for method {' and '.join(methods)}; this is {self.method}"
            for field, methods in _FIELDS.items()
            if self.method not in methods
            and getattr(self, field) != type(self).model_fields[field].default
        ]

    def _source_problems(self) -> list[str]:
        found = []
        if self.method == "strings" and self.items is None:
            found.append("method strings needs 'items' (a file)")
        if self.method == "gaussian" and self.count is None:
            found.append("method gaussian needs 'count', the number of marks")
        if self.method != "green-list":
            return found
        if (self.items is None) == (self.count is None):
            found.append("exactly one of 'items' (a file) and 'count' must be given")
        if self.count is not None and (self.ngrams is None or self.tokens_each is None):
            found.append("'count' needs 'ngrams' (documents to learn from) and 'tokens_each'")
        if self.items is not None and self.tokens_each is not None:
            found.append("'tokens_each' goes with 'count', not with 'items'")
        if self.already and (self.items is None or self.secret is None):
            found.append("'already: true' needs 'items' and the 'secret' they were marked with")
        if self.already and self.ngrams is not None:
            found.append("'ngrams' has no use where the documents are marked already")
        return found

    def _placement_problems(self) -> list[str]:
        """Returns an error for each arm of marks that would change bytes, or the other way."""
        named = {"": self.placement} | {
            f"arm '{arm.name}': ": arm.placement for arm in self.arms if arm.placement
        }
        marks = self.method == "gaussian"
        return [
            f"{where}placement is '{mode}'; method {self.method} "
            + ("changes no byte, so it must be 'mark'" if marks else "changes bytes")
            for where, mode in named.items()
            if (mode == "mark") != marks
        ]

    @property
    def n_null_or_default(self) -> int:
        """Returns how many negative controls each item gets."""
        return _N_NULL[self.method] if self.n_null is None else self.n_null
