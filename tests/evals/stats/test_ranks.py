"""Mann-Whitney and AUC against scipy and hand-counted cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixctl.evals.stats.arms import two_arms
from mixctl.evals.stats.ranks import _van_elteren_scores, auc, mann_whitney
from mixctl.evals.stats.streams import stream


def _arms(inside, outside, strata=None, clusters=None):
    values = np.array([*inside, *outside], dtype=float)
    treated = np.arange(len(values)) < len(inside)
    strata = np.zeros(len(values)) if strata is None else np.array(strata)
    clusters = np.arange(len(values)) if clusters is None else np.array(clusters)
    return two_arms(values, treated, strata, clusters)


def test_auc_by_hand():
    assert auc(_arms([3, 4], [1, 2])) == 1.0
    assert auc(_arms([1, 2], [1, 2])) == 0.5
    assert auc(_arms([2, 3], [1, 2, 4])) == pytest.approx((1.5 + 2) / 6)


def test_auc_within_strata_ignores_differences_between_them():
    arms = _arms([1, 101], [0, 2, 100, 102], strata=["a", "b", "a", "a", "b", "b"])
    assert auc(arms) == 0.5


def test_exact_equals_scipy():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0.4, 1, 12), rng.normal(0, 1, 15)
    tails = mann_whitney(_arms(inside, outside), stream("x"))
    expected = stats.mannwhitneyu(inside, outside, alternative="greater", method="exact")
    assert tails.upper == pytest.approx(expected.pvalue)
    assert auc(_arms(inside, outside)) == pytest.approx(expected.statistic / (12 * 15))


def test_full_separation_of_24_and_24():
    tails = mann_whitney(_arms(np.arange(24) + 100, np.arange(24)), stream("x"))
    assert tails.upper == pytest.approx(3.1e-14, rel=0.01)


def test_large_samples_agree_with_the_normal_approximation():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(0.1, 1, 300), rng.normal(0, 1, 900)
    tails = mann_whitney(_arms(inside, outside), stream("x"))
    expected = stats.mannwhitneyu(inside, outside, alternative="greater", method="asymptotic")
    assert tails.upper == pytest.approx(expected.pvalue, abs=0.02)


def test_ties_and_strata_go_through_the_randomisation_test():
    tails = mann_whitney(_arms([2, 2, 3], [1, 2, 2], strata=[0, 0, 1, 0, 0, 1]), stream("x"))
    # Stratum 0: ranks 3,3 of {2,2,1,2} in C(4,2) = 6 ways, 3 of them as high; stratum 1: 1 of 2.
    assert tails.upper == pytest.approx(3 / 12)
    assert "van Elteren" in tails.method


def test_strata_are_weighted_as_van_elteren_did():
    # Ranks within strata of 4 and of 2, divided by 5 and by 3.
    arms = _arms([10, 30, 7], [20, 40, 8], strata=[0, 0, 1, 0, 0, 1])
    assert _van_elteren_scores(arms) == pytest.approx([1 / 5, 3 / 5, 1 / 3, 2 / 5, 4 / 5, 2 / 3])
