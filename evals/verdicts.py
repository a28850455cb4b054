"""What is said of one estimate: found or not, and what the design would have found.

    found      q <= 0.05 in its family (p <= 0.05 for a row outside it)
    not found  it has a test, and q is above that: smaller than what the design finds, or nothing
    no test    there is no p-value

The report, the command line and the notes of results.parquet all take their words from here.
"""

from __future__ import annotations

from mixctl.evals.formatting import number, probability
from mixctl.evals.metric_words import described
from mixctl.evals.rows import Row
from mixctl.evals.stats.planning import ALPHA

FOUND, NOT_FOUND, NO_TEST = "found", "not found", "no test"


def verdict_of(row: Row) -> str:
    """Returns what a row says: found, not found, or no test."""
    if row.estimate is None or row.p_value is None:
        return NO_TEST
    decisive = row.q_value if row.primary else row.p_value
    return FOUND if decisive is not None and decisive <= ALPHA else NOT_FOUND


def finds(row: Row) -> str:
    """Returns the smallest effect that the design finds, or why it is not known."""
    if row.mde is not None:
        return f"the design finds {with_unit(row.mde, row.metric)} or more"
    return f"smallest detectable effect unknown: {_why_no_mde(row)}"


def with_unit(value: float, metric: str) -> str:
    """Returns a number with the unit of its metric."""
    return f"{number(value)} {described(metric).unit}".strip()


def not_found(row: Row) -> str:
    """Returns what is said of an effect that was not found."""
    if row.mde is None:
        return f"not found; {finds(row)}"
    if row.p_value is not None and row.p_value <= ALPHA:
        lost = f"p {probability(row.p_value)} does not survive the correction for many tests"
        return f"{lost}; in a single one {finds(row)}"
    null = 0.5 if row.metric.startswith("auc") else 0.0
    if row.estimate is not None and abs(row.estimate - null) >= row.mde:
        return (
            f"not found, although the design should find {with_unit(row.mde, row.metric)} or more"
        )
    return f"not detectable at this size: {finds(row)}"


def _why_no_mde(row: Row) -> str:
    if row.contrast == "level":
        return "the test needs no holdout"
    if row.contrast == "twin":
        return "it takes three replicated baselines to know how runs differ"
    return "too few holdout items, or they have no spread"
