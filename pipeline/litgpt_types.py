"""What LitGPT's parser takes, told from LitGPT's own annotations without importing LitGPT.

`import litgpt` takes over three seconds of processor, most of a small build. The classes that its
parser reads a config by stand in two files of it that import nothing of the rest (`args.py` and
`config.py`), so these two are loaded alone. A config whose every key is one of theirs, with a value
of exactly the type annotated there, is one that the parser takes. Of any other this module only
says that it cannot tell: `trainer.litgpt_problems` then asks the parser itself.

    {"model_name": "pythia-14m", "train": {"max_norm": 1.0}, ...}       plain
    {"model_name": "pythia-14m", "train": {"max_norm": "1e0"}, ...}     ask: the parser may convert

The tests ask the parser about both sorts, and compare `_setup` with `litgpt.pretrain.setup`.

Price: 25 ms of processor, once in a process.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mixctl.shards.errors import InputError

Hint = Any
"""an annotation; a mapping of names to annotations stands for a section of the config"""

GAUSSIAN_DATA = "mixctl.trainer_configs.gaussian.GaussianLitData"
"""LitData that also adds the noise of Gaussian marks; its arguments are the same"""

_NAME = re.compile(r"[./]*[A-Za-z][\w ./+@=-]*")
_WORDS = {"true", "false", "null", "none", "yes", "no", "on", "off", "y", "n", "nan", "inf"}
_DATA: dict[str, Hint] = {
    "class_path": Literal["LitData", GAUSSIAN_DATA],
    "init_args": {
        "data_path": str,
        "split_names": list[str],
        "seed": int,
        "num_workers": int,
    },
}


@lru_cache(maxsize=2)
def litgpt_file(name: Literal["args", "config"]) -> types.ModuleType:
    """Returns a module of the installed LitGPT, loaded alone from its file.

    Raises:
        InputError: when LitGPT is not installed.
    """
    package = importlib.util.find_spec("litgpt")
    if package is None or package.origin is None:
        raise InputError("litgpt is not installed: pip install 'mixctl'")
    path = Path(package.origin).with_name(f"{name}.py")
    alone = f"mixctl_litgpt_{name}"
    spec = importlib.util.spec_from_file_location(alone, path)
    module = importlib.util.module_from_spec(_found(spec))
    sys.modules[alone] = module  # where the annotations of its classes are resolved
    _found(spec).loader.exec_module(module)  # type: ignore[union-attr]
    return module


def _found(spec: ModuleSpec | None) -> ModuleSpec:
    if spec is None:
        raise InputError("litgpt is damaged: pip install --force-reinstall 'mixctl'")
    return spec


def known_models() -> dict[str, dict[str, Any]]:
    """Returns the settings of every model that LitGPT knows, by name."""
    models: dict[str, dict[str, Any]] = litgpt_file("config").name_to_config
    return models


def is_plain(config: Mapping[str, Any]) -> bool:
    """Returns whether LitGPT's parser is known to take a config; False where it must be asked."""
    return "model_name" in config and fits(dict(config), _setup())


@lru_cache(maxsize=1)
def _setup() -> dict[str, Hint]:
    """Returns the arguments of `litgpt pretrain` (0.5.13), a build's own `data:` section included.

    Of `resume`, which the parser reads in three ways, true and false alone are plain.
    """
    args, config = litgpt_file("args"), litgpt_file("config")
    return {
        "model_name": str,
        "model_config": config.Config | None,
        "out_dir": str,
        "precision": Literal["bf16-true", "bf16-mixed", "32-true", None],
        "initial_checkpoint_dir": str | None,
        "resume": bool,
        "data": _DATA,
        "train": args.TrainArgs,
        "eval": args.EvalArgs,
        "log": args.LogArgs,
        "optimizer": str | dict,
        "devices": int,
        "num_nodes": int,
        "tokenizer_dir": str | None,
        "logger_name": Literal["csv", "tensorboard", "wandb", "mlflow", "litlogger"],
        "seed": int,
    }


def fits(value: object, hint: Hint) -> bool:
    """Returns whether a value of a YAML file has exactly the type that an annotation names."""
    if isinstance(hint, dict) or is_dataclass(hint):
        return isinstance(value, dict) and _section_fits(value, hint)
    origin: Any = get_origin(hint)
    of = get_args(hint)
    if origin is Literal:
        return any(value is one or (type(value) is str and value == one) for one in of)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in of)
    if origin is list:
        return isinstance(value, list) and all(fits(one, of[0]) for one in value)
    if hint is float:
        return type(value) in (int, float)
    if hint is str:
        return type(value) is str and _stays_text(value)
    return hint in (int, bool, dict, type(None)) and type(value) is hint


def _section_fits(section: Mapping[str, object], hint: Hint) -> bool:
    known = hint if isinstance(hint, dict) else get_type_hints(hint)
    return all(key in known and fits(value, known[key]) for key, value in section.items())


def _stays_text(value: str) -> bool:
    """Returns whether a text is one in every reading: a name or a path, and no word of YAML."""
    return _NAME.fullmatch(value) is not None and value.strip("./").lower() not in _WORDS
