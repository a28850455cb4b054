"""Per-item scores on disk: one parquet file a checkpoint, kept by the digest of what it depends on.

    samples/run-00000900-3f0c....parquet

The digest covers the checkpoint's weights and config, the manifest's items and the scorers'
versions, so an interrupted eval continues and a changed input is scored again. Scores always reach
the statistics through these files, so a continued eval gives the same results as an uninterrupted
one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixctl.evals.checkpoint import CONFIG_NAME, Checkpoint
from mixctl.evals.experiments import Experiment
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import Described, ItemScore, expanded
from mixctl.shards.files import digest_bytes, digest_file, replacing

SAMPLES_FORMAT = 2


@dataclass(frozen=True)
class Samples:
    """The scores of one checkpoint."""

    model: str
    checkpoint: Checkpoint
    table: pa.Table
    failures: Mapping[str, str]


def samples_key(
    checkpoint: Checkpoint,
    items_digest: str,
    prefix: Sequence[int],
    scorers: Mapping[str, Described],
    device: str,
) -> str:
    """Returns the digest of everything that the scores of a checkpoint depend on."""
    parts = {
        "format": SAMPLES_FORMAT,
        "weights": digest_file(checkpoint.state_path),
        "config": digest_file(checkpoint.folder / CONFIG_NAME),
        "name": checkpoint.name,
        "step": checkpoint.step,
        "items": items_digest,
        "prefix": list(prefix),
        "scorers": {name: [s.kind, s.version] for name, s in sorted(scorers.items())},
        "device": device,
    }
    return digest_bytes(json.dumps(parts, sort_keys=True).encode())


def samples_path(out: Path, model: str, checkpoint: Checkpoint, key: str) -> Path:
    """Returns where the scores of a checkpoint are kept."""
    step = "unknown" if checkpoint.step is None else f"{checkpoint.step:08d}"
    return out / "samples" / f"{model}-{step}-{key}.parquet"


def samples_table(
    model: str,
    checkpoint: Checkpoint,
    experiments: Sequence[Experiment],
    scores: Mapping[str, Sequence[ItemScore]],
    failures: Mapping[str, str],
) -> pa.Table:
    """Returns a row an item of the experiments that were scored."""
    scored = [experiment for experiment in experiments if experiment.name in scores]
    names = sorted({metric for e in scored for score in scores[e.name] for metric in score.values})
    tables = [_experiment_table(model, checkpoint, e, scores[e.name], names) for e in scored]
    estimators = {e.name: _estimators(scores[e.name]) for e in scored}
    said = json.dumps({"failures": dict(failures), "estimators": estimators}, sort_keys=True)
    schema = _schema(names).with_metadata({b"mixctl": said.encode()})
    return pa.concat_tables(tables).cast(schema) if tables else schema.empty_table()


def _schema(metrics: Sequence[str]) -> pa.Schema:
    text = ["experiment", "item", "arm"]
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
        return Samples(model, checkpoint, table, said["failures"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def scored(samples: Samples, experiment: Experiment, scorer: Described) -> Scored:
    """Returns one experiment's values out of the scores of a checkpoint."""
    rows = samples.table.filter(pc.equal(samples.table["experiment"], experiment.name))
    if rows["item"].to_pylist() != [item.name for item in experiment.items]:
        raise ValueError(f"stored scores do not match the items of {experiment.name}")
    said = json.loads(samples.table.schema.metadata[b"mixctl"])
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
        estimators=said["estimators"].get(experiment.name, {}),
    )
