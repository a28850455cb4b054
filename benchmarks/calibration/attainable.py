"""What size a randomisation test can have at all: its law says which p-values there are.

A discrete test cannot reject exactly 5% of true nulls at 0.05. The most that a valid one can do is
the largest p-value of its law that is not above 0.05; a test is needlessly conservative where it
does less. The law is that of the arms dealt: which items are in arm and holdout together changes
from deal to deal, so the suite takes the mean over deals.

    3 of 3 against 3 items: p-values 2/20, 4/20, ... -> 0 at 0.05, 0.2 at 0.2

Price: a test's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.calibration.cases import Case
from benchmarks.calibration.table import LEVELS
from mixctl.evals.experiments import Experiment
from mixctl.evals.rows import Row
from mixctl.evals.stats.arms import TwoArms, Units, difference_units, two_arms, units
from mixctl.evals.stats.laws import sampled
from mixctl.evals.stats.permutation import exact_law, informative

FloatArray = npt.NDArray[np.float64]
DRAWS = 9_999


def attainable(sample: TwoArms, row: Row) -> FloatArray:
    """Returns the largest size at or below each of LEVELS for the test of a row, float64 (3,)."""
    by_ranks = row.metric.startswith("auc")
    tested = _rank_units(sample) if by_ranks else difference_units(sample)
    return sizes(tested, two_sided=row.sided == "two")


def sample_of(case: Case, experiment: Experiment, row: Row) -> TwoArms:
    """Returns what a row compares.

    Args:
        case: whose scores they are.
        experiment: the case's, with the arms of the row.
        row: one with a p-value, of the contrast holdout or did.
    """
    metric = row.metric
    if metric.startswith("auc"):
        metric = metric.removeprefix("auc").removeprefix("_") or str(case.scorer.membership)
    run = next(one for one in case.runs if one.step == row.step)
    values = run.values[metric]
    if row.contrast == "did":
        values = values - np.mean([t.values[metric] for t in case.twins if t.step == row.step], 0)
    return _sample(experiment, values, row)


def sizes(tested: Units, two_sided: bool) -> FloatArray:
    """Returns the largest p-value at or below each of LEVELS, 0 where there is none."""
    blocks, observed = informative(tested)
    if not blocks:
        return np.zeros(len(LEVELS))
    found = exact_law(blocks)
    law = found[0] if found else sampled(blocks, observed, DRAWS, 1)
    return largest(law.p_values(two_sided))


def largest(p_values: FloatArray) -> FloatArray:
    """Returns the largest of the p-values at or below each of LEVELS, 0 where there is none."""
    return np.array([p_values[p_values <= a + 1e-12].max(initial=0.0) for a in LEVELS])


def _sample(experiment: Experiment, values: FloatArray, row: Row) -> TwoArms:
    inside = (experiment.arms == row.arm) | experiment.is_holdout
    asked = inside if row.stratum is None else inside & (experiment.strata == row.stratum)
    return two_arms(
        np.where(asked, values, np.nan)[inside],
        experiment.arms[inside] == row.arm,
        experiment.strata[inside],
        experiment.clusters[inside],
    )


def _rank_units(sample: TwoArms) -> Units:
    scores = np.zeros(len(sample.values))
    for stratum in range(sample.n_strata):
        inside = sample.strata == stratum
        scores[inside] = stats.rankdata(sample.values[inside]) / (inside.sum() + 1)
    return units(sample, scores)
