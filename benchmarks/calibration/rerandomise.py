"""Arms dealt anew: scores stay, arms change, so every null of an arm is true.

For each seed every experiment is dealt again and estimated by the product; the p-values of every
row that has one are gathered by (experiment, arm, stratum, metric, contrast, model), and whether
the intervals held the truth: a difference of 0, an AUC of 0.5, a TPR of 1% at 1% FPR. In one deal
of twenty the largest size is had that the row's test could have (`attainable`). Rows of arms that
the items' rows had named are not tests and are left out.

Price: half a second a seed for the whole mix under two models and the difference of two.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.calibration.attainable import attainable, sample_of
from benchmarks.calibration.cases import Case, dealt
from benchmarks.calibration.table import Covered, NullLine, null_line
from mixctl.evals.estimation import Wanted, estimate
from mixctl.evals.experiments import Experiment
from mixctl.evals.rows import GIVEN, Row

FloatArray = npt.NDArray[np.float64]
Key = tuple[str, str, str, str, str, str, str]
"""kind, experiment, arm, stratum, metric, contrast, models"""
WANTED = ("holdout", "did")
SOURCE = "arms dealt anew"
BY_STRATUM = ("contamination",)
"""kinds whose single strata are estimated as well"""
PROMISED = {"AUC": 0.95, "TPR at 1% FPR": 0.95, "difference": 0.95, "difference of shares": 0.9}
"""coverage by class; Newcombe's intervals hold 0.95 in the mean over shares, not at each"""
_PART = 20


@dataclass
class Gathered:
    """What was seen of one row over the seeds: p-values, methods, and its interval.

    `attainable` are the largest sizes at or below the levels in the first deal of each part;
    `shares`: whether all values are -1, 0 or 1.
    """

    p_values: list[float] = field(default_factory=list)
    attainable: list[FloatArray] = field(default_factory=list)
    methods: set[str] = field(default_factory=set)
    covered: int = 0
    intervals: int = 0
    draws: int = 0
    shares: bool = False


def rerandomise(
    cases: Sequence[Case],
    n_seeds: int,
    n_processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[NullLine], list[Covered]]:
    """Returns the lines of all tests and intervals over seeds 0 to n_seeds - 1."""
    found: dict[Key, Gathered] = {}
    parts = [range(at, min(at + _PART, n_seeds)) for at in range(0, n_seeds, _PART)]
    for done, part in enumerate(_each(cases, parts, n_processes), start=1):
        for key, seen in part.items():
            _add(found.setdefault(key, Gathered()), seen)
        if progress:
            progress(min(done * _PART, n_seeds), n_seeds)
    built = [found for case in cases for found in _rows(case, case.experiment)]
    as_dealt = {key: row.p_value for key, row in built}
    tests = [_test(key, seen, as_dealt.get(key)) for key, seen in found.items() if seen.attainable]
    return tests, _coverage(found)


_CASES: Sequence[Case] = ()


def _each(
    cases: Sequence[Case], parts: Sequence[range], n_processes: int
) -> Iterator[dict[Key, Gathered]]:
    """Yields what each part of the seeds gives; forked processes share the cases."""
    global _CASES
    _CASES = cases
    if n_processes == 1:
        yield from map(_part, parts)
        return
    with multiprocessing.get_context("fork").Pool(n_processes) as pool:
        yield from pool.imap_unordered(_part, parts)


def _part(seeds: range) -> dict[Key, Gathered]:
    found: dict[Key, Gathered] = {}
    for seed in seeds:
        for case in _CASES:
            experiment = dealt(case.experiment, seed)
            for key, row in _rows(case, experiment):
                seen = found.setdefault(key, Gathered())
                _note(seen, row)
                if seed == seeds[0] and row.p_value is not None:
                    sample = sample_of(case, experiment, row)
                    seen.attainable.append(attainable(sample, row))
                    seen.shares |= bool(np.isin(sample.values, (-1, 0, 1)).all())
    return found


def _rows(case: Case, experiment: Experiment) -> Iterator[tuple[Key, Row]]:
    """Yields the rows of a case with these arms: `holdout` of the runs, `did` against the twins."""
    by_stratum = experiment.kind in BY_STRATUM
    rows = estimate(experiment, case.scorer, case.runs, [], Wanted(("holdout",), by_stratum))
    if case.twins:
        only = Wanted(("did",), by_stratum)
        rows += estimate(experiment, case.scorer, case.runs, case.twins, only)
    for row in rows:
        if row.contrast in WANTED and row.estimate is not None and GIVEN not in (row.note or ""):
            models = case.label(row.model, row.step, row.contrast)
            name, stratum = case.experiment.name, row.stratum or ""
            yield (row.kind, name, row.arm, stratum, row.metric, row.contrast, models), row


def _note(seen: Gathered, row: Row) -> None:
    seen.draws += 1
    if row.p_value is not None:
        seen.p_values.append(row.p_value)
        seen.methods.add((row.test or "").rpartition(": ")[2])
    truth = _truth(row.metric)
    if truth is not None and row.ci_low is not None and row.ci_high is not None:
        seen.intervals += 1
        seen.covered += int(row.ci_low <= truth <= row.ci_high)


def _truth(metric: str) -> float | None:
    """Returns the truth of a contrast where the arms are dealt at random; None where not fixed."""
    if metric.startswith("auc"):
        return 0.5
    if metric.startswith("tpr"):
        return 0.01
    return None if metric == "exposure" else 0.0


def _add(to: Gathered, seen: Gathered) -> None:
    to.p_values += seen.p_values
    to.attainable += seen.attainable
    to.shares |= seen.shares
    to.methods |= seen.methods
    to.covered += seen.covered
    to.intervals += seen.intervals
    to.draws += seen.draws


def _title(key: Key) -> str:
    _, experiment, arm, stratum, metric, _, _ = key
    return f"{experiment} {arm} {metric}" + (f" [{stratum}]" if stratum else "")


def _test(key: Key, seen: Gathered, as_dealt: float | None) -> NullLine:
    methods = " or ".join(sorted(seen.methods))
    p_values, sizes = np.array(seen.p_values), np.mean(seen.attainable, axis=0)
    title, contrast, models = _title(key), key[5], key[6]
    return null_line(SOURCE, key[0], title, contrast, models, methods, p_values, sizes, as_dealt)


def _coverage(found: dict[Key, Gathered]) -> list[Covered]:
    lines = []
    for key, seen in found.items():
        if seen.intervals:
            name = f"{key[0]} {_title(key)}, {key[5]}, {key[6]}"
            missing = seen.draws - seen.intervals
            method = _class(key[4], seen.shares)
            n, covered, least = seen.intervals, seen.covered, PROMISED[method]
            lines.append(Covered(SOURCE, name, method, n, covered, missing, least))
    return lines


def _class(metric: str, shares: bool) -> str:
    for begin, name in (("auc", "AUC"), ("tpr", "TPR at 1% FPR")):
        if metric.startswith(begin):
            return name
    return "difference of shares" if shares else "difference"
