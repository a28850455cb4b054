"""LitGPT checkpoints: find them, read what they say of themselves, load the model.

A checkpoint is a folder with `lit_model.pth` and `model_config.yaml` (LitGPT writes the latter
last, so a folder without it was interrupted). The state is the weights alone, or LitGPT's training
state `{"model": ..., "train_dataloader": ..., "step_count": ...}`. Nothing in it is executed:
weights load with `weights_only=True`, YAML with the safe loader.

    out/run        -> out/run/step-00000100, out/run/step-00000200 (final too, if of another step)
    out/run/final  -> itself

A Hugging Face folder stands for the LitGPT folder that it is converted to
(`mixctl.evals.huggingface`).

Price: the state is mapped, not read, so the optimizer's share of the file costs nothing.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixctl.evals.huggingface import HF_CONFIG_NAME, Converter, is_hf_checkpoint
from mixctl.evals.skeleton import fitted, give_rotary_cache, litgpt_config, skeleton
from mixctl.shards.errors import InputError
from mixctl.shards.yamlfile import read_yaml

if TYPE_CHECKING:
    import torch

STATE_NAME = "lit_model.pth"
CONFIG_NAME = "model_config.yaml"
PREFIXES = ("_orig_mod.", "module.", "_forward_module.")
_STEP_FOLDER = re.compile(r"step-(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint and what it says of its training.

    Attributes:
        folder: where it is.
        step: completed optimizer steps; None when nothing says it.
        step_source: what said it.
        iterations: micro-batches that each rank has trained on; None when not recorded.
        loader: the saved loader state; None when not recorded.
        source: the Hugging Face folder that `folder` was converted from; None for LitGPT's own.
    """

    folder: Path
    step: int | None
    step_source: str
    iterations: int | None = None
    loader: Mapping[str, Any] | None = field(default=None, repr=False)
    source: Path | None = None

    @property
    def given(self) -> Path:
        """Returns the folder as it was given."""
        return self.source or self.folder

    @property
    def name(self) -> str:
        """Returns the path as it was given."""
        return self.given.as_posix()

    @property
    def config_path(self) -> Path:
        """Returns the path of the model's config, as it was given."""
        return self.given / (CONFIG_NAME if self.source is None else HF_CONFIG_NAME)

    @property
    def state_path(self) -> Path:
        """Returns the path of lit_model.pth."""
        return self.folder / STATE_NAME


def find_checkpoints(
    paths: Iterable[Path], step: int | None = None, converter: Converter | None = None
) -> list[Checkpoint]:
    """Returns the checkpoints that the paths name, by step, unknown steps last.

    Where one out_dir holds the same step twice (`final` and the last `step-*`), `step-*` is taken.

    Args:
        paths: checkpoint folders, or out_dirs that hold `step-*` and `final`.
        step: the step of checkpoints that do not say it themselves.
        converter: converts Hugging Face folders; None: they are refused.

    Raises:
        InputError: when a path is no checkpoint, or one cannot be read.
    """
    found: list[Checkpoint] = []
    problems: list[str] = []
    for path in paths:
        try:
            folders = [path] if _is_checkpoint(path) else _below(path)
            read = [read_checkpoint(folder, step, converter) for folder in folders]
            found += _without_repeats(read)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    unique = {checkpoint.given.resolve(): checkpoint for checkpoint in found}
    return sorted(unique.values(), key=_order)


def _order(checkpoint: Checkpoint) -> tuple[bool, int, str]:
    return (checkpoint.step is None, checkpoint.step or 0, checkpoint.name)


def _is_checkpoint(path: Path) -> bool:
    return _is_litgpt(path) or is_hf_checkpoint(path)


def _is_litgpt(path: Path) -> bool:
    return (path / STATE_NAME).exists() or (path / CONFIG_NAME).exists()


def _below(path: Path) -> list[Path]:
    """Returns the complete checkpoints of an out_dir."""
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint folder")
    named = sorted(p for p in path.iterdir() if _STEP_FOLDER.match(p.name) or p.name == "final")
    folders = [p for p in named if p.is_dir() and _is_checkpoint(p)]
    if not folders:
        raise InputError(
            f"{path}: holds no checkpoint (neither {STATE_NAME} and {CONFIG_NAME}, nor "
            f"{HF_CONFIG_NAME} and weights, nor step-* or final)"
        )
    return folders


def _without_repeats(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    chosen: dict[object, Checkpoint] = {}
    for checkpoint in checkpoints:
        key = checkpoint.given if checkpoint.step is None else checkpoint.step
        kept = chosen.get(key)
        if kept is None or not _STEP_FOLDER.match(kept.given.name):
            chosen[key] = checkpoint
    return list(chosen.values())


def read_checkpoint(
    folder: Path, step: int | None = None, converter: Converter | None = None
) -> Checkpoint:
    """Returns the checkpoint of one folder with its step and its loader state.

    Raises:
        InputError: when a file is missing, truncated or corrupt, or of a Hugging Face folder where
            there is nothing to convert it, or LitGPT cannot compute it.
    """
    if not _is_litgpt(folder) and is_hf_checkpoint(folder):
        return _from_hugging_face(folder, step, converter)
    missing = [name for name in (STATE_NAME, CONFIG_NAME) if not (folder / name).is_file()]
    if missing:
        raise InputError([f"{folder / name}: missing (an interrupted save?)" for name in missing])
    state = read_state(folder / STATE_NAME)
    number, source = _step(folder, state, step)
    iterations, loader = state.get("iter_num"), state.get("train_dataloader")
    return Checkpoint(
        folder=folder,
        step=number,
        step_source=source,
        iterations=iterations if isinstance(iterations, int) else None,
        loader=loader if isinstance(loader, dict) else None,
    )


def _from_hugging_face(folder: Path, step: int | None, converter: Converter | None) -> Checkpoint:
    if converter is None:
        raise InputError(f"{folder}: a Hugging Face checkpoint, a LitGPT one is needed here")
    number, how = _step(folder, {}, step)
    return Checkpoint(converter.convert(folder), number, how, source=folder)


def _step(folder: Path, state: Mapping[str, Any], given: int | None) -> tuple[int | None, str]:
    recorded = state.get("step_count")
    if isinstance(recorded, int) and not isinstance(recorded, bool):
        return recorded, f"step_count in {STATE_NAME}"
    if match := _STEP_FOLDER.match(folder.resolve().name):
        return int(match[1]), "the folder's name"
    if given is not None:
        return given, "--step"
    return None, "unknown"


def read_state(path: Path) -> dict[str, Any]:
    """Returns the mapped content of lit_model.pth; no code in it is run.

    Raises:
        InputError: when it is truncated, corrupt, or holds more than tensors and plain values.
    """
    import torch

    try:
        mapped = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"{path}: refused, it is damaged or holds more than tensors and plain values ({reason})"
        ) from error
    except Exception as error:  # torch's reader meets a damaged file in any of its lines
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: truncated or corrupt ({reason})") from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return state


def weights(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the model's tensors by name, wrapper prefixes (`_orig_mod.` ...) removed."""
    inner = state.get("model", state)
    inner = inner if isinstance(inner, Mapping) else {}
    return {_bare(str(name)): tensor for name, tensor in inner.items()}


def _bare(name: str) -> str:
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name.replace("._orig_mod.", ".").replace("._checkpoint_wrapped_module.", ".")


def load_model(checkpoint: Checkpoint, device: str = "cpu") -> torch.nn.Module:
    """Returns the checkpoint's `litgpt.GPT` in evaluation mode on the device, weights as stored.

    Raises:
        InputError: when model_config.yaml and the weights do not fit each other or LitGPT.
    """
    path = checkpoint.folder / CONFIG_NAME
    model = skeleton(model_config(checkpoint.folder), path)
    model = fitted(model, weights(read_state(checkpoint.state_path)), checkpoint.state_path)
    give_rotary_cache(model, path)
    ready: torch.nn.Module = model.to(device).eval().requires_grad_(False)
    return ready


def check_weights(checkpoints: Iterable[Checkpoint]) -> None:
    """Reads all bytes of the checkpoints and fits the weights to their models.

    Raises:
        InputError: when bytes were changed since the file was saved, or weights do not fit or are
            not finite; all of the checkpoints at once.
    """
    problems: list[str] = []
    for checkpoint in checkpoints:
        try:
            _check_bytes(checkpoint.state_path)
            _check_finite(checkpoint, load_model(checkpoint))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def _check_finite(checkpoint: Checkpoint, model: torch.nn.Module) -> None:
    wrong = [name for name, of in model.state_dict().items() if not bool(of.isfinite().all())]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise InputError(
            f"{checkpoint.name}: weight {wrong[0]}{more} is not finite (training diverged?)"
        )


def _check_bytes(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return  # the format before torch 1.6 has no checksums
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path}: truncated or corrupt ({error})") from error
    if damaged is not None:
        raise InputError(f"{path}: corrupt, the checksum of its part {damaged} is wrong")


def model_config(folder: Path) -> Any:
    """Returns the `litgpt.Config` of a checkpoint.

    Raises:
        InputError: when model_config.yaml is no YAML mapping or LitGPT does not accept it.
    """
    path = folder / CONFIG_NAME
    return litgpt_config(read_yaml(path), path)
