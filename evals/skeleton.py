"""A model without its weights: what LitGPT makes of a config, or why it makes nothing of it.

A config is data: a size of it may be a text, negative, or so large that no memory holds it. LitGPT
meets that somewhere inside, in ways of its own; here it becomes a sentence that names the file.

    config = litgpt_config(values, path)
    model = skeleton(config, path)         every tensor on torch's meta device

Price: some milliseconds a layer, no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixctl.shards.errors import InputError

if TYPE_CHECKING:
    import torch

_MOST = {
    "n_layer": 10_000,
    "n_head": 100_000,
    "n_embd": 10_000_000,
    "block_size": 100_000_000,
    "vocab_size": 100_000_000,
    "padded_vocab_size": 100_000_000,
    "n_query_groups": 100_000,
    "head_size": 1_000_000,
    "intermediate_size": 100_000_000,
}
"""sizes of a model -> more than any model will have"""


def litgpt_config(values: Mapping[str, Any], path: Path) -> Any:
    """Returns the `litgpt.Config` with these values, its sizes checked.

    Raises:
        InputError: naming `path`, when LitGPT does not accept them or a size is none.
    """
    from litgpt import Config

    try:
        config = Config(**values)
    except Exception as error:  # LitGPT checks little: what fails, fails in its own arithmetic
        raise InputError(f"{path}: LitGPT does not accept it ({_said(error)})") from error
    sizes = {name: getattr(config, name) for name in _MOST}
    problems = [
        f"{path}: {name} is {value!r:.80}: a size is a whole number from 1 to {_MOST[name]:,}"
        for name, value in sizes.items()
        if not (type(value) is int and 1 <= value <= _MOST[name])
    ]
    if problems:
        raise InputError(problems)
    return config


def skeleton(config: Any, path: Path) -> Any:
    """Returns the `litgpt.GPT` of a config, its tensors on the meta device.

    Raises:
        InputError: naming `path`, when LitGPT cannot make one.
    """
    import torch
    from litgpt import GPT

    try:
        with torch.device("meta"):
            return GPT(config)
    except Exception as error:  # of a config that LitGPT accepted, wherever it met the value
        raise InputError(f"{path}: LitGPT makes no model of it ({_said(error)})") from error


def give_rotary_cache(model: Any, path: Path) -> None:
    """Gives the model its rotary cache, which no checkpoint holds, on the CPU.

    Raises:
        InputError: naming `path`, when `block_size` is more than memory holds.
    """
    import torch

    try:
        model.cos, model.sin = model.rope_cache(device=torch.device("cpu"))
    except Exception as error:
        why = f"block_size {model.config.block_size}: LitGPT makes no rotary cache of it"
        raise InputError(f"{path}: {why} ({_said(error)})") from error


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"[:300]


def fitted(model: torch.nn.Module, weights: Mapping[str, Any], path: Path) -> torch.nn.Module:
    """Returns the model with these weights, as they are.

    Raises:
        InputError: naming `path`, when they are not those of the model.
    """
    try:
        model.load_state_dict(weights, strict=True, assign=True)
    except Exception as error:  # torch raises RuntimeError, and others for what is no tensor
        lines = " ".join(line.strip() for line in str(error).splitlines())
        raise InputError(
            f"{path}: the weights are not those of model_config.yaml ({lines[:400]})"
        ) from error
    return model
