"""ROC curves against their definition, the AUC of the tests and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.evals.stats import ranks, roc
from mixctl.evals.stats.arms import two_arms


def _arms(arm, holdout, strata=None):
    values = np.array([*arm, *holdout], dtype=np.float64)
    treated = np.arange(len(values)) < len(arm)
    labels = ["all"] * len(values) if strata is None else strata
    return two_arms(values, treated, labels, np.arange(len(values)))


def test_hand_made():
    found = roc.curve(_arms([3, 1], [2]))
    assert found.false_rate.tolist() == [0, 0, 1, 1] and found.true_rate.tolist() == [
        0,
        0.5,
        0.5,
        1,
    ]
    tied = roc.curve(_arms([1], [1]))
    assert tied.area == 0.5 and tied.true_rate.tolist() == [0, 0, 1, 1]


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
)
def test_without_strata_it_is_every_threshold_tried(arm, holdout):
    """The usual curve, by its definition: each threshold gives a point, straight lines between."""
    thresholds = [*sorted({*arm, *holdout}, reverse=True)]
    points = [(0.0, 0.0)]
    for threshold in thresholds:
        rates = [np.mean([v >= threshold for v in of]) for of in (holdout, arm)]
        points.append((rates[0], rates[1]))
    found = roc.curve(_arms(arm, holdout))
    for false_rate, true_rate in points:  # each lies on the curve, on a step's side perhaps
        here = found.true_rate[np.isclose(found.false_rate, false_rate, atol=1e-12)]
        between = np.interp(false_rate, found.false_rate, found.true_rate)
        low, high = min([*here, between]), max([*here, between])
        assert low - 1e-9 <= true_rate <= high + 1e-9
    widths = np.diff([p[0] for p in points])
    heights = (np.array([p[1] for p in points])[1:] + np.array([p[1] for p in points])[:-1]) / 2
    assert found.area == pytest.approx(float(widths @ heights), abs=1e-9)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 2)), min_size=2, max_size=30
    )
)
def test_the_area_is_the_auc_of_the_test(rows):
    arms = two_arms(
        np.array([r[0] for r in rows], dtype=np.float64),
        np.array([r[1] for r in rows]),
        [r[2] for r in rows],
        np.arange(len(rows)),
    )
    if not arms.n_treated:
        with pytest.raises(ValueError, match="both the arm and the holdout"):
            roc.curve(arms)
        return
    found = roc.curve(arms)
    assert found.area == pytest.approx(ranks.auc(arms), abs=1e-12)
    assert (np.diff(found.false_rate) >= 0).all() and (np.diff(found.true_rate) >= -1e-12).all()
    assert (found.false_rate[0], found.true_rate[0]) == (0, 0)
    assert (found.false_rate[-1], found.true_rate[-1]) == (1, pytest.approx(1))
