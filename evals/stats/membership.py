"""Membership at a low false-positive rate, and exposure.

TPR at 1% FPR: the threshold is the holdout score that at most 1% of holdout items exceed; the
estimate is the share of the arm above it. The bootstrap re-draws the threshold too, since with few
holdout items that is where the uncertainty lies. Below 1,000 holdout items it is 'not resolvable'.

Exposure of a secret (Carlini et al. 2019): log2 of the number of possible secrets minus log2 of the
rank of this one among them. Exact when the candidates are all of the space; from a sample of m
candidates it is log2((m + 1) / rank among them), which cannot exceed log2(m + 1).

    a secret that beats all of 1,023 candidates -> 10 bits
"""

from __future__ import annotations

import math

import numpy as np

from mixctl.evals.stats.arms import FloatArray, IntArray, codes
from mixctl.evals.stats.intervals import Interval

MIN_HOLDOUT = 1_000
FALSE_POSITIVE_RATE = 0.01
REPLICATES = 1_999


def tpr_at_fpr(arm: FloatArray, holdout: FloatArray, rate: float = FALSE_POSITIVE_RATE) -> float:
    """Returns the share of the arm above what at most `rate` of the holdout exceed."""
    allowed = math.floor(rate * len(holdout) + 1e-9)
    threshold = np.sort(holdout)[len(holdout) - 1 - allowed]
    return float((arm > threshold).mean())


def tpr_interval(
    arm: FloatArray,
    holdout: FloatArray,
    clusters: tuple[IntArray, IntArray],
    rng: np.random.Generator,
) -> Interval:
    """Returns the bootstrap interval of the TPR at 1% FPR, arm and threshold re-drawn by cluster.

    A bootstrap sample is n uniform draws from the observed items, so its order statistics follow
    Beta laws and the threshold is drawn without building the sample; items in clusters are re-drawn
    one sample at a time.
    """
    alone = all(len(np.unique(c)) == len(c) for c in clusters)
    rates = _fast(arm, holdout, rng) if alone else _slow(arm, holdout, clusters, rng)
    low, high = np.quantile(rates, [0.025, 0.975])
    return Interval(float(rates.std(ddof=1)), float(low), float(high))


def _fast(arm: FloatArray, holdout: FloatArray, rng: np.random.Generator) -> FloatArray:
    n_holdout = len(holdout)
    allowed = math.floor(FALSE_POSITIVE_RATE * n_holdout + 1e-9)
    quantile = rng.beta(n_holdout - allowed, allowed + 1, size=REPLICATES)
    position = np.minimum((quantile * n_holdout).astype(np.int64), n_holdout - 1)
    above = len(arm) - np.searchsorted(np.sort(arm), np.sort(holdout)[position], side="right")
    return rng.binomial(len(arm), above / len(arm)) / len(arm)


def _slow(
    arm: FloatArray,
    holdout: FloatArray,
    clusters: tuple[IntArray, IntArray],
    rng: np.random.Generator,
) -> FloatArray:
    groups = [_members(of) for of in clusters]
    rates = []
    for _ in range(REPLICATES // 4):
        drawn = [
            np.concatenate([group[i] for i in rng.integers(len(group), size=len(group))])
            for group in groups
        ]
        rates.append(tpr_at_fpr(arm[drawn[0]], holdout[drawn[1]]))
    return np.array(rates)


def _members(clusters: IntArray) -> list[IntArray]:
    of = codes(clusters)
    order = np.argsort(of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(of))[:-1])


def exposure(secret: float, candidates: FloatArray) -> float:
    """Returns log2((m + 1) / rank) of a secret among m candidates; ties rank before it."""
    rank = 1 + int((candidates >= secret).sum())
    return math.log2((len(candidates) + 1) / rank)


def exposure_estimator(n_candidates: int, space_size: float | None) -> str:
    """Returns the name of the estimator: exact when the candidates and the secret are all of R."""
    if space_size is not None and n_candidates + 1 >= space_size:
        return "exact rank"
    return f"rank among {n_candidates} sampled candidates"
