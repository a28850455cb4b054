"""The binomial tail against its sum, and its size when all items are guessed."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from mixctl.evals.stats.chance import p_value


@pytest.mark.parametrize("n_right", [0, 1, 5, 46])
def test_equals_the_sum(n_right):
    share = 1 / 23
    tail = sum(comb(46, k) * share**k * (1 - share) ** (46 - k) for k in range(n_right, 47))
    assert p_value(n_right, 46, share) == pytest.approx(tail, rel=1e-9)


def test_guessing_is_rarely_above_itself():
    guessed = np.random.default_rng(0).binomial(60, 1 / 23, size=20_000)
    found = np.array([p_value(n, 60, 1 / 23) for n in range(61)])[guessed]
    for level in (0.01, 0.05, 0.2):
        assert (found <= level).mean() <= level + 3 * (level / 20_000) ** 0.5
