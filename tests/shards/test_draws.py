"""Counter-based draws: against Python's big integers, published vectors, and the uniform."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mixctl.shards import draws
from mixctl.shards.draws import below, bits, mix, shuffled, stream, streams

quick = settings(derandomize=True, max_examples=200)
MASK = 2**64 - 1
GOLDEN_RATIO = 0x9E3779B97F4A7C15


def _splitmix(z: int) -> int:
    """Returns SplitMix64's finaliser of a value, in Python's unbounded integers."""
    z = (z + GOLDEN_RATIO) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_mix_gives_the_published_splitmix64_outputs_of_seed_zero() -> None:
    seeds = [n * GOLDEN_RATIO & MASK for n in range(3)]
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(x) for x in mix(np.array(seeds, dtype=np.uint64))] == published


@quick
@given(st.integers(0, MASK), st.integers(0, 2**63 - 1))
def test_bits_are_splitmix_of_key_and_counter(key: int, counter: int) -> None:
    inner = _splitmix((counter * GOLDEN_RATIO & MASK) ^ key)
    assert int(bits(key, np.array([counter]))[0]) == _splitmix((inner + key) & MASK)


def test_golden_values() -> None:
    """Pinned: a change here moves every placement of every mix that was ever built."""
    assert stream(17, "placement", "arc-leak", "q-12") == 0x65DA24EF70548BE3
    assert stream() == 0xB4B2797457A0A6E4
    drawn = [0xE06B51EEC968EA89, 0x970D1A7919FF3CA3, 0x5583EDED35079E72]
    assert [int(x) for x in bits(5, np.arange(3))] == drawn
    assert shuffled(10, 7).tolist() == [7, 9, 3, 1, 0, 8, 4, 6, 2, 5]


@quick
@given(st.lists(st.integers(0, MASK), min_size=1), st.integers(1, 2**63 - 1))
def test_below_is_the_big_integer_product(values: list[int], limit: int) -> None:
    drawn = below(np.array(values, dtype=np.uint64), limit)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == [value * limit >> 64 for value in values]


@pytest.mark.parametrize("limit", [1, 2, 3, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1])
def test_below_at_the_edges(limit: int) -> None:
    edges = [0, 1, 2**32 - 1, 2**32, 2**63, MASK - 1, MASK]
    drawn = below(np.array(edges, dtype=np.uint64), limit)
    assert drawn.tolist() == [value * limit >> 64 for value in edges]
    assert drawn.max() == limit - 1


def test_below_takes_a_limit_for_each_value() -> None:
    values = bits(1, np.arange(6))
    limits = np.array([1, 2, 10, 10**6, 10**12, 2**62])
    expected = [int(v) * int(n) >> 64 for v, n in zip(values, limits, strict=True)]
    assert below(values, limits).tolist() == expected


@pytest.mark.parametrize("key", [0, 1, stream("a"), MASK])
def test_draws_are_uniform_and_uncorrelated(key: int) -> None:
    values = bits(key, np.arange(60_000))
    counts = np.bincount(below(values, 97), minlength=97)
    assert stats.chisquare(counts).pvalue > 1e-4
    pairs = np.bincount(below(values[:-1], 10) * 10 + below(values[1:], 10), minlength=100)
    assert stats.chisquare(pairs).pvalue > 1e-4
    unit = values.astype(np.float64) / 2**64
    assert stats.kstest(unit, "uniform").pvalue > 1e-4


def test_every_bit_is_fair_and_avalanches() -> None:
    counters = np.arange(4096)
    values = bits(9, counters)
    for bit in range(64):
        ones = int((values >> np.uint64(bit) & np.uint64(1)).sum())
        assert stats.binomtest(ones, 4096).pvalue > 1e-5
    for flipped in range(0, 63, 7):
        changed = values ^ bits(9, counters ^ (1 << flipped))
        share = np.bitwise_count(changed).mean() if hasattr(np, "bitwise_count") else 32
        assert 31.5 < share < 32.5
        other_key = np.unpackbits((values ^ bits(9 ^ (1 << flipped), counters)).view(np.uint8))
        assert 0.49 < other_key.mean() < 0.51


NAMES = [(), ("a",), ("a", "b"), ("ab",), ("b", "a"), ("a", ""), ("", "a"), (1,), ("1",), ("a", 1)]


def test_streams_of_different_names_differ() -> None:
    keys = [stream(*names) for names in NAMES]
    assert len(set(keys)) == len(keys)
    many = {stream(seed, "x", f"item-{n}") for seed in range(20) for n in range(500)}
    assert len(many) == 10_000


def test_streams_is_stream_of_each_name() -> None:
    names = ["q-1", "q-2", "ü", "\ud800"]
    expected = [stream(3, "arm", name) for name in names]
    assert [int(key) for key in streams(names, 3, "arm")] == expected


def test_streams_of_neighbouring_keys_do_not_overlap() -> None:
    drawn = np.concatenate([bits(key, np.arange(1000)) for key in range(50)])
    assert len(np.unique(drawn)) == 50_000


@quick
@given(st.integers(0, 300), st.integers(0, MASK))
def test_shuffled_is_a_permutation(n: int, key: int) -> None:
    assert sorted(shuffled(n, key).tolist()) == list(range(n))


def test_equal_draws_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = bits(3, np.arange(1000)) % np.uint64(7)
    monkeypatch.setattr(draws, "bits", lambda _key, _counter: drawn)
    expected = sorted(range(1000), key=lambda n: (int(drawn[n]), n))
    assert shuffled(1000, 3).tolist() == expected


def test_draws_say_nothing_of_overflow() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(bits(MASK, MASK)) == int(bits(MASK, np.array([MASK], dtype=np.uint64))[0])
        assert int(mix(np.uint64(MASK))) == _splitmix(MASK)
        assert bits(np.arange(3, dtype=np.uint64)[:, None], np.arange(4)).shape == (3, 4)


def test_draws_leave_what_they_are_given_alone() -> None:
    values = np.arange(5, dtype=np.uint64)
    mix(values)
    bits(values, values)
    assert values.tolist() == [0, 1, 2, 3, 4]


def test_all_orders_of_four_are_equally_likely() -> None:
    orders = [tuple(shuffled(4, key)) for key in range(4800)]
    counts = list({order: orders.count(order) for order in set(orders)}.values())
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-4
