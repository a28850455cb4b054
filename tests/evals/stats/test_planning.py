"""Detectable effects and q-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixctl.evals.stats.arms import two_arms
from mixctl.evals.stats.planning import mde_of_auc, mde_of_difference, q_values
from mixctl.evals.stats.ranks import mann_whitney
from mixctl.evals.stats.streams import stream


def _arms(values, n_arm, clusters=None):
    n = len(values)
    clusters = np.arange(n) if clusters is None else clusters
    return two_arms(values, np.arange(n) < n_arm, np.zeros(n), clusters)


def test_mde_has_the_power_it_promises():
    holdout = stats.norm.ppf((np.arange(64) + 0.5) / 64)
    found = mde_of_difference(_arms(np.r_[np.zeros(64), holdout / holdout.std(ddof=1)], 64), False)
    noncentrality = found / np.sqrt(2 / 64)
    power = stats.nct.sf(stats.t.ppf(0.975, 126), 126, noncentrality)
    assert found == pytest.approx(0.5, abs=0.01)
    assert power == pytest.approx(0.8, abs=0.005)


def test_mde_does_not_depend_on_the_arm():
    rng = np.random.default_rng(0)
    holdout = rng.normal(size=30)
    calm, wild = np.r_[np.zeros(20), holdout], np.r_[rng.normal(50, 9, 20), holdout]
    assert mde_of_difference(_arms(calm, 20), False) == mde_of_difference(_arms(wild, 20), False)


def test_mde_of_shares_is_never_zero_and_clusters_raise_it():
    nothing = np.zeros(48)
    assert mde_of_difference(_arms(nothing, 24), True) > 0.1
    values = np.r_[np.zeros(20), np.repeat(np.random.default_rng(1).normal(size=10), 2)]
    grouped = mde_of_difference(_arms(values, 20, np.arange(40) // 2), False)
    assert grouped > 1.3 * mde_of_difference(_arms(values, 20), False)


def test_mde_counts_freedom_by_cluster():
    """4 clusters of 6 a side, alike but for noise of 1: t with 6 freedom, not with 46."""
    rng = np.random.default_rng(4)
    values, clusters = rng.normal(size=48), np.arange(48) // 6
    found = mde_of_difference(_arms(values, 24, clusters), False)
    holdout = values[24:] - values[24:].mean()
    totals = holdout.reshape(4, 6).sum(axis=1)
    worth = np.clip(holdout.var() / (4 / 3 * (totals**2).sum() / 24**2), 1, 24)
    by_hand = holdout.std(ddof=1) * np.sqrt(2 / 24) * np.sqrt(24 / worth)
    reach = stats.t.ppf(0.975, 6) + stats.t.ppf(0.8, 6)
    assert found == pytest.approx(reach * by_hand)


def _reach(freedom):
    return stats.t.ppf(0.95, freedom) + stats.t.ppf(0.8, freedom)


def test_mde_of_auc():
    # Null spread of U / (24 x 24): sqrt(49 / (12 x 24 x 24)); t with 46 freedom.
    arms = _arms(np.random.default_rng(0).normal(size=48), 24)
    assert mde_of_auc(arms) == pytest.approx(_reach(46) * np.sqrt(49 / 6912))


def test_mde_of_auc_is_that_of_the_strata():
    """Two strata of 12 and 36, weighted by the arm's items: by hand, t with 44 freedom."""
    treated = np.arange(48) % 2 == 0
    strata = np.repeat([0, 1], [12, 36])
    values = np.random.default_rng(0).normal(size=48)
    arms = two_arms(values, treated, strata, np.arange(48))
    by_hand = (6 / 24) ** 2 * 13 / (12 * 36) + (18 / 24) ** 2 * 37 / (12 * 324)
    assert mde_of_auc(arms) == pytest.approx(_reach(44) * np.sqrt(by_hand))
    shifted = two_arms(values + 9 * strata + treated, treated, strata, np.arange(48))
    assert mde_of_auc(shifted) == mde_of_auc(arms)  # neither strata nor the effect are in it


def test_mde_of_auc_has_its_power_by_cluster():
    """10 clusters of 20 a side, half of the variance theirs; item by item it would say 0.07."""
    rng = np.random.default_rng(8)
    clusters, found, p_values = np.arange(400) // 20, [], []

    def drawn(shift):
        values = rng.normal(size=20)[clusters] + rng.normal(size=400)
        return _arms(values + np.sqrt(2) * shift * (np.arange(400) < 200), 200, clusters)

    found = [mde_of_auc(drawn(0.0)) for _ in range(100)]
    shift = np.sqrt(2) * stats.norm.ppf(0.5 + np.mean(found))
    p_values = [mann_whitney(drawn(shift), stream(n)).p_value("greater") for n in range(200)]
    assert 0.7 <= np.mean(np.array(p_values) <= 0.05) <= 0.9


def test_q_values_by_hand():
    assert q_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert q_values([]) == []
