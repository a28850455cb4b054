"""Randomisation tests: how often would chance alone have dealt the arm a sum like this?

The null is that the arms are exchangeable: within each block of interchangeable clusters every
choice of the arm's clusters was equally likely. The law of the sum T under it is had, in this
order,

    exact        by enumeration, when there are at most 50,000 assignments
    exact        from hypergeometric counts, when the units have few different values (shares)
    exact        when T is the largest (smallest) sum possible: ties / number of assignments
    Monte Carlo  (1 + count) / (1 + draws), which keeps P(p <= a) <= a
    saddlepoint  where fewer than 10 draws reach T, or T lies 6 standard errors out: the conditional
                 tail of Skovgaard (1987, "Saddlepoint expansions for conditional distributions"),
                 with a relative error of some percent

and `method` says which. Two-sided: the smaller tail, and as much of the other one as is no larger
(`mixctl.evals.stats.laws`); where the other tail is not known (extreme, saddlepoint), twice the
tail, which is never less.

    24 items of 24 above all of 24 others -> upper tail 1 / C(48, 24) = 3.1e-14, exact
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from mixctl.evals.stats.arms import FloatArray, IntArray, Units
from mixctl.evals.stats.laws import Block, Law, counted, enumerated, sampled, slack_of

Sided = Literal["two", "greater"]

SMALLEST = float(np.finfo(np.float64).tiny)
"""a probability that is smaller is reported as this, 2.2e-308: a p-value of 0 is never true"""
MAX_ENUMERATED = 50_000
MAX_DRAWS = 9_999
MIN_DRAWS = 999
FEWEST_REACHING = 10
FAR = 6.0
_WORK = 15_000_000


@dataclass(frozen=True)
class Tails:
    """P(sum >= observed) and P(sum <= observed) under the null, the two-sided p-value, and how."""

    upper: float
    lower: float
    both: float
    method: str

    def p_value(self, sided: Sided) -> float:
        """Returns the p-value, one- or two-sided, never below the smallest normal number."""
        return max(self.upper if sided == "greater" else self.both, SMALLEST)


def permutation_tails(units: Units, rng: np.random.Generator) -> Tails:
    """Returns both tails of the sum of u over the arm, under random assignment within blocks."""
    blocks, observed = informative(units)
    if not blocks:
        return Tails(1.0, 1.0, 1.0, "exact: the assignment cannot change the sum")
    found = exact_law(blocks)
    if found is not None:
        law, method = found
        return Tails(*law.tails(observed), method)
    return _extreme(blocks, observed) or _sampled(blocks, observed, rng)


def informative(units: Units) -> tuple[list[Block], float]:
    """Returns the blocks in which the assignment matters, centred, and the sum observed there."""
    blocks, observed = [], 0.0
    for code in np.unique(units.blocks):
        inside = units.blocks == code
        u, n_drawn = units.u[inside], int(units.treated[inside].sum())
        if 0 < n_drawn < len(u) and np.ptp(u) > 1e-12 * np.abs(u).max():
            centred = u - u.mean()
            blocks.append(Block(centred, n_drawn))
            observed += float(centred[units.treated[inside]].sum())
    return blocks, observed


def exact_law(blocks: list[Block]) -> tuple[Law, str] | None:
    """Returns the law of the sum and how it was had, where it can be had exactly."""
    if math.prod(block.n_assignments for block in blocks) <= MAX_ENUMERATED:
        return enumerated(blocks), "permutation, exact"
    law = counted(blocks)
    return None if law is None else (law, "permutation, exact (hypergeometric)")


def _extreme(blocks: list[Block], observed: float) -> Tails | None:
    """Returns the exact tails when the observed sum is the largest or smallest possible."""
    slack = slack_of(blocks)
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
            return _one_tail(ways, sign, "permutation, exact (the extreme assignment)")
    return None


def _one_tail(tail: float, sign: int, method: str) -> Tails:
    """Returns the tails where only the one is known on whose side the observed sum lies."""
    upper, lower = (tail, 1.0) if sign == 1 else (1.0, tail)
    return Tails(upper, lower, min(1.0, 2 * tail), method)


def _sampled(blocks: list[Block], observed: float, rng: np.random.Generator) -> Tails:
    sign = 1 if observed > 0 else -1
    if abs(observed) > FAR * math.sqrt(sum(block.variance for block in blocks)):
        return _saddlepoint(blocks, observed, sign)
    n_units = sum(len(block.u) for block in blocks)
    draws = int(np.clip(_WORK // n_units, MIN_DRAWS, MAX_DRAWS))
    law = sampled(blocks, observed, draws, int(rng.integers(2**63)))
    tails = law.tails(observed)
    reaching = round(min(tails[:2]) * (1 + draws)) - 1
    sign = 1 if tails[0] <= tails[1] else -1
    if reaching >= FEWEST_REACHING or sign * observed <= law.slack:
        return Tails(*tails, f"permutation, Monte Carlo ({draws} draws)")
    return _saddlepoint(blocks, observed, sign)


def _saddlepoint(blocks: list[Block], observed: float, sign: int) -> Tails:
    tail = saddlepoint_tail([(sign * b.u, b.n_drawn) for b in blocks], sign * observed)
    return _one_tail(tail, sign, "permutation, saddlepoint tail")


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
