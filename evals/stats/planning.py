"""What a design can find, and many tests at once.

The minimum detectable effect is for a two-sided test at 0.05 with power 0.8, from the numbers of
items and the holdout's spread alone: both arms are given the holdout's spread, so the number does
not depend on the effect that was seen.

    64 items a side, spread 1 -> 0.499
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from mixctl.evals.stats.arms import TwoArms, counts, stratum_means
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
    return _reach(len(arms.values) - 2 * arms.n_strata) * spread * size * math.sqrt(design_effect)


def mde_of_auc(n_arm: int, n_holdout: int) -> float:
    """Returns the smallest |AUC - 0.5| that the design finds, from the null variance."""
    null_se = math.sqrt((n_arm + n_holdout + 1) / (12 * n_arm * n_holdout))
    return _reach(math.inf) * null_se


def _cautious_spread(successes: float, n: int) -> float:
    """Returns the spread of a share that is never 0 (Agresti-Coull: two of each added)."""
    share = (successes + 2) / (n + 4)
    return math.sqrt(share * (1 - share))


def _reach(freedom: float) -> float:
    if math.isinf(freedom):
        return float(special.ndtri(1 - ALPHA / 2) + special.ndtri(POWER))
    freedom = max(freedom, 1)
    return float(special.stdtrit(freedom, 1 - ALPHA / 2) + special.stdtrit(freedom, POWER))


def q_values(p_values: Sequence[float]) -> list[float]:
    """Returns Benjamini-Hochberg q-values in the order given."""
    if not p_values:
        return []
    adjusted = stats.false_discovery_control(np.asarray(p_values, dtype=np.float64), method="bh")
    return [float(q) for q in adjusted]
