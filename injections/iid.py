"""iid: base data placed once more, to see what order and repetition alone do.

    count: 300                     # spare base sequences; default: what the arms ask for
    arms: [{name: x1, items: 100, copies: 1}, {name: x4, items: 100, copies: 4}, ...]

    deciles: 50                    # ten arms of 50 spare sequences, one for each tenth of the run

    selected: [12, 4096]           # or a file with a number a line: base data of these sequences
                                   # of the run, placed again

Every item is one whole sequence: `spare-0000001` holds base data that the run holds nowhere else,
`selected-000000012` that of sequence 12 of the run. Items of a holdout arm (copies 0) are spare
sequences that are never placed. The arm `decile-1` begins after step 1, like every default window:
LitGPT's warm-up gives the first step a learning rate of zero.

Source of the arms: Bordt & Pawelczyk, arXiv 2509.23383 (random places, recency by training decile,
selected sequences). Price: a spare sequence an item.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from mixctl.injections.base import BaseData, Item, Kind, KindContext
from mixctl.injections.config import Arm, ExperimentConfig, Mode
from mixctl.shards.errors import InputError
from mixctl.shards.meta.iid import IidMeta

_MOST_NAMED = 20
_SPARE = IidMeta(source="spare")
Count = Annotated[int, Field(ge=1, le=10**8)]
Sequences = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class IidConfig(ExperimentConfig):
    """The section of an `iid` experiment."""

    kind: Literal["iid"]
    """this kind"""
    placement: Mode = "sequence"
    """whole sequences"""
    count: Count | None = None
    """spare base sequences; default: what the arms ask for"""
    deciles: Count | None = None
    """ten arms of so many spare sequences, one for each tenth of the run"""
    selected: Sequences | str | None = None
    """sequences of the run that are placed again, a list or a file"""

    @model_validator(mode="before")
    @classmethod
    def _arms_of_deciles(cls, raw: Any) -> Any:
        """Adds the ten arms that `deciles` stands for."""
        if not isinstance(raw, dict) or "arms" in raw or type(raw.get("deciles")) is not int:
            return raw
        return {**raw, "arms": _deciles(raw["deciles"])} if raw["deciles"] > 0 else raw

    @model_validator(mode="after")
    def _one_source(self) -> IidConfig:
        if self.selected is not None and (self.count or self.deciles):
            raise ValueError("'selected' sequences are the items: leave out 'count' and 'deciles'")
        if self.deciles and self.count:
            raise ValueError("'deciles' says how many items there are: leave out 'count'")
        if self.deciles and self.arms != _deciles(self.deciles):
            raise ValueError("'deciles' makes the arms itself: leave out 'arms'")
        if self.selected is None and not self.n_spare:
            raise ValueError("no items: say 'count', 'deciles' or 'selected', or 'items' of arms")
        rest = [arm.name for arm in self.arms if arm.items == "rest"]
        if self.selected is None and self.count is None and rest:
            raise ValueError(f"arm '{rest[0]}' takes the rest: say with 'count' of how many items")
        return self

    @property
    def n_spare(self) -> int:
        """Returns how many spare sequences are wanted: `count`, or what the arms ask for."""
        asked = sum(arm.items for arm in self.arms if isinstance(arm.items, int))
        return self.count if self.count is not None else asked


def _deciles(items: int) -> list[Arm]:
    """Returns an arm for each tenth of the run, the first without step 1."""
    starts: list[int | str] = [1, *(f"{n}%" for n in range(10, 100, 10))]
    return [
        Arm(name=f"decile-{n}", items=items, copies=1, during=[start, f"{10 * n}%"])
        for n, start in enumerate(starts, start=1)
    ]


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(IidConfig, config)
    if config.selected is None:
        names = [f"spare-{n:07d}" for n in range(1, config.n_spare + 1)]
        return [Item(item=name, variants=(), meta=_SPARE, base=BaseData()) for name in names]
    return [
        Item(
            item=f"selected-{sequence:09d}",
            variants=(),
            meta=IidMeta(source="selected", sequence=sequence),
            base=BaseData(sequence=sequence),
        )
        for sequence in _selected(config, context)
    ]


def _selected(config: IidConfig, context: KindContext) -> list[int]:
    """Returns the selected sequences in order; raises InputError with every wrong one."""
    if isinstance(config.selected, str):
        found = _read(context.folder / config.selected)
    else:
        found = [(f"selected[{n}]", one) for n, one in enumerate(config.selected or [])]
    last = context.steps * context.global_batch - 1
    seen: dict[int, str] = {}
    problems = []
    for place, sequence in found:
        if sequence > last:
            problems.append(
                f"{place}: sequence {sequence} is outside the run, which has 0 to {last}"
            )
        if sequence in seen:
            problems.append(f"{place}: sequence {sequence} was given at {seen[sequence]} already")
        seen[sequence] = place
    if problems:
        named = [f"experiment '{config.name}': {problem}" for problem in problems[:_MOST_NAMED]]
        raise InputError(named)
    return sorted(seen)


def _read(path: Path) -> list[tuple[str, int]]:
    """Returns (place, number) for each line of a file that is not blank."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    stripped = [(f"{path}:{n}", line.strip()) for n, line in enumerate(lines, start=1)]
    wrong = [
        f"{place}: must be the number of a sequence, 0 or more (got {line[:80]!r})"
        for place, line in stripped
        if line and not re.fullmatch("[0-9]{1,18}", line)
    ]
    if wrong:
        raise InputError(wrong[:_MOST_NAMED])
    if not any(line for _, line in stripped):
        raise InputError(f"{path}: no sequences")
    return [(place, int(line)) for place, line in stripped if line]


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    selected = cast(IidConfig, config).selected
    return [folder / selected] if isinstance(selected, str) else []


KIND = Kind("iid", 1, IidConfig, _make_items, _inputs)
