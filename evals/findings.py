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

from mixctl.evals.metric_words import described
from mixctl.evals.primary import NEVER_PLACED, NO_HOLDOUT, RUN_LEVEL
from mixctl.evals.results import Results
from mixctl.evals.rows import Row
from mixctl.evals.verdicts import FOUND, NO_TEST, NOT_FOUND, finds, not_found, verdict_of

_RESTS_ON = (RUN_LEVEL, NEVER_PLACED, NO_HOLDOUT)
"""what must be said of a difference to the baselines, which no randomisation stands behind"""
NOT_SCORED = "not scored"
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
    """Returns what must be said beside a primary estimate.

    What the design finds and, of a difference to the baselines, what it rests on; or why there is
    no test.
    """
    verdict = verdict_of(row)
    said = {FOUND: finds, NOT_FOUND: not_found, NO_TEST: _no_test}[verdict](row)
    rests = [] if verdict == NO_TEST else [why for why in _RESTS_ON if why in (row.note or "")]
    return "; ".join([said, *rests])


def effect(row: Row) -> str:
    """Returns what an estimate is, without the number: 'nats log-likelihood, x16 vs holdout'."""
    metric = described(row.metric)
    what = f"{metric.unit} {metric.words}".strip()
    return f"{what}, {_COMPARED[row.contrast].format(arm=row.arm)}"


def _no_test(row: Row) -> str:
    return row.note or ("no estimate" if row.estimate is None else "this number has no test")


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
