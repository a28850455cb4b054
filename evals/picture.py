"""A picture of the report, and what an experiment's pictures are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixctl.evals.charts import Look
from mixctl.evals.formatting import MISSING, interval, number
from mixctl.evals.item_scores import ItemScores
from mixctl.evals.report_rows import Placed
from mixctl.evals.rows import Row


@dataclass(frozen=True)
class Cell:
    """A number or a word in the table below a picture; linked where it has a row."""

    text: str
    place: int | None = None


@dataclass(frozen=True)
class Picture:
    """An SVG with its heading, what it shows, and its numbers.

    Attributes:
        heading: what is drawn.
        caption: how to read it.
        svg: the drawing.
        head: of the table of numbers.
        numbers: its rows.
    """

    heading: str
    caption: str
    svg: str
    head: list[str] = field(default_factory=list)
    numbers: list[list[Cell]] = field(default_factory=list)

    @property
    def places(self) -> set[int]:
        """Returns the rows of results.parquet that it quotes."""
        return {cell.place for line in self.numbers for cell in line if cell.place is not None}


@dataclass(frozen=True)
class Drawn:
    """What an experiment's pictures are made of.

    Attributes:
        name: unique on the page.
        primary: its primary row.
        rows: all its rows.
        look: of each arm.
        arms: lowest dose first.
        scores: of its items at the last checkpoint; None where samples are missing.
        about: what results.json says of the experiment.
        run_steps: steps of the whole run.
        checkpoints: their steps.
    """

    name: str
    primary: Row
    rows: Sequence[Placed]
    look: Mapping[str, Look]
    arms: Sequence[str]
    scores: ItemScores | None
    about: Mapping[str, Any]
    run_steps: int
    checkpoints: Sequence[int]

    def levels(self, metric: str) -> list[Placed]:
        """Returns the levels of a metric over all strata, those without a number left out."""
        return [
            placed
            for placed in self.rows
            if (placed.row.contrast, placed.row.stratum) == ("level", None)
            and placed.row.metric == metric
            and placed.row.estimate is not None
        ]

    def last_levels(self, metric: str) -> dict[tuple[str, str], Placed]:
        """Returns (arm, model) -> the level of a metric at the last checkpoint's step."""
        return {
            (placed.row.arm, placed.row.model): placed
            for placed in self.levels(metric)
            if placed.row.step == self.primary.step
        }


def models_of(levels: Mapping[tuple[str, str], Placed]) -> list[str]:
    """Returns which of run and twin there are levels of."""
    return [model for model in ("run", "twin") if any(m == model for _, m in levels)]


def with_interval(placed: Placed | None) -> Cell:
    """Returns the cell of an estimate with its interval, or of a dash."""
    if placed is None:
        return Cell(MISSING)
    row = placed.row
    if row.estimate is None:
        return Cell((row.note or MISSING).partition(":")[0], placed.place)
    ends = "" if row.ci_low is None else f" {interval(row.ci_low, row.ci_high)}"
    return Cell(f"{number(row.estimate)}{ends}", placed.place)
