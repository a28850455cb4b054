"""Membership at a low false-positive rate, and exposure.

TPR at 1% FPR: the threshold is the holdout score that at most 1% of holdout items exceed; the
estimate is the share of the arm above it. Its interval draws the threshold anew too, since with few
holdout items that is where the uncertainty lies. Below 1,000 holdout items it is 'not resolvable'.

Exposure of a secret (Carlini et al. 2019): log2 of the number of possible secrets minus log2 of the
rank of this one among them. Exact when the candidates are all of the space; from a sample of m
candidates it is log2((m + 1) / rank among them), which cannot exceed log2(m + 1).

    a secret that beats all of 1,023 candidates -> 10 bits
"""

from __future__ import annotations

import math

import numpy as np

from mixctl.evals.stats.arms import FloatArray, IntArray
from mixctl.evals.stats.intervals import Interval, effective_items

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
    """Returns the interval of the TPR at 1% FPR, with both the threshold and the arm drawn anew.

    The order statistics of n draws follow Beta laws, so the threshold is drawn without building
    samples of the holdout; given the threshold, the rate of the arm has Jeffreys' posterior,
    Beta(above + 1/2, below + 1/2), whose interval holds its rate near 0 and 1 too (Brown, Cai &
    DasGupta 2001), where re-drawn counts never leave 0. Items in clusters count for as many as they
    are worth at the threshold.
    """
    n_holdout = len(holdout)
    allowed = math.floor(FALSE_POSITIVE_RATE * n_holdout + 1e-9)
    ranked = np.sort(holdout)
    threshold = ranked[n_holdout - 1 - allowed]
    worth = [
        effective_items((side > threshold).astype(np.float64), of) / len(side)
        for side, of in zip((arm, holdout), clusters, strict=True)
    ]
    shape = (worth[1] * (n_holdout - allowed), worth[1] * allowed + 1)
    quantile = rng.beta(*shape, size=REPLICATES)
    position = np.minimum((quantile * n_holdout).astype(np.int64), n_holdout - 1)
    above = len(arm) - np.searchsorted(np.sort(arm), ranked[position], side="right")
    rates = rng.beta(worth[0] * above + 0.5, worth[0] * (len(arm) - above) + 0.5)
    low, high = np.quantile(rates, [0.025, 0.975])
    rate = float((arm > threshold).mean())
    ends = (0.0 if rate == 0 else float(low), 1.0 if rate == 1 else float(high))
    return Interval(float(rates.std(ddof=1)), *ends)


def exposure(secret: float, candidates: FloatArray) -> float:
    """Returns log2((m + 1) / rank) of a secret among m candidates; ties rank before it."""
    rank = 1 + int((candidates >= secret).sum())
    return math.log2((len(candidates) + 1) / rank)


def exposure_estimator(n_candidates: int, space_size: float | None) -> str:
    """Returns the name of the estimator: exact when the candidates and the secret are all of R."""
    if space_size is not None and n_candidates + 1 >= space_size:
        return "exact rank"
    return f"rank among {n_candidates} sampled candidates"
