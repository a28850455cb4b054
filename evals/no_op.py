"""No-op runs: baselines of another build, clean and of the same shape.

A baseline need not be the twin of this build. Trained as long, in the same batches, on other base
data it is a draw of the law of clean runs just as well, and one that varies the data too. So a
checkpoint of another build's control/train/, or of the train/ of a build that placed nothing, is
held against that build's own record, once the two builds have the same shape.

    this build       100 steps of 512, data seed 42
    OTHER/control    100 steps of 512, data seed 7       accepted, and said
    THIRD/control    200 steps of 512                    refused: max_tokens, steps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixctl.evals.checkpoint import Checkpoint
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_file
from mixctl.shards.record import RECORD_NAME, BuildRecord, Geometry, read_record
from mixctl.shards.yamlfile import read_yaml

TRAIN, CONTROL = "train", "control/train"
MAY_DIFFER = {"data_seed"} | {
    name for name in Geometry.model_fields if "chunk" in name or name.startswith("val_")
}
"""what the law of a training does not depend on: the order's seed, how data is cut into files"""


@dataclass(frozen=True)
class Source:
    """The data that a checkpoint says it was trained on.

    Attributes:
        build: the folder above the split.
        split: train or control/train.
    """

    build: Path
    split: str


def recorded_source(checkpoint: Checkpoint) -> Source | None:
    """Returns where the checkpoint's records say its data was; None where they do not say."""
    path = checkpoint.folder / "hyperparameters.yaml"
    values = read_yaml(path) if path.is_file() else {}
    arguments = _mapping(_mapping(values.get("data")).get("init_args"))
    splits = arguments.get("split_names")
    if "data_path" in arguments and isinstance(splits, list | tuple) and splits:
        return Source(Path(str(arguments["data_path"])), str(splits[0]).strip("/"))
    folder = str(_mapping(_mapping(checkpoint.loader).get("dataset")).get("input_dir_path"))
    for split in (CONTROL, TRAIN):
        if folder.rstrip("/").endswith(f"/{split}"):
            return Source(Path(folder.rstrip("/").removesuffix(f"/{split}")), split)
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def other_build(source: Source, build: Path) -> BuildRecord | None:
    """Returns the record of the build that data comes from, when it is another one than `build`."""
    mine, other = build / RECORD_NAME, source.build / RECORD_NAME
    try:
        if not source.build.is_absolute() or not other.is_file():
            return None
    except OSError:  # no path at all: too long
        return None
    if source.build.resolve() == build.resolve() or digest_file(mine) == digest_file(other):
        return None
    try:
        return read_record(source.build)
    except InputError:  # not a build: the comparison with this one says so
        return None


def no_op_problems(source: Source, other: BuildRecord, record: BuildRecord) -> list[str]:
    """Returns what keeps trainings on the other build's data from being baselines of this one."""
    problems = []
    if source.split not in (TRAIN, CONTROL):
        problems.append(f"split_names is {source.split!r}, {TRAIN} or {CONTROL} is needed")
    touched = sorted(n for n, t in other.totals.items() if t.placements or t.replaced_sequences)
    if source.split == TRAIN and touched:
        problems.append(
            f"its {TRAIN}/ holds what {', '.join(touched[:3])} placed; a baseline is trained on "
            f"{CONTROL}/, or on the {TRAIN}/ of a build without placements"
        )
    theirs, mine = other.geometry.model_dump(), record.geometry.model_dump()
    pairs = {name: (theirs[name], mine[name]) for name in mine if name not in MAY_DIFFER}
    pairs["tokenizer"] = (other.tokenizer.digest, record.tokenizer.digest)
    pairs["eod_id"] = (other.tokenizer.eod_id, record.tokenizer.eod_id)
    pairs["bos_id"] = (other.tokenizer.bos_id, record.tokenizer.bos_id)
    problems += [
        f"its {name} is {found!r}, this build has {wanted!r}"
        for name, (found, wanted) in pairs.items()
        if found != wanted
    ]
    return problems
