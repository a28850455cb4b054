"""The influence on the model as a whole: an experiment that no mix file declares.

`(model)`, a name that no experiment of a mix can have, is scored like the others and compared with
the baselines like them. Nothing in it was randomised, so it is exploratory, and only replicated
baselines give it a p-value.

    arm          items                                   metric
    validation   held-out sequences, DIR/val/            validation_loglikelihood_per_token
    weights      one, the model's parameters             weight_norm, weight_norm_attention, ...
    holdout      questions that no arm placed            holdout_accuracy
    training     steps that LitGPT logged                training_loglikelihood_per_token
                 (`mixctl.evals.training_loss`)

The questions are the holdout items of all contamination experiments; their answers are scored there
and only gathered here. A build has thousands of held-out sequences at most; of more than 1,024 so
many are read, evenly spaced.

Price: a forward pass of the held-out sequences, and one look at the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from pathlib import Path

import numpy as np

from mixctl.evals import estimation
from mixctl.evals.experiments import Experiment, unplaced
from mixctl.evals.rows import Row, joined
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import IntArray, Item, Metric
from mixctl.evals.scorers.whole_model import VALIDATION_METRIC
from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes, digest_file
from mixctl.shards.record import BuildRecord

MODEL, KIND = "(model)", "model"
VALIDATION, WEIGHTS, HOLDOUT = "validation", "weights", "holdout"
MAX_SEQUENCES = 1_024


class HoldoutQuestions:
    """Describes what is gathered from the contamination experiments."""

    kind = KIND
    version = 1
    metrics: tuple[Metric, ...] = (Metric("holdout_accuracy", share=True),)
    membership: str | None = None


def model_experiment(build: Path, record: BuildRecord) -> Experiment:
    """Returns the experiment on the whole model: held-out sequences and the weights.

    Raises:
        InputError: when val/ is there but does not hold what the build wrote.
    """
    items = [*_sequences(build, record), Item(MODEL, WEIGHTS, np.zeros(0, np.int64), "{}")]
    arms = [VALIDATION] * (len(items) - 1) + [WEIGHTS]
    names = np.array([item.name for item in items])
    return unplaced(MODEL, KIND, items, np.array(arms), names)


def _sequences(build: Path, record: BuildRecord) -> Iterator[Item]:
    """Yields the held-out sequences to be scored; none where the folder has no val/."""
    if not (build / "val").is_dir():
        return
    geometry = record.geometry
    chosen = chosen_sequences(geometry.val_sequences)
    part = len(chosen) < geometry.val_sequences
    said = f"{len(chosen):,} of {geometry.val_sequences:,} held-out sequences, evenly spaced"
    meta = json.dumps({"estimator": said} if part else {})

    @lru_cache(maxsize=1)  # `chosen` ascends: each is opened, and compared, once
    def opened(chunk: int) -> Tokens:
        return _blocks(build, record, chunk)

    for sequence in chosen.tolist():
        chunk, block = divmod(sequence, geometry.val_blocks_per_chunk)
        tokens = opened(chunk)[block].astype(np.int64)
        yield Item(MODEL, f"val-{sequence:06d}", tokens, meta, geometry.sequence_tokens)


def chosen_sequences(n_sequences: int) -> IntArray:
    """Returns which held-out sequences are scored, int64: all, or 1,024 evenly spaced ones."""
    if n_sequences <= MAX_SEQUENCES:
        return np.arange(n_sequences, dtype=np.int64)
    return np.arange(MAX_SEQUENCES, dtype=np.int64) * n_sequences // MAX_SEQUENCES


def _blocks(build: Path, record: BuildRecord, chunk: int) -> Tokens:
    """Returns the blocks of a chunk of val/, compared with its digest in mix.json."""
    name, geometry = f"val/{chunk_name(chunk)}", record.geometry
    path = build / name
    try:
        blocks = open_chunk(path, geometry.sequence_tokens, geometry.dtype)
        same = name not in record.files or digest_file(path) == record.files[name].digest
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not same or len(blocks) != geometry.val_blocks_per_chunk:
        raise InputError(
            f"{path}: does not match its digest in mix.json; see: mixctl verify {build}"
        )
    return blocks


def tokens_digest(experiment: Experiment) -> str:
    """Returns the digest of all tokens that are scored."""
    return digest_bytes(b"".join(item.tokens.tobytes() for item in experiment.items))


def other_rows(
    model: Experiment,
    runs: Sequence[Scored],
    leaks: Sequence[tuple[Experiment, Sequence[Scored], Sequence[Scored]]],
    failed: Sequence[str],
) -> list[Row]:
    """Returns the rows that the scorer of `(model)` does not give.

    Args:
        model: the experiment on the whole model.
        runs: its scores under the run's checkpoints.
        leaks: each contamination experiment with the scores of the run and of the twins.
        failed: contamination experiments that could not be scored.
    """
    rows = []
    if VALIDATION not in model.all_arms:
        why = "the build's folder has no val/"
        rows += [_missing(run, VALIDATION, VALIDATION_METRIC, why) for run in runs]
    note = f"without {', '.join(sorted(failed))}, not scored" if failed else None
    used = [leak for leak in leaks if leak[0].is_holdout.any()]
    if used:
        rows += [replace(row, note=joined(row.note, note)) for row in _questions(used)]
    else:
        why = "no contamination experiment has holdout items"
        name = HoldoutQuestions.metrics[0].name
        rows += [_missing(run, HOLDOUT, name, joined(why, note)) for run in runs]
    return rows


def _questions(
    leaks: Sequence[tuple[Experiment, Sequence[Scored], Sequence[Scored]]],
) -> list[Row]:
    """Returns the rows on the holdout items of all contamination experiments."""
    experiments = [leak for leak, _, _ in leaks]
    items = [i for leak in experiments for i in compress(leak.items, leak.is_holdout)]
    clusters = [f"{e.name}\x1f{c}" for e in experiments for c in e.clusters[e.is_holdout]]
    arms = np.array([HOLDOUT] * len(items))
    experiment = unplaced(MODEL, KIND, items, arms, np.array(clusters))
    by_run = zip(*(runs for _, runs, _ in leaks), strict=True)
    by_twin = zip(*(twins for _, _, twins in leaks), strict=True)
    runs = [_gathered(experiments, at) for at in by_run]
    twins = [_gathered(experiments, at) for at in by_twin]
    return estimation.estimate(experiment, HoldoutQuestions(), runs, twins)


def _gathered(leaks: Sequence[Experiment], of_checkpoint: Sequence[Scored]) -> Scored:
    """Returns the answers to the holdout items under one checkpoint."""
    first = of_checkpoint[0]
    answers = [
        scored.values["accuracy"][leak.is_holdout]
        for leak, scored in zip(leaks, of_checkpoint, strict=True)
    ]
    return Scored(
        model=first.model,
        checkpoint=first.checkpoint,
        step=first.step,
        values={HoldoutQuestions.metrics[0].name: np.concatenate(answers)},
        estimators={},
    )


def missing_row(
    model: str, checkpoint: str, step: int | None, arm: str, metric: str, why: str | None
) -> Row:
    """Returns the row of `(model)` that says why there is no number."""
    return Row(
        experiment=MODEL,
        kind=KIND,
        arm=arm,
        dose=0.0,
        stratum=None,
        metric=metric,
        model=model,
        checkpoint=checkpoint,
        step=step,
        contrast="level",
        note=why,
    )


def _missing(run: Scored, arm: str, metric: str, why: str | None) -> Row:
    return missing_row(run.model, run.checkpoint, run.step, arm, metric, why)
