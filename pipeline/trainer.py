"""The LitGPT config that will train: the one source of truth for the topology.

Read: devices, num_nodes, train.max_seq_length / micro_batch_size / global_batch_size / max_tokens,
and the seed and workers of the `LitData` data module. Everything else is passed on to `litgpt.yaml`
as it stands. What LitGPT would accept and then do something else with is refused here:
`devices: auto` (depends on the machine), a global batch that it would round down, `max_steps` (it
only warns).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mixctl.injections.config import Strict
from mixctl.pipeline.litgpt_types import GAUSSIAN_DATA, is_plain, known_models
from mixctl.pipeline.yamlfile import parse, read_yaml
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.topology import Topology

LITDATA_NAMES = ("LitData", "litgpt.data.LitData", "litgpt.data.lit_data.LitData")


class TrainSection(Strict):
    """LitGPT's `train:` arguments; only those that shape the data are looked at."""

    global_batch_size: Annotated[int, Field(ge=1)]
    micro_batch_size: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    max_seq_length: Annotated[int, Field(ge=2)] | None = None
    save_interval: Annotated[int, Field(ge=1)] | None = None
    log_interval: int | None = None
    lr_warmup_steps: int | None = None
    lr_warmup_fraction: float | None = None
    epochs: None = None
    max_steps: None = None
    max_time: float | None = None
    tie_embeddings: bool | None = None
    max_norm: float | None = None
    min_lr: float | None = None

    @field_validator("max_tokens", mode="before")
    @classmethod
    def _whole_number(cls, value: Any) -> Any:
        """Takes 1e9 for a billion, as LitGPT does."""
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @field_validator("max_steps", mode="before")
    @classmethod
    def _max_steps_is_not_kept(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError(
                "litgpt pretrain only warns about max_steps and trains on: use max_tokens"
            )
        return value


class DataArguments(Strict):
    """The arguments of LitGPT's LitData; the paths are set by the build."""

    data_path: str | None = None
    split_names: list[str] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    num_workers: Annotated[int, Field(ge=0)] = 8


class DataSection(Strict):
    """LitGPT's `data:` as a class and its arguments."""

    class_path: Literal[
        "LitData",
        "litgpt.data.LitData",
        "litgpt.data.lit_data.LitData",
        "mixctl.trainer_configs.gaussian.GaussianLitData",
    ]
    init_args: DataArguments = DataArguments()


class ModelSection(BaseModel):
    """What is looked at of LitGPT's `model_config:`."""

    model_config = ConfigDict(extra="allow", strict=True)
    block_size: int | None = None
    vocab_size: int | None = None
    padded_vocab_size: int | None = None


class TrainerConfig(Strict):
    """A file for `litgpt pretrain --config`."""

    train: TrainSection
    data: DataSection = DataSection(class_path="LitData")
    devices: Annotated[int, Field(ge=1)]
    num_nodes: Annotated[int, Field(ge=1)] = 1
    model_name: str | None = None
    model_settings: ModelSection | None = Field(default=None, alias="model_config")
    out_dir: str = "out/pretrain"
    precision: str | None = None
    initial_checkpoint_dir: str | None = None
    resume: bool | str | None = None
    eval: dict[str, Any] | None = None
    log: dict[str, Any] | None = None
    optimizer: str | dict[str, Any] | None = None
    tokenizer_dir: str | None = None
    logger_name: str | None = None
    seed: int | None = None

    @property
    def adds_noise(self) -> bool:
        """Returns whether the data module trains Gaussian marks in."""
        return self.data.class_path == GAUSSIAN_DATA

    @field_validator("devices", mode="before")
    @classmethod
    def _devices_are_counted(cls, value: Any) -> Any:
        if value in ("auto", -1):
            raise ValueError(
                "the training order depends on the number of devices, and 'auto' on the machine: "
                "write the number"
            )
        return value

    @field_validator("data", mode="before")
    @classmethod
    def _data_by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"class_path": value}
        known = (*LITDATA_NAMES, GAUSSIAN_DATA)
        if isinstance(value, dict) and value.get("class_path") not in known:
            raise ValueError(
                "class_path must be LitData, LitGPT's class that reads the shards, or "
                f"{GAUSSIAN_DATA}, which adds the noise of Gaussian marks to it"
            )
        return value


def read_trainer(path: Path) -> tuple[TrainerConfig, dict[str, Any]]:
    """Returns the checked config and the file as it stands.

    Raises:
        InputError: with every problem of the file.
    """
    raw = read_yaml(path)
    if "devices" not in raw:
        raw_checked = {**raw, "devices": "auto"}  # LitGPT's own default, refused with its reason
    else:
        raw_checked = raw
    config, problems = parse(TrainerConfig, raw_checked, str(path))
    if config is None:
        raise InputError(problems)
    return config, raw


def read_topology(config: TrainerConfig, path: Path) -> Topology:
    """Returns the topology of a trainer config.

    Raises:
        InputError: naming the file, when the numbers do not go together.
    """
    topology = Topology(
        devices=config.devices,
        nodes=config.num_nodes,
        workers=config.data.init_args.num_workers,
        micro_batch=config.train.micro_batch_size,
        global_batch=config.train.global_batch_size,
        max_seq_length=_max_seq_length(config, path),
        max_tokens=config.train.max_tokens,
        data_seed=config.data.init_args.seed,
        litdata=installed_litdata(),
    )
    if problems := topology.problems():
        raise InputError([f"{path}: {problem}" for problem in problems])
    return topology


def installed_litdata() -> str:
    """Returns the version of litdata that is installed, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("litdata")
    except PackageNotFoundError:
        raise InputError("litdata is not installed: pip install 'mixctl'") from None


def _max_seq_length(config: TrainerConfig, path: Path) -> int:
    block_size = _model_value(config, "block_size")
    length = config.train.max_seq_length or block_size
    if length is None:
        raise InputError(
            f"{path}: train.max_seq_length is missing, and the model has no block_size"
        )
    if block_size is not None and length > block_size:
        raise InputError(
            f"{path}: train.max_seq_length is {length}, the model's block_size is {block_size}"
        )
    return length


def model_vocabulary(config: TrainerConfig) -> int | None:
    """Returns the number of token ids that the model can embed, None when the file does not say."""
    padded = _model_value(config, "padded_vocab_size")
    return padded if padded is not None else _model_value(config, "vocab_size")


def _model_value(config: TrainerConfig, name: str) -> int | None:
    if config.model_settings is not None:
        found = getattr(config.model_settings, name)
        return None if found is None else int(found)
    if config.model_name is None:
        return None
    known = known_models().get(config.model_name.split("/")[-1], {}).get(name)
    return None if known is None else int(known)


def litgpt_config(
    raw: dict[str, Any], config: TrainerConfig, topology: Topology, build: Path, train: str
) -> dict[str, Any]:
    """Returns the config that reads the folder `train` of the build, all else as it was."""
    made = copy.deepcopy(raw)
    marks = config.adds_noise and train == "train"
    made["data"] = {
        "class_path": GAUSSIAN_DATA if marks else "LitData",
        "init_args": {
            "data_path": str(build),
            "split_names": [train, "val"],
            "seed": config.data.init_args.seed,
            "num_workers": config.data.init_args.num_workers,
        },
    }
    made["train"]["max_tokens"] = topology.max_tokens
    made["train"]["max_seq_length"] = topology.max_seq_length
    made["out_dir"] = (
        config.out_dir if train == "train" else f"{config.out_dir.rstrip('/')}-control"
    )
    return made


def litgpt_problems(config: dict[str, Any], path: Path) -> list[str]:
    """Returns why `litgpt pretrain` would refuse a config; its own parser is asked where needed."""
    if not is_plain(config) and (reason := _refused(config)):
        return [f"{path}: litgpt pretrain refuses it: {reason}"]
    name, known = str(config["model_name"]), known_models()
    if config.get("model_config") is None and name.split("/")[-1] not in known:
        return [f"{path}: model_name: LitGPT knows no model '{name}'{nearest(name, known)}"]
    return []


def _refused(config: dict[str, Any]) -> str | None:
    """Returns what LitGPT's own parser says against a config, None when it takes it."""
    from jsonargparse import ArgumentError, ArgumentParser
    from litgpt.pretrain import setup

    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(setup, as_positional=False)
    try:
        parser.parse_object(config)
    except ArgumentError as error:
        return " ".join(str(error).split())[:500]
    return None
