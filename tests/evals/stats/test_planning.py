"""Detectable effects and q-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixctl.evals.stats.arms import two_arms
from mixctl.evals.stats.planning import mde_of_auc, mde_of_difference, q_values


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


def test_mde_of_auc():
    # Null spread of U / (24 x 24): sqrt(49 / (12 x 24 x 24)).
    assert mde_of_auc(24, 24) == pytest.approx(2.8016 * np.sqrt(49 / (12 * 576)), rel=1e-3)


def test_q_values_by_hand():
    assert q_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert q_values([]) == []
