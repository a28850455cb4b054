"""The mix file: what a build is made of. Read, checked, every problem reported at once.

    corpus: {path: data/base, format: jsonl, text_key: text}
    tokenizer: checkpoints/tok
    trainer: litgpt.yaml
    seed: 17
    validation: 512
    experiments:
      - {name: arc-leak, kind: contamination, items: questions.jsonl, arms: [...]}

Paths are relative to the mix file. The topology is read from the trainer config and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from mixctl.injections.base import Kind
from mixctl.injections.config import ExperimentConfig, Strict
from mixctl.injections.quantities import parse_tokens
from mixctl.injections.registry import find_kind, is_kind, kind_names
from mixctl.pipeline.control_config import ControlConfig
from mixctl.pipeline.decontamination import Decontamination
from mixctl.pipeline.engines import EngineName
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.trainer import TrainerConfig, model_vocabulary, read_topology, read_trainer
from mixctl.pipeline.yamlfile import parse, read_yaml
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.layout import DEFAULT_CHUNK_BYTES
from mixctl.shards.topology import Topology


class CorpusConfig(Strict):
    """Where the base documents come from; for `plan` alone, only how many tokens there are."""

    path: Annotated[str, Field(min_length=1)] | None = None
    """a file, a folder, or any fsspec address"""
    format: str = "jsonl"
    """jsonl, parquet, text (a file a document), or a datatrove reader by name"""
    text_key: str = "text"
    """the field that holds the text"""
    glob: str | None = None
    """which files of a folder; default: by the format"""
    repeat: bool = False
    """whether a corpus that is too small is read again"""
    tokens: int | str | None = None
    """for `plan`, instead of a path: how many tokens there will be (215B)"""

    @field_validator("tokens")
    @classmethod
    def _tokens_are_a_number(cls, value: int | str | None) -> int | None:
        return None if value is None else parse_tokens(value)

    @model_validator(mode="after")
    def _one_of_path_and_tokens(self) -> CorpusConfig:
        if (self.path is None) == (self.tokens is None):
            raise ValueError("exactly one of 'path' and 'tokens' must be given")
        return self


class MixConfig(Strict):
    """A mix file. Its schema is printed by `mixctl schema`."""

    corpus: CorpusConfig
    """the text to train on"""
    tokenizer: str
    """a folder with tokenizer.json and tokenizer_config.json"""
    trainer: str
    """the LitGPT config; the topology comes from here"""
    seed: Annotated[int, Field(ge=0)]
    """all randomness comes from this number"""
    validation: Annotated[int, Field(ge=1)]
    """sequences held out for val/"""
    eod: str | None = None
    """the end-of-document token, where it is not eos_token of tokenizer_config.json"""
    bos: bool = False
    """whether each document and payload begins with the BOS token"""
    engine: EngineName = "auto"
    """what encodes the base corpus; the ids are the same"""
    chunk_bytes: Annotated[int, Field(ge=1024, lt=2**32)] = DEFAULT_CHUNK_BYTES
    """of a chunk, about"""
    decontamination: Decontamination = Decontamination()
    """what becomes of items that the corpus holds already"""
    executor: Annotated[ExecutorConfig, Field(exclude=True)] = ExecutorConfig()
    """where tasks run"""
    control: Annotated[ControlConfig | None, Field(exclude=True)] = None
    """which experiments a closed loop steers, and how often"""
    experiments: list[SerializeAsAny[ExperimentConfig]] = []
    """what is placed"""


@dataclass(frozen=True)
class Experiment:
    """An experiment section and the kind that reads it."""

    config: ExperimentConfig
    kind: Kind


@dataclass(frozen=True)
class Mix:
    """A checked mix file with what it refers to. Experiments are sorted by name."""

    path: Path
    config: MixConfig
    experiments: tuple[Experiment, ...]
    trainer_path: Path
    trainer: TrainerConfig
    trainer_raw: dict[str, Any]
    topology: Topology

    @property
    def folder(self) -> Path:
        """Returns the folder that relative paths start from."""
        return self.path.parent

    def resolve(self, path: str) -> str:
        """Returns a path of the mix file as an absolute path; addresses with a scheme stay."""
        return resolved(path, self.folder)


def resolved(path: str, folder: Path) -> str:
    """Returns a path as an absolute path, relative to a folder; addresses with a scheme stay."""
    return path if "://" in path else str((folder / path).resolve())


def read_mix(path: Path, head: Callable[[MixConfig, Path], None] | None = None) -> Mix:
    """Returns the checked mix file.

    Args:
        path: of the mix file.
        head: told of it, its experiments left out, and of its folder, before the experiments are
            read: for what can begin without them.

    Raises:
        InputError: with every problem of the mix file and the trainer config.
    """
    raw = read_yaml(path)
    sections = raw.get("experiments", [])
    config, problems = parse(MixConfig, {**raw, "experiments": []}, str(path))
    if config is not None and head is not None:
        head(config, path.parent)
    experiments, more = read_sections(sections, path)
    problems += more
    trainer = _trainer(raw, path, problems)
    if config is None or problems or trainer is None:
        raise InputError(problems)
    return Mix(
        path=path,
        config=config.model_copy(update={"experiments": [e.config for e in experiments]}),
        experiments=tuple(sorted(experiments, key=lambda e: e.config.name)),
        trainer_path=trainer[0],
        trainer=trainer[1],
        trainer_raw=trainer[2],
        topology=trainer[3],
    )


def _trainer(
    raw: dict[str, Any], path: Path, problems: list[str]
) -> tuple[Path, TrainerConfig, dict[str, Any], Topology] | None:
    """Returns what the trainer config says, or None; its problems are added to the list."""
    if not isinstance(raw.get("trainer"), str):
        return None
    trainer_path = (path.parent / raw["trainer"]).resolve()
    try:
        trainer, trainer_raw = read_trainer(trainer_path)
        return trainer_path, trainer, trainer_raw, read_topology(trainer, trainer_path)
    except InputError as error:
        problems += error.problems
        return None


def read_sections(sections: Any, path: Path) -> tuple[list[Experiment], list[str]]:
    """Returns the experiments that could be read, and the problems of the others."""
    if not isinstance(sections, list):
        return [], [f"{path}: experiments: must be a list, each beginning with '- name:'"]
    found: list[Experiment] = []
    problems: list[str] = []
    for number, section in enumerate(sections):
        place = f"{path}: experiments[{number}]"
        if not isinstance(section, dict):
            problems.append(f"{place}: must be a mapping with name, kind and arms")
            continue
        experiment, more = _experiment(section, f"{place} ('{section.get('name', '?')}')")
        found += [experiment] if experiment else []
        problems += more
    return found, problems + _twice([e.config.name for e in found], path)


def _twice(names: Sequence[str], path: Path) -> list[str]:
    lower = [name.lower() for name in names]
    return [
        f"{path}: experiments: name '{name}' is used {lower.count(name)} times (case is ignored)"
        for name in sorted({name for name in lower if lower.count(name) > 1})
    ]


def _experiment(section: dict[str, Any], place: str) -> tuple[Experiment | None, list[str]]:
    name = section.get("kind")
    if not isinstance(name, str):
        missing = "is missing" if name is None else f"must be a name, got {name!r}"
        return None, [f"{place}: key 'kind' {missing} (valid: {', '.join(kind_names())})"]
    if not is_kind(name):
        return None, [f"{place}: kind: unknown kind '{name}'{nearest(name, kind_names())}"]
    kind = find_kind(name)
    config, problems = parse(kind.config, section, place)
    return (None if config is None else Experiment(config, kind)), problems


def located(problems: list[str], mix_path: Path) -> list[str]:
    """Returns the problems, the mix file named before those that begin with one of its fields."""
    fields = ("corpus:", "engine:", "validation:", "executor:", "experiment '")
    return [f"{mix_path}: {p}" if p.startswith(fields) else p for p in problems]


def check_vocabulary(mix: Mix, vocab_size: int) -> list[str]:
    """Returns the problem of a tokenizer whose ids the model cannot embed."""
    known = model_vocabulary(mix.trainer)
    if known is None or vocab_size <= known:
        return []
    return [
        f"{mix.trainer_path}: the model embeds {known} token ids, the tokenizer "
        f"{mix.resolve(mix.config.tokenizer)} has {vocab_size}"
    ]
