"""Scores dependence runs: every experiment under every run, then the matrix.

    outcomes (n + 1 + R, n)   the mean of each experiment's metric after each run
    rows                      only-<experiment>, then all; what they are held against: the no-ops

A run's checkpoint must be the one that was asked for: step, iterations, data folder and the number
of samples read are compared with the record. Scores per item are kept in RESULTS/samples, so that
scoring continues where it was interrupted, as an eval does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.evals import samples
from mixctl.evals.checkpoint import (
    Checkpoint,
    check_weights,
    model_config,
    read_checkpoint,
)
from mixctl.evals.cpdt_outcomes import items_digest, outcomes, values_of
from mixctl.evals.experiments import read_experiments
from mixctl.evals.run import check_manifest
from mixctl.evals.scorers.base import FloatArray
from mixctl.evals.scoring import Meter, Progress, inputs_digest, scored_checkpoint
from mixctl.evals.stats.dependence import Dependence, dependence
from mixctl.evals.work import Work, check_lengths, gather
from mixctl.shards.dependence_record import (
    DependenceRecord,
    RunRecord,
    checkpoint_folder,
    read_dependence,
    run_folder,
)
from mixctl.shards.errors import InputError, StageError
from mixctl.shards.record import BuildRecord, read_record
from mixctl.shards.yamlfile import read_yaml


@dataclass(frozen=True)
class Scored:
    """A scored set of runs.

    Attributes:
        record: of the set.
        rows: names of the runs that make the rows of the matrix: experiments, then all.
        columns: experiments, in the order of the rows.
        outcomes: float64 (rows, columns).
        no_ops: float64 (R, columns), the same after the no-op runs.
        family: bool (rows, columns), the entries that are tested together.
        matrix: the tests.
    """

    record: DependenceRecord
    rows: list[str]
    columns: list[str]
    outcomes: FloatArray
    no_ops: FloatArray
    family: np.ndarray
    matrix: Dependence


def score(folder: Path, out: Path, device: str, progress: Progress | None = None) -> Scored:
    """Returns the matrix of the set of runs in `folder`; scores of items go to `out`/samples.

    Args:
        folder: of the set.
        out: where scores are kept.
        device: where the models run.
        progress: is told how far it is.

    Raises:
        InputError: when runs are missing or are not what was asked for, or the items of an
            experiment are not those that the runs were built for.
        StageError: when an experiment cannot be scored.
    """
    record = read_dependence(folder)
    build = Path(record.build)
    built = read_record(build)
    check_manifest(build, built)
    checkpoints = _checkpoints(folder, record, built)
    work, prefix = _work(build, built, record, list(checkpoints.values()))
    kept = _score_all(work, prefix, checkpoints, build, out, device, progress)
    by_run = {name: _outcomes_of(work, one, record) for name, one in kept.items()}
    columns = []
    for name, metric in record.metrics.items():
        try:
            columns.append(outcomes([by_run[run.name][name] for run in record.runs]))
        except ValueError as error:
            raise InputError(f"experiment {name}: {metric}: {error}") from None
    return matrix(record, np.stack(columns, axis=1))


def matrix(record: DependenceRecord, table: FloatArray) -> Scored:
    """Returns the tests of a set of runs.

    Args:
        record: of the set.
        table: float64 (runs, n): each experiment's outcome after each run, in the record's order.
    """
    is_row = np.array([run.role != "no-op" for run in record.runs])
    rows = [run for run in record.runs if run.role != "no-op"]
    family = np.array(
        [[_in_family(run, name) for name in record.experiments] for run in rows], dtype=np.bool_
    )
    of_rows, no_ops = table[is_row], table[~is_row]
    found = dependence(of_rows, no_ops, family)
    names = [run.name for run in rows]
    return Scored(record, names, record.experiments, of_rows, no_ops, family, found)


def _in_family(run: RunRecord, experiment: str) -> bool:
    """Returns whether the entry asks if one experiment disturbs another."""
    return run.role == "experiment" and run.experiments != [experiment]


def _checkpoints(
    folder: Path, record: DependenceRecord, built: BuildRecord
) -> dict[str, Checkpoint]:
    """Returns the checkpoint of each run.

    Raises:
        InputError: with every run that is missing or is not what was asked for.
    """
    found: dict[str, Checkpoint] = {}
    problems: list[str] = []
    for run in record.runs:
        place = checkpoint_folder(folder, run.name, record.end)
        if not place.is_dir():
            problems.append(f"{place}: missing; train it:  mixctl cpdt run {folder}")
            continue
        try:
            found[run.name] = read_checkpoint(place)
        except InputError as error:
            problems += error.problems
            continue
        problems += _differences(found[run.name], record, built, run_folder(folder, run.name))
    if problems:
        raise InputError(problems)
    check_weights(found.values())
    return found


def _differences(
    checkpoint: Checkpoint, record: DependenceRecord, built: BuildRecord, run: Path
) -> list[str]:
    """Returns where a checkpoint says something else than the record."""
    topology = built.geometry.topology()
    loader: Any = checkpoint.loader or {}
    n_read = record.steps * topology.accumulation * topology.micro_batch
    path = checkpoint.folder / "hyperparameters.yaml"
    arguments = (read_yaml(path).get("data") or {}).get("init_args") or {}
    pairs = {
        "step_count": (checkpoint.step, record.end),
        "iter_num": (checkpoint.iterations, record.end * topology.accumulation),
        "train_dataloader.num_samples_yielded": (loader.get("num_samples_yielded"), n_read),
        "train_dataloader.current_epoch": (loader.get("current_epoch"), 1),
        "data.data_path": (arguments.get("data_path"), str(run.resolve())),
    }
    return [
        f"{checkpoint.name}: {name} is {said!r}, this run needs {wanted!r}"
        for name, (said, wanted) in pairs.items()
        if said != wanted
    ]


def _work(
    build: Path, built: BuildRecord, record: DependenceRecord, checkpoints: Sequence[Checkpoint]
) -> tuple[Work, list[int]]:
    """Returns what is asked of every model, and what stands before every text."""
    experiments = [e for e in read_experiments(build, built) if e.name in record.metrics]
    changed = [e.name for e in experiments if items_digest(e) != record.items[e.name]]
    if changed or len(experiments) < len(record.metrics):
        raise InputError(
            [f"{build}: the items of experiment {n} have changed since the runs" for n in changed]
            or f"{build}: lacks experiments of the runs: {', '.join(record.experiments)}"
        )
    prefix = [built.tokenizer.eod_id]
    work = gather(experiments, prefix)
    check_lengths(work, checkpoints)
    _check_failures(work)
    return work, prefix


def _check_failures(work: Work) -> None:
    if work.failures:
        failures = [f"experiment {n}: not scored: {why}" for n, why in work.failures.items()]
        raise StageError("; ".join(failures))


def _score_all(
    work: Work,
    prefix: Sequence[int],
    checkpoints: dict[str, Checkpoint],
    build: Path,
    out: Path,
    device: str,
    progress: Progress | None,
) -> dict[str, samples.Samples]:
    """Returns the scores of each run, made or kept from an earlier call."""
    inputs = inputs_digest(build)
    first = next(iter(checkpoints.values()))
    cost = work.cost(model_config(first.folder)) if progress else 0
    meter = Meter(cost, len(checkpoints), progress)
    found: dict[str, samples.Samples] = {}
    for name, checkpoint in checkpoints.items():
        _, kept = scored_checkpoint(work, "run", checkpoint, out, inputs, prefix, device, meter)
        for experiment, why in kept.failures.items():
            work.fail(experiment, f"after {name}: {why}")
        _check_failures(work)
        found[name] = kept
    return found


def _outcomes_of(
    work: Work, kept: samples.Samples, record: DependenceRecord
) -> dict[str, FloatArray]:
    """Returns each experiment's metric of its items, after one run."""
    found = {}
    for name, metric in record.metrics.items():
        experiment, scorer = work.named(name), work.asked[name].scorer
        found[name] = values_of(samples.scored(kept, experiment, scorer), metric)
    return found
