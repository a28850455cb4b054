"""The computed permutation: bijective, invertible, and without visible structure."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mixctl.shards.draws import stream
from mixctl.shards.permutation import permute, permute_windows, unpermute

LARGE = 2**16 + 1  # from here on a Feistel network, below a table
KEYS = range(1000)


@settings(derandomize=True, max_examples=60)
@given(st.integers(1, 3000) | st.integers(2**16 - 2, 2**18 + 3), st.integers(0, 2**64 - 1))
def test_bijection_with_inverse(n: int, key: int) -> None:
    values = np.arange(n)
    images = permute(values, n, key)
    assert np.array_equal(np.sort(images), values)
    assert np.array_equal(unpermute(images, n, key), values)
    assert np.array_equal(permute(unpermute(values, n, key), n, key), values)


@settings(derandomize=True, max_examples=60)
@given(st.integers(2**17, 2**62), st.integers(0, 2**64 - 1), st.data())
def test_inverse_in_domains_too_large_to_list(n: int, key: int, data: st.DataObject) -> None:
    asked = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=50)))
    images = permute(asked, n, key)
    assert images.min() >= 0 and images.max() < n
    assert np.array_equal(unpermute(images, n, key), asked)


def test_a_value_alone_has_the_image_it_has_among_others() -> None:
    for n in (1000, 100_003):
        together = permute(np.arange(n), n, 5)
        for value in (0, 1, n // 2, n - 1):
            assert permute(np.array([value]), n, 5)[0] == together[value]


def test_golden_values() -> None:
    """Pinned: a change here moves every base sequence of every build."""
    assert permute(np.arange(5), 5, 7).tolist() == [3, 1, 0, 4, 2]
    assert permute(np.array([0, 1, 2, 99_999]), 100_000, 7).tolist() == [36167, 45534, 81700, 4795]
    far = permute(np.array([0, 1, 10**9]), 51_200_000_000, 7)
    assert far.tolist() == [27612483612, 7389731039, 3465844841]


@pytest.mark.parametrize("n", [LARGE, 3 * 2**16, 2**20])
def test_first_image_is_uniform_over_keys(n: int) -> None:
    images = np.array([permute(np.array([0, n - 1]), n, key) for key in KEYS])
    for column in images.T:
        counts = np.bincount(column * 20 // n, minlength=20)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n", [1000, LARGE, 2**17 - 5, 10**6])
def test_neighbours_are_thrown_apart(n: int) -> None:
    """Differences of adjacent images are those of a random permutation: uniform modulo n."""
    images = permute(np.arange(n), n, 11)
    gaps = (images[1:] - images[:-1]) % n
    counts = np.bincount(gaps * 50 // n, minlength=50)
    assert stats.chisquare(counts).pvalue > 1e-4
    assert abs(stats.spearmanr(np.arange(n), images).statistic) < 4.5 / np.sqrt(n)


def test_blocks_of_values_spread_evenly() -> None:
    n = 200_000
    counts = np.bincount(permute(np.arange(2000), n, 3) * 40 // n, minlength=40)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_keys_give_unrelated_permutations() -> None:
    n = 100_000
    first = permute(np.arange(n), n, 1)
    for key in (0, 2, 3, 2**63 + 1):
        same = int((first == permute(np.arange(n), n, key)).sum())
        assert same <= 8  # one is expected, Poisson


def test_fixed_points_are_rare() -> None:
    points = [
        int((permute(np.arange(LARGE), LARGE, k) == np.arange(LARGE)).sum()) for k in range(40)
    ]
    assert 0.4 < np.mean(points) < 1.7


@pytest.mark.parametrize(("n", "value"), [(10, 10), (10, -1), (10**6, 10**6), (10**6, -1)])
def test_values_outside_are_refused(n: int, value: int) -> None:
    for function in (permute, unpermute):
        with pytest.raises(ValueError, match=rf"\[0, {n}\)"):
            function(np.array([0, value]), n, 1)


def test_no_values_give_none() -> None:
    for n in (10, 10**6):
        assert permute(np.empty(0, dtype=np.int64), n, 1).size == 0


def test_windows_are_permuted_in_themselves_each_its_own_way() -> None:
    bounds = np.array([0, 1, 40, 80, 70_080, 70_090])
    values = np.arange(70_090)
    images = permute_windows(values, bounds, 5)
    for w, (low, high) in enumerate(itertools.pairwise(bounds.tolist())):
        alone = low + permute(np.arange(high - low), high - low, stream(5, w))
        assert np.array_equal(images[low:high], alone)
    assert not np.array_equal(images[1:40] - 1, images[40:79] - 40)
    mixed = np.random.default_rng(0).permutation(values)[:500]
    assert np.array_equal(permute_windows(mixed, bounds, 5), images[mixed])
    assert np.array_equal(permute_windows(images, bounds, 5, inverse=True), values)
    assert len(permute_windows(values[:0], bounds, 5)) == 0
