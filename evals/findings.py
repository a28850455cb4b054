"""What each experiment found, in words: the first screen of the report and `report --json`.

    found      the primary row has q <= 0.05 in its family
    not found  it has a test, and q is above that: smaller than what the design finds, or nothing
    no test    there is no p-value; the note says why
    not scored the scorer failed: no number at all

Sorted in that order, the failures first: they are what must be acted upon. Only primary rows make
findings; everything else in the tables is exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mixctl.evals.formatting import number, probability
from mixctl.evals.metric_words import described
from mixctl.evals.results import Results
from mixctl.evals.rows import Row

ALPHA = 0.05
NOT_SCORED, FOUND, NOT_FOUND, NO_TEST = "not scored", "found", "not found", "no test"
VERDICTS = (NOT_SCORED, FOUND, NOT_FOUND, NO_TEST)
_COMPARED = {
    "did": "{arm} vs holdout, beyond twin",
    "holdout": "{arm} vs holdout",
    "twin": "{arm}, run vs twin",
    "level": "{arm} alone",
}


@dataclass(frozen=True)
class Finding:
    """What is said of an experiment first.

    Attributes:
        experiment: its name.
        kind: its kind.
        verdict: one of VERDICTS.
        effect: what the estimate is: unit, metric, what is compared; without the number.
        remark: what must be said beside it: what the design finds, or why there is no test.
        place: of the primary row in results.parquet, from 0; None when nothing was scored.
        row: the primary row, or None.
    """

    experiment: str
    kind: str
    verdict: str
    effect: str
    remark: str
    place: int | None = None
    row: Row | None = None


def findings(found: Results) -> list[Finding]:
    """Returns a finding an experiment, failures first, then what was found, by q."""
    kinds = {name: str(about["kind"]) for name, about in found.summary["experiments"].items()}
    failed = [
        Finding(name, kinds.get(name, "?"), NOT_SCORED, "", reason)
        for name, reason in found.errors.items()
    ]
    scored = [
        _finding(place, row)
        for place, row in enumerate(found.rows)
        if row.primary and row.experiment not in found.errors
    ]
    return sorted([*failed, *scored], key=_order)


def _order(finding: Finding) -> tuple[int, float, str]:
    q_value = finding.row.q_value if finding.row else None
    place = math.inf if q_value is None else q_value
    return VERDICTS.index(finding.verdict), place, finding.experiment


def _finding(place: int, row: Row) -> Finding:
    verdict = verdict_of(row)
    return Finding(row.experiment, row.kind, verdict, effect(row), remark_of(row), place, row)


def remark_of(row: Row) -> str:
    """Returns what must be said beside a primary estimate: what the design finds, or why not."""
    return {FOUND: finds, NOT_FOUND: _not_found, NO_TEST: _no_test}[verdict_of(row)](row)


def verdict_of(row: Row) -> str:
    """Returns what a row says: found, not found, or no test."""
    if row.estimate is None or row.p_value is None:
        return NO_TEST
    decisive = row.q_value if row.primary else row.p_value
    return FOUND if decisive is not None and decisive <= ALPHA else NOT_FOUND


def effect(row: Row) -> str:
    """Returns what an estimate is, without the number: 'nats log-likelihood, x16 vs holdout'."""
    metric = described(row.metric)
    what = f"{metric.unit} {metric.words}".strip()
    return f"{what}, {_COMPARED[row.contrast].format(arm=row.arm)}"


def finds(row: Row) -> str:
    """Returns the smallest effect that the design finds, or why it is not known."""
    if row.mde is not None:
        return f"the design finds {with_unit(row.mde, row.metric)} or more"
    return f"smallest detectable effect unknown: {_why_no_mde(row)}"


def with_unit(value: float, metric: str) -> str:
    """Returns a number with the unit of its metric."""
    return f"{number(value)} {described(metric).unit}".strip()


def _not_found(row: Row) -> str:
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


def _no_test(row: Row) -> str:
    return row.note or ("no estimate" if row.estimate is None else "this number has no test")


def _why_no_mde(row: Row) -> str:
    if row.contrast == "level":
        return "the test needs no holdout"
    if row.contrast == "twin":
        return "it takes three replicated baselines to know how runs differ"
    return "too few holdout items, or they have no spread"


def tally(found: Sequence[Finding]) -> list[tuple[str, int]]:
    """Returns how many findings there are of each verdict, those of none left out."""
    counts = [(verdict, sum(f.verdict == verdict for f in found)) for verdict in VERDICTS]
    return [(verdict, count) for verdict, count in counts if count]


def as_json(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Returns the findings as plain values, with the number of their row in results.parquet."""
    return [
        {
            "experiment": finding.experiment,
            "kind": finding.kind,
            "verdict": finding.verdict,
            "effect": finding.effect,
            "remark": finding.remark,
            "row": finding.place,
            "result": asdict(finding.row) if finding.row else None,
        }
        for finding in found
    ]
