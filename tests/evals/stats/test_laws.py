"""Laws of sums and their p-values against every assignment, counted one by one."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mixctl.evals.stats.laws import Block, Law, counted, enumerated, sampled

SLACK = 1e-9
PROBABILITIES = st.lists(st.integers(1, 12), min_size=1, max_size=9)


def _block(values, n_drawn):
    u = np.array(values, dtype=float)
    return Block(u - u.mean(), n_drawn)


def _law(parts):
    return Law(np.arange(len(parts), dtype=float), np.array(parts) / sum(parts), SLACK)


def _by_definition(parts):
    """Returns the two-sided p-value of each sum: all sums whose smaller tail is no larger."""
    weights = [Fraction(part, sum(parts)) for part in parts]
    smaller = [min(sum(weights[at:]), sum(weights[: at + 1])) for at in range(len(weights))]
    return [
        sum(w for w, of in zip(weights, smaller, strict=True) if of <= smaller[at])
        for at in range(len(weights))
    ]


@given(PROBABILITIES)
def test_two_sided_p_values_are_those_of_the_smaller_tail(parts):
    expected = [float(p) for p in _by_definition(parts)]
    law = _law(parts)
    assert law.p_values(two_sided=True) == pytest.approx(expected)
    assert [law.tails(at)[2] for at in range(len(parts))] == pytest.approx(expected)


@given(PROBABILITIES)
def test_p_values_are_exact_and_between_one_tail_and_two(parts):
    """P(p <= a) = a where a is one of the p-values, so never above a."""
    law = _law(parts)
    for two_sided in (True, False):
        p_values = law.p_values(two_sided)
        sizes = [law.weights[p_values <= a + 1e-12].sum() for a in p_values]
        assert sizes == pytest.approx(p_values)
    for at in range(len(parts)):
        upper, lower, both = law.tails(at)
        tail = min(upper, lower)
        assert tail - 1e-12 <= both <= min(1.0, 2 * tail) + 1e-12


def test_by_hand():
    assert _law([1, 9, 9, 1]).tails(3) == pytest.approx((1 / 20, 1, 2 / 20))
    assert _law([6, 3, 1]).tails(2) == pytest.approx((1 / 10, 1, 1 / 10))
    assert _law([6, 3, 1]).tails(1) == pytest.approx((4 / 10, 9 / 10, 4 / 10))
    assert _law([6, 3, 1]).tails(2.5) == pytest.approx((0, 1, 0))  # cannot be: no such sum


FEW_VALUED = st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=3, max_size=7)


@given(st.lists(st.tuples(FEW_VALUED, st.integers(1, 2)), min_size=1, max_size=2))
def test_counts_give_the_law_of_all_assignments(given_blocks):
    blocks = [_block(values, n_drawn) for values, n_drawn in given_blocks]
    ways: dict[float, int] = {}
    drawn = [itertools.combinations(block.u, block.n_drawn) for block in blocks]
    for chosen in itertools.product(*map(list, drawn)):
        total = round(sum(map(sum, chosen)), 6)
        ways[total] = ways.get(total, 0) + 1
    merged = {key + 0.0: count for key, count in sorted(ways.items())}
    expected = np.array(list(merged.values())) / sum(merged.values())
    for law in (counted(blocks), enumerated(blocks)):
        assert law is not None
        assert law.sums == pytest.approx(np.array(list(merged)), abs=1e-5)
        assert law.weights == pytest.approx(expected)


def test_counts_of_many_units_equal_scipy():
    """Pairs of shares: 0, 1 or 2 right, 3,000 of 9,000 pairs drawn."""
    n_equal = [4000, 3000, 2000]
    law = counted([_block(np.repeat([0.0, 1.0, 2.0], n_equal), 30)])
    assert law is not None
    direct = np.zeros(61)
    for ones, twos in itertools.product(range(31), repeat=2):
        if ones + twos <= 30:
            counts = [30 - ones - twos, ones, twos]
            direct[ones + 2 * twos] += stats.multivariate_hypergeom.pmf(counts, n_equal, 30)
    assert law.weights == pytest.approx(direct, rel=1e-8)


def test_many_values_have_no_law_of_counts():
    assert counted([_block(np.random.default_rng(0).normal(size=60), 20)]) is None


def test_draws_and_the_observed_sum_are_alike():
    block = _block([*range(30)], 10)
    law = sampled([block], 99.0, 999, 1)
    upper, lower, both = law.tails(99.0)
    assert law.weights.sum() == pytest.approx(1.0)
    assert (upper, both) == pytest.approx((1 / 1000, 2 / 1000), rel=1e-9) and lower == 1.0
    exact = math.sqrt(block.variance)
    drawn = np.repeat(law.sums, np.round(law.weights * 1000).astype(int))[:-1]
    assert drawn.std() == pytest.approx(exact, rel=0.1) and abs(drawn.mean()) < 0.15 * exact


def test_one_unit_drawn_is_any_of_them():
    block = _block([0.0, 1.0, 5.0, 2.0, 7.0, 3.5], 1)
    law = sampled([block], 0.0, 59_999, 3)
    inside = law.weights[law.weights > 0.01]
    assert inside == pytest.approx(np.full(6, 1 / 6), abs=0.01)
