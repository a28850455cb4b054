"""Which row counts for kinds that ask what the run learnt; and what is said of no effect."""

from __future__ import annotations

import numpy as np
import pytest

from mixctl.evals.estimation import estimate
from mixctl.evals.experiments import read_experiments
from mixctl.evals.primary import with_q_values
from mixctl.evals.rows import Row
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import Metric
from mixctl.evals.scorers.base_data import ForgettingScorer
from mixctl.evals.scorers.poison import AttackScorer
from mixctl.shards.record import read_record
from tests.evals import tiny


class _Plain:
    kind, version, membership = "plain", 1, None
    metrics = (Metric("effect", primary=True),)


class _Across(_Plain):
    run_level = "held out"


class _Placed(_Plain):
    run_level = "placed"


@pytest.fixture
def experiment(tmp_path):
    items = tiny.documents({"none": (4, 0), "x1": (4, 1), "x3": (4, 3)})
    build = tiny.make_build(tmp_path / "build", {"attack": ("poison", items)})
    return read_experiments(build, read_record(build))[0]


def scored(experiment, model, level, holdout):
    """Returns scores at step 10: one level for placed items, one for the holdout, and noise."""
    noise = np.random.default_rng(3).normal(size=len(experiment.items)) * 0.01
    values = np.where(experiment.is_holdout, holdout, level) + noise
    return Scored(model, f"{model}-{level}", 10, {"effect": values}, {})


def primary(experiment, scorer, n_twins):
    """Returns the primary row where the attack reaches all items: 5 in the run, 0 in twins."""
    run = scored(experiment, "run", 5.0, 5.0)
    twins = [scored(experiment, "twin", level, level) for level in (0.0, 0.1, -0.1)[:n_twins]]
    (row,) = [row for row in estimate(experiment, scorer, [run], twins) if row.primary]
    return row


def test_what_reaches_items_never_placed_is_found_with_three_twins(experiment):
    row = primary(experiment, _Across(), 3)
    assert (row.contrast, row.arm, row.model) == ("twin", "none", "run")
    assert row.estimate == pytest.approx(5.0) and row.p_value < 0.01
    # t by hand: 5 / (0.1 sqrt(4/3)), 2 degrees of freedom
    t = 5 / (0.1 * np.sqrt(4 / 3))
    assert row.p_value == pytest.approx(1 - t / np.sqrt(2 + t * t), rel=1e-6)
    assert "what the run learnt beyond its baselines" in row.note


def test_three_twins_without_spread_leave_it_without_a_p_value(experiment):
    run = scored(experiment, "run", 5.0, 5.0)
    twins = [scored(experiment, "twin", 0.0, 0.0)] * 3
    (row,) = [row for row in estimate(experiment, _Across(), [run], twins) if row.primary]
    assert (row.contrast, row.arm, row.p_value) == ("twin", "none", None)
    assert row.estimate == pytest.approx(5.0)
    assert "no p-value: the 3 baselines do not differ from one another in it" in row.note


@pytest.mark.parametrize("n_twins", [1, 2])
def test_with_fewer_twins_it_is_the_difference_of_differences(experiment, n_twins):
    row = primary(experiment, _Across(), n_twins)
    assert (row.contrast, row.arm) == ("did", "x3")
    assert row.estimate == pytest.approx(0.0, abs=1e-9)  # blind to what reaches all items


def test_the_placed_items_where_the_scorer_asks_for_them(experiment):
    row = primary(experiment, _Placed(), 3)
    assert (row.contrast, row.arm) == ("twin", "x3")


def test_other_kinds_keep_the_difference_of_differences(experiment):
    assert primary(experiment, _Plain(), 3).contrast == "did"


def test_the_kinds_that_ask():
    assert AttackScorer("denial", True, True).run_level == "held out"
    assert ForgettingScorer().run_level == "placed"


def _row(name, p_value, mde, estimate=0.1):
    made = Row(name, "k", "a", 1.0, None, "m", "run", "c", 1, "did", primary=True, note="so")
    return Row(**{**made.__dict__, "p_value": p_value, "mde": mde, "estimate": estimate})


def test_what_is_not_found_says_what_the_design_finds():
    given = [
        _row("a", 1e-4, 0.2),
        _row("b", 0.04, 0.25),
        _row("c", 0.9, None),
        _row("d", None, 1.0),
        _row("e", 0.5, 0.25),
        _row("f", 0.06, 0.25, estimate=-0.3),
    ]
    found = with_q_values(given)
    assert [row.note for row in found] == [
        "so",
        "so; p 0.04 does not survive the correction for many tests; in a single one the design "
        "finds 0.250 or more",
        "so; not found; smallest detectable effect unknown: too few holdout items, or they have "
        "no spread",
        "so",
        "so; not detectable at this size: the design finds 0.250 or more",
        "so; not found, although the design should find 0.250 or more",
    ]
    assert found[1].q_value == pytest.approx(0.1)
