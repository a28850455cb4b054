"""Which rows of results.parquet the report shows, and how they are linked.

A row is named by its place in results.parquet, from 0: `#r123` on the page is
`pq.read_table("results.parquet").slice(123, 1)`. Every number that is quoted anywhere on the page
links to its row, so every quoted row is shown; so are all of the last checkpoint. Of the others
there may be tens of thousands: so many are shown, and the rest is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixctl.evals.results import Results
from mixctl.evals.rows import Row

WHOLE_MODEL = "model"
"""the kind of the rows on the model as a whole; they are no experiment's"""
MAX_OTHERS = 60
"""rows of an experiment that are shown although nothing quotes them"""


@dataclass(frozen=True)
class Placed:
    """A row and its place in results.parquet."""

    place: int
    row: Row


@dataclass(frozen=True)
class Group:
    """Rows of one checkpoint and stratum.

    Attributes:
        step: of the checkpoint; None when unknown.
        stratum: None for all strata.
        rows: in the order of results.parquet, the primary one first.
    """

    step: int | None
    stratum: str | None
    rows: list[Placed]


def of_experiment(found: Results, experiment: str) -> list[Placed]:
    """Returns the rows of an experiment with their places."""
    return [Placed(p, row) for p, row in enumerate(found.rows) if row.experiment == experiment]


def shown(rows: Sequence[Placed], last_step: int | None, quoted: set[int]) -> list[Placed]:
    """Returns the rows to show: those of the last checkpoint, those quoted, and some others."""
    needed = {p.place for p in rows if _is_last(p.row, last_step)} | quoted
    others = [p.place for p in rows if p.place not in needed]
    needed |= set(others[:MAX_OTHERS])
    return [p for p in rows if p.place in needed]


def _is_last(row: Row, last_step: int | None) -> bool:
    return row.step == last_step and row.stratum is None


@dataclass(frozen=True)
class Listing:
    """The rows that are shown under one heading.

    Attributes:
        anchor: of what they belong to; the listing's own is this with `-rows`.
        name: of what they belong to.
        groups: the rows.
        n_hidden: rows that are in results.parquet alone.
    """

    anchor: str
    name: str
    groups: list[Group]
    n_hidden: int


def listing(
    anchor: str, name: str, rows: Sequence[Placed], last_step: int | None, quoted: set[int]
) -> Listing:
    """Returns the rows to show, grouped."""
    chosen = shown(rows, last_step, quoted)
    return Listing(anchor, name, grouped(chosen), len(rows) - len(chosen))


def grouped(rows: Sequence[Placed]) -> list[Group]:
    """Returns the rows by step and stratum: the last step first, all strata before each."""
    groups: dict[tuple[int | None, str | None], list[Placed]] = {}
    for placed in rows:
        groups.setdefault((placed.row.step, placed.row.stratum), []).append(placed)
    made = [Group(step, stratum, of_key) for (step, stratum), of_key in groups.items()]
    return sorted(made, key=lambda group: (-_as_number(group.step), group.stratum or ""))


def _as_number(step: int | None) -> float:
    """Returns the step; an unknown one counts as after all placements."""
    return float("inf") if step is None else step


def whole_model(found: Results) -> list[Placed]:
    """Returns the rows on the model as a whole with their places."""
    return [Placed(p, row) for p, row in enumerate(found.rows) if row.kind == WHOLE_MODEL]


def telling(rows: Sequence[Placed]) -> list[Placed]:
    """Returns the rows of the last step that compare with the baselines, else the levels there."""
    steps = [placed.row.step for placed in rows]
    last = max(steps, key=_as_number, default=None)
    of_last = [placed for placed in rows if _is_last(placed.row, last)]
    compared = [placed for placed in of_last if placed.row.contrast == "twin"]
    return compared or [placed for placed in of_last if placed.row.model == "run"]
