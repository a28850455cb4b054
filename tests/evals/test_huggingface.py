"""Hugging Face folders: the same numbers as `transformers`, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mixctl.evals.checkpoint import find_checkpoints, load_model, read_checkpoint
from mixctl.evals.forward import Request, token_logprobs
from mixctl.evals.huggingface import ARCHITECTURES, Converter
from mixctl.shards.errors import InputError

MODELS = Path(__file__).parent / "hugging_face"
NAMES = sorted(path.name for path in MODELS.iterdir() if (path / "config.json").is_file())


def ours(folder: Path, out: Path, expected: dict) -> np.ndarray:
    """Returns our log-probabilities of the expected tokens."""
    model = load_model(read_checkpoint(folder, converter=Converter(out)))
    requests = [Request(np.array(tokens), 1) for tokens in expected["tokens"]]
    return np.array(token_logprobs(model, requests))


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(MODELS / "llama", tmp_path / "llama")


def test_every_type_has_a_model():
    kinds = {
        json.loads((MODELS / name / "config.json").read_text())["model_type"] for name in NAMES
    }
    assert kinds == set(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities_are_those_of_transformers(name, tmp_path):
    expected = json.loads((MODELS / name / "expected.json").read_text())
    found = ours(MODELS / name, tmp_path, expected)
    np.testing.assert_allclose(found, expected["logprobs"], atol=1e-4)
    assert np.std(found) > 0.3  # a model that tells tokens apart


def test_bin_files_in_shards(folder, tmp_path):
    """What older releases of transformers wrote: q, k and v of a layer in different files."""
    expected = json.loads((folder / "expected.json").read_text())
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {f"pytorch_model-0000{n}-of-00003.bin": {} for n in (1, 2, 3)}
    weight_map = {}
    for at, (key, tensor) in enumerate(sorted(weights.items())):
        name = sorted(shards)[at % 3]
        shards[name][key], weight_map[key] = tensor, name
    for name, part in shards.items():
        torch.save(part, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.save({"lr": 1}, folder / "training_args.bin")
    np.testing.assert_allclose(ours(folder, tmp_path, expected), expected["logprobs"], atol=1e-4)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(
        InputError, match=r"00002-of-00003\.bin: missing, pytorch_model\.bin\.index"
    ):
        read_checkpoint(folder, converter=Converter(tmp_path / "again"))


def test_converted_once_kept_by_content_and_the_source_is_only_read(folder, tmp_path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    converter = Converter(tmp_path / "converted")
    first = read_checkpoint(folder, converter=converter)
    assert (first.name, first.step) == (folder.as_posix(), None)
    stamp = first.state_path.stat().st_mtime_ns
    again = read_checkpoint(folder, 7, Converter(tmp_path / "converted"))
    assert again.folder == first.folder and again.step == 7
    assert again.state_path.stat().st_mtime_ns == stamp
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert read_checkpoint(folder, converter=converter).folder != first.folder
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(after) == set(before) and after["config.json"] == before["config.json"]


def test_discard_leaves_nothing_of_its_own(folder, tmp_path):
    out = tmp_path / "results"
    kept = read_checkpoint(MODELS / "olmo2", converter=Converter(out / "converted")).folder
    converter = Converter(out / "converted")
    made = read_checkpoint(folder, converter=converter).folder
    read_checkpoint(MODELS / "olmo2", converter=converter)
    converter.discard()
    assert kept.is_dir() and not made.exists()
    other = Converter(tmp_path / "none" / "converted")
    read_checkpoint(folder, converter=other)
    other.discard()
    assert not (tmp_path / "none").exists()


def test_in_an_out_dir_by_step(tmp_path):
    for step in (20, 3):
        shutil.copytree(MODELS / "gpt-neox", tmp_path / "run" / f"step-{step:08d}")
    found = find_checkpoints([tmp_path / "run"], converter=Converter(tmp_path / "c"))
    assert [c.step for c in found] == [3, 20]
    assert found[0].folder == found[1].folder  # the same content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, r"model_type is 'mamba'.*llama.*litgpt convert_to_litgpt"),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]"),
        ({"hidden_act": "gelu"}, r"hidden_act is 'gelu', LitGPT computes only 'silu' for llama"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "scaled by 'yarn'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": 15, "head_dim": None}, "LitGPT does not accept it"),
        ({"num_hidden_layers": 3}, r"weights are not those.*h\.2.*missing"),
        ({"vocab_size": 65}, r"weights are not those.*\(64, 16\), \(65, 16\) is needed"),
        ({"num_hidden_layers": 1}, r"weights are not those.*h\.1.*of no use"),
    ],
)
def test_what_is_refused_and_why(folder, tmp_path, changes, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=message):
        read_checkpoint(folder, converter=Converter(tmp_path / "converted"))
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8}, "hidden_size": None},
            [
                "hidden_size is missing",
                *(
                    f"{name} of the rotary embedding is None, a positive number is needed"
                    for name in (
                        "low_freq_factor",
                        "high_freq_factor",
                        "original_max_position_embeddings",
                    )
                ),
            ],
        ),
        (
            {"rope_theta": None},
            ["rope_theta of the rotary embedding is None, a positive number is needed"],
        ),
        (
            {"rope_theta": "1e4"},
            ["rope_theta of the rotary embedding is '1e4', a positive number is needed"],
        ),
        ({"rope_scaling": "llama3"}, ["rope_scaling is 'llama3', an object is needed"]),
        ({"rope_parameters": [1]}, ["rope_parameters is [1], an object is needed"]),
    ],
)
def test_a_rotary_embedding_that_is_no_number(folder, tmp_path, changes, wrong):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError) as caught:
        read_checkpoint(folder, converter=Converter(tmp_path / "converted"))
    assert caught.value.problems == [f"{path}: {problem}" for problem in wrong]


def test_a_rotary_embedding_by_its_older_names(tmp_path):
    folder = shutil.copytree(MODELS / "gpt-neox", tmp_path / "neox")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name in ("rope_parameters", "rope_theta", "partial_rotary_factor"):
        config.pop(name, None)
    path.write_text(json.dumps({**config, "rotary_emb_base": None, "rotary_pct": 0}))
    with pytest.raises(InputError) as caught:
        read_checkpoint(folder, converter=Converter(tmp_path / "converted"))
    assert caught.value.problems == [
        f"{path}: {name} of the rotary embedding is {value}, a positive number is needed"
        for name, value in (("rotary_emb_base", None), ("rotary_pct", 0))
    ]


@pytest.mark.parametrize("index", [{}, {"weight_map": None}, {"weight_map": {"a": 1}}])
def test_an_index_without_a_weight_map(folder, tmp_path, index):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"safetensors\.index\.json: weight_map is .* is needed"):
        read_checkpoint(folder, converter=Converter(tmp_path / "converted"))


def test_a_weight_without_a_place(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.sink"] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no place for weight .*sink"):
        read_checkpoint(folder, converter=Converter(tmp_path))


def test_a_part_that_the_index_lists_and_one_that_is_no_weights(folder, tmp_path):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = r"model-2\.safetensors: missing, model\.safetensors\.index\.json lists it"
    with pytest.raises(InputError, match=said):
        read_checkpoint(folder, converter=Converter(tmp_path))
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").unlink()
    torch.save([torch.zeros(2)], folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pytorch_model.bin: holds a list, not weights by name"):
        read_checkpoint(folder, converter=Converter(tmp_path))


@pytest.mark.parametrize("kept", [0, 10, 0.6])
def test_truncated_weights(folder, tmp_path, kept):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"model\.safetensors: refused, it is damaged"):
        read_checkpoint(folder, converter=Converter(tmp_path))


def test_without_a_converter_it_is_refused(folder):
    with pytest.raises(InputError, match="a Hugging Face checkpoint, a LitGPT one is needed"):
        find_checkpoints([folder])
