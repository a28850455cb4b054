"""A row of results.parquet: one estimate, its interval, its test, and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa

CONTRASTS = ("level", "holdout", "twin", "did")
PRIMARY_FAMILY = "primary"
EXPLORATORY = "exploratory"
GIVEN = "arms were given by the items' rows: the test holds only if they were randomised there"
NOT_SHARED = "no stratum holds items of both the arm and the holdout"


@dataclass(frozen=True)
class Row:
    """One estimate. Where a number cannot be had it is None and `note` says why.

    Attributes:
        experiment: the experiment.
        kind: its kind.
        arm: the arm.
        dose: mean copies that the arm's items had in the run up to the step (a twin's rows too).
        stratum: None for all strata.
        metric: what was measured.
        model: "run" or "twin": whose scores (contrasts twin and did: the run's minus the twin's).
        checkpoint: folder of the checkpoint.
        step: its step; None when unknown.
        contrast: level | holdout | twin | did.
        estimate: the number.
        se: its standard error.
        ci_low: lower end of the 95% interval.
        ci_high: upper end.
        n: items of the arm.
        n_holdout: holdout items it is compared with.
        p_value: of the test.
        sided: "two" or "greater".
        test: the null and how the p-value was found.
        primary: whether it is its experiment's primary estimate.
        family: the family of tests it belongs to.
        q_value: Benjamini-Hochberg within the family.
        mde: smallest effect that the design finds with power 0.8 (two-sided, 0.05).
        note: what must be said beside the number.
    """

    experiment: str
    kind: str
    arm: str
    dose: float
    stratum: str | None
    metric: str
    model: str
    checkpoint: str
    step: int | None
    contrast: str
    estimate: float | None = None
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    n_holdout: int | None = None
    p_value: float | None = None
    sided: str | None = None
    test: str | None = None
    primary: bool = False
    family: str = EXPLORATORY
    q_value: float | None = None
    mde: float | None = None
    note: str | None = None


SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("kind", pa.string()),
        ("arm", pa.string()),
        ("dose", pa.float64()),
        ("stratum", pa.string()),
        ("metric", pa.string()),
        ("model", pa.string()),
        ("checkpoint", pa.string()),
        ("step", pa.int64()),
        ("contrast", pa.string()),
        ("estimate", pa.float64()),
        ("se", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
        ("n_holdout", pa.int64()),
        ("p_value", pa.float64()),
        ("sided", pa.string()),
        ("test", pa.string()),
        ("primary", pa.bool_()),
        ("family", pa.string()),
        ("q_value", pa.float64()),
        ("mde", pa.float64()),
        ("note", pa.string()),
    ]
)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Returns the rows as a table with the columns of results.parquet."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def from_table(table: pa.Table) -> list[Row]:
    """Returns the rows of a results table; extra columns are ignored.

    Raises:
        KeyError: when a column is missing.
        ValueError: when a column has another type, or a value is missing that must be there.
    """
    names = [field.name for field in fields(Row)]
    table = table.select(names).cast(SCHEMA)
    must = [field.name for field in fields(Row) if "None" not in str(field.type)]
    if empty := [name for name in must if table[name].null_count]:
        raise ValueError(f"rows without a value in {', '.join(empty)}")
    return [Row(**{n: values[n] for n in names}) for values in table.select(names).to_pylist()]


def left_out(n_items: int) -> str | None:
    """Returns what is said of items whose stratum one arm does not have."""
    if not n_items:
        return None
    return f"{n_items} items left out: their stratum is missing in one of the arms"


def joined(*notes: str | None) -> str | None:
    """Returns the notes as one, or None when there is none."""
    return "; ".join(note for note in notes if note) or None
