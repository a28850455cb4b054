"""Intervals: Wilson for shares, a stratified cluster bootstrap for the rest.

The bootstrap re-draws clusters within (arm, stratum). Every estimate here is, or is linearised to,
a sum of cluster contributions, so a bootstrap replicate is a sum of re-drawn residuals: vectorised,
and ratio estimates with clusters of unequal size need no special case. Percentile intervals of a
handful of items are too short; they are widened by sqrt(n / (n - 1)) and by the ratio of Student's
to the normal quantile (Hesterberg 2015, "What teachers should know about the bootstrap": the
expanded percentile interval). Strata with fewer than two clusters in an arm are pooled.

That alone does not cover what it should where items are few and skewed (`make calibration`), so it
is stretched:

    mean          to hold Hall's interval, which corrects for skewness (1992, "On the removal of
                  skewness by transformation"); no side longer than twice Student's
    difference    to hold that of a shift: a small arm does not know its spread from itself, so both
                  arms are given the spread that they have together once the difference is taken off
    AUC           symmetric in the log-odds, not in the AUC

A sample without spread has no bootstrap interval: null, and the caller says why. Shares never need
that: Wilson intervals, and for a difference of shares Newcombe's (1998, method 10); for changes of
shares (items that are -1, 0 or 1) his for paired shares.

    0 of 24 -> Wilson [0, 0.138]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import special

from mixctl.evals.stats.arms import (
    FloatArray,
    IntArray,
    TwoArms,
    codes,
    counts,
    stratum_means,
)
from mixctl.evals.stats.ranks import placements, stratum_auc

LEVEL = 0.95
MAX_REPLICATES = 1_999
MIN_REPLICATES = 499
MAX_STRETCH = 2.0
"""so many times Student's half width is the longest side that the correction for skewness gives"""
_WORK = 20_000_000
_KEPT = 500_000
_NORMAL = float(special.ndtri(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Interval:
    """A standard error and the two ends of a 95% interval; null where they cannot be had."""

    se: float | None
    low: float | None
    high: float | None


NO_INTERVAL = Interval(None, None, None)


def wilson(share: float, n: float) -> Interval:
    """Returns Wilson's score interval for a share of n items (n may be an effective number)."""
    if n <= 0:
        return NO_INTERVAL
    z = _NORMAL
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if share == 0 else max(0.0, middle - half)
    high = 1.0 if share == 1 else min(1.0, middle + half)
    return Interval(math.sqrt(share * (1 - share) / n), low, high)


def newcombe(share: float, first: Interval, other: float, second: Interval) -> Interval:
    """Returns the interval for share - other from the Wilson intervals of the two."""
    if None in (first.low, first.high, first.se, second.low, second.high, second.se):
        return NO_INTERVAL
    gap = share - other
    low = gap - math.hypot(share - _some(first.low), _some(second.high) - other)
    high = gap + math.hypot(_some(first.high) - share, other - _some(second.low))
    return Interval(math.hypot(_some(first.se), _some(second.se)), low, high)


def share_interval(values: FloatArray, clusters: IntArray) -> Interval:
    """Returns Wilson's interval for the mean of 0/1 values, for the effective number of items."""
    return wilson(float(values.mean()), effective_items(values, clusters))


def effective_items(values: FloatArray, clusters: IntArray) -> float:
    """Returns how many independent items the clustered ones are worth: n / design effect."""
    sizes = np.bincount(codes(clusters))
    n_items, n_clusters = len(values), len(sizes)
    if n_clusters == n_items:
        return float(n_items)
    variance = float(values.var())
    if variance == 0 or n_clusters < 2:
        return float(n_clusters)
    totals = np.bincount(codes(clusters), values - values.mean())
    clustered = n_clusters / (n_clusters - 1) * float((totals**2).sum()) / n_items**2
    return float(np.clip(variance / clustered if clustered > 0 else n_items, 1, n_items))


def share_difference_interval(arms: TwoArms) -> Interval:
    """Returns Newcombe's interval for the standardised difference of two shares."""
    in_arm, _ = counts(arms)
    weights = in_arm / in_arm.sum()
    sides = []
    for side in (True, False):
        chosen = arms.treated == side
        share = float(np.clip(stratum_means(arms, side) @ weights, 0, 1))
        n_items = effective_items(arms.values[chosen], arms.clusters[chosen])
        sides.append((share, wilson(share, n_items)))
    return newcombe(*sides[0], *sides[1])


def share_change_interval(arms: TwoArms) -> Interval:
    """Returns Newcombe's interval for the difference of means of items that are -1, 0 or 1.

    Such a mean is the share of items that are 1 minus the share that are -1. Its interval is
    Newcombe's for two shares of the same items (1998, "Improved confidence intervals for the
    difference between binomial proportions based on paired data"): from Wilson's intervals of both
    and their correlation; then his for two arms. A bootstrap of 24 items, four of them not 0, held
    the truth in 0.86.
    """
    in_arm, _ = counts(arms)
    weights = in_arm / in_arm.sum()
    sides = []
    for side in (True, False):
        chosen = arms.treated == side
        n_items = effective_items(arms.values[chosen], arms.clusters[chosen])
        up, down = (
            float(stratum_means(replace(arms, values=(arms.values == sign) * 1.0), side) @ weights)
            for sign in (1, -1)
        )
        sides.append((up - down, _change(up, down, n_items)))
    return newcombe(*sides[0], *sides[1])


def _change(up: float, down: float, n: float) -> Interval:
    """Returns the interval of up - down, the shares of n items that are 1 and -1."""
    first, second = wilson(up, n), wilson(down, n)
    spread = math.sqrt(up * (1 - up) * down * (1 - down))
    together = -2 * up * down / spread if spread else 0.0

    def side(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a + b * b - together * a * b))

    low = up - down - side(up - _some(first.low), _some(second.high) - down)
    high = up - down + side(_some(first.high) - up, down - _some(second.low))
    return Interval(math.sqrt(max(0.0, up + down - (up - down) ** 2) / n), low, high)


def difference_interval(arms: TwoArms, rng: np.random.Generator) -> Interval:
    """Returns the interval of the standardised difference of means: a bootstrap's, or of shares."""
    if np.isin(arms.values, (-1, 0, 1)).all() and np.ptp(arms.values):
        return share_change_interval(arms)
    pooled = _pooled_strata(arms)
    gap, residuals = 0.0, np.zeros(len(arms.values))
    in_arm, in_holdout = counts(arms)
    weights = {True: 1 / in_arm.sum() * np.ones_like(in_arm, dtype=float)}
    weights[False] = in_arm / in_arm.sum() / in_holdout
    for side in (True, False):
        chosen = arms.treated == side
        weight = weights[side][arms.strata[chosen]]
        centre = _group_means(arms.values[chosen], pooled[chosen])
        residuals[chosen] = (1 if side else -1) * weight * (arms.values[chosen] - centre)
        gap += (1 if side else -1) * float(weight @ arms.values[chosen])
    found = linear_interval(gap, residuals, arms.clusters, pooled * 2 + arms.treated, rng)
    return _hull(found, shift_interval(arms, gap))


def shift_interval(arms: TwoArms, gap: float) -> Interval:
    """Returns the interval of the difference if every item of the arm is shifted by as much.

    It is the normal approximation, with Student's quantile, of the interval that a randomisation
    test would give: the shifts that it does not reject. Without strata and clusters it is that of
    the pooled two-sample t-test. Clusters of a stratum change places whatever their size: how many
    pairs and how many single items an arm got was chance too, and where these differ the estimate
    varies with it.
    """
    shifted = replace(arms, values=arms.values - gap * arms.treated)
    in_arm, in_holdout = counts(arms)
    factor = (1 + in_arm / in_holdout) / in_arm.sum()
    residuals = factor[arms.strata] * (shifted.values - _group_means(shifted.values, arms.strata))
    z = np.bincount(arms.clusters, residuals)
    treated, group = np.zeros(len(z), np.bool_), np.zeros(len(z), np.int64)
    treated[arms.clusters], group[arms.clusters[::-1]] = arms.treated, arms.strata[::-1]
    sizes, drawn = np.bincount(group), np.bincount(group, treated)
    squares = np.bincount(group, (z - (np.bincount(group, z) / np.maximum(sizes, 1))[group]) ** 2)
    dealt = (drawn > 0) & (drawn < sizes)
    freedom = int((sizes[dealt] - 1).sum()) - 1
    if freedom < 1:
        return NO_INTERVAL
    n, k = sizes[dealt], drawn[dealt]
    variance = float((k * (n - k) / (n * (n - 1)) * squares[dealt]).sum()) * (freedom + 1) / freedom
    half = float(special.stdtrit(freedom, 0.5 + LEVEL / 2)) * math.sqrt(variance)
    return Interval(math.sqrt(variance), gap - half, gap + half)


def _hull(found: Interval, other: Interval) -> Interval:
    """Returns the interval that holds both, or the first where one is null; its error is kept."""
    if found.low is None or found.high is None or other.low is None or other.high is None:
        return found
    return Interval(found.se, min(found.low, other.low), max(found.high, other.high))


def mean_interval(
    values: FloatArray, strata: IntArray, clusters: IntArray, rng: np.random.Generator
) -> Interval:
    """Returns the bootstrap interval of a mean, clusters re-drawn within strata."""
    groups = _pool_small(strata, clusters)
    residuals = (values - _group_means(values, groups)) / len(values)
    return linear_interval(float(values.mean()), residuals, clusters, groups, rng, skewed=True)


def auc_interval(arms: TwoArms, rng: np.random.Generator) -> Interval:
    """Returns the bootstrap interval of the AUC, from the placements of each item (DeLong 1988).

    It is symmetric in the log-odds of the AUC. Where the arms are fully apart the bootstrap has no
    spread, and the interval is Wilson's for the smaller arm.
    """
    share = placements(arms)
    by_stratum = stratum_auc(arms, share)
    in_arm, in_holdout = counts(arms)
    gap = float(by_stratum @ in_arm / in_arm.sum())
    if gap in (0.0, 1.0):
        return wilson(gap, min(arms.n_treated, arms.n_holdout))
    weight = np.where(arms.treated, 1.0, (in_arm / in_holdout)[arms.strata]) / in_arm.sum()
    residuals = weight * (share - by_stratum[arms.strata])
    groups = _pooled_strata(arms) * 2 + arms.treated
    found = linear_interval(gap, residuals, arms.clusters, groups, rng)
    if found.low is None or found.high is None:
        return found
    odds = special.logit(gap)
    half = (found.high - found.low) / 2 / (gap * (1 - gap))
    return Interval(found.se, float(special.expit(odds - half)), float(special.expit(odds + half)))


def linear_interval(
    estimate: float,
    residuals: FloatArray,
    clusters: IntArray,
    groups: IntArray,
    rng: np.random.Generator,
    skewed: bool = False,
) -> Interval:
    """Returns the interval of an estimate that is a sum of the items' contributions.

    Args:
        estimate: the point estimate.
        residuals: float64 (n,), each item's contribution minus its expectation.
        clusters: int64 (n,), re-drawn as a whole.
        groups: int64 (n,), clusters are re-drawn within a group; the first item's counts.
        rng: the random stream.
        skewed: whether it is stretched to hold Hall's interval.
    """
    cluster_codes = codes(clusters)
    z = np.bincount(cluster_codes, residuals)
    group = np.zeros(len(z), np.int64)
    group[cluster_codes[::-1]] = codes(groups)[::-1]
    members = [z[group == code] for code in np.unique(group)]
    if min(len(member) for member in members) < 2:
        return NO_INTERVAL
    variances = np.array([len(m) ** 2 / (len(m) - 1) * m.var() for m in members])
    se = math.sqrt(float(variances.sum()))
    if se <= 1e-12 * max(1.0, abs(estimate)):
        return NO_INTERVAL
    freedom = se**4 / sum(v * v / (len(m) - 1) for v, m in zip(variances, members, strict=True))
    student = float(special.stdtrit(freedom, 0.5 + LEVEL / 2))
    low, high = np.quantile(_replicates(members, rng), [0.025, 0.975]) * student / _NORMAL
    found = Interval(se, estimate + float(low), estimate + float(high))
    return _hull(found, _hall(estimate, members, se, student)) if skewed else found


def _hall(estimate: float, members: list[FloatArray], se: float, student: float) -> Interval:
    """Returns Hall's interval: Student's, transformed by the skewness of the sum, no side too long.

    Where 1 + skew (t - skew / 6) nears 0 the transform's slope has no bound: a side that should be
    2.6 standard errors long would be 10. It ends at MAX_STRETCH times Student's.
    """
    cumulant = 0.0
    for member in members:
        n = len(member)
        third = float(((member - member.mean()) ** 3).sum())
        cumulant += third * n**2 / ((n - 1) * max(n - 2, 1))
    skew = cumulant / se**3
    if abs(skew) < 1e-6:
        return Interval(se, estimate - student * se, estimate + student * se)

    def back(t: float) -> float:
        found = float(3 / skew * (np.cbrt(1 + skew * (t - skew / 6)) - 1))
        return min(max(found, -MAX_STRETCH * student), MAX_STRETCH * student)

    return Interval(se, estimate - back(student) * se, estimate - back(-student) * se)


def _replicates(members: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """Returns bootstrap deviations of the sum, float64 (replicates,)."""
    n_clusters = sum(len(member) for member in members)
    replicates = int(np.clip(_WORK // n_clusters, MIN_REPLICATES, MAX_REPLICATES))
    key = int(rng.integers(2**63))
    deviations = np.zeros(replicates)
    for number, member in enumerate(members):
        n = len(member)
        centred = (member - member.mean()) * math.sqrt(n / (n - 1))
        if replicates * n <= _KEPT:
            deviations += _kept_resamples(n, replicates, (key, number)) @ centred
        else:
            parts = _resamples(n, replicates, (key, number))
            deviations += np.concatenate([centred[drawn].sum(axis=1) for drawn in parts])
    return deviations


@lru_cache(maxsize=32)
def _kept_resamples(n: int, replicates: int, key: tuple[int, int]) -> FloatArray:
    """Returns how often each unit is drawn, float64 (replicates, n); rows with one key share it."""
    drawn = np.concatenate(list(_resamples(n, replicates, key)))
    places = drawn + n * np.arange(replicates)[:, None]
    counted = np.bincount(places.ravel(), minlength=n * replicates)
    return counted.reshape(replicates, n).astype(np.float64)


def _resamples(n: int, replicates: int, key: tuple[int, int]) -> Iterator[IntArray]:
    """Yields bootstrap samples of n units, int64 (some replicates, n)."""
    rng = np.random.default_rng(key)
    rows = max(1, 4_000_000 // n)
    for start in range(0, replicates, rows):
        yield rng.integers(n, size=(min(rows, replicates - start), n))


def _group_means(values: FloatArray, groups: IntArray) -> FloatArray:
    group = codes(groups)
    means = np.bincount(group, values) / np.bincount(group)
    return np.asarray(means[group], dtype=np.float64)


def _pooled_strata(arms: TwoArms) -> IntArray:
    """Returns the strata with those pooled (-> 0) that have fewer than two clusters in an arm."""
    pooled = arms.strata + 1
    for side in (True, False):
        chosen = arms.treated == side
        small = _small(arms.strata[chosen], arms.clusters[chosen])
        pooled = np.where(np.isin(arms.strata, small), 0, pooled)
    return _absorb(pooled, arms)


def _absorb(pooled: IntArray, arms: TwoArms) -> IntArray:
    """Returns one stratum for all where even the pooled one is too small in an arm."""
    for side in (True, False):
        chosen = (arms.treated == side) & (pooled == 0)
        if (pooled == 0).any() and len(np.unique(arms.clusters[chosen])) < 2:
            return np.zeros_like(pooled)
    return pooled


def _pool_small(strata: IntArray, clusters: IntArray) -> IntArray:
    pooled = np.where(np.isin(strata, _small(strata, clusters)), 0, strata + 1)
    lone = (pooled == 0).any() and len(np.unique(clusters[pooled == 0])) < 2
    return np.zeros_like(pooled) if lone else pooled


def _small(strata: IntArray, clusters: IntArray) -> IntArray:
    """Returns the strata that hold fewer than two clusters."""
    pairs = np.unique(np.stack([strata, clusters]), axis=1)
    found, n_clusters = np.unique(pairs[0], return_counts=True)
    return np.asarray(found[n_clusters < 2], dtype=np.int64)


def _some(value: float | None) -> float:
    if value is None:
        raise ValueError("an interval without ends")
    return value
