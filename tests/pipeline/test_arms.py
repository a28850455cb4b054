"""Randomisation: exact counts, balanced strata, whole clusters, every assignment equally likely."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mixctl.pipeline.arms import UNUSED, ClusterTooLargeError, assign_arms


def alone(n):
    return np.arange(n)


@given(
    strata=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    cuts=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    key=st.integers(0, 2**63),
)
def test_counts_are_exact_and_strata_balanced(strata, cuts, key):
    n = len(strata)
    quotas = [int(c * n / len(cuts)) for c in cuts]
    arm = assign_arms(np.array(strata), alone(n), quotas, key)
    assert [int((arm == a).sum()) for a in range(len(quotas))] == quotas
    assert (arm == UNUSED).sum() == n - sum(quotas)
    for s in set(strata):
        mine = np.array(strata) == s
        for a, quota in enumerate(quotas):
            expected = quota * mine.sum() / n
            assert abs((arm[mine] == a).sum() - expected) <= len(quotas) + 1


def test_proportional_strata_by_hand():
    strata = np.array([0] * 4 + [1] * 2)
    for key in range(50):
        arm = assign_arms(strata, alone(6), [3, 3], key)
        assert Counter(arm[:4].tolist()) == {0: 2, 1: 2}
        assert Counter(arm[4:].tolist()) == {0: 1, 1: 1}


@given(
    sizes=st.lists(st.integers(1, 6), min_size=5, max_size=60),
    key=st.integers(0, 2**63),
)
def test_clusters_stay_whole_and_counts_exact(sizes, key):
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    n = len(cluster)
    quotas = [n // 3, n // 3]
    try:
        arm = assign_arms(np.zeros(n, int), cluster, quotas, key)
    except ClusterTooLargeError as error:
        assert error.n_items > 1
        return
    for c in range(len(sizes)):
        assert len(set(arm[cluster == c].tolist())) == 1
    assert [int((arm == a).sum()) for a in (0, 1)] == quotas


def test_every_assignment_is_equally_likely():
    counts = Counter(
        tuple(assign_arms(np.zeros(4, int), alone(4), [2, 1], key)) for key in range(6000)
    )
    assert len(counts) == 12  # 4! / (2! 1! 1!)
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_a_cluster_larger_than_any_arm_is_refused():
    with pytest.raises(ClusterTooLargeError):
        assign_arms(np.zeros(6, int), np.array([0, 0, 0, 0, 1, 2]), [3, 3], 0)


def test_too_many_items_are_refused():
    with pytest.raises(ValueError, match="ask for 5 items, there are 4"):
        assign_arms(np.zeros(4, int), alone(4), [5], 0)


def test_a_large_cluster_finds_room_whatever_the_key():
    """One cluster of 20 and 20 pairs into two arms of 30: it always fits."""
    cluster = np.r_[np.zeros(20, int), np.repeat(np.arange(1, 21), 2)]
    sides = Counter()
    for key in range(200):
        arm = assign_arms(np.zeros(60, int), cluster, [30, 30], key)
        assert [int((arm == a).sum()) for a in (0, 1)] == [30, 30]
        sides[int(arm[0])] += 1
    assert abs(sides[0] - 100) < 36
