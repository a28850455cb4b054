"""TPR at 1% FPR and exposure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixctl.evals.stats import membership
from mixctl.evals.stats.streams import stream


def test_tpr_by_hand():
    holdout = np.arange(1000.0)  # ten of them, 990 .. 999, may lie above the threshold 989
    arm = np.array([500.0, 989.0, 990.0, 2000.0])
    assert membership.tpr_at_fpr(arm, holdout) == 0.5
    assert (holdout > 989).mean() == 0.01


def test_fast_bootstrap_has_the_law_of_the_plain_one():
    rng = np.random.default_rng(0)
    arm, holdout = rng.normal(1, 1, 200), rng.normal(0, 1, 1000)
    alone = (np.arange(200), np.arange(1000))
    fast = membership._fast(arm, holdout, stream("fast"))
    plain = membership._slow(arm, holdout, alone, stream("plain"))
    assert fast.mean() == pytest.approx(plain.mean(), abs=0.01)
    assert fast.std() == pytest.approx(plain.std(), rel=0.15)
    # The threshold is re-drawn: wider than the binomial spread of the arm alone.
    rate = membership.tpr_at_fpr(arm, holdout)
    assert fast.std() > 1.1 * math.sqrt(rate * (1 - rate) / 200)


def test_exposure_by_hand():
    candidates = np.arange(1023.0)
    assert membership.exposure(5000.0, candidates) == 10
    assert membership.exposure(-1.0, candidates) == 0
    assert membership.exposure(1022.0, candidates) == 9  # a tie ranks before the secret


def test_exposure_says_whether_it_is_exact():
    assert membership.exposure_estimator(999, 1000.0) == "exact rank"
    assert membership.exposure_estimator(99, 1000.0) == "rank among 99 sampled candidates"
    assert membership.exposure_estimator(99, None) == "rank among 99 sampled candidates"
