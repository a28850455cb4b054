"""Randomisation tests: how often would chance alone have dealt the arm a sum like this?

The null is that the arms are exchangeable: within each block of interchangeable clusters every
choice of the arm's clusters was equally likely. The p-value of the observed sum T is found, in this
order,

    exact        by enumeration, when there are at most 50,000 assignments
    exact        from hypergeometric counts, when a block holds at most two values (shares)
    exact        when T is the largest (smallest) sum possible: ties / number of assignments
    Monte Carlo  (1 + count) / (1 + draws), which keeps P(p <= a) <= a
    saddlepoint  where fewer than 10 draws reach T, or T lies 6 standard errors out: the conditional
                 tail of Skovgaard (1987, "Saddlepoint expansions for conditional distributions"),
                 with a relative error of some percent

and `method` says which. Two-sided: twice the smaller tail, at most 1.

    24 items of 24 above all of 24 others -> upper tail 1 / C(48, 24) = 3.1e-14, exact
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from mixctl.evals.stats.arms import FloatArray, IntArray, Units

SmallIntArray = npt.NDArray[np.int16]
Sided = Literal["two", "greater"]

SMALLEST = float(np.finfo(np.float64).tiny)
"""a probability that is smaller is reported as this, 2.2e-308: a p-value of 0 is never true"""
MAX_ENUMERATED = 50_000
MAX_SUPPORT = 200_000
MAX_DRAWS = 9_999
MIN_DRAWS = 999
FEWEST_REACHING = 10
FAR = 6.0
_WORK = 15_000_000
_KEPT = 2_500_000


@dataclass(frozen=True)
class Tails:
    """P(sum >= observed) and P(sum <= observed) under the null, and how they were found."""

    upper: float
    lower: float
    method: str

    def p_value(self, sided: Sided) -> float:
        """Returns the p-value, one- or two-sided, never below the smallest normal number."""
        if sided == "greater":
            return max(self.upper, SMALLEST)
        return min(1.0, max(2 * min(self.upper, self.lower), SMALLEST))


@dataclass(frozen=True)
class _Block:
    u: FloatArray
    n_drawn: int

    @property
    def n_assignments(self) -> int:
        return math.comb(len(self.u), self.n_drawn)

    @property
    def variance(self) -> float:
        """Returns the variance of the sum of the units drawn."""
        n_units = len(self.u)
        return self.n_drawn * (n_units - self.n_drawn) / (n_units - 1) * float(self.u.var())


def permutation_tails(units: Units, rng: np.random.Generator) -> Tails:
    """Returns both tails of the sum of u over the arm, under random assignment within blocks."""
    blocks, observed = _informative(units)
    if not blocks:
        return Tails(1.0, 1.0, "exact: the assignment cannot change the sum")
    slack = 1e-9 * max(1e-300, sum(float(np.abs(block.u).sum()) for block in blocks))
    if math.prod(block.n_assignments for block in blocks) <= MAX_ENUMERATED:
        return _from_support(*_enumerated(blocks), observed, slack, "permutation, exact")
    if all(len(np.unique(block.u)) <= 2 for block in blocks):
        support = _hypergeometric(blocks, slack)
        if support is not None:
            return _from_support(*support, observed, slack, "permutation, exact (hypergeometric)")
    return _extreme(blocks, observed, slack) or _sampled(blocks, observed, slack, rng)


def _informative(units: Units) -> tuple[list[_Block], float]:
    """Returns the blocks in which the assignment matters, centred, and the sum observed there."""
    blocks, observed = [], 0.0
    for code in np.unique(units.blocks):
        inside = units.blocks == code
        u, n_drawn = units.u[inside], int(units.treated[inside].sum())
        if 0 < n_drawn < len(u) and np.ptp(u) > 1e-12 * np.abs(u).max():
            centred = u - u.mean()
            blocks.append(_Block(centred, n_drawn))
            observed += float(centred[units.treated[inside]].sum())
    return blocks, observed


@lru_cache(maxsize=64)
def _combinations(n_units: int, n_drawn: int) -> SmallIntArray:
    """Returns every choice of units, int16 (choices, n_drawn)."""
    flat = itertools.chain.from_iterable(itertools.combinations(range(n_units), n_drawn))
    return np.fromiter(flat, dtype=np.int16).reshape(-1, n_drawn)


def _enumerated(blocks: list[_Block]) -> tuple[FloatArray, FloatArray]:
    sums = np.zeros(1)
    for block in blocks:
        chosen = _combinations(len(block.u), block.n_drawn)
        sums = np.add.outer(sums, block.u[chosen].sum(axis=1)).ravel()
    return sums, np.full(len(sums), 1 / len(sums))


def _hypergeometric(blocks: list[_Block], slack: float) -> tuple[FloatArray, FloatArray] | None:
    """Returns the support and its probabilities for blocks of two values; None if too large."""
    sums, weights = np.zeros(1), np.ones(1)
    for block in blocks:
        low, high = float(block.u.min()), float(block.u.max())
        n_high = int((block.u > (low + high) / 2).sum())
        hits = np.arange(
            max(0, block.n_drawn - len(block.u) + n_high), min(n_high, block.n_drawn) + 1
        )
        if len(sums) * len(hits) > MAX_SUPPORT:
            return None
        chance = stats.hypergeom.pmf(hits, len(block.u), n_high, block.n_drawn)
        sums = np.add.outer(sums, hits * high + (block.n_drawn - hits) * low).ravel()
        weights = np.multiply.outer(weights, chance).ravel()
        sums, weights = _merge(sums, weights, slack)
    return sums, weights


def _merge(sums: FloatArray, weights: FloatArray, slack: float) -> tuple[FloatArray, FloatArray]:
    """Returns the distinct sums (equal within slack) with their weights added up."""
    order = np.argsort(sums, kind="stable")
    sums, weights = sums[order], weights[order]
    first = np.concatenate([[True], np.diff(sums) > slack])
    starts = np.flatnonzero(first)
    return sums[starts], np.add.reduceat(weights, starts)


def _from_support(
    sums: FloatArray, weights: FloatArray, observed: float, slack: float, method: str
) -> Tails:
    upper = float(weights[sums >= observed - slack].sum())
    lower = float(weights[sums <= observed + slack].sum())
    return Tails(min(upper, 1.0), min(lower, 1.0), method)


def _extreme(blocks: list[_Block], observed: float, slack: float) -> Tails | None:
    """Returns the exact tails when the observed sum is the largest or smallest possible."""
    for sign in (1, -1):
        ways, best = 1.0, 0.0
        for block in blocks:
            ranked = np.sort(sign * block.u)[::-1]
            best += float(ranked[: block.n_drawn].sum())
            edge = ranked[block.n_drawn - 1]
            tied = int(np.isclose(ranked, edge, rtol=0, atol=slack).sum())
            needed = int(np.isclose(ranked[: block.n_drawn], edge, rtol=0, atol=slack).sum())
            ways *= math.comb(tied, needed) / block.n_assignments
        if sign * observed >= best - slack:
            tails = (ways, 1.0) if sign == 1 else (1.0, ways)
            return Tails(*tails, "permutation, exact (the extreme assignment)")
    return None


def _sampled(
    blocks: list[_Block], observed: float, slack: float, rng: np.random.Generator
) -> Tails:
    if abs(observed) > FAR * math.sqrt(sum(block.variance for block in blocks)):
        return _saddlepoint(blocks, observed, 1 if observed > 0 else -1)
    n_units = sum(len(block.u) for block in blocks)
    draws = int(np.clip(_WORK // n_units, MIN_DRAWS, MAX_DRAWS))
    key = int(rng.integers(2**63))
    sums = np.zeros(draws)
    for number, block in enumerate(blocks):
        sums += _random_sums(block, draws, (key, number))
    above = int((sums >= observed - slack).sum())
    below = int((sums <= observed + slack).sum())
    sign = 1 if above <= below else -1
    if min(above, below) >= FEWEST_REACHING or sign * observed <= slack:
        monte_carlo = f"permutation, Monte Carlo ({draws} draws)"
        return Tails((1 + above) / (1 + draws), (1 + below) / (1 + draws), monte_carlo)
    return _saddlepoint(blocks, observed, sign)


def _saddlepoint(blocks: list[_Block], observed: float, sign: int) -> Tails:
    tail = saddlepoint_tail([(sign * b.u, b.n_drawn) for b in blocks], sign * observed)
    tails = (tail, 1.0) if sign == 1 else (1.0, tail)
    return Tails(*tails, "permutation, saddlepoint tail")


def _random_sums(block: _Block, draws: int, key: tuple[int, int]) -> FloatArray:
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
    rows = max(1, 4_000_000 // n_units)
    for start in range(0, draws, rows):
        keys = rng.random((min(rows, draws - start), n_units), dtype=np.float32)
        yield np.argpartition(keys, n_drawn - 1, axis=1)[:, :n_drawn]


def saddlepoint_tail(blocks: list[tuple[FloatArray, int]], observed: float) -> float:
    """Returns the approximate P(sum >= observed) for draws without replacement within blocks.

    Args:
        blocks: the values of each block, with mean 0, and how many are drawn from it.
        observed: above 0 (the mean) and below the largest possible sum.
    """
    u = np.concatenate([values for values, _ in blocks])
    code = np.repeat(np.arange(len(blocks)), [len(values) for values, _ in blocks])
    drawn = np.array([n for _, n in blocks], dtype=np.float64)
    sizes = np.bincount(code).astype(np.float64)
    unit = float(u.std())
    u, observed = u / unit, observed / unit
    tilt = _tilt(u, code, drawn, observed)
    log_odds = _log_odds(tilt, u, code, drawn)
    base = np.log(drawn / (sizes - drawn))
    rate = float((sizes * np.logaddexp(0, base)).sum() - base @ drawn)
    rate -= float(np.logaddexp(0, log_odds[code] + tilt * u).sum())
    rate += tilt * observed + float(log_odds @ drawn)
    root = math.sqrt(max(2 * rate, 0.0))
    chance = special.expit(log_odds[code] + tilt * u)
    spread = np.bincount(code, chance * (1 - chance))
    cross = np.bincount(code, chance * (1 - chance) * u)
    within = float((chance * (1 - chance) * u * u).sum() - (cross**2 / spread).sum())
    ratio = float(np.log(spread).sum() - np.log(drawn * (sizes - drawn) / sizes).sum())
    scale = tilt * math.sqrt(max(within, 1e-300)) * math.exp(0.5 * ratio)
    if root < 1e-4 or scale <= 0:
        return 0.5
    tail = stats.norm.sf(root) + stats.norm.pdf(root) * (1 / scale - 1 / root)
    return float(np.clip(tail, 0.0, 1.0))


def _tilt(u: FloatArray, code: IntArray, drawn: FloatArray, observed: float) -> float:
    """Returns the tilt under which the expected sum is the observed one."""

    def gap(tilt: float) -> float:
        chance = special.expit(_log_odds(tilt, u, code, drawn)[code] + tilt * u)
        return float(chance @ u) - observed

    high = 1.0
    while gap(high) < 0 and high < 1e6:
        high *= 2
    return float(optimize.brentq(gap, 0.0, high, xtol=1e-12, rtol=1e-10))


def _log_odds(tilt: float, u: FloatArray, code: IntArray, drawn: FloatArray) -> FloatArray:
    """Returns the log-odds per block under which `drawn` units are expected, by bisection."""
    reach = abs(tilt) * float(np.abs(u).max()) + 40.0
    low, high = np.full(len(drawn), -reach), np.full(len(drawn), reach)
    for _ in range(80):
        middle = (low + high) / 2
        too_many = np.bincount(code, special.expit(middle[code] + tilt * u)) > drawn
        high, low = np.where(too_many, middle, high), np.where(too_many, low, middle)
    return np.asarray((low + high) / 2, dtype=np.float64)
