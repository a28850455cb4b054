"""The reference: another model, under which what the scored ones wrote is read again.

    mixctl eval build out/run --baseline out/control --reference out/control/final --out results

Any model of the build's tokenizer will do that never met the poison: a checkpoint of the control
twin, or a larger one. It need not be trained on the build, so its training is not checked.

Price: it is loaded once a checkpoint, after the scored model is gone: never two models at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixctl.evals.checkpoint import Checkpoint, check_weights, find_checkpoints
from mixctl.evals.huggingface import Converter
from mixctl.evals.provenance import model_problems
from mixctl.evals.samples import model_digest
from mixctl.shards.errors import InputError
from mixctl.shards.record import BuildRecord


@dataclass(frozen=True)
class Reference:
    """The model that reads answers again.

    Attributes:
        checkpoint: where it is.
        digest: of its weights and config.
    """

    checkpoint: Checkpoint
    digest: str


def find_reference(
    path: Path, converter: Converter, build: Path, record: BuildRecord, runs: Sequence[Checkpoint]
) -> Reference:
    """Returns the reference in a checkpoint folder.

    Args:
        path: a checkpoint folder, or an out_dir of one checkpoint.
        converter: converts a Hugging Face folder.
        build: the folder of the build.
        record: its mix.json.
        runs: the checkpoints of the run, which cannot judge themselves.

    Raises:
        InputError: when it is missing, broken, several, one of the run's, or does not fit the
            build's tokenizer and length; all problems at once.
    """
    try:
        found = find_checkpoints([path], converter=converter)
        problems = _problems(path, found, build, record, runs)
    except InputError as error:
        problems = error.problems
    if problems:
        raise InputError([f"--reference {problem}" for problem in problems])
    return Reference(found[0], model_digest(found[0]))


def _problems(
    path: Path,
    found: Sequence[Checkpoint],
    build: Path,
    record: BuildRecord,
    runs: Sequence[Checkpoint],
) -> list[str]:
    if len(found) > 1:
        return [f"{path}: holds {len(found)} checkpoints; name one, such as {found[-1].name}"]
    (checkpoint,) = found
    problems = model_problems(checkpoint, build, record)
    if checkpoint.given.resolve() in {run.given.resolve() for run in runs}:
        problems.append(
            f"{path}: is scored as CHECKPOINT, and may have learnt the poison; name a model that "
            "has not met it, such as a checkpoint of the control twin"
        )
    try:
        check_weights([checkpoint])
    except InputError as error:
        problems += error.problems
    return problems
