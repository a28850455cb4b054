"""What the checkpoints of a run tell together: effectivity and retainability of knowledge.

One row an arm: `effectivity`, the mean rise within 50 steps of an exposure, and `retainability_L`,
the share of what was gained that is left L steps after the last peak
(`mixctl.evals.stats.trajectories` has the rule and the source). They stand at the last checkpoint.

- `level`: the arm in a model. In the twin, which saw no exposure, it is the negative control.
- `holdout` (effectivity): minus the rise of holdout items over the same checkpoints, each averaged
  over the exposures of the arm's items. Intervals by cluster bootstrap; no test, since the steps of
  an exposure belong to its item. All of it is exploratory.

Where the checkpoints are too few there is no number, and the note says how many are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixctl.evals.experiments import BoolArray, Experiment
from mixctl.evals.rows import Row, joined
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import FloatArray, IntArray
from mixctl.evals.stats import arms as two
from mixctl.evals.stats import intervals
from mixctl.evals.stats.streams import stream
from mixctl.evals.stats.trajectories import (
    LAGS,
    WINDOW,
    Kept,
    Rise,
    effectivity,
    kept_after,
    retainability,
    rises,
)

NEEDED = f"a checkpoint at least every {WINDOW} steps is needed where the copies are placed"


@dataclass(frozen=True)
class _Course:
    """An experiment's trajectories under the checkpoints of one model.

    Attributes:
        experiment: the experiment.
        model: "run" or "twin".
        last: the last checkpoint.
        steps: int64 (n_checkpoints,), ascending.
        values: float64 (n_items, n_checkpoints).
    """

    experiment: Experiment
    model: str
    last: Scored
    steps: IntArray
    values: FloatArray

    def exposures(self, item: int) -> IntArray:
        """Returns the steps of the item's copies."""
        of = self.experiment
        return np.asarray(of.copy_steps[of.copy_items == item], dtype=np.int64)

    def row(self, arm: str, metric: str, contrast: str) -> Row:
        return Row(
            experiment=self.experiment.name,
            kind=self.experiment.kind,
            arm=arm,
            dose=self.experiment.dose(arm, self.last.step),
            stratum=None,
            metric=metric,
            model=self.model,
            checkpoint=self.last.checkpoint,
            step=self.last.step,
            contrast=contrast,
        )


def trajectory_rows(
    experiment: Experiment, metric: str, runs: Sequence[Scored], twins: Sequence[Scored]
) -> list[Row]:
    """Returns the rows of run and twin; of replicated twins those of the mean of each step.

    Args:
        experiment: its items and the steps of their copies.
        metric: whose trajectory it is, a log-probability.
        runs: scores of the run's checkpoints.
        twins: scores of the twins' checkpoints.
    """
    rows: list[Row] = []
    for scored in (runs, twins):
        course = _course(experiment, metric, scored)
        if course is None:
            continue
        for arm in experiment.dosed_arms:
            inside = np.flatnonzero(experiment.arms == arm)
            rows += _effectivity_rows(course, arm, inside)
            rows += _retainability_rows(course, arm, inside)
    return rows


def _course(experiment: Experiment, metric: str, scored: Sequence[Scored]) -> _Course | None:
    """Returns the trajectories; checkpoints of unknown step have no place in them."""
    by_step: dict[int, list[Scored]] = {}
    for one in scored:
        if one.step is not None:
            by_step.setdefault(one.step, []).append(one)
    if not by_step:
        return None
    steps = sorted(by_step)
    columns = [np.mean([one.values[metric] for one in by_step[step]], axis=0) for step in steps]
    last = by_step[steps[-1]][0]
    return _Course(experiment, last.model, last, np.array(steps), np.stack(columns, axis=1))


def _effectivity_rows(course: _Course, arm: str, inside: IntArray) -> Iterator[Row]:
    """Yields the level of the arm and, where there is a holdout, what is beyond that."""
    found = {int(item): rises(course.exposures(item), course.steps) for item in inside}
    exposed = {item: of_item for item, of_item in found.items() if of_item}
    n_exposures = sum(len(np.unique(course.exposures(item))) for item in found)
    n_resolved = sum(map(len, exposed.values()))
    note = f"{n_resolved} of {n_exposures} exposures have checkpoints around them"
    level = course.row(arm, "effectivity", "level")
    if not exposed:
        yield replace(level, note=f"not resolvable: {note}; {NEEDED}")
        return
    values = np.full(len(course.values), np.nan)
    for item, of_item in exposed.items():
        values[item] = effectivity(course.values[item : item + 1], of_item)[0]
    chosen = np.isfinite(values)
    yield _filled(replace(level, note=note), course, values, chosen, "bootstrap")
    holdout = course.experiment.is_holdout
    if holdout.any():
        values[holdout] = _unexposed(course, holdout, list(exposed.values()))
        sample = two.two_arms(
            values[chosen | holdout],
            chosen[chosen | holdout],
            np.zeros((chosen | holdout).sum()),
            course.experiment.clusters[chosen | holdout],
        )
        yield _beyond(course.row(arm, "effectivity", "holdout"), sample, note)


def _unexposed(
    course: _Course, holdout: BoolArray, exposures: Sequence[Sequence[Rise]]
) -> FloatArray:
    """Returns the mean rise of each holdout item over the checkpoints of the exposed items."""
    own = course.values[holdout]
    return np.asarray(np.mean([effectivity(own, found) for found in exposures], axis=0))


def _beyond(row: Row, sample: two.TwoArms, note: str) -> Row:
    found = intervals.difference_interval(sample, _rng(row, "bootstrap"))
    return replace(
        row,
        estimate=two.difference(sample),
        se=found.se,
        ci_low=found.low,
        ci_high=found.high,
        n=sample.n_treated,
        n_holdout=sample.n_holdout,
        note=f"{note}; no test: the steps of an exposure belong to its item",
    )


def _filled(row: Row, course: _Course, values: FloatArray, chosen: BoolArray, purpose: str) -> Row:
    clusters = two.codes(course.experiment.clusters[chosen])
    strata = np.zeros(int(chosen.sum()), np.int64)
    found = intervals.mean_interval(values[chosen], strata, clusters, _rng(row, purpose))
    return replace(
        row,
        estimate=float(values[chosen].mean()),
        se=found.se,
        ci_low=found.low,
        ci_high=found.high,
        n=int(chosen.sum()),
    )


def _retainability_rows(course: _Course, arm: str, inside: IntArray) -> Iterator[Row]:
    """Yields a row a lag that the checkpoints resolve for some item; one that says why if none."""
    some, steps = False, course.steps
    for lag in LAGS:
        found = {
            int(i): kept_after(course.values[i], course.exposures(i), steps, lag) for i in inside
        }
        kept = {item: of_item for item, of_item in found.items() if of_item is not None}
        if kept:
            some = True
            yield _retained(course, course.row(arm, f"retainability_{lag}", "level"), kept, inside)
    if not some:
        yield replace(
            course.row(arm, "retainability", "level"),
            note="not resolvable: a checkpoint before the first copy, one within "
            f"{WINDOW} steps after the last and one later are needed",
        )


def _retained(course: _Course, row: Row, kept: dict[int, Kept], inside: IntArray) -> Row:
    note = f"{len(kept)} of {len(inside)} items have checkpoints there"
    found = retainability(list(kept.values()))
    if found is None:
        return replace(row, n=len(kept), note=f"{note}; nothing was gained that could be kept")
    ratio, residuals = found
    items = np.array(list(kept))
    clusters = two.codes(course.experiment.clusters[items])
    groups = np.zeros(len(items), np.int64)
    spread = intervals.linear_interval(ratio, residuals, clusters, groups, _rng(row, "bootstrap"))
    missing = "no interval: the items have no spread, or there are too few"
    return replace(
        row,
        estimate=ratio,
        se=spread.se,
        ci_low=spread.low,
        ci_high=spread.high,
        n=len(kept),
        note=joined(note, missing if spread.low is None else None),
    )


def _rng(row: Row, purpose: str) -> np.random.Generator:
    names = (row.experiment, row.arm, row.metric, row.model, row.contrast, row.step)
    return stream(*names, "trajectories", purpose)
