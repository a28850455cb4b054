"""The matrix of dependence tests: by hand, against its parts, and in 1,000 simulated matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mixctl.evals.stats.dependence import dependence, detectable, holm
from mixctl.evals.stats.replicates import least_shift, run_test

MATRICES = 1_000
N = 5
OFF_DIAGONAL = ~np.eye(N, dtype=bool)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


def simulated(n_no_ops, shift, seed):
    """Yields matrices of independent experiments, but that run 0 shifts outcome 1 by `shift` sd.

    Outcomes of a run hang together, as those of one model do.
    """
    rng = np.random.default_rng(seed)
    scale = np.array([0.01, 3.0, 0.2, 40.0, 1e-4])
    for _ in range(MATRICES):
        runs = rng.normal(size=(N + n_no_ops, N)) + 0.7 * rng.normal(size=(N + n_no_ops, 1))
        runs /= math.sqrt(1 + 0.7**2)
        runs[:N] += np.diag(rng.uniform(5, 50, N))  # each is moved by its own data
        runs[0, 1] += shift
        runs = scale * (runs + 7)
        yield dependence(runs[:N], runs[N:], OFF_DIAGONAL)


@pytest.mark.parametrize("n_no_ops", [3, 8])
def test_no_independent_pair_is_flagged_beyond_the_nominal_rate(n_no_ops):
    found = [one.adjusted[OFF_DIAGONAL] <= 0.05 for one in simulated(n_no_ops, 0.0, n_no_ops)]
    spoilt = sum(row.any() for row in found)
    assert stats.binomtest(int(spoilt), MATRICES, 0.05, "greater").pvalue > 1e-3
    assert spoilt > 0.005 * MATRICES  # nor is it a test that never finds anything


def test_the_simulation_sees_a_missing_correction():
    bare = sum((m.p_value[OFF_DIAGONAL] <= 0.05).any() for m in simulated(8, 0.0, 8))
    assert bare > 0.3 * MATRICES


@pytest.mark.parametrize("n_no_ops", [3, 8])
def test_a_planted_dependence_is_found_and_the_others_are_not(n_no_ops):
    """At the smallest detectable size it is found four times in five, and nothing else is."""
    shift = detectable(n_no_ops, N * (N - 1))
    found = list(simulated(n_no_ops, shift, 100 + n_no_ops))
    n_found = sum(one.adjusted[0, 1] <= 0.05 for one in found)
    assert stats.binomtest(int(n_found), MATRICES, 0.8).pvalue > 1e-3
    others = OFF_DIAGONAL.copy()
    others[0, 1] = False
    spoilt = sum((one.adjusted[others] <= 0.05).any() for one in found)
    assert stats.binomtest(int(spoilt), MATRICES, 0.05, "greater").pvalue > 1e-3
    assert sum(one.adjusted[1, 1] <= 0.05 for one in found) == 0  # the diagonal is no test of it


@pytest.mark.parametrize("n_no_ops", [3, 8])
def test_intervals_cover_alone_and_together(n_no_ops):
    alone = together = 0
    for one in simulated(n_no_ops, 0.0, 200 + n_no_ops):
        inside = (one.low <= 0) & (one.high >= 0)
        alone += int(inside[2, 3])
        joint = (one.joint_low <= 0) & (one.joint_high >= 0)
        together += int(joint[OFF_DIAGONAL].all())
    assert stats.binomtest(alone, MATRICES, 0.95).pvalue > 1e-3
    assert stats.binomtest(together, MATRICES, 0.95, "less").pvalue > 1e-3


def test_an_entry_is_the_test_of_a_run_against_its_baselines():
    rng = np.random.default_rng(1)
    outcomes, no_ops = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    found = dependence(outcomes, no_ops, np.ones((4, 3), bool))
    for at in range(4):
        for to in range(3):
            one = run_test(outcomes[at, to], no_ops[:, to])
            assert found.estimate[at, to] == pytest.approx(one.estimate)
            assert found.p_value[at, to] == pytest.approx(one.p_value)
            assert found.low[at, to] == pytest.approx(one.interval.low)
            assert found.high[at, to] == pytest.approx(one.interval.high)
            first = least_shift(5, 0.05 / 12) * one.interval.se
            assert found.mde[at, to] == pytest.approx(first) and first > one.mde
    assert found.n_tests == 12


def test_by_hand():
    no_ops = np.array([[1.0, 0.0], [1.1, 0.0], [1.2, 0.0]])
    found = dependence(np.array([[2.0, 5.0], [1.1, 0.0]]), no_ops, ~np.eye(2, dtype=bool))
    se = 0.1 * math.sqrt(4 / 3)
    assert found.estimate == pytest.approx(np.array([[0.9, 5.0], [0.0, 0.0]]))
    assert found.se[:, 0] == pytest.approx([se, se])
    assert found.p_value[0, 0] == pytest.approx(2 * stats.t.sf(0.9 / se, 2))
    assert found.p_value[1, 0] == pytest.approx(1.0) == found.adjusted[1, 0]
    assert math.isnan(found.adjusted[0, 0])  # outside the family
    assert np.isnan(found.p_value[:, 1]).all()  # no spread: no test, but an estimate
    assert np.isnan(found.adjusted[0, 1]) and found.n_tests == 1
    assert found.joint_low[1, 0] == pytest.approx(-stats.t.ppf(0.975, 2) * se)


def test_two_no_op_runs_give_estimates_alone():
    found = dependence(np.ones((2, 2)), np.array([[0.0, 1.0], [1.0, 3.0]]), ~np.eye(2, dtype=bool))
    assert found.estimate.tolist() == [[0.5, -1.0], [0.5, -1.0]]
    for array in (found.se, found.low, found.p_value, found.adjusted, found.mde):
        assert np.isnan(array).all()
    assert detectable(2, 20) is None


def test_holm_by_hand():
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(P_VALUES)
def test_holm_lies_between_the_p_values_and_bonferroni(p_values):
    adjusted = holm(p_values)
    assert (adjusted >= p_values).all() and (adjusted <= 1).all()
    assert (adjusted <= np.minimum(p_values * len(p_values), 1) + 1e-12).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert adjusted[order[0]] == min(1.0, p_values.min() * len(p_values))


@given(P_VALUES, st.randoms())
def test_holm_does_not_look_at_the_order(p_values, chance):
    order = list(range(len(p_values)))
    chance.shuffle(order)
    assert holm(p_values[order]) == pytest.approx(holm(p_values)[order])


def test_more_no_op_runs_and_fewer_tests_find_less():
    sizes = [[detectable(r, m) for m in (2, 20, 90)] for r in (3, 5, 8, 12)]
    assert (np.diff(sizes, axis=0) < 0).all() and (np.diff(sizes, axis=1) > 0).all()
    assert [round(row[1], 1) for row in sizes] == [29.3, 9.2, 6.1, 5.1]  # the module's docstring
