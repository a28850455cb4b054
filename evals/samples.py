"""Per-item scores on disk: one parquet file a checkpoint, kept by the digest of what it depends on.

    samples/run-00000900-3f0c....parquet

The digest covers the checkpoint's weights and config, the manifest's items, the tokenizer and the
versions of LitGPT and torch, so an interrupted eval continues and a changed input is scored again.
The file says which scorer, of which version and with which reference, each experiment was scored
by: only experiments that failed, or that another scorer or reference scores now, are scored once
more. Scores always reach the statistics through these files, so a continued eval gives the same
results as an uninterrupted one; scores that are made anew in other batches (only some of the
experiments) are the same within rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixctl.evals.checkpoint import CONFIG_NAME, Checkpoint
from mixctl.evals.experiments import Experiment
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import Described, ItemScore, expanded, reference_of
from mixctl.shards.files import digest_bytes, digest_file, replacing

SAMPLES_FORMAT = 3


@dataclass(frozen=True)
class Samples:
    """The scores of one checkpoint.

    Attributes:
        model: "run" or "twin".
        checkpoint: the model.
        table: a row an item.
        failures: experiment -> why it could not be scored.
        scorers: experiment -> [kind, version] of the scorer, and the digest of the reference if it
            has one, for those that were scored.
        estimators: experiment -> metric -> how its values were had.
    """

    model: str
    checkpoint: Checkpoint
    table: pa.Table
    failures: Mapping[str, str]
    scorers: Mapping[str, Sequence[object]]
    estimators: Mapping[str, Mapping[str, str]]


def model_digest(checkpoint: Checkpoint) -> str:
    """Returns the digest of a model's weights and config."""
    files = (checkpoint.state_path, checkpoint.folder / CONFIG_NAME)
    return digest_bytes("".join(map(digest_file, files)).encode())


def samples_key(
    checkpoint: Checkpoint,
    inputs_digest: str,
    prefix: Sequence[int],
    device: str,
) -> str:
    """Returns the digest of what all scores of a checkpoint depend on."""
    parts = {
        "format": SAMPLES_FORMAT,
        "weights": digest_file(checkpoint.state_path),
        "config": digest_file(checkpoint.folder / CONFIG_NAME),
        "name": checkpoint.name,
        "step": checkpoint.step,
        "inputs": inputs_digest,
        "versions": {name: version(name) for name in ("litgpt", "torch")},
        "prefix": list(prefix),
        "device": device,
    }
    return digest_bytes(json.dumps(parts, sort_keys=True).encode())


def samples_path(out: Path, model: str, checkpoint: Checkpoint, key: str) -> Path:
    """Returns where the scores of a checkpoint are kept."""
    step = "unknown" if checkpoint.step is None else f"{checkpoint.step:08d}"
    return out / "samples" / f"{model}-{step}-{key}.parquet"


def missing(kept: Samples | None, scorers: Mapping[str, Described]) -> list[str]:
    """Returns the experiments that must be scored: no scores of just this scorer are kept."""
    have = {} if kept is None else kept.scorers
    return [name for name, of in sorted(scorers.items()) if have.get(name) != _identity(of)]


def _identity(scorer: Described) -> list[object]:
    reference = reference_of(scorer)
    return [scorer.kind, scorer.version, *([reference] if reference else [])]


def samples_table(
    model: str,
    checkpoint: Checkpoint,
    experiments: Sequence[Experiment],
    scores: Mapping[str, Sequence[ItemScore]],
    failures: Mapping[str, str],
    scorers: Mapping[str, Described],
    kept: Samples | None = None,
) -> pa.Table:
    """Returns a row an item of the experiments that were scored, now or before (`kept`)."""
    new = [experiment for experiment in experiments if experiment.name in scores]
    old = [] if kept is None else [n for n in kept.scorers if n not in {*scores, *failures}]
    metrics = {metric for e in new for score in scores[e.name] for metric in score.values}
    estimators = {e.name: _estimators(scores[e.name]) for e in new}
    by = {e.name: _identity(scorers[e.name]) for e in new}
    tables = {}
    if kept is not None:
        metrics |= _metrics_of(kept.table)
        estimators |= {name: dict(kept.estimators.get(name, {})) for name in old}
        by |= {name: list(kept.scorers[name]) for name in old}
        tables = {name: _of(kept.table, name) for name in old}
    schema = _schema(sorted(metrics))
    for e in new:
        tables[e.name] = _experiment_table(model, checkpoint, e, scores[e.name], sorted(metrics))
    said = {"failures": dict(failures), "estimators": estimators, "scorers": by}
    schema = schema.with_metadata({b"mixctl": json.dumps(said, sort_keys=True).encode()})
    rows = [_widened(table, schema) for _, table in sorted(tables.items())]
    return pa.concat_tables(rows).cast(schema) if rows else schema.empty_table()


def _of(table: pa.Table, experiment: str) -> pa.Table:
    return table.filter(pc.equal(table["experiment"], experiment))


def _metrics_of(table: pa.Table) -> set[str]:
    return set(table.column_names) - set(_schema([]).names)


def _widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the table with all columns of the schema, those that it lacks null."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names)


def _schema(metrics: Sequence[str]) -> pa.Schema:
    text = ["experiment", "item", "arm", "stratum"]
    columns = [(name, pa.string()) for name in text]
    columns += [("copies", pa.int64()), ("seen", pa.int64()), ("checkpoint", pa.string())]
    columns += [("step", pa.int64()), ("model", pa.string()), ("n_tokens", pa.int64())]
    columns += [("loglikelihood", pa.float64())]
    columns += [(name, pa.float64()) for name in metrics if name != "loglikelihood"]
    return pa.schema(columns)


def _experiment_table(
    model: str,
    checkpoint: Checkpoint,
    experiment: Experiment,
    scores: Sequence[ItemScore],
    metrics: Sequence[str],
) -> pa.Table:
    n = len(experiment.items)
    seen = experiment.seen(checkpoint.step) if model == "run" else np.zeros(n, np.int64)
    columns = {
        "experiment": [experiment.name] * n,
        "item": [item.name for item in experiment.items],
        "arm": experiment.arms.tolist(),
        "stratum": experiment.strata.tolist(),
        "copies": experiment.copies,
        "seen": seen,
        "checkpoint": [checkpoint.name] * n,
        "step": [checkpoint.step] * n,
        "model": [model] * n,
        "n_tokens": [score.n_tokens for score in scores],
        "loglikelihood": [score.loglikelihood for score in scores],
    }
    for name in metrics:
        if name != "loglikelihood":
            columns[name] = [score.values.get(name) for score in scores]
    return pa.table(columns, schema=_schema(metrics))


def _estimators(scores: Sequence[ItemScore]) -> dict[str, str]:
    """Returns metric -> the ways its values were had, joined where items differ."""
    ways: dict[str, set[str]] = {}
    for score in scores:
        for metric, way in score.estimators.items():
            ways.setdefault(metric, set()).add(way)
    return {metric: " or ".join(sorted(found)) for metric, found in ways.items()}


def write_samples(table: pa.Table, path: Path) -> None:
    """Writes the scores of a checkpoint, all or nothing."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_samples(path: Path, model: str, checkpoint: Checkpoint) -> Samples | None:
    """Returns stored scores, or None when there are none (or they cannot be read)."""
    try:
        table = pq.read_table(path)
        said = json.loads(table.schema.metadata[b"mixctl"])
        parts = (said["failures"], said["scorers"], said["estimators"])
        return Samples(model, checkpoint, table, *parts)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def scored(samples: Samples, experiment: Experiment, scorer: Described) -> Scored:
    """Returns one experiment's values out of the scores of a checkpoint."""
    rows = _of(samples.table, experiment.name)
    if rows["item"].to_pylist() != [item.name for item in experiment.items]:
        raise ValueError(f"stored scores do not match the items of {experiment.name}")
    filled = [name for name in rows.column_names if rows[name].null_count < len(rows)]
    empty = np.full(len(experiment.items), np.nan)
    values = {
        metric.name: rows[metric.name].to_numpy(zero_copy_only=False).astype(np.float64)
        if metric.name in rows.column_names
        else empty
        for metric in expanded(scorer.metrics, filled)
    }
    return Scored(
        model=samples.model,
        checkpoint=samples.checkpoint.name,
        step=samples.checkpoint.step,
        values=values,
        estimators=samples.estimators.get(experiment.name, {}),
    )
