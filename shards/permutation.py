"""A seeded permutation of 0..n-1 that is computed, not stored.

The base sequences are trained on in the order `permute(i, n, key)`. A Feistel network scrambles the
smallest even number of bits that holds n; values that fall outside are scrambled again until they
fall inside (cycle walking), at most four times as many on average. So sequence 40 million of a run
is looked up without a table, by any worker, forwards and backwards.

    permute(np.arange(5), 5, key=7)  ->  some order of 0..4
    unpermute(permute(x, n, key), n, key) == x

`permute_windows` permutes stretches of 0..n-1 in themselves, each with a key of its own.

Price: about 0.2 microseconds a value, no memory but for the tables of the last small domains (half
a megabyte each at most). Source: Black & Rogaway, "Ciphers with arbitrary
finite domains", CT-RSA 2002 (generalised Feistel and cycle walking). Small domains make a Feistel
network visibly non-uniform, so up to 2^16 values are ranked by random draws instead.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mixctl.shards.draws import I64, U64, bits, shuffled, stream

_ROUNDS = 6
_TABLE_LIMIT = 1 << 16


def permute(values: I64, n: int, key: int) -> I64:
    """Returns the image of each value under the permutation of 0..n-1 named by key: int64."""
    return _apply(values, n, key, inverse=False)


def unpermute(values: I64, n: int, key: int) -> I64:
    """Returns the value whose image each one is: int64, the inverse of `permute`."""
    return _apply(values, n, key, inverse=True)


def permute_windows(values: I64, bounds: I64, key: int, inverse: bool = False) -> I64:
    """Returns the image of each value under a permutation that leaves no value's window: int64.

    Args:
        values: int64, shape (n,), each in [bounds[0], bounds[-1]).
        bounds: int64, ascending; window w is bounds[w] <= value < bounds[w + 1].
        key: of the permutation; that of window w is stream(key, w).
        inverse: whether the values are images, and their origins are asked for.
    """
    values = np.asarray(values, dtype=np.int64)
    window = np.searchsorted(bounds, values, side="right") - 1
    out = np.empty_like(values)
    order = np.argsort(window, kind="stable")
    cuts = np.flatnonzero(np.diff(window[order])) + 1
    for mine in np.split(order, cuts) if len(order) else ():
        w = int(window[mine[0]])
        low, high = int(bounds[w]), int(bounds[w + 1])
        out[mine] = low + _apply(values[mine] - low, high - low, stream(key, w), inverse)
    return out


def _apply(values: I64, n: int, key: int, inverse: bool) -> I64:
    values = np.asarray(values, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() >= n):
        raise ValueError(f"values must lie in [0, {n}), got {values.min()}..{values.max()}")
    if n <= _TABLE_LIMIT:
        return (_inverse_table if inverse else _table)(n, key)[values]
    return _walk(values, n, key, inverse)


@lru_cache(maxsize=4)
def _table(n: int, key: int) -> I64:
    return shuffled(n, key)


@lru_cache(maxsize=4)
def _inverse_table(n: int, key: int) -> I64:
    inverse = np.empty(n, dtype=np.int64)
    inverse[_table(n, key)] = np.arange(n)
    return inverse


def _walk(values: I64, n: int, key: int, inverse: bool) -> I64:
    half_bits = ((n - 1).bit_length() + 1) // 2
    out = _feistel(values.astype(np.uint64), half_bits, key, inverse).astype(np.int64)
    outside = np.flatnonzero(out >= n)
    while outside.size:
        again = _feistel(out[outside].astype(np.uint64), half_bits, key, inverse)
        out[outside] = again.astype(np.int64)
        outside = outside[out[outside] >= n]
    return out


def _feistel(values: U64, half_bits: int, key: int, inverse: bool) -> U64:
    width, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> width, values & mask
    for turn in reversed(range(_ROUNDS)) if inverse else range(_ROUNDS):
        round_key = stream(key, turn)
        if inverse:
            left, right = right ^ (bits(round_key, left) & mask), left
        else:
            left, right = right, left ^ (bits(round_key, right) & mask)
    return np.asarray((left << width) | right, dtype=np.uint64)
