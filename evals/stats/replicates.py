"""A run against replicated baselines: the training is the unit, not the item.

Two trainings on clean data differ, whatever the number of items they are asked about. So a
difference between a run and its twin is judged by how much baselines differ from one another. Under
the null the run is one more draw of their law:

    t = (run - mean of the baselines) / (sd of the baselines * sqrt(1 + 1/R)),   R - 1 freedom

two-sided; the interval of the difference, and the range in which one more baseline would fall, are
the same t turned round. It is Student's pooled two-sample test with one value on one side (Crawford
& Howell 1998, "Comparing an individual's test score against norms derived from small samples";
prediction interval: Hahn & Meeker 1991, "Statistical intervals").

    run 2.0 against 1.0, 1.1, 1.2 -> +0.9, t = 7.79 with 2 freedom, p = 0.016, interval [0.40, 1.40]

It takes the baselines for normal and the run for as variable as they are. The exact alternative
needs neither: all R + 1 trainings are exchangeable, so the run is the one farthest from their mean
with probability 1 / (R + 1), the smallest p-value it can give.

Fewer than three baselines give no p-value: with two, t has one freedom and the interval says next
to nothing. Nor do baselines without spread: they are one training, told several times, or the
number is too coarse to see how trainings differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

from mixctl.evals.stats.arms import FloatArray
from mixctl.evals.stats.intervals import LEVEL, Interval
from mixctl.evals.stats.planning import ALPHA, POWER

MIN_REPLICATES = 3
MIN_EXACT = math.ceil(1 / ALPHA) - 1
"""baselines from which the exact p-value can reach 0.05"""


@dataclass(frozen=True)
class RunTest:
    """A run against R replicated baselines.

    Attributes:
        estimate: run - mean of the baselines.
        interval: se and 95% interval of the difference, the training as the unit.
        p_value: two-sided, of t with R - 1 freedom.
        exact_p_value: by exchangeability of all R + 1 trainings; never below 1 / (R + 1).
        mde: the smallest difference found with power 0.8, from R and the baselines' spread alone.
        n_baselines: R.
    """

    estimate: float
    interval: Interval
    p_value: float
    exact_p_value: float
    mde: float
    n_baselines: int


def run_test(run: float, baselines: FloatArray) -> RunTest | None:
    """Returns the test of a run against its baselines; None where there can be no p-value.

    Args:
        run: the run's number, for example its mean over the items of an arm.
        baselines: float64 (R,), the same number of each baseline; finite.

    There is none with fewer than three baselines, or when they have no spread beyond rounding.
    """
    n_baselines = len(baselines)
    if n_baselines < MIN_REPLICATES or not has_spread(baselines):
        return None
    gap = run - float(np.mean(baselines))
    se = float(np.std(baselines, ddof=1)) * math.sqrt(1 + 1 / n_baselines)
    law = stats.t(n_baselines - 1)
    half = float(law.ppf(0.5 + LEVEL / 2)) * se
    return RunTest(
        estimate=gap,
        interval=Interval(se, gap - half, gap + half),
        p_value=float(2 * law.sf(abs(gap) / se)),
        exact_p_value=exact_p_value(run, baselines),
        mde=least_shift(n_baselines - 1) * se,
        n_baselines=n_baselines,
    )


def has_spread(baselines: FloatArray) -> bool:
    """Returns whether the baselines differ from one another by more than rounding."""
    return bool(np.ptp(baselines) > 1e-12 * np.abs(baselines).max())


def exact_p_value(run: float, baselines: FloatArray) -> float:
    """Returns the share of all R + 1 trainings that lie as far from their mean as the run does.

    It is the permutation test of |one training - mean of the others|: exact when trainings are
    exchangeable under the null, whatever their law.
    """
    values = np.append(baselines, run)
    away = np.abs(values - values.mean())
    rounding = 1e-12 * np.abs(values).max()
    return float(np.mean(away >= away[-1] - rounding))


@cache
def least_shift(freedom: int, alpha: float = ALPHA) -> float:
    """Returns the shift, in standard errors, that the two-sided t-test at alpha finds with 0.8.

    It solves for the noncentrality of t. The usual sum of two quantiles of t is 5% too small with
    2 freedom. The tail on the wrong side, below 1e-6, is left out.
    """
    critical = float(stats.t.isf(alpha / 2, freedom))
    quick = critical + float(stats.t.ppf(POWER, freedom))
    found = optimize.brentq(
        lambda shift: float(stats.nct.sf(critical, freedom, shift)) - POWER, 1.0, 2 * quick
    )
    return float(found)
