"""The law of a sum under random assignment, and the tails and p-values that it gives.

A block holds the values of interchangeable units, of which some are drawn. A law is a list of
sums, each with its probability: of every assignment (few of them), of every count (few different
values: the multivariate hypergeometric law), or of random assignments.

Two-sided, extreme is what has a small tail. The p-value is the smaller tail of the observed sum
plus as much of the other tail as is no larger (Cox & Hinkley 1974, p. 79; Blaker 2000, "Confidence
curves and improved exact confidence intervals for discrete distributions"). So P(p <= a) <= a,
exactly a where a is one of its p-values; it is never above twice the smaller tail, and the same
where all sums differ.

    sums 0, 1, 2, 3 with 1/20, 9/20, 9/20, 1/20; observed 3 -> 1/20 + 1/20
    sums 0, 1, 2 with 6/10, 3/10, 1/10; observed 2 -> 1/10 + 0, twice the tail would be 2/10

Price: sorting the sums.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from mixctl.evals.stats.arms import FloatArray, IntArray

SmallIntArray = npt.NDArray[np.int16]

MAX_SUPPORT = 50_000
MAX_STATES = 20_000
MAX_VALUES = 12
_KEPT = 2_500_000
_SAME = 1 + 1e-9
"""tails that differ by rounding are equal"""


@dataclass(frozen=True)
class Block:
    """Units that may change places: their values, with mean 0, and how many are drawn."""

    u: FloatArray
    n_drawn: int

    @property
    def n_assignments(self) -> int:
        """Returns in how many ways the units can be drawn."""
        return math.comb(len(self.u), self.n_drawn)

    @property
    def variance(self) -> float:
        """Returns the variance of the sum of the units drawn."""
        n_units = len(self.u)
        return self.n_drawn * (n_units - self.n_drawn) / (n_units - 1) * float(self.u.var())


@dataclass(frozen=True)
class Law:
    """Distinct sums, rising, with their probabilities; sums within `slack` are equal."""

    sums: FloatArray
    weights: FloatArray
    slack: float

    def tails(self, observed: float) -> tuple[float, float, float]:
        """Returns P(sum >= observed), P(sum <= observed), and the two-sided p-value."""
        upto, beyond = np.cumsum(self.weights), np.cumsum(self.weights[::-1])
        n_above = len(self.sums) - int(np.searchsorted(self.sums, observed - self.slack))
        n_below = int(np.searchsorted(self.sums, observed + self.slack, side="right"))
        upper = float(beyond[n_above - 1]) if n_above else 0.0
        lower = float(upto[n_below - 1]) if n_below else 0.0
        other = upto if upper <= lower else beyond
        both = min(upper, lower) + _at_most(other, min(upper, lower))
        return min(upper, 1.0), min(lower, 1.0), min(both, 1.0)

    def p_values(self, two_sided: bool) -> FloatArray:
        """Returns the p-value of each sum, one-sided that of its upper tail, float64 (sums,)."""
        upper = np.cumsum(self.weights[::-1])[::-1]
        if not two_sided:
            return np.minimum(upper, 1.0)
        lower = np.cumsum(self.weights)
        tail = np.minimum(upper, lower)
        order = np.argsort(tail, kind="stable")
        last = np.searchsorted(tail[order], tail * _SAME, side="right")
        return np.minimum(np.cumsum(self.weights[order])[last - 1], 1.0)


def _at_most(tail: FloatArray, limit: float) -> float:
    """Returns the largest of the rising tail probabilities that is not above the limit, or 0."""
    count = int(np.searchsorted(tail, limit * _SAME, side="right"))
    return float(tail[count - 1]) if count else 0.0


def slack_of(blocks: Sequence[Block]) -> float:
    """Returns by how much two sums may differ that are equal but for rounding."""
    return 1e-9 * max(1e-300, sum(float(np.abs(block.u).sum()) for block in blocks))


def enumerated(blocks: Sequence[Block]) -> Law:
    """Returns the law from every assignment."""
    sums = np.zeros(1)
    for block in blocks:
        chosen = _combinations(len(block.u), block.n_drawn)
        sums = np.add.outer(sums, block.u[chosen].sum(axis=1)).ravel()
    return _law(sums, np.full(len(sums), 1 / len(sums)), slack_of(blocks))


def counted(blocks: Sequence[Block]) -> Law | None:
    """Returns the law from counts, for blocks of few different values; None where too large."""
    slack = slack_of(blocks)
    if any(len(_distinct(block.u, slack)[0]) > MAX_VALUES for block in blocks):
        return None
    law = Law(np.zeros(1), np.ones(1), slack)
    for block in blocks:
        one = _of_counts(block, slack)
        if one is None or len(law.sums) * len(one.sums) > MAX_SUPPORT:
            return None
        sums = np.add.outer(law.sums, one.sums).ravel()
        law = _law(sums, np.multiply.outer(law.weights, one.weights).ravel(), slack)
    return law


def sampled(blocks: Sequence[Block], observed: float, draws: int, key: int) -> Law:
    """Returns the law from so many random assignments and the observed one, all equally likely."""
    sums = np.zeros(draws + 1)
    for number, block in enumerate(blocks):
        sums[:draws] += _random_sums(block, draws, (key, number))
    sums[draws] = observed
    return _law(sums, np.full(draws + 1, 1 / (draws + 1)), slack_of(blocks))


def _law(sums: FloatArray, weights: FloatArray, slack: float) -> Law:
    """Returns the law of the distinct sums (equal within slack), with their weights added up."""
    order = np.argsort(sums)
    sums, weights = sums[order], weights[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(sums) > slack]))
    return Law(sums[starts], np.add.reduceat(weights, starts), slack)


@dataclass(frozen=True)
class _States:
    """How many units are drawn so far, their sum, and the probability of it, a row each."""

    drawn: IntArray
    sums: FloatArray
    weights: FloatArray


def _of_counts(block: Block, slack: float) -> Law | None:
    """Returns the law of one block, value after value: how many of the units with it are drawn."""
    values, n_equal = _distinct(block.u, slack)
    states = _States(np.zeros(1, np.int64), np.zeros(1), np.ones(1))
    left = len(block.u)
    for value, count in zip(values, n_equal, strict=True):
        if len(states.sums) * (min(count, block.n_drawn) + 1) > MAX_STATES and count < left:
            return None
        states = _merged(_with_value(states, value, count, block.n_drawn, left), slack)
        left -= count
    return Law(states.sums, states.weights, slack)


def _distinct(u: FloatArray, slack: float) -> tuple[list[float], list[int]]:
    ranked = np.sort(u)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ranked) > slack]))
    return ranked[starts].tolist(), np.diff([*starts, len(ranked)]).tolist()


def _with_value(states: _States, value: float, count: int, n_drawn: int, left: int) -> _States:
    """Returns the states after a value that `count` of the `left` units have."""
    missing = n_drawn - states.drawn
    if count == left:
        return _States(states.drawn + missing, states.sums + missing * value, states.weights)
    hits = np.arange(min(count, n_drawn) + 1)
    at, hit = np.nonzero((hits <= missing[:, None]) & (hits >= missing[:, None] - left + count))
    logs = special.gammaln(np.arange(left + 1) + 1.0)
    ways = _log_ways(logs, count, hit) + _log_ways(logs, left - count, missing[at] - hit)
    chance = np.exp(ways - _log_ways(logs, left, missing[at]))
    sums = states.sums[at] + hit * value
    return _States(states.drawn[at] + hit, sums, states.weights[at] * chance)


def _log_ways(logs: FloatArray, n: int, k: IntArray) -> FloatArray:
    """Returns ln C(n, k), given the logarithms of the factorials."""
    return np.asarray(logs[n] - logs[k] - logs[n - k], dtype=np.float64)


def _merged(states: _States, slack: float) -> _States:
    """Returns the states with those put together that have equal numbers and sums."""
    order = np.lexsort((states.sums, states.drawn))
    drawn, sums, weights = states.drawn[order], states.sums[order], states.weights[order]
    new = (np.diff(drawn) > 0) | (np.diff(sums) > slack)
    starts = np.flatnonzero(np.concatenate([[True], new]))
    return _States(drawn[starts], sums[starts], np.add.reduceat(weights, starts))


@lru_cache(maxsize=64)
def _combinations(n_units: int, n_drawn: int) -> SmallIntArray:
    """Returns every choice of units, int16 (choices, n_drawn)."""
    flat = itertools.chain.from_iterable(itertools.combinations(range(n_units), n_drawn))
    return np.fromiter(flat, dtype=np.int16).reshape(-1, n_drawn)


def _random_sums(block: Block, draws: int, key: tuple[int, int]) -> FloatArray:
    """Returns the sums of `n_drawn` units drawn without replacement, float64 (draws,)."""
    low, high = float(block.u.min()), float(block.u.max())
    if len(np.unique(block.u)) == 2:
        n_high = int((block.u == high).sum())
        rng = np.random.default_rng(key)
        hits = rng.hypergeometric(n_high, len(block.u) - n_high, block.n_drawn, size=draws)
        return np.asarray(hits * high + (block.n_drawn - hits) * low, dtype=np.float64)
    n_units, n_drawn = len(block.u), min(block.n_drawn, len(block.u) - block.n_drawn)
    if draws * n_drawn <= _KEPT and n_units <= np.iinfo(np.int16).max:
        result = _sums(block.u, [_kept_choices(n_units, n_drawn, draws, key)])
    else:
        result = _sums(block.u, _choices(n_units, n_drawn, draws, key))
    return result if n_drawn == block.n_drawn else float(block.u.sum()) - result


def _sums(u: FloatArray, choices: Iterable[npt.NDArray[np.integer[Any]]]) -> FloatArray:
    return np.concatenate([u[chosen].sum(axis=1) for chosen in choices])


@lru_cache(maxsize=32)
def _kept_choices(n_units: int, n_drawn: int, draws: int, key: tuple[int, int]) -> SmallIntArray:
    """Returns random choices of units, int16 (draws, n_drawn); tests with one key share them."""
    return np.concatenate(list(_choices(n_units, n_drawn, draws, key))).astype(np.int16)


def _choices(n_units: int, n_drawn: int, draws: int, key: tuple[int, int]) -> Iterator[IntArray]:
    """Yields random choices of units, int64 (some draws, n_drawn)."""
    rng = np.random.default_rng(key)
    if n_drawn == 1:
        yield rng.integers(n_units, size=(draws, 1))
        return
    rows = max(1, 4_000_000 // n_units)
    for start in range(0, draws, rows):
        keys = rng.random((min(rows, draws - start), n_units), dtype=np.float32)
        yield np.argpartition(keys, n_drawn - 1, axis=1)[:, :n_drawn]
