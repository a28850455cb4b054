"""The one row of an experiment that counts, and the correction for there being several.

Primary is the primary metric, the top dose against the holdout, at the last checkpoint: `did` where
that checkpoint has a twin, else `holdout`. Where no item of the experiment is placed and scored
(strings that the run must not hold, test problems that are only asked) there is nothing to
randomise: then it is the difference to the twin (`twin`), else the level. Where there is no holdout
arm it is the scorer's own test of the arm alone, if there is one (`mixctl.evals.pooled`), else the
difference to the twin. Some kinds ask what the run learnt, placed or not (`RunLevelScorer`: poison,
whose attack reaches prompts never placed; forgetting, whose batches nobody randomised): as soon as
there are three baselines of that step, primary is the difference to them. That depends on how many
there are, never on what they give: baselines that do not differ from one another leave its p-value
null. A difference to the twin has a p-value where there are three replicated baselines
(`mixctl.evals.run_level`), and a note says what it rests on.

A scorer without a primary metric has no primary row: all of it is exploratory. Benjamini-Hochberg
runs over the primary rows that have a p-value; where an effect is not found (q above 0.05) the note
says what the design would find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixctl.evals.experiments import Experiment
from mixctl.evals.rows import PRIMARY_FAMILY, Row, joined
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import Described, PooledScorer, RunLevelScorer
from mixctl.evals.stats import planning
from mixctl.evals.stats.replicates import MIN_REPLICATES
from mixctl.evals.verdicts import NOT_FOUND, not_found, verdict_of

NEVER_PLACED = "the items were never placed, so nothing was randomised"
RUN_LEVEL = "what the run learnt beyond its baselines, all experiments together"
NO_HOLDOUT = "no holdout arm to compare with: all that tells this run from its baselines"


def mark_primary(
    experiment: Experiment,
    scorer: Described,
    runs: Sequence[Scored],
    twins: Sequence[Scored],
    rows: list[Row],
) -> list[Row]:
    """Returns the rows with the primary one marked, or with one that says why there is none."""
    metric = next((metric for metric in scorer.metrics if metric.primary), None)
    if not runs or metric is None:
        return rows
    last = runs[-1]
    n_paired = sum(twin.step == last.step for twin in twins)
    paired = n_paired > 0
    arm, absent = _arm(experiment, last, metric.name)
    contrasts = ("twin", "level") if absent else ("did", "holdout")
    contrast = contrasts[0] if paired else contrasts[1]
    wanted = {
        "arm": arm,
        "stratum": None,
        "metric": metric.name,
        "model": "run",
        "checkpoint": last.checkpoint,
        "contrast": contrast,
    }
    extra = NEVER_PLACED if absent else None
    if contrast in ("did", "holdout") and not experiment.is_holdout.any():
        if alone := _alone(scorer, wanted, rows):
            wanted |= alone
        elif paired:
            wanted["contrast"], extra = "twin", NO_HOLDOUT
    elif n_paired >= MIN_REPLICATES and (instead := _run_level(experiment, scorer, wanted, rows)):
        wanted, extra = instead, RUN_LEVEL
    for at, row in enumerate(rows):
        if all(getattr(row, name) == value for name, value in wanted.items()):
            if twins and not paired and row.contrast == "holdout":
                extra = f"no baseline of step {last.step}: not a difference of differences"
            note = joined(row.note, extra)
            rows[at] = replace(row, primary=True, family=PRIMARY_FAMILY, note=note)
            return rows
    return [*rows, _no_primary(experiment, wanted, last)]


def _run_level(
    experiment: Experiment, scorer: Described, wanted: dict[str, Any], rows: Sequence[Row]
) -> dict[str, Any] | None:
    """Returns what names the difference to the baselines, where the scorer asks for it."""
    if not isinstance(scorer, RunLevelScorer):
        return None
    held_out = [arm for arm in experiment.all_arms if arm not in experiment.dosed_arms]
    arms = held_out if scorer.run_level == "held out" else [wanted["arm"]]
    for arm in arms:
        instead = {**wanted, "arm": arm, "contrast": "twin"}
        for row in rows:
            if row.n and all(getattr(row, n) == v for n, v in instead.items()):
                return instead
    return None


def _alone(scorer: Described, wanted: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Returns what names the scorer's own test of the arm alone, where it has one."""
    if not isinstance(scorer, PooledScorer):
        return {}
    tested = {(r.arm, r.checkpoint, r.metric) for r in rows if r.p_value is not None}
    found = (wanted["arm"], wanted["checkpoint"], scorer.alone) in tested
    return {"metric": scorer.alone, "contrast": "level"} if found else {}


def _arm(experiment: Experiment, last: Scored, metric: str) -> tuple[str | None, bool]:
    """Returns the arm that counts, and whether all items that have the metric are never placed."""
    scored = np.isfinite(last.values[metric])
    if not scored.any() or not experiment.is_holdout[scored].all():
        return experiment.top_arm(last.step), False
    names, counts = np.unique(experiment.arms[scored], return_counts=True)
    return str(names[counts.argmax()]), True


def _no_primary(experiment: Experiment, wanted: Mapping[str, Any], last: Scored) -> Row:
    arm = wanted["arm"]
    reason = "no arm with copies" if arm is None else "no holdout arm to compare with"
    row = experiment.row(arm or experiment.all_arms[-1], wanted["metric"], last, wanted["contrast"])
    return replace(row, primary=True, family=PRIMARY_FAMILY, note=reason)


def with_q_values(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with Benjamini-Hochberg q-values over the primary p-values."""
    chosen = [at for at, row in enumerate(rows) if row.primary and row.p_value is not None]
    adjusted = planning.q_values([float(rows[at].p_value or 0.0) for at in chosen])
    result = list(rows)
    for at, q_value in zip(chosen, adjusted, strict=True):
        row = replace(result[at], q_value=q_value)
        missed = verdict_of(row) == NOT_FOUND
        result[at] = replace(row, note=joined(row.note, not_found(row) if missed else None))
    return result
