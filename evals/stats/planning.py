"""What a design can find, and many tests at once.

The minimum detectable effect is for a test at 0.05 with power 0.8, two-sided for a difference and
one-sided for the AUC, as their tests are. It comes from the numbers of items and the holdout's
spread alone: both arms are given the holdout's spread, so the number does not depend on the effect
that was seen. Clusters raise it by their design effect, and are what the degrees of freedom count.

    64 items a side, spread 1                               -> 0.499
    AUC, 24 items a side                                    -> 0.5 + 0.213
    AUC, 10 clusters of 20 a side, half of the spread theirs -> about 0.5 + 0.24
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from mixctl.evals.stats.arms import FloatArray, TwoArms, counts, stratum_means
from mixctl.evals.stats.intervals import effective_items

POWER = 0.8
ALPHA = 0.05


def mde_of_difference(arms: TwoArms, share: bool) -> float | None:
    """Returns the smallest difference of means that the design finds; None without a spread."""
    in_arm, in_holdout = counts(arms)
    outside = ~arms.treated
    values = arms.values[outside]
    residuals = values - stratum_means(arms, False)[arms.strata[outside]]
    freedom = len(values) - arms.n_strata
    if freedom < 1:
        return None
    spread = math.sqrt(float(residuals @ residuals) / freedom)
    if share:
        spread = max(spread, _cautious_spread(float(values.sum()), len(values)))
    if spread == 0:
        return None
    design_effect = len(values) / effective_items(residuals, arms.clusters[outside])
    weights = in_arm / in_arm.sum()
    size = math.sqrt(float((weights**2 * (1 / in_arm + 1 / in_holdout)).sum()))
    reach = _reach(_freedom(arms), ALPHA / 2)
    return reach * spread * size * math.sqrt(design_effect)


def mde_of_auc(arms: TwoArms) -> float:
    """Returns the smallest AUC - 0.5 that the design finds; one-sided, as the test of the AUC is.

    From the null variance of a stratum's AUC, (n + m + 1) / (12 n m), weighted as the AUC is, times
    the design effect of the holdout's ranks, with a degree of freedom a cluster. Ties, which make
    the variance smaller, are not counted.
    """
    in_arm, in_holdout = counts(arms)
    weights = in_arm / in_arm.sum()
    variance = float((weights**2 * (in_arm + in_holdout + 1) / (12 * in_arm * in_holdout)).sum())
    ranks, clusters = _holdout_ranks(arms), arms.clusters[~arms.treated]
    design_effect = len(ranks) / effective_items(ranks, clusters)
    return _reach(_freedom(arms), ALPHA) * math.sqrt(variance * design_effect)


def _freedom(arms: TwoArms) -> int:
    """Returns the degrees of freedom: a cluster each, less the mean of each stratum in each arm."""
    return int(arms.clusters.max()) + 1 - 2 * arms.n_strata


def _holdout_ranks(arms: TwoArms) -> FloatArray:
    """Returns the rank of each holdout item among those of its stratum, around 0, in its size."""
    values, strata = arms.values[~arms.treated], arms.strata[~arms.treated]
    ranks = np.zeros(len(values))
    for stratum in range(arms.n_strata):
        inside = strata == stratum
        ranks[inside] = stats.rankdata(values[inside]) / (inside.sum() + 1) - 0.5
    return ranks


def _cautious_spread(successes: float, n: int) -> float:
    """Returns the spread of a share that is never 0 (Agresti-Coull: two of each added)."""
    share = (successes + 2) / (n + 4)
    return math.sqrt(share * (1 - share))


def _reach(freedom: int, tail: float) -> float:
    """Returns how many standard errors a test finds that rejects above the quantile 1 - tail."""
    freedom = max(freedom, 1)
    return float(special.stdtrit(freedom, 1 - tail) + special.stdtrit(freedom, POWER))


def q_values(p_values: Sequence[float]) -> list[float]:
    """Returns Benjamini-Hochberg q-values in the order given."""
    if not p_values:
        return []
    adjusted = stats.false_discovery_control(np.asarray(p_values, dtype=np.float64), method="bh")
    return [float(q) for q in adjusted]
