"""A run against replicated baselines: size, coverage, power, and scipy as the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from mixctl.evals.stats.replicates import exact_p_value, has_spread, least_shift, run_test

REPEATS = 4_000
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


def _draws(n_baselines, shift=0.0):
    """Returns (run, baselines) pairs of one normal law, the run shifted by standard deviations."""
    rng = np.random.default_rng(n_baselines)
    values = rng.normal(-3.2, 0.04, size=(REPEATS, n_baselines + 1))
    return [(float(row[0]) + 0.04 * shift, row[1:]) for row in values]


def _consistent(hits, share):
    """Returns whether so many hits of REPEATS fit the share (two-sided, exact)."""
    return stats.binomtest(int(hits), REPEATS, share).pvalue > 1e-3


@pytest.mark.parametrize("n_baselines", [3, 5, 10])
def test_size_and_coverage_when_the_run_is_one_more_baseline(n_baselines):
    found = [run_test(*pair) for pair in _draws(n_baselines)]
    p_values = np.array([one.p_value for one in found])
    for level in (0.01, 0.05, 0.2):
        assert _consistent((p_values <= level).sum(), level), level
    covered = sum(one.interval.low <= 0 <= one.interval.high for one in found)
    assert _consistent(covered, 0.95)
    outside = sum(one.p_value < 0.05 for one in found)
    assert outside == REPEATS - covered  # test and interval are one


@pytest.mark.parametrize("n_baselines", [3, 5, 10])
def test_the_normal_of_the_items_would_be_wrong(n_baselines):
    """The simulation can see a fault: 1.96 instead of t rejects far too often."""
    found = [run_test(*pair) for pair in _draws(n_baselines)]
    naive = sum(abs(one.estimate) > 1.96 * one.interval.se for one in found)
    assert naive / REPEATS > (0.15 if n_baselines == 3 else 0.07)


@pytest.mark.parametrize("n_baselines", [3, 5, 10])
def test_power_at_the_detectable_shift(n_baselines):
    shift = least_shift(n_baselines - 1) * math.sqrt(1 + 1 / n_baselines)
    found = [run_test(*pair) for pair in _draws(n_baselines, shift)]
    assert _consistent(sum(one.p_value < 0.05 for one in found), 0.8)


@pytest.mark.parametrize("n_baselines", [3, 19, 24])
def test_the_exact_p_value_has_its_size_for_any_law(n_baselines):
    rng = np.random.default_rng(7)
    draws = rng.standard_cauchy(size=(REPEATS, n_baselines + 1))
    p_values = np.array([exact_p_value(row[0], row[1:]) for row in draws])
    steps = np.arange(1, n_baselines + 2) / (n_baselines + 1)
    assert set(np.round(p_values, 9)) <= set(np.round(steps, 9))  # never below its resolution
    for level in steps[:: max(1, len(steps) // 4)]:
        assert _consistent((p_values <= level + 1e-9).sum(), level)


@given(NUMBERS, st.lists(NUMBERS, min_size=3, max_size=12))
def test_it_is_the_pooled_test_of_one_value_against_many(run, baselines):
    values = np.array(baselines)
    assume(np.ptp(values) > 1e-6 * (1 + np.abs(values).max()))
    found = run_test(run, values)
    reference = stats.ttest_ind([run], values)
    assert found.estimate == pytest.approx(run - values.mean(), abs=1e-6)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-6)
    low, high = reference.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), rel=1e-6)


@given(NUMBERS, st.lists(NUMBERS, min_size=3, max_size=12), st.permutations(range(3)))
def test_order_and_sign_do_not_matter(run, baselines, order):
    values = np.array(baselines)
    assume(np.ptp(values) > 1e-6 * (1 + np.abs(values).max()))
    found = run_test(run, values)
    values[:3] = values[list(order)]
    turned = run_test(-run, -values)
    assert turned.p_value == pytest.approx(found.p_value, rel=1e-9)
    assert turned.exact_p_value == pytest.approx(found.exact_p_value)
    assert turned.mde == pytest.approx(found.mde) and turned.mde > found.interval.se
    assert turned.interval.low == pytest.approx(-found.interval.high)


def test_by_hand():
    found = run_test(2.0, np.array([1.0, 1.1, 1.2]))
    se = 0.1 * math.sqrt(4 / 3)
    assert found.interval.se == pytest.approx(se) and found.n_baselines == 3
    assert found.p_value == pytest.approx(2 * stats.t.sf(0.9 / se, 2)) and found.p_value < 0.02
    assert found.exact_p_value == 1 / 4
    assert found.interval.low == pytest.approx(0.9 - 4.302653 * se)
    assert run_test(99.0, np.array([1.0, 1.1, 1.2])).mde == found.mde  # not from what was seen


def test_exact_p_value_by_hand():
    assert exact_p_value(9.0, np.arange(19.0)) == 1.0  # the run is the mean of all
    assert exact_p_value(50.0, np.arange(19.0)) == 1 / 20
    assert exact_p_value(4.0, np.array([0.0, 1.0, 2.0, 3.0])) == 2 / 5  # 0 is as far: a tie counts
    assert exact_p_value(0.1, np.array([0.2, 0.3])) == 2 / 3  # as far but for rounding


@pytest.mark.parametrize("scale", [1.0, 1e-9, 3e9])
def test_exact_p_value_counts_ties_that_rounding_hides(scale):
    """0.1 and 0.7 are as far from 0.4, but not in floats: a tie counts at any scale."""
    values = np.array([0.1, 0.3, 0.5, 0.7]) * scale
    for run in (0, 3):
        assert exact_p_value(values[run], np.delete(values, run)) == 2 / 4
    inner = (exact_p_value(values[run], np.delete(values, run)) for run in (1, 2))
    assert list(inner) == [1.0, 1.0]
    apart = values + np.array([1e-9, 0, 0, 0]) * scale  # no tie: beyond rounding
    assert exact_p_value(apart[3], apart[:3]) == 1 / 4


def test_no_p_value_without_three_baselines_or_without_spread():
    assert run_test(1.0, np.array([])) is None
    assert run_test(1.0, np.array([0.0, 0.5])) is None
    assert run_test(1.0, np.full(5, 0.1)) is None
    rounded = 0.1 + np.array([0.0, 2e-17, -2e-17])
    assert not has_spread(rounded) and run_test(1.0, rounded) is None
    assert not has_spread(np.zeros(3)) and has_spread(np.array([0.0, 0.0, 1e-9]))
    assert run_test(0.2, np.array([0.0, 0.0, 0.5])).p_value > 0.5
