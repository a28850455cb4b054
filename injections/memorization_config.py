"""The section of a `memorization` experiment; `memorization` says what its keys mean.

    grid: {suffixes: [none, random], lengths: [1, 8], copies: [1, 4], items: 40, holdout: rest}

is the conditions none, random-1, random-8 and the arms holdout (the rest), x1 and x4, each of
3 x 40 items.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mixctl.injections.canaries import Condition, SuffixKind
from mixctl.injections.config import MOST_COPIES, Arm, ExperimentConfig, Strict
from mixctl.injections.sources import ItemFile

SECRET = "{secret}"
"""where the secret stands in a template"""
Copies = Annotated[int, Field(ge=1, le=MOST_COPIES)]
Length = Annotated[int, Field(ge=1, le=100_000)]


class SecretConfig(Strict):
    """A secret made of text."""

    alphabet: Annotated[str, Field(min_length=2)]
    """the characters it is drawn from"""
    length: Annotated[int, Field(ge=1, le=1000)]
    """in characters"""

    @property
    def symbols(self) -> str:
        """Returns the different characters of the alphabet."""
        return "".join(dict.fromkeys(self.alphabet))


class GridConfig(Strict):
    """Kinds of suffix x lengths (the conditions) x copies (the arms)."""

    suffixes: Annotated[list[SuffixKind], Field(min_length=1)]
    """kinds of suffix"""
    lengths: list[Length] = []
    """of the suffixes, in tokens"""
    copies: Annotated[list[Copies], Field(min_length=1)] | None = None
    """the doses: an arm each"""
    items: Annotated[int, Field(ge=1)] | None = None
    """of each condition in each arm"""
    holdout: Annotated[int, Field(ge=0)] | Literal["rest"] | None = None
    """items of each condition that are never placed"""

    @field_validator("suffixes", "lengths", "copies")
    @classmethod
    def _once(cls, values: list[Any] | None) -> list[Any] | None:
        twice = [value for value in dict.fromkeys(values or []) if (values or []).count(value) > 1]
        if twice:
            raise ValueError(f"given more than once: {', '.join(map(str, twice))}")
        return values

    @model_validator(mode="after")
    def _complete(self) -> GridConfig:
        if bool(self.lengths) != (self.suffixes != ["none"]):
            raise ValueError("'lengths' are of the suffixes other than none: give both or neither")
        if (self.copies is None) != (self.items is None):
            raise ValueError("'copies' and 'items' (of each condition and dose) go together")
        if self.copies is None and self.holdout is not None:
            raise ValueError("'holdout' goes with 'copies' and 'items'")
        return self

    @property
    def conditions(self) -> list[Condition]:
        """Returns the conditions in the order of the mix file."""
        return [
            Condition(suffix, length)
            for suffix in self.suffixes
            for length in ([0] if suffix == "none" else self.lengths)
        ]

    def arms(self) -> list[Arm]:
        """Returns an arm for each dose and the holdout, over all conditions together."""
        each = (self.items or 0) * len(self.conditions)
        holdout = "rest" if self.holdout is None else self.holdout
        doses = [Arm(name=f"x{copies}", items=each, copies=copies) for copies in self.copies or []]
        return [Arm(name="holdout", items=holdout, copies=0), *doses]


class MemorizationConfig(ExperimentConfig):
    """The section of a `memorization` experiment."""

    kind: Literal["memorization"]
    """this kind"""
    items: ItemFile | None = None
    """documents to put a suffix to"""
    count: Annotated[int, Field(ge=1)] | None = None
    """how many canaries are made, where there is no file"""
    template: str = ""
    """the text of a made canary; `{secret}` says where its secret stands, else at the end"""
    prefix_tokens: Annotated[int, Field(ge=1)] | None = None
    """tokens of a document that are kept in front of the suffix"""
    suffix: SuffixKind | None = None
    """the kind of suffix"""
    suffix_tokens: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """its length"""
    secret: SecretConfig | None = None
    """a secret of text instead of tokens"""
    grid: GridConfig | None = None
    """kinds of suffix x lengths x doses, and the arms for them"""
    candidates: Annotated[int, Field(ge=0, le=100_000)] | Literal["all"] = 0
    """other suffixes to rank the placed one among; `all`: every one there could be"""

    @model_validator(mode="before")
    @classmethod
    def _arms_of_the_grid(cls, raw: Any) -> Any:
        """Adds the arms that the grid stands for; a wrong grid is left for its own errors."""
        if not isinstance(raw, dict) or "arms" in raw or "grid" not in raw:
            return raw
        try:
            grid = GridConfig.model_validate(raw["grid"])
        except ValidationError:
            return raw
        return raw if grid.copies is None else {**raw, "arms": grid.arms()}

    @model_validator(mode="after")
    def _one_source_one_secret(self) -> MemorizationConfig:
        if (self.items is None) == (self.count is None):
            raise ValueError(
                "exactly one of 'items' (a file) and 'count' (with 'template') must be given"
            )
        if self.grid is not None:
            self._check_grid(self.grid)
        elif self.suffix == "none":
            if self.suffix_tokens or self.secret is not None:
                raise ValueError("'suffix: none' leaves out 'suffix_tokens' and 'secret'")
        elif (self.suffix_tokens is None) == (self.secret is None):
            raise ValueError(
                "exactly one of 'suffix_tokens' and 'secret' must be given (or a 'grid')"
            )
        elif self.suffix is not None and not self.suffix_tokens:
            raise ValueError(f"'suffix: {self.suffix}' needs 'suffix_tokens', 1 or more")
        self._check_prefix()
        self._check_candidates()
        return self

    def _check_grid(self, grid: GridConfig) -> None:
        given = [name for name in ("suffix", "suffix_tokens", "secret") if getattr(self, name)]
        if given:
            raise ValueError(f"'{given[0]}' and 'grid' are both given; the grid says it all")
        if grid.copies is not None and self.arms != grid.arms():
            raise ValueError("'grid' with 'copies' makes the arms itself: leave out 'arms'")

    def _check_prefix(self) -> None:
        if self.items is not None and self.template:
            raise ValueError("'template' goes with 'count', not with 'items'")
        if self.template.count(SECRET) > 1:
            raise ValueError(f"'template' may hold {SECRET} once only")
        if self.secret is not None and self.prefix_tokens is not None:
            raise ValueError("a text 'secret' follows a text: leave out 'prefix_tokens'")
        if self.count is not None and self.suffix_tokens == 0:
            raise ValueError(
                "'suffix_tokens: 0' needs 'items': there would be nothing to tell apart"
            )
        modelled = [c.name for c in self.conditions if c.suffix != "random"]
        if self.count is not None and modelled:
            raise ValueError(f"'{modelled[0]}' needs 'items': it is about documents")

    def _check_candidates(self) -> None:
        if self.candidates and self.suffix_tokens == 0:
            raise ValueError("'candidates' need a secret: suffix_tokens is 0")
        random = self.secret is not None or any(c.suffix == "random" for c in self.conditions)
        if self.candidates and not random:
            raise ValueError("'candidates' need a secret drawn at random: suffix random or a text")
        if self.candidates == "all" and self.count is None:
            raise ValueError("'candidates: all' needs 'count' with 'template', one prefix for all")

    @property
    def conditions(self) -> list[Condition]:
        """Returns the conditions of token suffixes, one without a grid; none of a text secret."""
        if self.grid is not None:
            return self.grid.conditions
        if self.secret is not None:
            return []
        kind = self.suffix or ("random" if self.suffix_tokens else "none")
        return [Condition(kind, self.suffix_tokens or 0)]
