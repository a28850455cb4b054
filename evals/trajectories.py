"""What the checkpoints of a run tell together: effectivity and retainability of knowledge.

One row an arm: `effectivity`, the mean rise within 50 steps of an exposure, and `retainability_L`,
the share of what was gained that is left L steps after the last peak
(`mixctl.evals.stats.trajectories` has the rule and the source). They stand at the last checkpoint.

- `level`: the arm in a model. In the twin, which saw no exposure, it is the negative control.
- `holdout` (effectivity): minus the rise of holdout items over the same checkpoints, each averaged
  over the exposures of the arm's items, standardised to the arm's strata. Intervals by cluster
  bootstrap; no test, since the steps of an exposure belong to its item. All of it is exploratory.

A trajectory is one training's. Several twins have one each, told apart by the folder above their
checkpoints (the out_dir), and what each says of an item is averaged: averaged before the best
checkpoint is looked for, they would have less noise than the run. Those whose checkpoints tell of
fewer exposures than another's are left out, and counted. A run is one training wherever its
checkpoints lie (a resumed one may have two out_dirs), unless a step is there twice.

Where the checkpoints are too few there is no number, and the note says how many are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixctl.evals.experiments import BoolArray, Experiment
from mixctl.evals.rows import GIVEN, NOT_SHARED, Row, joined, left_out
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
class _Training:
    """The trajectories of one training.

    Attributes:
        steps: int64 (n_checkpoints,), ascending.
        values: float64 (n_items, n_checkpoints).
    """

    steps: IntArray
    values: FloatArray


@dataclass(frozen=True)
class _Course:
    """An experiment's trajectories under the checkpoints of one model.

    Attributes:
        experiment: the experiment.
        last: the last checkpoint.
        trainings: the trajectories; several where twins are replicated.
    """

    experiment: Experiment
    last: Scored
    trainings: Sequence[_Training]

    def exposures(self, item: int) -> IntArray:
        """Returns the steps of the item's copies."""
        of = self.experiment
        return np.asarray(of.copy_steps[of.copy_items == item], dtype=np.int64)

    def row(self, arm: str, metric: str, contrast: str) -> Row:
        return self.experiment.row(arm, metric, self.last, contrast)


def trajectory_rows(
    experiment: Experiment, metric: str, runs: Sequence[Scored], twins: Sequence[Scored]
) -> list[Row]:
    """Returns the rows of run and twin; of replicated twins the mean over the trainings.

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
    known = sorted((one for one in scored if one.step is not None), key=_step)
    if not known:
        return None
    last = next(one for one in known if one.step == known[-1].step)
    trainings = [
        _Training(
            np.array([_step(one) for one in of_one]),
            np.stack([one.values[metric] for one in of_one], axis=1),
        )
        for of_one in _trainings(known, metric)
    ]
    return _Course(experiment, last, trainings)


def _step(scored: Scored) -> int:
    return -1 if scored.step is None else scored.step


def _trainings(known: Sequence[Scored], metric: str) -> list[list[Scored]]:
    """Returns the checkpoints by training, each in order of step.

    Where a folder holds different checkpoints of one step, which training they belong to cannot be
    told: each of its checkpoints stands alone.
    """
    if known[0].model == "run" and len({one.step for one in known}) == len(known):
        return [list(known)]
    folders: dict[Path, dict[tuple[int, bytes], Scored]] = {}
    for one in known:
        told = folders.setdefault(Path(one.checkpoint).parent, {})
        told.setdefault((_step(one), one.values[metric].tobytes()), one)
    found: list[list[Scored]] = []
    for told in folders.values():
        single = len({step for step, _ in told}) == len(told)
        found += [list(told.values())] if single else [[one] for one in told.values()]
    return found


def _effectivity_rows(course: _Course, arm: str, inside: IntArray) -> Iterator[Row]:
    """Yields the level of the arm and, where there is a holdout, what is beyond that."""
    exposures = {int(item): course.exposures(int(item)) for item in inside}
    found = [_exposed(exposures, training.steps) for training in course.trainings]
    n_resolved = [sum(map(len, exposed.values())) for exposed in found]
    n_exposures = sum(len(np.unique(steps)) for steps in exposures.values())
    counted = [at for at, n in enumerate(n_resolved) if n == max(n_resolved)]
    note = f"{max(n_resolved)} of {n_exposures} exposures have checkpoints around them"
    level = course.row(arm, "effectivity", "level")
    if not max(n_resolved):
        yield replace(level, note=f"not resolvable: {note}; {NEEDED}")
        return
    note = joined(note, _counted(len(counted), len(found))) or note
    holdout = course.experiment.is_holdout
    values = _mean_of_each(
        [_rise_of_each(course.trainings[at], found[at], holdout) for at in counted]
    )
    chosen = np.isfinite(values) & (course.experiment.arms == arm) & ~holdout
    yield _filled(replace(level, note=note), course, values, chosen, "bootstrap")
    if holdout.any():
        yield _beyond(course, course.row(arm, "effectivity", "holdout"), values, chosen, note)


def _exposed(exposures: dict[int, IntArray], steps: IntArray) -> dict[int, list[Rise]]:
    """Returns the rises that a training resolves of each item, items without any left out."""
    found = {item: rises(of_item, steps) for item, of_item in exposures.items()}
    return {item: of_item for item, of_item in found.items() if of_item}


def _counted(n_counted: int, n_trainings: int) -> str | None:
    if n_trainings == 1:
        return None
    if n_counted == n_trainings:
        return f"mean of {n_trainings} trainings"
    return f"mean of {n_counted} of {n_trainings} trainings, the others tell of fewer"


def _rise_of_each(
    training: _Training, exposed: dict[int, list[Rise]], holdout: BoolArray
) -> FloatArray:
    """Returns the mean rise of each exposed and each holdout item, NaN for others, (n_items,)."""
    values = np.full(len(training.values), np.nan)
    for item, of_item in exposed.items():
        values[item] = effectivity(training.values[item : item + 1], of_item)[0]
    if holdout.any():
        values[holdout] = _unexposed(training, holdout, list(exposed.values()))
    return values


def _mean_of_each(values: Sequence[FloatArray]) -> FloatArray:
    """Returns each item's mean over the trainings that tell of it; NaN where none does."""
    stacked = np.stack(values)
    told = np.isfinite(stacked).sum(axis=0)
    mean = np.nansum(stacked, axis=0) / np.maximum(told, 1)
    return np.asarray(np.where(told > 0, mean, np.nan), dtype=np.float64)


def _unexposed(
    training: _Training, holdout: BoolArray, exposures: Sequence[Sequence[Rise]]
) -> FloatArray:
    """Returns the mean rise of each holdout item over the checkpoints of the exposed items."""
    own = training.values[holdout]
    return np.asarray(np.mean([effectivity(own, found) for found in exposures], axis=0))


def _beyond(course: _Course, row: Row, values: FloatArray, chosen: BoolArray, note: str) -> Row:
    experiment = course.experiment
    both = chosen | experiment.is_holdout
    sample = two.two_arms(
        values[both], chosen[both], experiment.strata[both], experiment.clusters[both]
    )
    given = GIVEN if experiment.given[both].any() else None
    note = f"{note}; no test: the steps of an exposure belong to its item"
    if not sample.n_treated:
        return replace(row, note=joined(note, given, NOT_SHARED))
    found = intervals.difference_interval(sample, _rng(row, "bootstrap"))
    return replace(
        row,
        estimate=two.difference(sample),
        se=found.se,
        ci_low=found.low,
        ci_high=found.high,
        n=sample.n_treated,
        n_holdout=sample.n_holdout,
        note=joined(note, given, left_out(sample.left_out)),
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
    some = False
    for lag in LAGS:
        found = [_kept_items(course, training, inside, lag) for training in course.trainings]
        most = max(map(len, found))
        if most:
            some = True
            counted = [kept for kept in found if len(kept) == most]
            row = course.row(arm, f"retainability_{lag}", "level")
            row = replace(row, note=_counted(len(counted), len(found)))
            yield _retained(course, row, _mean_kept(counted), inside)
    if not some:
        yield replace(
            course.row(arm, "retainability", "level"),
            note="not resolvable: a checkpoint before the first copy, one within "
            f"{WINDOW} steps after the last and one later are needed",
        )


def _kept_items(
    course: _Course, training: _Training, inside: IntArray, lag: int
) -> dict[int, Kept]:
    """Returns what each item gained and kept in a training, where its checkpoints tell."""
    found = {
        int(i): kept_after(training.values[i], course.exposures(int(i)), training.steps, lag)
        for i in inside
    }
    return {item: kept for item, kept in found.items() if kept is not None}


def _mean_kept(trainings: Sequence[dict[int, Kept]]) -> dict[int, Kept]:
    """Returns each item's mean of both parts over the trainings that tell of it."""
    result = {}
    for item in sorted({item for kept in trainings for item in kept}):
        told = [kept[item] for kept in trainings if item in kept]
        gained, left = sum(one.gained for one in told), sum(one.left for one in told)
        result[item] = Kept(gained / len(told), left / len(told))
    return result


def _retained(course: _Course, row: Row, kept: dict[int, Kept], inside: IntArray) -> Row:
    note = joined(f"{len(kept)} of {len(inside)} items have checkpoints there", row.note)
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
