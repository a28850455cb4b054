"""Do experiments disturb one another? A matrix of short runs against replicated no-op runs.

Entry (j, i) is the outcome of experiment i after a run with only j's data, minus its mean after R
runs with nothing but base data. Every run saw base data of its own, so the no-op runs show how much
the outcome differs between runs that do nothing: under the null j's run is one more of them,

    t = (outcome - mean of the no-ops) / (sd of the no-ops * sqrt(1 + 1/R)),   R - 1 freedom

as in `mixctl.evals.stats.replicates`, whose normality it shares. The interval is the t prediction
interval turned round.

**Many tests.** What is claimed of the matrix is "no experiment disturbs another one", and one false
finding spoils it: so the family-wise error is controlled, by Holm's step-down method (Holm 1979, "A
simple sequentially rejective multiple test procedure"). It needs nothing about how entries depend
on each other, and they do: a column shares its no-op runs. Benjamini-Hochberg would let one of
twenty findings be false and leaves the reader to guess which. The family is what `family` marks:
the entries off the diagonal. The others have plain p-values.

    20 entries, smallest p = 0.002 -> 20 x 0.002 = 0.04: found;  next p = 0.004 -> 19 x 0.004: not

**What would have been found.** The smallest dependence that has power 0.8 in Holm's first step, at
0.05 / m, from the no-op runs alone. In standard deviations between no-op runs, for m = 20:

    R = 3 -> 29.3    R = 5 -> 9.2    R = 8 -> 6.1    R = 12 -> 5.1    (`detectable`)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mixctl.evals.stats.arms import FloatArray
from mixctl.evals.stats.intervals import LEVEL
from mixctl.evals.stats.planning import ALPHA
from mixctl.evals.stats.replicates import MIN_REPLICATES, has_spread, least_shift

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Dependence:
    """The matrix; arrays float64 (rows, n), a row a run, a column an experiment's outcome.

    NaN stands where there is no number: in a column whose no-op runs do not differ all but the
    estimates, outside the family what belongs to the family.

    Attributes:
        estimate: outcome - mean of the no-op runs.
        se: standard error of the estimate.
        low, high: 95% interval of the entry alone.
        joint_low, joint_high: intervals that all entries of the family keep together with 95%.
        p_value: two-sided, of the entry alone.
        adjusted: Holm's p-value within the family.
        mde: smallest dependence found with power 0.8: in the family by Holm's first step, else by
            the single test.
        n_tests: entries of the family that have a p-value.
    """

    estimate: FloatArray
    se: FloatArray
    low: FloatArray
    high: FloatArray
    joint_low: FloatArray
    joint_high: FloatArray
    p_value: FloatArray
    adjusted: FloatArray
    mde: FloatArray
    n_tests: int


def dependence(outcomes: FloatArray, no_ops: FloatArray, family: BoolArray) -> Dependence:
    """Returns the matrix of a set of runs.

    Args:
        outcomes: float64 (rows, n), finite: each experiment's outcome after each run.
        no_ops: float64 (R, n), finite: the same after each no-op run.
        family: bool (rows, n): the entries whose tests are corrected together.
    """
    n_no_ops = len(no_ops)
    estimate = outcomes - no_ops.mean(axis=0)
    tested = np.array([n_no_ops >= MIN_REPLICATES and has_spread(c) for c in no_ops.T], np.bool_)
    spread = no_ops.std(axis=0, ddof=1) if n_no_ops > 1 else np.full(no_ops.shape[1], np.nan)
    scale = np.where(tested, spread * math.sqrt(1 + 1 / n_no_ops), np.nan)
    se = np.broadcast_to(scale, estimate.shape).copy()
    law = stats.t(max(n_no_ops - 1, 1))
    p_value = np.asarray(2 * law.sf(np.abs(estimate) / se), dtype=np.float64)
    inside = family & np.isfinite(p_value)
    n_tests = int(inside.sum())
    half = float(law.ppf(0.5 + LEVEL / 2)) * se
    joint = np.where(inside, float(law.ppf(1 - (1 - LEVEL) / (2 * max(n_tests, 1)))) * se, np.nan)
    adjusted = np.full(estimate.shape, np.nan)
    adjusted[inside] = holm(p_value[inside])
    return Dependence(
        estimate=estimate,
        se=se,
        low=estimate - half,
        high=estimate + half,
        joint_low=estimate - joint,
        joint_high=estimate + joint,
        p_value=p_value,
        adjusted=adjusted,
        mde=_mde(se, inside, n_no_ops, n_tests),
        n_tests=n_tests,
    )


def _mde(se: FloatArray, inside: BoolArray, n_no_ops: int, n_tests: int) -> FloatArray:
    if n_no_ops < MIN_REPLICATES:
        return np.full(se.shape, np.nan)
    single = least_shift(n_no_ops - 1)
    first = least_shift(n_no_ops - 1, ALPHA / max(n_tests, 1))
    return np.asarray(np.where(inside, first, single) * se, dtype=np.float64)


def holm(p_values: FloatArray) -> FloatArray:
    """Returns Holm's adjusted p-values, float64 (m,), in the order given.

    The k-th smallest (from 0) is multiplied by m - k, no adjusted value is below the one of a
    smaller p-value, none above 1.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    rising = np.maximum.accumulate(np.minimum(p_values[order] * factors, 1.0))
    adjusted = np.empty(len(p_values))
    adjusted[order] = rising
    return adjusted


def detectable(n_no_ops: int, n_tests: int) -> float | None:
    """Returns the smallest dependence found, in standard deviations between no-op runs.

    With power 0.8 in Holm's first step of `n_tests` tests; None with fewer than three no-op runs.
    """
    if n_no_ops < MIN_REPLICATES:
        return None
    shift = least_shift(n_no_ops - 1, ALPHA / max(n_tests, 1))
    return shift * math.sqrt(1 + 1 / n_no_ops)
