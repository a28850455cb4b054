"""Values per item -> estimates, intervals and tests. One module for all kinds.

- `level`: the arm's mean.
- `holdout`: arm - holdout within a model; randomisation makes its test exact.
- `twin`: run - twin on the same items. With three or more replicated baselines of the step the
  training is the unit of its test; with fewer there is no p-value (`mixctl.evals.run_level`).
- `did`: (arm - holdout, run) - (arm - holdout, twin), tested on the items' run - twin differences,
  which is exact whatever the twin is. The primary estimate where there are a twin and a holdout;
  which row it is elsewhere, and for poison and forgetting, is said in `mixctl.evals.primary`.

The run is compared with the mean of the baselines of its step.

A twin gets its own level and holdout rows (`model` = twin): the negative control. Membership
metrics (AUC, TPR at 1% FPR) are contrasts by themselves: `holdout` on a model's scores, `did` on
the items' run - twin differences.

The level of a metric that guessing reaches too (`Metric.chance`) is tested against that. Primary is
one row an experiment: see `mixctl.evals.primary`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixctl.evals.experiments import BoolArray, Experiment
from mixctl.evals.pooled import pooled_rows
from mixctl.evals.primary import mark_primary
from mixctl.evals.rows import CONTRASTS, GIVEN, NOT_SHARED, Row, joined, left_out
from mixctl.evals.run_level import NO_SPREAD, paired, run_level_row
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import (
    Described,
    FloatArray,
    Metric,
    PooledScorer,
    TrajectoryScorer,
    expanded,
)
from mixctl.evals.stats import arms as two
from mixctl.evals.stats import chance, intervals, membership, permutation, planning, ranks
from mixctl.evals.stats.streams import stream
from mixctl.evals.trajectories import trajectory_rows

MIN_STRATUM_ITEMS = 2


@dataclass(frozen=True)
class Wanted:
    """Which rows are estimated: of which contrasts, and whether single strata have their own."""

    contrasts: Collection[str] = CONTRASTS
    by_stratum: bool = True


ALL_ROWS = Wanted()


@dataclass(frozen=True)
class _Task:
    """What is estimated: one metric of one experiment on one array of values.

    `twins` are the values of each baseline, where they are compared with.
    """

    experiment: Experiment
    metric: Metric
    scored: Scored
    values: FloatArray
    contrast: str
    twins: tuple[FloatArray, ...] = ()
    by_stratum: bool = True

    def row(self, arm: str, stratum: str | None, name: str | None = None) -> Row:
        metric = name or self.metric.name
        row = self.experiment.row(arm, metric, self.scored, self.contrast)
        said = self.scored.estimators.get(metric)
        return replace(row, stratum=stratum, note=joined(said, self._several()))

    def _several(self) -> str | None:
        if self.contrast != "did" or len(self.twins) < 2:
            return None
        return f"beyond the mean of {len(self.twins)} twins"

    def rng(self, purpose: str) -> np.random.Generator:
        """Returns the stream that all rows of the experiment share, whose draws are made once."""
        return stream(self.experiment.name, purpose)


def estimate(
    experiment: Experiment,
    scorer: Described,
    runs: Sequence[Scored],
    twins: Sequence[Scored],
    wanted: Wanted = ALL_ROWS,
) -> list[Row]:
    """Returns all rows of an experiment.

    Args:
        experiment: its items and arms.
        scorer: names the metrics.
        runs: scores of the run's checkpoints, in order of step.
        twins: scores of the twins' checkpoints; several of one step are replicates.
        wanted: the rows that are estimated.
    """
    rows: list[Row] = []
    names = {name for scored in [*runs, *twins] for name in scored.values}
    for scored in [*runs, *twins]:
        against = paired(scored, twins) if scored.model == "run" else []
        for metric in expanded(scorer.metrics, names):
            endings = [""] if scorer.membership == metric.name else []
            endings += [f"_{metric.name}"] if metric.membership else []
            rows += _metric_rows(experiment, metric, scored, against, endings, wanted)
        if isinstance(scorer, PooledScorer) and "level" in wanted.contrasts:
            rows += pooled_rows(experiment, scorer, scored)
    if isinstance(scorer, TrajectoryScorer):
        rows += trajectory_rows(experiment, scorer.trajectory, runs, twins)
    return mark_primary(experiment, scorer, runs, twins, rows)


def _metric_rows(
    experiment: Experiment,
    metric: Metric,
    scored: Scored,
    against: Sequence[Scored],
    endings: Sequence[str],
    wanted: Wanted,
) -> Iterator[Row]:
    """Yields the rows of a metric; `endings` are those of the names of its membership metrics."""
    none = np.full(len(experiment.items), np.nan)  # a `*` metric that this checkpoint lacks
    values = scored.values.get(metric.name, none)
    twins = tuple(twin.values.get(metric.name, none) for twin in against)
    contrasts = [("level", values), ("holdout", values)]
    if twins:
        change = values - np.mean(twins, axis=0)
        contrasts += [("twin", change), ("did", change)]
    for contrast, of in contrasts:
        if contrast not in wanted.contrasts:
            continue
        if not metric.primary and not np.isfinite(of).any():
            continue
        differs = contrast in ("twin", "did")
        of_metric = replace(metric, share=metric.share and not differs)
        with_twins = twins if differs else ()
        task = _Task(experiment, of_metric, scored, of, contrast, with_twins, wanted.by_stratum)
        if contrast in ("level", "twin"):
            yield from _level_rows(task)
        elif experiment.is_holdout.any():
            yield from _contrast_rows(task)
            for ending in endings:
                yield from _membership_rows(task, ending)


def _strata(task: _Task, inside: BoolArray) -> list[str | None]:
    """Returns None (all), then the strata that the items span, if there are several."""
    names = [str(name) for name in np.unique(task.experiment.strata[inside])]
    return [None, *names] if len(names) > 1 and task.by_stratum else [None]


def _level_rows(task: _Task) -> Iterator[Row]:
    experiment = task.experiment
    for arm in experiment.all_arms:
        inside = (experiment.arms == arm) & np.isfinite(task.values)
        if not task.metric.primary and not inside.any():
            continue
        for stratum in _strata(task, inside):
            chosen = inside if stratum is None else inside & (experiment.strata == stratum)
            if stratum is None or chosen.sum() >= MIN_STRATUM_ITEMS:
                yield _level(task, task.row(arm, stratum), chosen)


def _level(task: _Task, row: Row, chosen: BoolArray) -> Row:
    values = task.values[chosen]
    if not len(values):
        return replace(row, note=f"no item of this arm has a value of {row.metric}")
    clusters = two.codes(task.experiment.clusters[chosen])

    def bootstrapped() -> intervals.Interval:
        strata = two.codes(task.experiment.strata[chosen])
        return intervals.mean_interval(values, strata, clusters, task.rng("bootstrap"))

    if task.contrast == "twin":
        run = task.scored.values[task.metric.name][chosen]
        return run_level_row(row, run, [twin[chosen] for twin in task.twins], bootstrapped)
    share = task.metric.share
    found = intervals.share_interval(values, clusters) if share else bootstrapped()
    filled = _with_interval(row, float(values.mean()), found, len(values), None)
    if task.metric.chance is None or len(set(clusters)) < len(values):
        return filled
    return replace(
        filled,
        p_value=chance.p_value(int(values.sum()), len(values), task.metric.chance),
        sided="greater",
        test=f"guessing, right in {task.metric.chance:.3g} of all items: exact binomial",
    )


def _contrast_rows(task: _Task) -> Iterator[Row]:
    for row, sample in _pairs(task, task.metric.name):
        yield _difference(task, row, sample)


def _pairs(task: _Task, name: str) -> Iterator[tuple[Row, two.TwoArms]]:
    """Yields a row to fill and its two arms, for every dosed arm and comparable stratum."""
    experiment = task.experiment
    for arm in experiment.dosed_arms:
        inside = (experiment.arms == arm) | experiment.is_holdout
        for stratum in _strata(task, inside):
            chosen = inside if stratum is None else inside & (experiment.strata == stratum)
            sample = _sample(task, arm, inside, chosen)
            least = 1 if stratum is None else MIN_STRATUM_ITEMS
            if stratum is None or min(sample.n_treated, sample.n_holdout) >= least:
                row = task.row(arm, stratum, name)
                if experiment.given[chosen].any():
                    row = replace(row, note=joined(row.note, GIVEN))
                yield row, sample


def _sample(task: _Task, arm: str, inside: BoolArray, chosen: BoolArray) -> two.TwoArms:
    """Returns the chosen items of arm and holdout; of the others, what clusters they are in."""
    experiment = task.experiment
    return two.two_arms(
        np.where(chosen, task.values, np.nan)[inside],
        experiment.arms[inside] == arm,
        experiment.strata[inside],
        experiment.clusters[inside],
    )


def _difference(task: _Task, row: Row, sample: two.TwoArms) -> Row:
    if not sample.n_treated:
        return replace(row, note=NOT_SHARED)
    tails = permutation.permutation_tails(two.difference_units(sample), task.rng("test"))
    if task.metric.share:
        found = intervals.share_difference_interval(sample)
    else:
        found = intervals.difference_interval(sample, task.rng("bootstrap"))
    filled = _with_interval(
        row, two.difference(sample), found, sample.n_treated, left_out(sample.left_out)
    )
    return replace(
        filled,
        n_holdout=sample.n_holdout,
        p_value=tails.p_value("two"),
        sided="two",
        test=f"arms exchangeable within strata, by cluster: {tails.method}",
        mde=planning.mde_of_difference(sample, task.metric.share),
    )


def _membership_rows(task: _Task, ending: str) -> Iterator[Row]:
    for row, sample in _pairs(task, f"auc{ending}"):
        yield _auc(task, row, sample)
    for row, sample in _pairs(task, f"tpr_at_1pct_fpr{ending}"):
        yield _tpr(task, row, sample)
    if "exposure" in task.scored.values and task.contrast == "holdout":
        if not np.isfinite(task.scored.values["exposure"]).any():
            yield from _holdout_exposure(task)


def _auc(task: _Task, row: Row, sample: two.TwoArms) -> Row:
    if not sample.n_treated:
        return replace(row, note=NOT_SHARED)
    tails = ranks.mann_whitney(sample, task.rng("test"))
    found = intervals.auc_interval(sample, task.rng("bootstrap"))
    filled = _with_interval(
        row, ranks.auc(sample), found, sample.n_treated, left_out(sample.left_out)
    )
    return replace(
        filled,
        n_holdout=sample.n_holdout,
        p_value=tails.p_value("greater"),
        sided="greater",
        test=f"arm not above holdout (AUC 0.5) within strata, by cluster: {tails.method}",
        mde=planning.mde_of_auc(sample),
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
    found = membership.tpr_interval(arm, holdout, clusters, task.rng("bootstrap"))
    rate = membership.tpr_at_fpr(arm, holdout)
    return _with_interval(row, rate, found, len(arm), left_out(sample.left_out))


def _holdout_exposure(task: _Task) -> Iterator[Row]:
    """Yields exposures estimated from the holdout where the items have no candidates."""
    level = replace(task, contrast="level")
    for row, sample in _pairs(level, "exposure"):
        scores = _exposures(sample)
        if not len(scores):
            continue
        inside = sample.treated
        found = intervals.mean_interval(
            scores, sample.strata[inside], sample.clusters[inside], task.rng("bootstrap")
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
        note=joined(row.note, note, missing),
    )
