"""The rows of effectivity and retainability: what is compared, and what cannot be had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixctl.evals.experiments import read_experiments
from mixctl.evals.rows import GIVEN
from mixctl.evals.scored import Scored
from mixctl.evals.trajectories import trajectory_rows
from mixctl.shards.record import read_record
from tests.evals import tiny

N_TAUGHT, N_HELD = 6, 8


@pytest.fixture
def experiment(tmp_path):
    """Returns facts: six placed at steps 3 and 7 (one of them at 4 and 7), eight held out."""
    items = tiny.documents({"holdout": (N_HELD, 0), "x2": (N_TAUGHT, 2)})
    for item in items:
        item.steps = [3, 7] if item.steps else []
    items[-1].steps = [4, 7]
    build = tiny.make_build(tmp_path / "build", {"facts": ("knowledge", items)})
    (found,) = read_experiments(build, read_record(build))
    return found


def scored(experiment, values, model="run"):
    """Returns scores of checkpoints: step -> value of the placed items; holdout items have 0.5."""
    out = []
    for step, value in values.items():
        of = np.where(experiment.is_holdout, 0.5, value)
        of = of + np.arange(len(of)) * 1e-3
        out.append(Scored(model.split("/")[-1], f"{model}-{step}", step, {"logprob": of}, {}))
    return out


def rows(experiment, runs, twins=()):
    found = trajectory_rows(experiment, "logprob", runs, twins)
    return {(row.model, row.metric, row.contrast): row for row in found}


def test_level_and_what_is_beyond_the_holdout(experiment):
    course = {2: 0.0, 3: 1.0, 4: 2.0, 6: 1.0, 7: 4.0, 10: 3.0}
    twin = {2: 0.0, 3: 0.25, 4: 0.25, 6: 0.25, 7: 0.25, 10: 0.25}
    found = rows(experiment, scored(experiment, course), scored(experiment, twin, "twin"))
    level = found["run", "effectivity", "level"]
    # at 3: from step 2 to the best of 3, 4, 6; at 4: from step 3; at 7: from 6 to the best of 7, 10
    assert level.estimate == pytest.approx((5 * (2 + 3) / 2 + (1 + 3) / 2) / 6)
    assert (level.n, level.step, level.arm, level.dose) == (6, 10, "x2", 2.0)
    assert level.note == "12 of 12 exposures have checkpoints around them"
    assert level.ci_low < level.estimate < level.ci_high and level.p_value is None
    beyond = found["run", "effectivity", "holdout"]
    assert beyond.estimate == pytest.approx(level.estimate)  # the holdout does not move
    assert (beyond.n, beyond.n_holdout, beyond.primary) == (6, 8, False)
    assert found["twin", "effectivity", "level"].estimate == pytest.approx((5 * 0.125) / 6)


def test_a_drift_of_all_items_is_no_effect(experiment):
    runs = scored(experiment, {2: 0.0, 3: 1.0, 4: 1.0, 6: 1.0, 7: 1.0})
    for one in runs:
        one.values["logprob"][:] = np.arange(14) * 1e-3 + one.step  # all rise by 1 a step
    found = rows(experiment, runs)
    assert found["run", "effectivity", "level"].estimate > 1
    assert found["run", "effectivity", "holdout"].estimate == pytest.approx(0.0, abs=1e-12)


def test_retainability_at_the_lags_there_are(experiment):
    runs = scored(experiment, {2: 1.0, 7: 5.0, 17: 3.0})
    found = rows(experiment, runs)
    kept = found["run", "retainability_10", "level"]
    assert kept.estimate == pytest.approx(0.5) and kept.n == 6
    assert ("run", "retainability_30", "level") not in found
    nothing = rows(experiment, scored(experiment, {2: 5.0, 7: 3.0, 17: 1.0}))
    row = nothing["run", "retainability_10", "level"]
    assert row.estimate is None and "nothing was gained" in row.note


def test_too_few_checkpoints_are_said(experiment):
    found = rows(experiment, scored(experiment, {10: 1.0}))
    row = found["run", "effectivity", "level"]
    assert row.estimate is None
    assert "0 of 12 exposures" in row.note and "every 50 steps is needed" in row.note
    assert "not resolvable" in found["run", "retainability", "level"].note
    unknown = scored(experiment, {10: 1.0})
    assert rows(experiment, [Scored("run", "c", None, unknown[0].values, {})]) == {}


def test_each_training_has_its_own_trajectory(experiment):
    """Two twins of noise: the mean of their maxima, not the maximum of their mean."""
    first, second = {2: 0.0, 3: 1.0, 4: 0.0, 7: 0.0}, {2: 0.0, 3: 0.0, 4: 1.0, 7: 0.0}
    one = rows(experiment, [], scored(experiment, first, "a/twin"))
    other = rows(experiment, [], scored(experiment, second, "b/twin"))
    twins = [*scored(experiment, first, "a/twin"), *scored(experiment, second, "b/twin")]
    both = rows(experiment, [], twins)["twin", "effectivity", "level"]
    each = [of["twin", "effectivity", "level"].estimate for of in (one, other)]
    assert both.estimate == pytest.approx(np.mean(each)) and both.n == 6
    assert both.note.endswith("around them; mean of 2 trainings")


def test_a_twin_with_fewer_checkpoints_does_not_look_like_a_rise(experiment):
    """The first is flat; the second, a nat higher, is saved at the later step alone."""
    flat, higher = {2: 0.0, 3: 0.0, 4: 0.0, 7: 0.0}, {7: 1.0}
    twins = [*scored(experiment, flat, "a/twin"), *scored(experiment, higher, "b/twin")]
    found = rows(experiment, [], twins)["twin", "effectivity", "level"]
    assert found.estimate == pytest.approx(0.0, abs=1e-12)
    assert found.note.endswith("mean of 1 of 2 trainings, the others tell of fewer")


def test_checkpoints_of_one_folder_and_step_are_not_mixed(experiment):
    steps = {2: 0.0, 3: 1.0, 4: 1.0, 7: 2.0}
    once = scored(experiment, steps, "a/twin")
    alone = rows(experiment, [], once)["twin", "effectivity", "level"]
    same = [*once, *scored(experiment, steps, "a/twin")]  # the same checkpoints: told once
    assert rows(experiment, [], same)["twin", "effectivity", "level"] == alone
    mixed = [*once, *scored(experiment, dict.fromkeys(steps, 5.0), "a/twin")]
    assert "not resolvable" in rows(experiment, [], mixed)["twin", "effectivity", "level"].note


def test_a_resumed_run_is_one_training(experiment):
    before, after = {2: 0.0, 3: 1.0, 4: 1.0}, {6: 1.0, 7: 2.0}
    parts = [*scored(experiment, before, "run"), *scored(experiment, after, "run")]
    parts = [replace(one, checkpoint=f"{one.step // 5}/step-{one.step}") for one in parts]
    whole = rows(experiment, scored(experiment, before | after))["run", "effectivity", "level"]
    assert rows(experiment, parts)["run", "effectivity", "level"].estimate == whole.estimate


def test_retainability_of_replicated_twins_is_their_mean(experiment):
    first, second = {2: 1.0, 7: 5.0, 17: 3.0}, {2: 1.0, 7: 3.0, 17: 3.0}
    twins = [*scored(experiment, first, "a/twin"), *scored(experiment, second, "b/twin")]
    kept = rows(experiment, [], twins)["twin", "retainability_10", "level"]
    assert kept.estimate == pytest.approx((2 + 2) / (4 + 2)) and "mean of 2" in kept.note


def test_beyond_the_holdout_is_standardised_to_the_strata(experiment):
    """Stratum a rises by 1 whether placed or not; the arm has more of it than the holdout."""
    strata = np.where(experiment.is_holdout, "b", "a")
    strata[np.flatnonzero(experiment.is_holdout)[:2]] = "a"
    strata[np.flatnonzero(~experiment.is_holdout)[:2]] = "b"
    given = np.ones(len(strata), dtype=bool)
    stratified = replace(experiment, strata=strata, given=given)
    runs = scored(experiment, {2: 0.0, 3: 0.0, 4: 0.0, 6: 0.0, 7: 0.0})
    for one in runs:
        one.values["logprob"][:] = np.where(strata == "a", float(one.step >= 7), 0.0)
    row = rows(stratified, runs)["run", "effectivity", "holdout"]
    assert row.estimate == pytest.approx(0.0, abs=1e-12)
    assert GIVEN in row.note and "left out" not in row.note
    strata[strata == "b"] = np.where(experiment.is_holdout[strata == "b"], "b", "c")
    row = rows(replace(stratified, strata=strata), runs)["run", "effectivity", "holdout"]
    assert (row.n, row.n_holdout) == (4, 2) and "8 items left out" in row.note
    strata[:] = np.where(experiment.is_holdout, "b", "a")
    row = rows(replace(stratified, strata=strata), runs)["run", "effectivity", "holdout"]
    assert row.estimate is None and "no stratum holds items of both" in row.note
