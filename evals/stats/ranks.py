"""Mann-Whitney tests and the area under the ROC curve, within strata.

AUC is the chance that a random item of the arm scores above a random holdout item of its stratum
(ties count half), averaged over the arm's items; 0.5 is the null. Its test is the Mann-Whitney
test: exact without strata, clusters and ties; else the stratified one (van Elteren 1960: ranks
divided by the size of the stratum plus one), as a randomisation test by cluster.

    arm 3, 4 against holdout 1, 2 -> AUC 1, one-sided p = 1 / C(4, 2) = 1/6
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from mixctl.evals.stats.arms import FloatArray, TwoArms, counts, units
from mixctl.evals.stats.permutation import Tails, permutation_tails

_EXACT_PAIRS = 10_000


def placements(arms: TwoArms) -> FloatArray:
    """Returns, for each item, the share of the other arm of its stratum that it beats.

    For holdout items it is the share of the arm that beats them, so that the mean of either, within
    a stratum, is the AUC. Float64 (n,).
    """
    result = np.zeros(len(arms.values))
    for stratum in range(arms.n_strata):
        inside = arms.strata == stratum
        for side in (True, False):
            own = inside & (arms.treated == side)
            share = _share_below(arms.values[own], arms.values[inside & (arms.treated != side)])
            result[own] = share if side else 1 - share
    return result


def _share_below(values: FloatArray, others: FloatArray) -> FloatArray:
    ranked = np.sort(others)
    below = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
    return np.asarray(below / (2 * len(ranked)), dtype=np.float64)


def stratum_auc(arms: TwoArms, share: FloatArray) -> FloatArray:
    """Returns the AUC of each stratum from the placements, float64 (n_strata,)."""
    in_arm, _ = counts(arms)
    sums = np.bincount(arms.strata[arms.treated], share[arms.treated], minlength=arms.n_strata)
    return np.asarray(sums / in_arm, dtype=np.float64)


def auc(arms: TwoArms) -> float:
    """Returns the AUC of arm against holdout within strata, weighted by the arm's items."""
    in_arm, _ = counts(arms)
    return float(stratum_auc(arms, placements(arms)) @ in_arm / in_arm.sum())


def mann_whitney(arms: TwoArms, rng: np.random.Generator) -> Tails:
    """Returns the tails of the Mann-Whitney test of arm against holdout."""
    if _plain(arms):
        inside, outside = arms.values[arms.treated], arms.values[~arms.treated]
        tails = [
            float(stats.mannwhitneyu(inside, outside, alternative=side, method="exact").pvalue)
            for side in ("greater", "less")
        ]
        both = min(1.0, 2 * min(tails))  # without ties the law is symmetric
        return Tails(tails[0], tails[1], both, "Mann-Whitney, exact")
    found = permutation_tails(units(arms, _van_elteren_scores(arms)), rng)
    name = "stratified Mann-Whitney (van Elteren)" if arms.n_strata > 1 else "Mann-Whitney"
    return replace(found, method=f"{name} by {found.method}")


def _plain(arms: TwoArms) -> bool:
    n_items = len(arms.values)
    distinct = len(np.unique(arms.values)) == n_items
    alone = int(arms.clusters.max()) + 1 == n_items
    small = arms.n_treated * arms.n_holdout <= _EXACT_PAIRS
    return arms.n_strata == 1 and distinct and alone and small


def _van_elteren_scores(arms: TwoArms) -> FloatArray:
    scores = np.zeros(len(arms.values))
    for stratum in range(arms.n_strata):
        inside = arms.strata == stratum
        scores[inside] = stats.rankdata(arms.values[inside]) / (inside.sum() + 1)
    return scores
