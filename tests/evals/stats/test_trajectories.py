"""Effectivity and retainability against cases computed by hand, and against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from mixctl.evals.stats.trajectories import (
    Kept,
    effectivity,
    kept_after,
    retainability,
    rises,
)


def ints(*values):
    return np.array(values, dtype=np.int64)


def found(exposures, steps, window=50):
    return [(r.before, r.after.tolist()) for r in rises(ints(*exposures), ints(*steps), window)]


def test_the_example_of_the_module():
    steps, exposures = ints(10, 20, 30), ints(15)
    values = np.array([-9.0, -4.0, -6.0])
    assert effectivity(values[None], rises(exposures, steps)).tolist() == [5.0]
    assert kept_after(values, exposures, steps, 10) == Kept(gained=5.0, left=3.0)
    ratio, residuals = retainability([Kept(5.0, 3.0)])
    assert ratio == pytest.approx(3 / 5) and residuals == pytest.approx([0.0])


def test_a_checkpoint_of_the_step_itself_holds_the_copy():
    """step-15 holds what was placed at step 15; step-14 does not."""
    assert found([15], [14, 15]) == [(0, [1])]
    assert found([15], [15, 16]) == []  # nothing before it
    assert found([15], [14]) == []  # nothing after it


def test_the_window_has_50_steps_on_both_sides():
    assert found([100], [50, 149]) == [(0, [1])]
    assert found([100], [50, 150]) == []
    assert found([100], [49, 149]) == []
    assert found([100], [50, 149], window=20) == []


def test_an_exposure_whose_rise_is_not_its_own_is_left_out():
    # 30 and 35 lie between two checkpoints: neither has a rise of its own
    assert found([30, 35], [20, 40]) == []
    # the peak of 30 is looked for before 45 only
    assert found([30, 45], [20, 40, 60]) == [(0, [1]), (1, [2])]
    # a checkpoint at the step of the earlier exposure holds it
    assert found([30, 45], [20, 30, 60]) == [(0, [1]), (1, [2])]


def test_checkpoints_every_50_steps_tell_exposures_100_apart():
    steps = range(50, 1001, 50)
    for first in range(51, 151):
        exposures = list(range(first, 951, 100))
        assert len(found(exposures, steps)) == len(exposures)


def test_the_peak_is_the_largest_and_exposures_are_averaged():
    steps = ints(0, 10, 20, 30, 100, 110, 120)
    values = np.array([[-8.0, -5.0, -3.0, -4.0, -6.0, -5.0, -5.5], [0, 1, 0, 0, 0, 0, 3.0]])
    of = rises(ints(5, 105), steps)
    assert [(r.before, r.after.tolist()) for r in of] == [(0, [1, 2, 3]), (4, [5, 6])]
    assert effectivity(values, of) == pytest.approx([(5 + 1) / 2, (1 + 3) / 2])


@pytest.mark.parametrize("seed", range(20))
def test_with_every_step_saved_it_is_the_definition(seed):
    """Equation 3 at its own resolution, for exposures more than a window apart."""
    rng = np.random.default_rng(seed)
    values, exposures = rng.normal(size=401), np.array([20, 150, 300])
    expected = [values[e : e + 50].max() - values[e - 1] for e in exposures]
    steps = np.arange(401)
    assert effectivity(values[None], rises(exposures, steps)) == pytest.approx(np.mean(expected))
    peak = 300 + int(values[300:350].argmax())
    for lag in (10, 30):
        kept = kept_after(values, exposures, steps, lag)
        assert kept.gained == pytest.approx(values[peak] - values[19])
        assert kept.left == pytest.approx(values[peak + lag] - values[19])


def test_a_lag_is_met_within_a_fifth():
    steps, values = ints(90, 100, 185), np.array([0.0, 4.0, 1.0])
    assert kept_after(values, ints(95), steps, 100) == Kept(4.0, 1.0)  # 85 steps later
    assert kept_after(values, ints(95), ints(90, 100, 179), 100) is None
    assert kept_after(values, ints(95), steps, 10) is None  # nothing is after the peak there
    assert kept_after(values, ints(89), steps, 100) is None  # nothing before the first copy
    assert kept_after(values, ints(), steps, 100) is None


def test_retainability_is_the_ratio_of_sums_and_its_residuals_add_up_to_nothing():
    ratio, residuals = retainability([Kept(4.0, 1.0), Kept(0.0, 1.0), Kept(-1.0, 1.0)])
    assert ratio == pytest.approx(1.0)
    assert residuals == pytest.approx([-1.0, 1 / 3, 2 / 3])
    assert retainability([Kept(1.0, 1.0), Kept(-1.0, 0.0)]) is None
