"""Randomisation tests against brute force, scipy and hand-counted cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mixctl.evals.stats.arms import Units, difference, difference_units, two_arms
from mixctl.evals.stats.permutation import permutation_tails, saddlepoint_tail
from mixctl.evals.stats.streams import stream


def _arms(inside, outside, strata=None, clusters=None):
    values = np.array([*inside, *outside], dtype=float)
    treated = np.arange(len(values)) < len(inside)
    strata = np.zeros(len(values)) if strata is None else np.array(strata)
    clusters = np.arange(len(values)) if clusters is None else np.array(clusters)
    return two_arms(values, treated, strata, clusters)


def test_tiny_case_by_hand():
    # {3, 4} against {1, 2}: the largest of the 6 possible sums.
    tails = permutation_tails(difference_units(_arms([3, 4], [1, 2])), stream("x"))
    assert tails.upper == pytest.approx(1 / 6)
    assert tails.lower == pytest.approx(1.0)
    assert tails.p_value("two") == pytest.approx(1 / 3)
    assert tails.p_value("greater") == pytest.approx(1 / 6)


def test_enumeration_equals_scipy():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0.5, 1, 6), rng.normal(0, 1, 7)
    ours = permutation_tails(difference_units(_arms(inside, outside)), stream("x"))
    theirs = stats.permutation_test(
        (inside, outside),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        vectorized=True,
        n_resamples=math.inf,
        alternative="greater",
    )
    assert ours.method == "permutation, exact"
    assert ours.upper == pytest.approx(theirs.pvalue)


def test_stratified_enumeration_equals_brute_force():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(size=5), rng.normal(size=6)
    strata = [0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    arms = _arms(inside, outside, strata)
    values, strata = np.array([*inside, *outside]), np.array(strata)
    found = []
    first, second = np.flatnonzero(strata == 0), np.flatnonzero(strata == 1)
    for a in itertools.combinations(first, 2):
        for b in itertools.combinations(second, 3):
            chosen = np.isin(np.arange(11), [*a, *b])
            gaps = [
                values[chosen & (strata == s)].mean() - values[~chosen & (strata == s)].mean()
                for s in (0, 1)
            ]
            found.append(2 / 5 * gaps[0] + 3 / 5 * gaps[1])
    observed = difference(arms)
    tails = permutation_tails(difference_units(arms), stream("x"))
    assert tails.upper == pytest.approx(np.mean(np.array(found) >= observed - 1e-12))
    assert tails.lower == pytest.approx(np.mean(np.array(found) <= observed + 1e-12))


def test_clusters_move_as_a_whole_and_only_among_their_like():
    # Two pairs and two single items: pairs may swap, singles may swap, so 2 x 2 assignments.
    arms = _arms([5, 6, 9], [1, 2, 0], clusters=[0, 0, 1, 2, 2, 3])
    tails = permutation_tails(difference_units(arms), stream("x"))
    assert tails.upper == pytest.approx(1 / 4)


def test_a_pair_with_one_value_does_not_change_places_with_single_items():
    """An arm of one item has no room for a pair: only the five single items could be in it."""
    values = [9.0, 1.0, 2.0, 3.0, 4.0, 20.0, np.nan]
    arms = _arms(values[:1], values[1:], clusters=[0, 1, 2, 3, 4, 5, 5])
    tails = permutation_tails(difference_units(arms), stream("x"))
    assert tails.upper == pytest.approx(1 / 5)
    assert tails.method == "permutation, exact"
    alone = _arms(values[:1], values[1:], clusters=range(7))  # no pair: six could be
    assert permutation_tails(difference_units(alone), stream("x")).upper == pytest.approx(2 / 6)


def test_shares_equal_fisher():
    inside, outside = [1] * 30 + [0] * 30, [1] * 40 + [0] * 160
    tails = permutation_tails(difference_units(_arms(inside, outside)), stream("x"))
    table = [[30, 30], [40, 160]]
    assert "exact" in tails.method
    assert tails.upper == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)
    assert tails.lower == pytest.approx(stats.fisher_exact(table, alternative="less").pvalue)


def test_full_separation_is_exact():
    rng = np.random.default_rng(2)
    arms = _arms(rng.normal(20, 1, 24), rng.normal(0, 1, 24))
    tails = permutation_tails(difference_units(arms), stream("x"))
    assert tails.upper == pytest.approx(1 / math.comb(48, 24), rel=1e-12)
    assert "extreme" in tails.method


@pytest.mark.parametrize("quantile", [0.9, 0.99, 0.999, 0.9999])
def test_saddlepoint_is_close_to_the_exact_tail(quantile):
    rng = np.random.default_rng(3)
    u = rng.gamma(1.0, size=20)
    u -= u.mean()
    sums = np.array([u[list(c)].sum() for c in itertools.combinations(range(20), 8)])
    at = np.quantile(sums, quantile)
    assert saddlepoint_tail([(u, 8)], at) == pytest.approx((sums >= at).mean(), rel=0.2)


def test_far_tail_is_close_to_the_t_test_and_named():
    rng = np.random.default_rng(4)
    inside, outside = rng.normal(0.9, 1, 300), rng.normal(0, 1, 3000)
    tails = permutation_tails(difference_units(_arms(inside, outside)), stream("x"))
    t_test = stats.ttest_ind(inside, outside, alternative="greater").pvalue
    assert "saddlepoint" in tails.method
    assert math.log(tails.upper) == pytest.approx(math.log(t_test), rel=0.02)


def test_monte_carlo_is_close_to_the_t_test_and_reproducible():
    rng = np.random.default_rng(5)
    arms = _arms(rng.normal(0.2, 1, 100), rng.normal(0, 1, 200))
    first = permutation_tails(difference_units(arms), stream("x"))
    again = permutation_tails(difference_units(arms), stream("x"))
    values, treated = arms.values, arms.treated
    t_test = stats.ttest_ind(values[treated], values[~treated], alternative="greater").pvalue
    assert first == again
    assert "Monte Carlo" in first.method
    assert first.upper == pytest.approx(t_test, abs=0.02)


def test_no_spread_gives_no_evidence():
    tails = permutation_tails(difference_units(_arms([1, 1, 1], [1, 1, 1])), stream("x"))
    assert tails.p_value("two") == 1.0


def test_one_huge_value_does_not_break_the_tail():
    # The mean of the sums is pulled up by one unit that is hardly ever drawn.
    u = np.zeros(3000)
    u[0], u[1:] = 1e6, np.random.default_rng(6).normal(size=2999)
    units = Units(u, np.isin(np.arange(3000), [1, 2, 3]), np.zeros(3000, dtype=np.int64))
    tails = permutation_tails(units, stream("x"))
    assert 0 < tails.p_value("two") <= 1


def test_items_without_a_counterpart_are_left_out_and_counted():
    arms = _arms([1, 2, 50], [0, 1], strata=["a", "a", "b", "a", "a"])
    assert (arms.n_treated, arms.n_holdout, arms.left_out) == (2, 2, 1)
    assert difference(arms) == pytest.approx(1.0)


def test_difference_is_standardised_to_the_arm():
    # Stratum b scores 10 higher; the arm holds more of it, the effect is 1 in both.
    arms = _arms([1, 11, 11, 11], [0, 0, 0, 10], strata=[*"abbb", *"aaab"])
    assert difference(arms) == pytest.approx(1.0)


def test_a_p_value_is_never_zero():
    """1 / C(1600, 800) is below the smallest number; that is no reason to print 0."""
    values = np.arange(800.0)
    tails = permutation_tails(difference_units(_arms(values + 1000, values)), stream("x"))
    for sided in ("greater", "two"):
        assert 0 < tails.p_value(sided) <= 1e-300
