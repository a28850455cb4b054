"""Values per item -> estimates, intervals and tests. One module for all kinds.

- `level`: the arm's mean.
- `holdout`: arm - holdout within a model; randomisation makes its test exact.
- `twin`: run - twin on the same items; an interval conditional on this pair of runs, no p-value.
- `did`: (arm - holdout, run) - (arm - holdout, twin), tested on the items' run - twin differences;
  the primary estimate wherever there is a twin.

A twin gets its own level and holdout rows (`model` = twin): the negative control. Membership
metrics (AUC, TPR at 1% FPR) are contrasts by themselves: `holdout` on a model's scores, `did` on
the items' run - twin differences.

Primary is one row an experiment: the primary metric, the top dose against the holdout, at the last
checkpoint; did where that checkpoint has a twin. Benjamini-Hochberg runs over those rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixctl.evals.experiments import BoolArray, Experiment
from mixctl.evals.rows import PRIMARY_FAMILY, Row
from mixctl.evals.scorers.base import FloatArray, Metric, Scorer
from mixctl.evals.stats import arms as two
from mixctl.evals.stats import intervals, membership, permutation, planning, ranks
from mixctl.evals.stats.streams import stream

MIN_STRATUM_ITEMS = 2
CONDITIONAL = "interval conditional on this pair of runs"
GIVEN = "arms were given by the items' rows: the test holds only if they were randomised there"
NO_SPREAD = "no interval: the items have no spread, or there are too few"


@dataclass(frozen=True)
class Scored:
    """An experiment's scores under one checkpoint.

    Attributes:
        model: "run" or "twin".
        checkpoint: its folder.
        step: its step; None when unknown.
        values: metric -> float64 (n_items,), NaN where an item has none.
        estimators: metric -> how its values were had.
    """

    model: str
    checkpoint: str
    step: int | None
    values: Mapping[str, FloatArray]
    estimators: Mapping[str, str]


@dataclass(frozen=True)
class _Task:
    """What is estimated: one metric of one experiment on one array of values."""

    experiment: Experiment
    metric: Metric
    scored: Scored
    values: FloatArray
    contrast: str

    def row(self, arm: str, stratum: str | None, name: str | None = None) -> Row:
        return Row(
            experiment=self.experiment.name,
            kind=self.experiment.kind,
            arm=arm,
            dose=self.experiment.dose(arm, self.scored.step),
            stratum=stratum,
            metric=name or self.metric.name,
            model=self.scored.model,
            checkpoint=self.scored.checkpoint,
            step=self.scored.step,
            contrast=self.contrast,
            note=self.scored.estimators.get(name or self.metric.name),
        )

    def rng(self, row: Row, purpose: str) -> np.random.Generator:
        names = (
            row.experiment,
            row.arm,
            row.stratum,
            row.metric,
            row.model,
            row.contrast,
            row.step,
        )
        return stream(*names, purpose)


def estimate(
    experiment: Experiment, scorer: Scorer, runs: Sequence[Scored], twins: Sequence[Scored]
) -> list[Row]:
    """Returns all rows of an experiment.

    Args:
        experiment: its items and arms.
        scorer: names the metrics.
        runs: scores of the run's checkpoints, in order of step.
        twins: scores of the twins' checkpoints; several of one step are replicates, and the
            differences are taken to their mean.
    """
    rows: list[Row] = []
    for scored in [*runs, *twins]:
        twin = _twin_mean(scored, twins) if scored.model == "run" else None
        for metric in scorer.metrics:
            rows += _metric_rows(experiment, metric, scored, twin, scorer.membership == metric.name)
    return _mark_primary(experiment, scorer, runs, twins, rows)


def _twin_mean(run: Scored, twins: Sequence[Scored]) -> Mapping[str, FloatArray] | None:
    """Returns the twins' mean values at the run's step, or None."""
    paired = [twin.values for twin in twins if twin.step == run.step]
    if not paired:
        return None
    return {name: np.mean([values[name] for values in paired], axis=0) for name in paired[0]}


def _metric_rows(
    experiment: Experiment,
    metric: Metric,
    scored: Scored,
    twin: Mapping[str, FloatArray] | None,
    membership_too: bool,
) -> Iterator[Row]:
    values = scored.values[metric.name]
    if metric.name == "exposure" and not np.isfinite(values).any():
        return
    contrasts = [("level", values), ("holdout", values)]
    if twin is not None:
        change = values - twin[metric.name]
        contrasts += [("twin", change), ("did", change)]
    for contrast, of in contrasts:
        differs = contrast in ("twin", "did")
        task = _Task(
            experiment, replace(metric, share=metric.share and not differs), scored, of, contrast
        )
        if contrast in ("level", "twin"):
            yield from _level_rows(task)
        elif experiment.is_holdout.any():
            yield from _contrast_rows(task)
            if membership_too:
                yield from _membership_rows(task)


def _strata(experiment: Experiment, inside: BoolArray) -> list[str | None]:
    """Returns None (all), then the strata that the items span, if there are several."""
    names = [str(name) for name in np.unique(experiment.strata[inside])]
    return [None, *names] if len(names) > 1 else [None]


def _level_rows(task: _Task) -> Iterator[Row]:
    experiment = task.experiment
    for arm in experiment.all_arms:
        inside = (experiment.arms == arm) & np.isfinite(task.values)
        for stratum in _strata(experiment, inside):
            chosen = inside if stratum is None else inside & (experiment.strata == stratum)
            if stratum is None or chosen.sum() >= MIN_STRATUM_ITEMS:
                yield _level(task, task.row(arm, stratum), chosen)


def _level(task: _Task, row: Row, chosen: BoolArray) -> Row:
    values = task.values[chosen]
    if not len(values):
        return replace(row, note=f"no item of this arm has a value of {row.metric}")
    clusters = two.codes(task.experiment.clusters[chosen])
    if task.metric.share:
        found = intervals.share_interval(values, clusters)
    else:
        strata = two.codes(task.experiment.strata[chosen])
        found = intervals.mean_interval(values, strata, clusters, task.rng(row, "bootstrap"))
    conditional = CONDITIONAL if task.contrast == "twin" else None
    return _with_interval(row, float(values.mean()), found, len(values), conditional)


def _contrast_rows(task: _Task) -> Iterator[Row]:
    for row, sample in _pairs(task, task.metric.name):
        yield _difference(task, row, sample)


def _pairs(task: _Task, name: str) -> Iterator[tuple[Row, two.TwoArms]]:
    """Yields a row to fill and its two arms, for every dosed arm and comparable stratum."""
    experiment = task.experiment
    for arm in experiment.dosed_arms:
        inside = (experiment.arms == arm) | experiment.is_holdout
        for stratum in _strata(experiment, inside):
            chosen = inside if stratum is None else inside & (experiment.strata == stratum)
            sample = _sample(task, arm, chosen)
            least = 1 if stratum is None else MIN_STRATUM_ITEMS
            if stratum is None or min(sample.n_treated, sample.n_holdout) >= least:
                row = task.row(arm, stratum, name)
                if experiment.given[chosen].any():
                    row = replace(row, note=_joined(row.note, GIVEN))
                yield row, sample


def _sample(task: _Task, arm: str, chosen: BoolArray) -> two.TwoArms:
    experiment = task.experiment
    return two.two_arms(
        task.values[chosen],
        experiment.arms[chosen] == arm,
        experiment.strata[chosen],
        experiment.clusters[chosen],
    )


def _difference(task: _Task, row: Row, sample: two.TwoArms) -> Row:
    if not sample.n_treated:
        return replace(row, note="no stratum holds items of both the arm and the holdout")
    tails = permutation.permutation_tails(two.difference_units(sample), task.rng(row, "test"))
    if task.metric.share:
        found = intervals.share_difference_interval(sample)
    else:
        found = intervals.difference_interval(sample, task.rng(row, "bootstrap"))
    filled = _with_interval(row, two.difference(sample), found, sample.n_treated, _left_out(sample))
    return replace(
        filled,
        n_holdout=sample.n_holdout,
        p_value=tails.p_value("two"),
        sided="two",
        test=f"arms exchangeable within strata, by cluster: {tails.method}",
        mde=planning.mde_of_difference(sample, task.metric.share),
    )


def _membership_rows(task: _Task) -> Iterator[Row]:
    for row, sample in _pairs(task, "auc"):
        yield _auc(task, row, sample)
    for row, sample in _pairs(task, "tpr_at_1pct_fpr"):
        yield _tpr(task, row, sample)
    if "exposure" in task.scored.values and task.contrast == "holdout":
        if not np.isfinite(task.scored.values["exposure"]).any():
            yield from _holdout_exposure(task)


def _auc(task: _Task, row: Row, sample: two.TwoArms) -> Row:
    if not sample.n_treated:
        return replace(row, note="no stratum holds items of both the arm and the holdout")
    tails = ranks.mann_whitney(sample, task.rng(row, "test"))
    found = intervals.auc_interval(sample, task.rng(row, "bootstrap"))
    filled = _with_interval(row, ranks.auc(sample), found, sample.n_treated, _left_out(sample))
    return replace(
        filled,
        n_holdout=sample.n_holdout,
        p_value=tails.p_value("greater"),
        sided="greater",
        test=f"arm not above holdout (AUC 0.5) within strata, by cluster: {tails.method}",
        mde=planning.mde_of_auc(sample.n_treated, sample.n_holdout),
    )


def _tpr(task: _Task, row: Row, sample: two.TwoArms) -> Row:
    row = replace(row, n=sample.n_treated, n_holdout=sample.n_holdout)
    if sample.n_holdout < membership.MIN_HOLDOUT or not sample.n_treated:
        return replace(
            row,
            note=f"not resolvable: {sample.n_holdout} holdout items, "
            f"{membership.MIN_HOLDOUT} are needed",
        )
    inside = sample.treated
    arm, holdout = sample.values[inside], sample.values[~inside]
    clusters = (sample.clusters[inside], sample.clusters[~inside])
    found = membership.tpr_interval(arm, holdout, clusters, task.rng(row, "bootstrap"))
    rate = membership.tpr_at_fpr(arm, holdout)
    return _with_interval(row, rate, found, len(arm), _left_out(sample))


def _holdout_exposure(task: _Task) -> Iterator[Row]:
    """Yields exposures estimated from the holdout where the items have no candidates."""
    level = replace(task, contrast="level")
    for row, sample in _pairs(level, "exposure"):
        scores = _exposures(sample)
        if not len(scores):
            continue
        inside = sample.treated
        found = intervals.mean_interval(
            scores, sample.strata[inside], sample.clusters[inside], task.rng(row, "bootstrap")
        )
        note = (
            f"estimated: rank among the {sample.n_holdout} holdout items (of the item's stratum), "
            "which are held fixed"
        )
        filled = _with_interval(row, float(scores.mean()), found, len(scores), note)
        yield replace(filled, n_holdout=sample.n_holdout)


def _exposures(sample: two.TwoArms) -> FloatArray:
    found = []
    for value, stratum in zip(
        sample.values[sample.treated], sample.strata[sample.treated], strict=True
    ):
        others = sample.values[~sample.treated & (sample.strata == stratum)]
        found.append(membership.exposure(float(value), others))
    return np.array(found)


def _left_out(sample: two.TwoArms) -> str | None:
    if not sample.left_out:
        return None
    return f"{sample.left_out} items left out: their stratum is missing in one of the arms"


def _with_interval(
    row: Row, estimate: float, found: intervals.Interval, n: int, note: str | None
) -> Row:
    missing = NO_SPREAD if found.low is None else None
    return replace(
        row,
        estimate=estimate,
        se=found.se,
        ci_low=found.low,
        ci_high=found.high,
        n=n,
        note=_joined(row.note, note, missing),
    )


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def _mark_primary(
    experiment: Experiment,
    scorer: Scorer,
    runs: Sequence[Scored],
    twins: Sequence[Scored],
    rows: list[Row],
) -> list[Row]:
    """Returns the rows with the primary one marked, or with one that says why there is none."""
    if not runs:
        return rows
    last = runs[-1]
    metric = next(metric for metric in scorer.metrics if metric.primary)
    contrast = "did" if any(twin.step == last.step for twin in twins) else "holdout"
    wanted = {
        "arm": experiment.top_arm(last.step),
        "stratum": None,
        "metric": metric.name,
        "model": "run",
        "checkpoint": last.checkpoint,
        "contrast": contrast,
    }
    for at, row in enumerate(rows):
        if all(getattr(row, name) == value for name, value in wanted.items()):
            extra = None
            if twins and contrast == "holdout":
                extra = f"no baseline of step {last.step}: not a difference of differences"
            note = _joined(row.note, extra)
            rows[at] = replace(row, primary=True, family=PRIMARY_FAMILY, note=note)
            return rows
    return [*rows, _no_primary(experiment, wanted, last)]


def _no_primary(experiment: Experiment, wanted: Mapping[str, Any], last: Scored) -> Row:
    arm = wanted["arm"]
    reason = "no arm with copies" if arm is None else "no holdout arm to compare with"
    return Row(
        experiment=experiment.name,
        kind=experiment.kind,
        arm=arm or experiment.all_arms[-1],
        dose=experiment.dose(arm or experiment.all_arms[-1], last.step),
        stratum=None,
        metric=wanted["metric"],
        model="run",
        checkpoint=last.checkpoint,
        step=last.step,
        contrast=wanted["contrast"],
        primary=True,
        family=PRIMARY_FAMILY,
        note=reason,
    )


def with_q_values(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with Benjamini-Hochberg q-values over the primary p-values."""
    chosen = [at for at, row in enumerate(rows) if row.primary and row.p_value is not None]
    adjusted = planning.q_values([float(rows[at].p_value or 0.0) for at in chosen])
    result = list(rows)
    for at, q_value in zip(chosen, adjusted, strict=True):
        result[at] = replace(result[at], q_value=q_value)
    return result
