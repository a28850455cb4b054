"""Checkpoints of one run, and baselines as draws of one law: trained like the run, each its own.

- CHECKPOINTs whose settings or seed differ are not of one run, and their curves would mix models:
  refused;
- trained otherwise than the run (model, optimizer, precision, ...; by hyperparameters.yaml): its
  difference to the run would say nothing of the data: refused;
- the weights of an earlier baseline of that step, or its data and its seed: the same training
  again, which shows nothing of how trainings differ: counted once, and said.

What may differ in a baseline is the seed of the model, the data of a clean build, and what leaves
no trace in the weights (folders, logs, intervals).

Price: where several baselines share a step, their weights are read once more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixctl.evals.checkpoint import Checkpoint, read_state, weights
from mixctl.evals.no_op import recorded_source
from mixctl.shards.files import FileDigest
from mixctl.shards.yamlfile import read_yaml

NAME = "hyperparameters.yaml"
_INITIAL = "initial_checkpoint_dir"
_FREE = ("data", "seed", "out_dir", "eval", "log", "logger_name", "resume", "tokenizer_dir")
_FREE_FIELDS = {"train.save_interval", "train.log_interval", "devices", "num_nodes"}
"""devices are compared with the build's geometry (`mixctl.evals.provenance`)"""


def training_problems(runs: Sequence[Checkpoint], twins: Sequence[Checkpoint]) -> list[str]:
    """Returns where checkpoints were not trained as one run, and baselines not like it."""
    own = {run.folder.resolve() for run in runs}
    problems = [
        f"{twin.name}: given as CHECKPOINT and as --baseline"
        for twin in twins
        if twin.folder.resolve() in own
    ]
    recorded = [(run.folder, found) for run in runs if (found := _settings(run.folder)) is not None]
    problems += _not_one_run(recorded)
    first = recorded[0][1] if recorded else None
    for twin in twins:
        theirs = _settings(twin.folder)
        if first is None or theirs is None:
            continue
        problems += [
            f"{twin.folder / NAME}: {field} is {theirs.get(field)!r}, the run was trained with "
            f"{first.get(field)!r}: no baseline of it"
            for field in sorted({*first, *theirs})
            if first.get(field) != theirs.get(field)
        ]
    return problems


def _not_one_run(recorded: Sequence[tuple[Path, Mapping[str, object]]]) -> list[str]:
    """Returns where settings or the seed differ from those of the first checkpoint."""
    (first, wanted), *others = recorded or [(Path(), {})]
    return [
        f"{folder / NAME}: {field} is {theirs.get(field)!r}, in {first / NAME} it is "
        f"{ours.get(field)!r}: not of one run; score one run at a time"
        for folder, settings in others
        for ours, theirs in [(_seeded(first, wanted), _seeded(folder, settings))]
        for field in sorted({*ours, *theirs})
        if ours.get(field) != theirs.get(field)
    ]


def _seeded(folder: Path, settings: Mapping[str, object]) -> dict[str, object]:
    return {**settings, "seed": read_yaml(folder / NAME).get("seed")}


def distinct(twins: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """Returns the baselines without repeats, and a note on each that was left out."""
    kept: list[Checkpoint] = []
    notes: list[str] = []
    seen: dict[Hashable, Checkpoint] = {}
    steps = [twin.step for twin in twins]
    for twin in twins:
        told = list(_marks(twin)) if steps.count(twin.step) > 1 else []
        for mark, why in told:
            if (twin.step, mark) in seen:
                notes.append(
                    f"{twin.name}: {why} of {seen[twin.step, mark].name}: the same training, "
                    "counted once; a replicate is trained with another --seed"
                )
                break
        else:
            kept.append(twin)
            seen.update({(twin.step, mark): twin for mark, _ in told})
    return kept, notes


def _marks(twin: Checkpoint) -> Iterator[tuple[Hashable, str]]:
    """Yields what two checkpoints of one training have in common, and its name."""
    yield _weights_digest(twin), "has the weights"
    path, source = twin.folder / NAME, recorded_source(twin)
    seed = read_yaml(path).get("seed") if path.is_file() else None
    if seed is not None and source is not None:
        yield (
            (str(source.build.resolve()), source.split, str(seed)),
            f"has the data and the seed ({seed})",
        )


def _weights_digest(checkpoint: Checkpoint) -> str:
    """Returns a digest of the model's tensors, whatever else the file holds."""
    import torch

    digest = FileDigest()
    for name, tensor in sorted(weights(read_state(checkpoint.state_path)).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(folder: Path) -> dict[str, object] | None:
    """Returns what shapes a training by dotted name; None where it is not recorded."""
    if not (folder / NAME).is_file():
        return None
    shaping = {name: v for name, v in read_yaml(folder / NAME).items() if name not in _FREE}
    if shaping.get(_INITIAL) is not None:
        shaping[_INITIAL] = str(Path(str(shaping[_INITIAL])).resolve())
    return {name: v for name, v in _flat(shaping, "") if name not in _FREE_FIELDS}


def _flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
