"""A picture of the report, and what an experiment's pictures are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
class Point:
    """A number that is drawn: a row's, or the mean of the rows of several twins of one step.

    Attributes:
        row: the row; of several twins one with their mean, and without interval and test.
        place: of the row in results.parquet; None for a mean, which has no row.
        n_twins: how many twins it is the mean of; 1 for a row.
    """

    row: Row
    place: int | None
    n_twins: int = 1


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

    def levels(self, metric: str) -> list[Point]:
        """Returns the levels of a metric over all strata, those without a number left out.

        Several twins of one step are one point: their mean.
        """
        found: dict[tuple[str, str, int | None], list[Placed]] = {}
        for placed in self.rows:
            row = placed.row
            if (row.contrast, row.stratum, row.metric) != ("level", None, metric):
                continue
            if row.estimate is not None:
                found.setdefault((row.model, row.arm, row.step), []).append(placed)
        return [mean_of(of_key) for of_key in found.values()]

    def last_levels(self, metric: str) -> dict[tuple[str, str], Point]:
        """Returns (arm, model) -> the level of a metric at the last checkpoint's step."""
        return {
            (point.row.arm, point.row.model): point
            for point in self.levels(metric)
            if point.row.step == self.primary.step
        }


def mean_of(placed: Sequence[Placed]) -> Point:
    """Returns the only row as a point, or the mean of several; all have an estimate."""
    first = placed[0]
    if len(placed) == 1:
        return Point(first.row, first.place)
    mean = sum(p.row.estimate or 0.0 for p in placed) / len(placed)
    alone = {"se": None, "ci_low": None, "ci_high": None, "p_value": None, "test": None}
    row = replace(first.row, estimate=mean, note=None, **alone)  # type: ignore[arg-type]
    return Point(row, None, len(placed))


def twins_in_words(counts: Sequence[int]) -> str:
    """Returns 'twin' or 'mean of 3 twins', from how many twins the points are means of."""
    least, most = min(counts, default=1), max(counts, default=1)
    if most == 1:
        return "twin"
    return f"mean of {most} twins" if least == most else f"mean of {least} to {most} twins"


def models_of(levels: Mapping[tuple[str, str], Point]) -> list[str]:
    """Returns which of run and twin there are levels of."""
    return [model for model in ("run", "twin") if any(m == model for _, m in levels)]


def with_interval(placed: Placed | Point | None) -> Cell:
    """Returns the cell of an estimate with its interval, or of a dash."""
    if placed is None:
        return Cell(MISSING)
    row = placed.row
    if row.estimate is None:
        return Cell((row.note or MISSING).partition(":")[0], placed.place)
    ends = "" if row.ci_low is None else f" {interval(row.ci_low, row.ci_high)}"
    return Cell(f"{number(row.estimate)}{ends}", placed.place)
