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

MAX_OTHERS = 200
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


def of_kind(found: Results, kind: str) -> list[Placed]:
    """Returns the rows of a kind with their places."""
    return [Placed(place, row) for place, row in enumerate(found.rows) if row.kind == kind]
