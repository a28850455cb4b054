"""Two arms side by side, and the contrast of their means.

Items were randomised to arms by cluster, within strata, and every test and interval here respects
that. The difference of means is standardised to the strata of the treated arm:

    difference = sum over strata s of (n_as / n_a) * (mean of arm in s - mean of holdout in s)

so it is mean(arm) - mean(holdout) whenever both arms have the same mixture of strata. Strata where
one arm has no item cannot be compared; their items are left out and counted.

The difference is linear in the clusters that form the arm: const + sum of u_c over the arm's
clusters. That makes its randomisation distribution that of a sum of draws without replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TwoArms:
    """Items of an arm and of the holdout, a row each.

    Attributes:
        values: float64 (n,), what is compared; finite.
        treated: bool (n,), True for the arm, False for the holdout.
        strata: int64 (n,), codes from 0.
        clusters: int64 (n,), codes from 0; a cluster lies in one arm.
        dealt_as: int64 (n,), codes of what the item's cluster was made of when it was dealt, items
            that are left out here included.
        left_out: items dropped because their stratum is missing in one arm.
    """

    values: FloatArray
    treated: BoolArray
    strata: IntArray
    clusters: IntArray
    dealt_as: IntArray
    left_out: int = 0

    @property
    def n_treated(self) -> int:
        """Returns the number of items in the arm."""
        return int(self.treated.sum())

    @property
    def n_holdout(self) -> int:
        """Returns the number of items in the holdout."""
        return int((~self.treated).sum())

    @property
    def n_strata(self) -> int:
        """Returns the number of strata."""
        return int(self.strata.max()) + 1 if len(self.strata) else 0


@dataclass(frozen=True)
class Units:
    """What is permuted: clusters, each in a block of interchangeable ones.

    Clusters are interchangeable when they have the same strata, item for item (so the same size),
    in what is compared and in what was dealt: a pair of which one item has no value was dealt as a
    pair, and a pair does not go where a single item goes.
    """

    u: FloatArray
    treated: BoolArray
    blocks: IntArray


def codes(labels: Sequence[object] | npt.NDArray[np.generic]) -> IntArray:
    """Returns int64 codes from 0 for the labels, numbered in sorted order."""
    _, inverse = np.unique(np.asarray(labels), return_inverse=True)
    return inverse.astype(np.int64).reshape(-1)


def two_arms(
    values: FloatArray,
    treated: BoolArray,
    strata: Sequence[object] | npt.NDArray[np.generic],
    clusters: Sequence[object] | npt.NDArray[np.generic],
) -> TwoArms:
    """Returns the two arms over the strata that both have; items without a value are dropped."""
    finite = np.isfinite(values)
    stratum_codes = codes(strata)
    shared = _shared(stratum_codes, treated, finite)
    keep = finite & shared
    whole = codes(clusters)
    cluster_codes = whole[keep] * 2 + treated[keep]
    return TwoArms(
        values=np.asarray(values, dtype=np.float64)[keep],
        treated=treated[keep],
        strata=codes(stratum_codes[keep]) if keep.any() else np.zeros(0, np.int64),
        clusters=codes(cluster_codes) if keep.any() else np.zeros(0, np.int64),
        dealt_as=_compositions(stratum_codes, whole)[whole][keep],
        left_out=int((finite & ~shared).sum()),
    )


def _shared(strata: IntArray, treated: BoolArray, finite: BoolArray) -> BoolArray:
    size = int(strata.max()) + 1 if len(strata) else 0
    in_arm = np.bincount(strata[treated & finite], minlength=size) > 0
    in_holdout = np.bincount(strata[~treated & finite], minlength=size) > 0
    return np.asarray((in_arm & in_holdout)[strata], dtype=np.bool_)


def counts(arms: TwoArms) -> tuple[IntArray, IntArray]:
    """Returns the items per stratum of the arm and of the holdout, int64 (n_strata,) each."""
    size = arms.n_strata
    in_arm = np.bincount(arms.strata[arms.treated], minlength=size)
    in_holdout = np.bincount(arms.strata[~arms.treated], minlength=size)
    return in_arm.astype(np.int64), in_holdout.astype(np.int64)


def stratum_means(arms: TwoArms, treated: bool) -> FloatArray:
    """Returns the mean value of one arm in each stratum, float64 (n_strata,)."""
    chosen = arms.treated == treated
    sums = np.bincount(arms.strata[chosen], arms.values[chosen], minlength=arms.n_strata)
    return np.asarray(sums / counts(arms)[0 if treated else 1], dtype=np.float64)


def difference(arms: TwoArms) -> float:
    """Returns mean(arm) - mean(holdout), standardised to the strata of the arm."""
    in_arm, _ = counts(arms)
    gaps = stratum_means(arms, True) - stratum_means(arms, False)
    return float(gaps @ in_arm / in_arm.sum())


def difference_units(arms: TwoArms) -> Units:
    """Returns the units whose sum over the arm is the difference of means, up to a constant."""
    in_arm, in_holdout = counts(arms)
    factor = (1 + in_arm / in_holdout) / in_arm.sum()
    return units(arms, arms.values * factor[arms.strata])


def units(arms: TwoArms, scores: FloatArray) -> Units:
    """Returns the clusters with the sums of their scores, and which may change places."""
    n_clusters = int(arms.clusters.max()) + 1
    u = np.bincount(arms.clusters, scores, minlength=n_clusters)
    treated = np.zeros(n_clusters, dtype=np.bool_)
    treated[arms.clusters] = arms.treated
    labels = codes(arms.dealt_as * arms.n_strata + arms.strata)
    return Units(np.asarray(u, dtype=np.float64), treated, _compositions(labels, arms.clusters))


def _compositions(labels: IntArray, clusters: IntArray) -> IntArray:
    """Returns a code per cluster for the sorted labels of its items."""
    sizes = np.bincount(clusters)
    if len(sizes) == len(labels):
        block = np.zeros(len(sizes), np.int64)
        block[clusters] = labels
        return block
    order = np.lexsort((labels, clusters))
    parts = [tuple(part) for part in np.split(labels[order], np.cumsum(sizes)[:-1])]
    number = {part: code for code, part in enumerate(sorted(set(parts)))}
    return np.array([number[part] for part in parts], dtype=np.int64)
