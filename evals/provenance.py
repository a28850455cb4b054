"""Was this checkpoint trained on this build? Its own records say.

LitGPT saves `hyperparameters.yaml` beside the weights and the loader's state inside
`lit_model.pth`. Overrides on the command line (`--data.seed 1`) and another number of devices
reorder the data without a word, so both are compared with the build's geometry and a difference is
refused, all of them at once.

    step-S: iter_num = S x accumulation, samples yielded a rank = iter_num x micro-batch
    final:  one more micro-batch may have been fetched (LitGPT fetches before it looks at the count)

A baseline may be of another build of the same shape (`mixctl.evals.no_op`): then that build's own
record is what it is compared with.

A build that was amended after a checkpoint had gone past the steps in question is not what it was
trained on: the time of the file tells, and the checkpoint is refused.

A build that was moved is recognised when the folder of the record is gone, or holds the same
mix.json; that is said. A checkpoint without records is accepted, and that is said too. Where the
checkpoint's folder holds a tokenizer.json, its tokens must be the build's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from mixctl.evals.checkpoint import STATE_NAME, Checkpoint, model_config
from mixctl.evals.no_op import CONTROL, TRAIN, no_op_problems, other_build, recorded_source
from mixctl.evals.tokenizer import other_tokens
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_file
from mixctl.shards.record import RECORD_NAME, BuildRecord
from mixctl.shards.yamlfile import read_yaml

Role = Literal["run", "twin"]
GAUSSIAN_DATA = "mixctl.trainer_configs.gaussian.GaussianLitData"
SPLITS: dict[Role, str] = {"run": TRAIN, "twin": CONTROL}
_OPTION: dict[Role, str] = {"run": "CHECKPOINT", "twin": "--baseline"}


@dataclass
class _Findings:
    """What a checkpoint's records say against the build (problems) and beside it (notes)."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def expect(self, file: Path, name: str, found: object, expected: object) -> None:
        if found != expected:
            self.problems.append(f"{file}: {name} is {found!r}, this build needs {expected!r}")


def check_provenance(
    checkpoints: list[Checkpoint], role: Role, build: Path, record: BuildRecord
) -> list[str]:
    """Returns the notes on checkpoints whose records agree with the build.

    Args:
        checkpoints: as found.
        role: "run": trained on train/; "twin": trained on control/train/, or a no-op run.
        build: the folder of the build.
        record: its mix.json.

    Raises:
        InputError: when records differ; all differences of all checkpoints at once.
    """
    findings = _Findings()
    for checkpoint in checkpoints:
        findings.problems += model_problems(checkpoint, build, record)
        _check_step(checkpoint, record, findings)
        hyperparameters = checkpoint.folder / "hyperparameters.yaml"
        data = _data_of(checkpoint, role, build, record, findings)
        if hyperparameters.is_file():
            _check_hyperparameters(hyperparameters, *data, findings)
        if checkpoint.loader is not None:
            _check_loader(checkpoint, *data, findings)
        _say_what_is_missing(checkpoint, hyperparameters, findings)
        if role == "run":
            _check_amendments(checkpoint, record, findings)
    if findings.problems:
        raise InputError(list(dict.fromkeys(findings.problems)))
    return list(dict.fromkeys(findings.notes))


def _check_amendments(checkpoint: Checkpoint, record: BuildRecord, findings: _Findings) -> None:
    """Refuses a checkpoint that went past an amendment's first step before it was made.

    Such a training met the base tokens that stood there. When the weights were saved is what their
    file says; a copy that does not keep the time of the file hides it.
    """
    saved = datetime.fromtimestamp(checkpoint.state_path.stat().st_mtime, timezone.utc)
    step = record.geometry.steps if checkpoint.step is None else checkpoint.step
    findings.problems += [
        f"{checkpoint.name}: saved {saved.isoformat(timespec='seconds')} at step {step}, before "
        f"amendment {one.number} ({one.time}) changed the steps from {one.first_step} on: it was "
        "trained on what stood there until then; resume it from an earlier checkpoint"
        for one in record.amendments
        if step >= one.first_step and saved < datetime.fromisoformat(one.time)
    ]


def _data_of(
    checkpoint: Checkpoint, role: Role, build: Path, record: BuildRecord, findings: _Findings
) -> tuple[Role, Path, BuildRecord]:
    """Returns the role, build and record that the checkpoint's records must agree with.

    They are those given, but for a no-op run: its own build, as a twin or as a run of it.
    """
    source = recorded_source(checkpoint) if role == "twin" else None
    other = other_build(source, build) if source else None
    if source is None or other is None:
        return role, build, record
    problems = no_op_problems(source, other, record)
    findings.problems += [
        f"{checkpoint.name}: no baseline of this build: trained on {source.build}: {problem}"
        for problem in problems
    ]
    if not problems:
        findings.notes.append(
            f"{checkpoint.name}: a no-op run, trained on {source.build / source.split}, another "
            f"build of this shape (data seed {other.geometry.data_seed})"
        )
    return ("run" if source.split == TRAIN else "twin"), source.build, other


def model_problems(checkpoint: Checkpoint, build: Path, record: BuildRecord) -> list[str]:
    """Returns what keeps the model, however it was trained, from reading the build's texts."""
    config = model_config(checkpoint.folder)
    path = checkpoint.config_path
    problems = []
    if config.padded_vocab_size < record.tokenizer.vocab_size:
        problems.append(
            f"{path}: padded_vocab_size is {config.padded_vocab_size}, the build's tokenizer has "
            f"{record.tokenizer.vocab_size} tokens"
        )
    if config.block_size < record.geometry.max_seq_length:
        problems.append(
            f"{path}: block_size is {config.block_size}, the build has sequences of "
            f"{record.geometry.max_seq_length}"
        )
    difference = other_tokens(checkpoint.given, build)
    return [*problems, difference] if difference else problems


def _check_step(checkpoint: Checkpoint, record: BuildRecord, findings: _Findings) -> None:
    steps = record.geometry.steps
    if checkpoint.step is None:
        findings.notes.append(f"{checkpoint.name}: step unknown, counted as after all placements")
    elif checkpoint.step > steps:
        findings.problems.append(
            f"{checkpoint.name}: step is {checkpoint.step} ({checkpoint.step_source}), "
            f"the build ends at {steps}"
        )


def _say_what_is_missing(
    checkpoint: Checkpoint, hyperparameters: Path, findings: _Findings
) -> None:
    missing = [] if hyperparameters.is_file() else ["hyperparameters.yaml"]
    missing += [] if checkpoint.loader is not None else [f"train_dataloader in {STATE_NAME}"]
    if missing:
        findings.notes.append(
            f"{checkpoint.name}: no {' and no '.join(missing)}: how it was trained is not checked"
        )


def _check_hyperparameters(
    path: Path, role: Role, build: Path, record: BuildRecord, findings: _Findings
) -> None:
    values = read_yaml(path)
    geometry = record.geometry
    arguments = _mapping(_mapping(values.get("data")).get("init_args"))
    train = _mapping(values.get("train"))
    _check_split(path, role, arguments.get("split_names"), findings)
    _check_noise(path, role, _mapping(values.get("data")), record, findings)
    if "data_path" in arguments:
        _check_folder(
            path, "data.init_args.data_path", str(arguments["data_path"]), build, findings
        )
    expected: list[tuple[str, Mapping[str, Any], str, object]] = [
        ("data.init_args.", arguments, "seed", geometry.data_seed),
        ("data.init_args.", arguments, "num_workers", geometry.workers),
        ("train.", train, "global_batch_size", geometry.global_batch),
        ("train.", train, "micro_batch_size", geometry.micro_batch),
        ("train.", train, "max_seq_length", geometry.max_seq_length),
        ("train.", train, "max_tokens", geometry.max_tokens),
        ("", values, "devices", geometry.devices),
        ("", values, "num_nodes", geometry.nodes),
    ]
    for prefix, section, name, value in expected:
        if name in section and not _left_open(name, section[name]):
            findings.expect(path, prefix + name, section[name], value)


def _left_open(name: str, value: object) -> bool:
    """Returns whether the value leaves it to the machine or the model (the loader state tells)."""
    return (name == "devices" and value == "auto") or (name == "max_seq_length" and value is None)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _check_split(path: Path, role: Role, splits: object, findings: _Findings) -> None:
    if isinstance(splits, list | tuple) and splits:
        _check_role(path, "data.init_args.split_names", str(splits[0]), role, findings)


def _check_noise(
    path: Path, role: Role, data: Mapping[str, Any], record: BuildRecord, findings: _Findings
) -> None:
    """Refuses a run that was trained without the noise of the build's Gaussian marks."""
    told = _mapping(_mapping(record.config.get("trainer_config")).get("data")).get("class_path")
    if role == "run" and told == GAUSSIAN_DATA and "class_path" in data:
        findings.expect(path, "data.class_path", data["class_path"], told)


def _check_role(path: Path, name: str, split: str, role: Role, findings: _Findings) -> None:
    """Refuses a twin given as CHECKPOINT and a run given as --baseline."""
    other: Role = "twin" if role == "run" else "run"
    if split.strip("/") == SPLITS[other]:
        findings.problems.append(
            f"{path}: {name} says it was trained on {SPLITS[other]}/: give it as {_OPTION[other]}, "
            f"not as {_OPTION[role]}"
        )
    else:
        findings.expect(path, name, split.strip("/"), SPLITS[role])


def _check_folder(path: Path, name: str, recorded: str, build: Path, findings: _Findings) -> None:
    """Refuses another build; notes a build that was moved or copied."""
    folder = Path(recorded)
    if folder.is_absolute() and folder.resolve() == build.resolve():
        return
    if not folder.is_absolute() and build.resolve().as_posix().endswith(folder.as_posix()):
        return
    if not _is_folder(folder):
        findings.notes.append(
            f"{path}: {name} is {recorded}, which is not here; taken for {build}, moved"
        )
    elif _same_build(folder, build):
        findings.notes.append(
            f"{path}: {name} is {recorded}, a copy of {build} (same {RECORD_NAME})"
        )
    else:
        findings.problems.append(
            f"{path}: {name} is {recorded}, which is not this build ({build.resolve()})"
        )


def _is_folder(path: Path) -> bool:
    """Returns whether a path that a file names is a folder here; one that cannot be is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _same_build(folder: Path, build: Path) -> bool:
    mine, other = build / RECORD_NAME, folder / RECORD_NAME
    return other.is_file() and digest_file(other) == digest_file(mine)


def _check_loader(
    checkpoint: Checkpoint, role: Role, build: Path, record: BuildRecord, findings: _Findings
) -> None:
    geometry, path = record.geometry, checkpoint.state_path
    state = _mapping(checkpoint.loader)
    dataset = _mapping(state.get("dataset"))
    expected: dict[str, object] = {
        "seed": geometry.data_seed,
        "num_workers": max(geometry.workers, 1),
        "batch_size": geometry.micro_batch,
        "world_size": geometry.devices * geometry.nodes,
        "shuffle": True,
        "drop_last": True,
    }
    for name, value in expected.items():
        findings.expect(path, f"train_dataloader.dataset.{name}", dataset.get(name), value)
    loader = _mapping(dataset.get("item_loader"))
    where = "train_dataloader.dataset.item_loader.block_size"
    findings.expect(path, where, loader.get("block_size"), geometry.sequence_tokens)
    _check_chunks(path, dataset, record, findings)
    read_from = dataset.get("input_dir_url") or dataset.get(
        "input_dir_path"
    )  # behind an address: a cache
    _check_input_folder(path, str(read_from), role, build, findings)
    _check_yielded(checkpoint, state, record, findings)


def _check_chunks(
    path: Path, dataset: Mapping[str, Any], record: BuildRecord, findings: _Findings
) -> None:
    """Compares the number of chunks and the blocks in each with the build's layout."""
    files, regions = dataset.get("subsampled_files"), dataset.get("region_of_interest")
    where = "train_dataloader.dataset."
    if isinstance(files, list):
        name = f"{where}subsampled_files (their number)"
        findings.expect(path, name, len(files), record.geometry.chunks)
    if isinstance(regions, list):
        name = f"{where}region_of_interest (blocks a chunk)"
        findings.expect(path, name, _lengths(regions), [record.geometry.blocks_per_chunk])


def _lengths(regions: list[Any]) -> object:
    """Returns the different lengths of (start, stop) pairs, sorted; what stands there otherwise."""
    try:
        return sorted({int(stop) - int(start) for start, stop in regions})
    except (TypeError, ValueError):
        return regions


def _check_input_folder(
    path: Path, recorded: str, role: Role, build: Path, findings: _Findings
) -> None:
    name = "train_dataloader.dataset.input_dir_path"
    folder = Path(recorded)
    for split in sorted(SPLITS.values(), key=len, reverse=True):
        if recorded.rstrip("/").endswith(f"/{split}"):
            _check_role(path, name, split, role, findings)
            above = folder.parents[len(Path(split).parts) - 1]
            _check_folder(path, name, str(above), build, findings)
            return
    findings.expect(path, name, recorded, str(build.resolve() / SPLITS[role]))


def _check_yielded(
    checkpoint: Checkpoint, state: Mapping[str, Any], record: BuildRecord, findings: _Findings
) -> None:
    """Compares iterations and samples with the step: a rank sees its share of each batch."""
    topology, path = record.geometry.topology(), checkpoint.state_path
    if checkpoint.step is None:
        return
    final = checkpoint.step == topology.steps
    whole = checkpoint.step * topology.accumulation
    iterations = checkpoint.iterations
    if iterations is not None and iterations != whole:
        if not (final and iterations == topology.iterations):
            findings.expect(path, "iter_num", iterations, whole)
    trained = (iterations if final and iterations is not None else whole) * topology.micro_batch
    allowed = [trained, trained + topology.micro_batch] if final else [trained]
    if state.get("num_samples_yielded") not in allowed:
        found = state.get("num_samples_yielded")
        findings.expect(path, "train_dataloader.num_samples_yielded", found, allowed[0])
    findings.expect(path, "train_dataloader.current_epoch", state.get("current_epoch"), 1)
