"""Populations whose truth is known: how often do the intervals hold it?

Means and differences of normal, skewed and heavy-tailed values, shares near 0, 1/2 and 1 with
clusters, AUC up to 0.99, TPR from 0.01 to 0.99: small arms, unbalanced ones, clusters of several
items. Every line promises a coverage: skewness that a dozen items cannot show costs some of the
95%, and the table says how much.

Price: some milliseconds a sample; 70 lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.calibration.table import Covered
from mixctl.evals.stats import intervals, membership
from mixctl.evals.stats.arms import TwoArms, two_arms
from mixctl.evals.stats.intervals import Interval
from mixctl.evals.stats.streams import stream

FloatArray = npt.NDArray[np.float64]
Rng = np.random.Generator
SOURCE = "known populations"


@dataclass(frozen=True)
class Law:
    """A law of values: how they are drawn, their mean, and the coverage promised for it."""

    draw: Callable[[Rng, int], FloatArray]
    mean: float
    least: float


LAWS = {
    "normal": Law(lambda rng, n: rng.normal(size=n), 0.0, 0.94),
    "Student's t, 3 freedom": Law(lambda rng, n: rng.standard_t(3, size=n), 0.0, 0.93),
    "exponential": Law(lambda rng, n: rng.exponential(size=n), 1.0, 0.93),
    "Beta(1/2, 5)": Law(lambda rng, n: rng.beta(0.5, 5, size=n), 0.5 / 5.5, 0.92),
    "lognormal": Law(lambda rng, n: rng.lognormal(size=n), math.exp(0.5), 0.88),
}
MEANS = (8, 12, 24, 48)
ARMS = ((4, 40), (8, 40), (12, 12), (24, 48), (120, 60))
SHARES = ((0.5, 0.5), (0.1, 0.1), (0.02, 0.02), (0.9, 0.3), (0.98, 0.05))
SHARE_ARMS = ((12, 24, 1), (24, 24, 3), (48, 96, 4))
AUCS = (0.5, 0.8, 0.95, 0.99)
RATES = (0.01, 0.3, 0.99)


def known(n_samples: int) -> Iterator[Covered]:
    """Yields the lines of all populations, each of so many samples."""
    for name, method, least, sample in [*_of_laws(), *_of_shares(), *_of_membership()]:
        yield _line(name, method, least, n_samples, sample)


_Asked = tuple[str, str, float, "Sample"]
"""population, interval, promised coverage, how a sample is drawn"""


def _of_laws() -> Iterator[_Asked]:
    for name, law in LAWS.items():
        for n in MEANS:
            yield f"mean of {n}, {name}", "mean", law.least, _mean(law, n)
        for n_arm, n_holdout in ARMS:
            title = f"{n_arm} against {n_holdout}, {name}"
            yield title, "difference", 0.93, _difference(law, n_arm, n_holdout)


def _of_shares() -> Iterator[_Asked]:
    for n_arm, n_holdout, size in SHARE_ARMS:
        of = f" in clusters of {size}" if size > 1 else ""
        for shares in SHARES:
            title = f"{shares[0]} of {n_arm} and {shares[1]} of {n_holdout}{of}"
            draw = _shares(shares, n_arm, n_holdout, size)
            yield title, "difference of shares (Newcombe)", 0.91, draw
            title = f"{shares[0]} of {n_arm}{of}"
            yield title, "share (Wilson)", 0.9, _share(shares[0], n_arm, size)


def _of_membership() -> Iterator[_Asked]:
    for n_arm, n_holdout in ((8, 40), (12, 12), (40, 40)):
        for auc in AUCS:
            yield f"{auc}, {n_arm} against {n_holdout}", "AUC", 0.93, _auc(auc, n_arm, n_holdout)
    for n_arm in (8, 60, 200):
        for rate in RATES:
            yield f"{rate}, {n_arm} against 1040", "TPR at 1% FPR", 0.93, _tpr(rate, n_arm)


Sample = Callable[[Rng, int], tuple[Interval, float]]


def _line(name: str, method: str, least: float, n_samples: int, sample: Sample) -> Covered:
    rng = np.random.default_rng([len(name), *name.encode()])
    covered = missing = 0
    for number in range(n_samples):
        found, truth = sample(rng, number)
        if found.low is None or found.high is None:
            missing += 1
        else:
            covered += int(found.low <= truth <= found.high)
    return Covered(SOURCE, name, method, n_samples - missing, covered, missing, least)


def _mean(law: Law, n: int) -> Sample:
    def sample(rng: Rng, number: int) -> tuple[Interval, float]:
        strata = np.zeros(n, np.int64)
        values = law.draw(rng, n)
        names = stream("mean", number % 50)
        return intervals.mean_interval(values, strata, np.arange(n), names), law.mean

    return sample


def _arms(values: FloatArray, n_arm: int, size: int = 1) -> TwoArms:
    treated = np.arange(len(values)) < n_arm
    clusters = np.arange(len(values)) // size
    return two_arms(values, treated, np.zeros(len(values), np.int64), clusters)


def _difference(law: Law, n_arm: int, n_holdout: int) -> Sample:
    def sample(rng: Rng, number: int) -> tuple[Interval, float]:
        arms = _arms(law.draw(rng, n_arm + n_holdout), n_arm)
        return intervals.difference_interval(arms, stream("difference", number % 50)), 0.0

    return sample


def _clustered(rng: Rng, n: int, share: float, size: int) -> FloatArray:
    """Returns 0/1 values with this mean; half of the items follow their cluster."""
    together = np.repeat(rng.random(n // size) < share, size)
    alone = rng.random(n) < share
    return np.where(rng.random(n) < 0.5, together, alone).astype(np.float64)


def _shares(shares: tuple[float, float], n_arm: int, n_holdout: int, size: int) -> Sample:
    def sample(rng: Rng, number: int) -> tuple[Interval, float]:
        sides = [
            _clustered(rng, n, share, size)
            for n, share in zip((n_arm, n_holdout), shares, strict=True)
        ]
        arms = _arms(np.concatenate(sides), n_arm, size)
        return intervals.share_difference_interval(arms), shares[0] - shares[1]

    return sample


def _share(share: float, n: int, size: int) -> Sample:
    def sample(rng: Rng, number: int) -> tuple[Interval, float]:
        values = _clustered(rng, n, share, size)
        return intervals.share_interval(values, np.arange(n) // size), share

    return sample


def _auc(auc: float, n_arm: int, n_holdout: int) -> Sample:
    shift = math.sqrt(2) * float(special.ndtri(auc))

    def sample(rng: Rng, number: int) -> tuple[Interval, float]:
        values = rng.normal(size=n_arm + n_holdout) + shift * (np.arange(n_arm + n_holdout) < n_arm)
        return intervals.auc_interval(_arms(values, n_arm), stream("auc", number % 50)), auc

    return sample


def _tpr(rate: float, n_arm: int) -> Sample:
    shift = float(special.ndtri(0.99) - special.ndtri(1 - rate))

    def sample(rng: Rng, number: int) -> tuple[Interval, float]:
        arm, holdout = rng.normal(shift, 1, n_arm), rng.normal(size=1040)
        clusters = (np.arange(n_arm), np.arange(1040))
        return membership.tpr_interval(arm, holdout, clusters, stream("tpr", number)), rate

    return sample
