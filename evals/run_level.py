"""Run - twin on items that nobody randomised: the `twin` rows.

With three or more replicated baselines of the same step the training is the unit: interval and
p-value are those of one more draw of the baselines' law (`mixctl.evals.stats.replicates`). With
fewer, or when the baselines do not differ from one another, there is an estimate, an interval over
the items that is conditional on these very trainings, and no p-value; the note says which.

    run 2.61 against 2.58, 2.60, 2.62 -> +0.01, p = 0.71    (unlike p = 1e-9 over the items)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mixctl.evals.rows import Row, joined
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import FloatArray
from mixctl.evals.stats.intervals import Interval
from mixctl.evals.stats.replicates import MIN_EXACT, MIN_REPLICATES, RunTest, run_test

NO_SPREAD = "no interval: the items have no spread, or there are too few"


def paired(run: Scored, twins: Sequence[Scored]) -> list[Scored]:
    """Returns the baselines of the run's step: one is a twin, several are replicates."""
    return [twin for twin in twins if twin.step == run.step]


def run_level_row(
    row: Row, run: FloatArray, baselines: Sequence[FloatArray], over_items: Callable[[], Interval]
) -> Row:
    """Returns the row with estimate, interval and, where there are three replicates, the test.

    Args:
        row: to be filled.
        run: float64 (n_items,), the run's values of the items.
        baselines: the same of each baseline of this step.
        over_items: gives the interval of the mean difference by re-drawing items.
    """
    own = float(run.mean())
    means = np.array([values.mean() for values in baselines])
    row = replace(row, estimate=own - float(means.mean()), n=len(run))
    found = run_test(own, means)
    return _conditional(row, len(means), over_items()) if found is None else _tested(row, found)


def _tested(row: Row, found: RunTest) -> Row:
    n_baselines = found.n_baselines
    exact = None
    if n_baselines >= MIN_EXACT:
        share = f"{found.exact_p_value:.3g}"
        exact = f"exact by exchange of all {n_baselines + 1} trainings: p = {share}"
    return replace(
        row,
        se=found.interval.se,
        ci_low=found.interval.low,
        ci_high=found.interval.high,
        p_value=found.p_value,
        sided="two",
        test=f"the run is one more draw of the law of its {n_baselines} baselines: "
        f"t of one training, {n_baselines - 1} degrees of freedom, "
        "takes trainings for normally distributed",
        mde=found.mde,
        note=joined(row.note, f"against the mean of {n_baselines} baselines", exact),
    )


def _conditional(row: Row, n_baselines: int, found: Interval) -> Row:
    these = "pair of runs" if n_baselines == 1 else f"run and its {n_baselines} baselines"
    interval = NO_SPREAD if found.low is None else f"interval conditional on this {these}"
    return replace(
        row,
        se=found.se,
        ci_low=found.low,
        ci_high=found.high,
        note=joined(row.note, interval, _why_no_test(n_baselines)),
    )


def _why_no_test(n_baselines: int) -> str:
    if n_baselines >= MIN_REPLICATES:
        return f"no p-value: the {n_baselines} baselines do not differ from one another in it"
    return f"no p-value: it takes {MIN_REPLICATES} replicated baselines, here {n_baselines}"
