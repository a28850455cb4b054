"""P(p <= a) <= a when arms are dealt at random, stratified and clustered as the items were."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixctl.evals.stats.arms import difference_units, two_arms
from mixctl.evals.stats.permutation import permutation_tails
from mixctl.evals.stats.ranks import mann_whitney
from mixctl.evals.stats.streams import stream

REPEATS = 150


def _deal(rng, strata, clusters):
    """Returns arms: half of the clusters of each stratum, at random."""
    treated = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        of_stratum = np.unique(clusters[strata == stratum])
        chosen = rng.choice(of_stratum, len(of_stratum) // 2, replace=False)
        treated |= np.isin(clusters, chosen)
    return treated


def _values(rng, kind, strata, clusters):
    shared = rng.normal(size=clusters.max() + 1)[clusters] * 2
    if kind == "share":
        return (shared + strata + rng.normal(size=len(strata)) > 1).astype(float)
    return shared + 3 * strata + rng.standard_t(3, size=len(strata))


@pytest.mark.parametrize("kind", ["share", "heavy"])
@pytest.mark.parametrize("test", ["difference", "ranks"])
@pytest.mark.parametrize("clustered", [False, True])
def test_size(kind, test, clustered):
    rng = np.random.default_rng([clustered, len(kind), len(test)])
    n_items = 36 if clustered else 24
    clusters = np.arange(n_items) // (2 if clustered else 1)
    strata = clusters % (3 if clustered else 2)
    values = _values(rng, kind, strata, clusters)
    found = []
    for repeat in range(REPEATS):
        arms = two_arms(values, _deal(rng, strata, clusters), strata, clusters)
        if test == "ranks":
            tails = mann_whitney(arms, stream(repeat, "size"))
        else:
            tails = permutation_tails(difference_units(arms), stream(repeat, "size"))
        found.append(tails.p_value("two"))
    p_values = np.array(found)
    for level in (0.01, 0.05, 0.2):
        below = int((p_values <= level).sum())
        assert stats.binomtest(below, REPEATS, level, alternative="greater").pvalue > 1e-3, level
    if kind == "heavy":  # continuous: not conservative either
        below = int((p_values <= 0.2).sum())
        assert stats.binomtest(below, REPEATS, 0.2, alternative="less").pvalue > 1e-3


def test_ignoring_clusters_would_be_wrong():
    """The same data tested item by item reject far too often: the simulation can see the fault."""
    rng = np.random.default_rng(5)
    clusters = np.arange(60) // 6
    strata = np.zeros(60, dtype=int)
    values = _values(rng, "heavy", strata, clusters)
    rejected = 0
    for repeat in range(50):
        arms = two_arms(values, _deal(rng, strata, clusters), strata, np.arange(60))
        tails = permutation_tails(difference_units(arms), stream(repeat, "wrong"))
        rejected += tails.p_value("two") <= 0.05
    assert rejected / 50 > 0.15
