"""TPR at 1% FPR and exposure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mixctl.evals.stats import membership
from mixctl.evals.stats.streams import stream


def test_tpr_by_hand():
    holdout = np.arange(1000.0)  # ten of them, 990 .. 999, may lie above the threshold 989
    arm = np.array([500.0, 989.0, 990.0, 2000.0])
    assert membership.tpr_at_fpr(arm, holdout) == 0.5
    assert (holdout > 989).mean() == 0.01


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("n_arm", [8, 60])
def test_tpr_interval_covers_near_0_and_1(rate, n_arm):
    """Arm and holdout are normal, so the threshold's law is known; bootstrap counts covered 0.1."""
    rng = np.random.default_rng([n_arm, round(100 * rate)])
    shift = stats.norm.ppf(0.99) - stats.norm.ppf(1 - rate)
    clusters = (np.arange(n_arm), np.arange(1000))
    covered = 0
    for repeat in range(200):
        arm, holdout = rng.normal(shift, 1, n_arm), rng.normal(0, 1, 1000)
        found = membership.tpr_interval(arm, holdout, clusters, stream(repeat, "tpr"))
        covered += found.low <= rate <= found.high
    assert covered / 200 >= 0.9


def test_tpr_interval_knows_the_threshold_and_the_clusters():
    rng = np.random.default_rng(0)
    arm, holdout = rng.normal(1, 1, 200), rng.normal(0, 1, 1000)
    alone = (np.arange(200), np.arange(1000))
    found = membership.tpr_interval(arm, holdout, alone, stream("alone"))
    rate = membership.tpr_at_fpr(arm, holdout)
    # The threshold is drawn anew: wider than the binomial spread of the arm alone.
    assert found.se > 1.1 * math.sqrt(rate * (1 - rate) / 200)
    twice = (np.repeat(arm, 2), np.repeat(holdout, 2))
    pairs = (np.arange(400) // 2, np.arange(2000) // 2)
    again = membership.tpr_interval(*twice, pairs, stream("pairs"))
    assert again.se == pytest.approx(found.se, rel=0.15)  # copies of an item are no news


def test_exposure_by_hand():
    candidates = np.arange(1023.0)
    assert membership.exposure(5000.0, candidates) == 10
    assert membership.exposure(-1.0, candidates) == 0
    assert membership.exposure(1022.0, candidates) == 9  # a tie ranks before the secret


def test_exposure_says_whether_it_is_exact():
    assert membership.exposure_estimator(999, 1000.0) == "exact rank"
    assert membership.exposure_estimator(99, 1000.0) == "rank among 99 sampled candidates"
    assert membership.exposure_estimator(99, None) == "rank among 99 sampled candidates"
