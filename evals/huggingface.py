"""Hugging Face checkpoints: recognised, converted by LitGPT's own functions, kept with the results.

A folder with config.json and weights (*.safetensors or pytorch_model*.bin) is a checkpoint like any
other. What its config says becomes a LitGPT config, LitGPT's `copy_weights_*` rename the tensors,
and the result is a LitGPT folder below RESULTS_DIR/converted, under the digest of what it was made
of, so that a later eval finds it there. The user's folder is only read.

    config.json: "model_type": "llama" -> LitGPT config + copy_weights_hf_llama -> converted/3f0c...

LitGPT finds its configs by the names of published models, so that its own command converts those
alone; here the sizes come from config.json, and a model of any size passes. Fields that LitGPT
cannot compute (another activation, a scaled rotary embedding, a bias) are refused, all at once, and
so is a `model_type` that is not in the table; what LitGPT's command can convert all the same is
given as the folder that it wrote. Log-likelihoods equal those of `transformers` (tested for every
type). No code is run: .bin files load with `weights_only=True`.

Price: the weights once more on disk, and in memory while they are converted.
"""

from __future__ import annotations

import math
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixctl.evals.skeleton import litgpt_config, skeleton
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes, digest_file
from mixctl.shards.jsonfile import read_json

if TYPE_CHECKING:
    import torch

HF_CONFIG_NAME = "config.json"
FOLDER_NAME = "converted"
CONVERTER_VERSION = 1
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_SIZES = {
    "block_size": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "padded_vocab_size": "vocab_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "intermediate_size": "intermediate_size",
}
"""LitGPT's field -> that of config.json, which must have it"""
_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_seq_len": "original_max_position_embeddings",
}
"""LitGPT's field of a scaled rotary embedding -> that of config.json"""


@dataclass(frozen=True)
class _Architecture:
    """How LitGPT computes a `model_type`.

    Attributes:
        copy: LitGPT's function that renames the weights.
        gathers: whether that function collects q, k and v in a dictionary of its own.
        eps: the field of config.json with the epsilon of the norms.
        fixed: fields of LitGPT's config that all models of the type have in common.
        only: fields of config.json -> the one value that LitGPT computes, which is also meant where
            the field is missing.
    """

    copy: str
    gathers: bool
    eps: str
    fixed: Mapping[str, Any]
    only: Mapping[str, Any]


_LLAMA_LIKE: dict[str, Any] = {
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
}
_OLMO2: dict[str, Any] = {
    "norm_qk": True,
    "norm_qk_type": "olmo2",
    "norm_1": False,
    "norm_2": False,
    "post_attention_norm": True,
    "post_mlp_norm": True,
}
_PLAIN: dict[str, Any] = {"hidden_act": "silu", "attention_bias": False}
_QWEN: dict[str, Any] = {"hidden_act": "silu", "use_sliding_window": False}
ARCHITECTURES = {
    "llama": _Architecture(
        "copy_weights_hf_llama", True, "rms_norm_eps", _LLAMA_LIKE, {**_PLAIN, "mlp_bias": False}
    ),
    "olmo2": _Architecture(
        "copy_weights_olmo2", True, "rms_norm_eps", {**_LLAMA_LIKE, **_OLMO2}, _PLAIN
    ),
    "qwen2": _Architecture(
        "copy_weights_qwen_2_5", True, "rms_norm_eps", {**_LLAMA_LIKE, "attn_bias": True}, _QWEN
    ),
    "qwen3": _Architecture(
        "copy_weights_qwen_3",
        True,
        "rms_norm_eps",
        {**_LLAMA_LIKE, "norm_qk": True},
        {**_QWEN, "attention_bias": False},
    ),
    "gpt_neox": _Architecture(
        "copy_weights_gpt_neox",
        False,
        "layer_norm_eps",
        {"bias": True, "norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP"},
        {"hidden_act": "gelu", "attention_bias": True},
    ),
}


def is_hf_checkpoint(folder: Path) -> bool:
    """Returns whether the folder holds what `save_pretrained` of `transformers` writes."""
    return (folder / HF_CONFIG_NAME).is_file() and bool(_weight_files(folder))


@dataclass
class Converter:
    """Converts checkpoints into a folder, each once.

    Attributes:
        folder: where converted checkpoints are kept.
        made: what this converter wrote.
    """

    folder: Path
    made: list[Path] = field(default_factory=list)

    def convert(self, source: Path) -> Path:
        """Returns the LitGPT folder made of a Hugging Face one.

        Raises:
            InputError: when LitGPT cannot compute the model, or a file is broken.
        """
        values = read_json(source / HF_CONFIG_NAME)
        fields = _litgpt_fields(source / HF_CONFIG_NAME, values)
        target = self.folder / _digest(source)
        if not (target / "model_config.yaml").is_file():
            weights = _converted(source, str(values["model_type"]), fields)
            self.made.append(target)
            _write(target, fields, weights)
        return target

    def discard(self) -> None:
        """Removes what this converter wrote, and folders that are empty then."""
        for target in self.made:
            shutil.rmtree(target, ignore_errors=True)
        for folder in (self.folder, self.folder.parent) if self.made else ():
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self.made.clear()


def _weight_files(folder: Path) -> list[Path]:
    """Returns the weight files; safetensors where the folder has both sorts."""
    return next((found for p in _WEIGHTS if (found := sorted(folder.glob(p)))), [])


def _litgpt_fields(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of LitGPT's config; everything that keeps it from being one, at once."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise InputError(
            f"{path}: model_type is {kind!r}, which is not converted here (it can be "
            f"{', '.join(sorted(ARCHITECTURES))}); where LitGPT knows the model, convert it with "
            "`litgpt convert_to_litgpt` and give that folder"
        )
    architecture = ARCHITECTURES[kind]
    needed = [*_SIZES.values(), architecture.eps]
    problems = [f"{path}: {name} is missing" for name in needed if values.get(name) is None]
    problems += [
        f"{path}: {name} is {values[name]!r}, LitGPT computes only {value!r} for {kind}"
        for name, value in architecture.only.items()
        if values.get(name, value) != value
    ]
    rope, wrong = _rope(values)
    problems += [f"{path}: {why}" for why in wrong]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    fields = {"name": f"hf-{kind}", **{ours: values[theirs] for ours, theirs in _SIZES.items()}}
    fields |= {"norm_eps": values[architecture.eps], **architecture.fixed, **rope}
    if values.get("num_key_value_heads") is not None:
        fields["n_query_groups"] = values["num_key_value_heads"]
    if values.get("head_dim") is not None:
        fields["head_size"] = values["head_dim"]
    if kind == "gpt_neox":
        fields["parallel_residual"] = values.get("use_parallel_residual", True)
    return fields


def _rope(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields of the rotary embedding, and what keeps LitGPT from computing it."""
    groups = {name: values.get(name) or {} for name in ("rope_parameters", "rope_scaling")}
    problems = [
        f"{name} is {group!r}, an object is needed"
        for name, group in groups.items()
        if not isinstance(group, Mapping)
    ]
    if problems:
        return {}, problems
    parameters = groups["rope_parameters"]
    theta = [(parameters, "rope_theta"), (values, "rope_theta"), (values, "rotary_emb_base")]
    base = _told(theta, 10000)
    numbers = [base]
    if values.get("model_type") == "gpt_neox":
        share = [(parameters, "partial_rotary_factor"), (values, "rotary_pct")]
        numbers.append(_told(share, 0.25))
    scaling = groups["rope_scaling"] or parameters
    how = scaling.get("rope_type", scaling.get("type", "default"))
    adjusted = how == "llama3"
    numbers += [(name, scaling.get(name)) for name in _LLAMA3.values() if adjusted]
    if not adjusted and how != "default":
        problems.append(f"the rotary embedding is scaled by {how!r}, LitGPT knows only 'llama3'")
    problems += [
        f"{name} of the rotary embedding is {value!r}, a positive number is needed"
        for name, value in numbers
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf
    ]
    if problems:
        return {}, problems
    fields = {"rope_base": int(base[1]) if base[1] == int(base[1]) else base[1]}
    if values.get("model_type") == "gpt_neox":
        fields["rotary_percentage"] = numbers[1][1]
    if adjusted:
        fields["rope_adjustments"] = {ours: scaling[theirs] for ours, theirs in _LLAMA3.items()}
    return fields, []


def _told(places: Sequence[tuple[Mapping[str, Any], str]], default: float) -> tuple[str, Any]:
    """Returns the name and value of the first field that is there."""
    return next(((key, place[key]) for place, key in places if key in place), ("", default))


def _digest(source: Path) -> str:
    """Returns the digest of everything that the converted folder depends on."""
    from importlib.metadata import version

    parts = [
        f"{CONVERTER_VERSION} litgpt {version('litgpt')}",
        digest_file(source / HF_CONFIG_NAME),
    ]
    parts += [f"{path.name} {digest_file(path)}" for path in _weight_files(source)]
    return digest_bytes("\n".join(parts).encode())


def _converted(source: Path, kind: str, fields: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns LitGPT's weights by name.

    Raises:
        InputError: when weights are missing, broken, unknown or of other shapes.
    """
    from litgpt.scripts import convert_hf_checkpoint as litgpt_convert

    architecture = ARCHITECTURES[kind]
    copy = getattr(litgpt_convert, architecture.copy)
    config = litgpt_config(fields, source / HF_CONFIG_NAME)
    model = skeleton(config, source / HF_CONFIG_NAME)
    first = (config, {}) if architecture.gathers else (config,)
    converted: dict[str, torch.Tensor] = {}
    for path in _listed(source):
        try:
            copy(*first, converted, _tensors(path))
        except KeyError as error:
            raise InputError(f"{path}: LitGPT has no place for weight {error} of {kind}") from error
        except Exception as error:  # of shapes that do not go together, wherever LitGPT meets them
            why = " ".join(str(error).split())[:300]
            raise InputError(
                f"{path}: the weights are not those of {HF_CONFIG_NAME} ({why})"
            ) from error
    _check_shapes(source, model, converted)
    return converted


def _listed(source: Path) -> list[Path]:
    """Returns the weight files, all that the index lists among them."""
    paths = _weight_files(source)
    index = source / ("model" if paths[0].suffix == ".safetensors" else "pytorch_model")
    index = index.with_name(f"{index.name}{paths[0].suffix}.index.json")
    if not index.is_file():
        return paths
    names = read_json(index).get("weight_map")
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in names.values()):
        raise InputError(f"{index}: weight_map is {names!r:.80}, an object of file names is needed")
    listed = sorted({source / Path(name).name for name in names.values()})
    missing = [f"{path}: missing, {index.name} lists it" for path in listed if not path.is_file()]
    if missing:
        raise InputError(missing)
    return listed


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
    ) as e:
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise InputError(
            f"{path}: refused, it is damaged or holds more than tensors ({reason})"
        ) from e
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, not weights by name")
    return found


def _check_shapes(source: Path, model: Any, found: Mapping[str, torch.Tensor]) -> None:
    """Refuses weights that are not those of the model, named."""
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wrong = [
        f"{name} is {shapes.get(name, 'missing')}, {shape} is needed"
        for name, shape in wanted.items()
        if shapes.get(name) != shape
    ]
    wrong += [f"{name} is of no use" for name in shapes if name not in wanted]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(
            f"{source}: the weights are not those of {HF_CONFIG_NAME}, as LitGPT names them: "
            f"{'; '.join(wrong[:3])}{more}"
        )


def _write(target: Path, fields: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    """Writes the LitGPT folder; model_config.yaml last, without which it is none."""
    import torch
    import yaml

    from mixctl.shards.files import replacing, write_text

    with replacing(target / "lit_model.pth") as partial:
        torch.save(dict(weights), partial)
    text: str = yaml.safe_dump(dict(fields), sort_keys=True)
    write_text(target / "model_config.yaml", text)
