"""The configs of the reference models: what mixctl and LitGPT make of them, and their numbers.

The parameter counts are held against three things that know nothing of each other: LitGPT's model,
the sum over its matrices written out here, and the numbers in the head of each file.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.pretrain import get_lr, validate_args
from litgpt.utils import instantiate_torch_optimizer

from mixctl.pipeline.litgpt_types import GAUSSIAN_DATA
from mixctl.pipeline.trainer import (
    litgpt_config,
    litgpt_problems,
    model_vocabulary,
    read_topology,
    read_trainer,
)
from mixctl.shards.layout import (
    DEFAULT_CHUNK_BYTES,
    MAX_CHUNKS_PER_WORKER,
    train_layout,
    val_layout,
)
from mixctl.shards.topology import Topology


@dataclass(frozen=True)
class Reference:
    """What a file must say, written by hand; `stated` is the count that the source gives."""

    parameters: int
    stated: float
    shape: tuple[int, int, int, int]
    """Layers, width, heads, width of the MLP."""
    batch: tuple[int, int, int]
    """Steps, sequences a step, tokens a sequence."""
    rate: tuple[float, float, int]
    """Peak and last learning rate, warm-up steps."""


OLMO_BATCH = (100_000, 512, 4096)
OLMO_RATE = (4e-4, 4e-5, 2000)
ONE_B = Reference(1_484_916_736, 1.5e9, (16, 2048, 16, 8192), OLMO_BATCH, OLMO_RATE)
REFERENCES = {
    "pythia-160m": Reference(
        162_322_944, 162_322_944, (12, 768, 12, 3072), (143_000, 1024, 2048), (6e-4, 6e-5, 1430)
    ),
    "hubble-1b": Reference(
        1_179_191_296, 1.2e9, (16, 2048, 32, 8192), (48_000, 1024, 2048), (4e-4, 4e-5, 2400)
    ),
    "olmo2-179m": Reference(179_334_720, 179e6, (12, 576, 12, 2304), OLMO_BATCH, OLMO_RATE),
    "olmo2-546m": Reference(545_987_680, 546e6, (16, 1120, 16, 4480), OLMO_BATCH, OLMO_RATE),
    "olmo2-1b": ONE_B,
    "olmo2-1b-8-nodes": ONE_B,
    "olmo2-1b-gaussian": ONE_B,
    "olmo2-2.7b": Reference(2_701_581_120, 2.7e9, (16, 2880, 16, 11520), OLMO_BATCH, OLMO_RATE),
}
SIZES = {"name", "hf_config", "n_layer", "n_head", "n_embd", "n_query_groups", "intermediate_size"}
DERIVED = {"head_size", "rope_n_elem"}


def path_of(name: str) -> Path:
    return Path(str(resources.files("mixctl.trainer_configs") / f"{name}.yaml"))


def header(name: str) -> str:
    """Returns the comment at the top of the file as one line."""
    lines = path_of(name).read_text("utf-8").splitlines()
    return " ".join(line[2:] for line in lines if line.startswith("# "))


def loaded(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path_of(name).read_text("utf-8"))
    return config


def topology(name: str) -> Topology:
    path = path_of(name)
    return read_topology(read_trainer(path)[0], path)


def numbers(text: str) -> set[int]:
    return {int(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\d|\d", text)}


def counted(model: dict[str, Any]) -> int:
    """Returns the sum over the matrices of the architecture: Llama, OLMo 2 or GPT-NeoX."""
    width, mlp, padded = model["n_embd"], model["intermediate_size"], model["padded_vocab_size"]
    embeddings: int = 2 * padded * width
    if not model.get("norm_qk") and model["norm_class_name"] == "RMSNorm":
        shared = model["n_query_groups"] * width // model["n_head"]  # width of k and of v
        attention = 2 * width * width + 2 * width * shared
        return embeddings + int(
            model["n_layer"] * (attention + 3 * width * mlp + 2 * width) + width
        )
    if model["norm_class_name"] == "RMSNorm":
        attention = 4 * width * width + 2 * width  # q, k, v, out; the norms of q and k
        block = attention + 3 * width * mlp + 2 * width  # gate, up, down; the two norms after
        return embeddings + int(model["n_layer"] * block + width)
    attention = 4 * width * width + 4 * width  # with biases
    block = attention + 2 * width * mlp + mlp + width + 4 * width
    return embeddings + int(model["n_layer"] * block + 2 * width)


def test_every_config_is_tested() -> None:
    here = {path.stem for path in path_of("demo").parent.glob("*.yaml")}
    assert here == {*REFERENCES, "demo", "demo-quick", "starter"}  # that: test_init.py


@pytest.fixture(scope="module", params=sorted(REFERENCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> GPT:
    with torch.device("meta"):
        return GPT(Config(**loaded(name)["model_config"]))


def test_parameters(name: str, model: GPT) -> None:
    reference, config = REFERENCES[name], loaded(name)["model_config"]
    assert sum(weight.numel() for weight in model.parameters()) == reference.parameters
    assert counted(config) == reference.parameters
    without = reference.parameters - 2 * config["padded_vocab_size"] * config["n_embd"]
    said = re.search(r"Parameters: ([\d,]+) in all, ([\d,]+) without", header(name))
    assert said is not None
    assert [int(part.replace(",", "")) for part in said.groups()] == [reference.parameters, without]


def test_the_count_is_the_stated_one_to_its_last_digit(name: str) -> None:
    reference = REFERENCES[name]
    unit = {162_322_944: 1, 179e6: 1e6, 546e6: 1e6, 1.2e9: 1e8, 1.5e9: 1e8, 2.7e9: 1e8}[
        reference.stated
    ]
    assert round(reference.parameters / unit) == round(reference.stated / unit)


def test_shape(name: str) -> None:
    config = loaded(name)["model_config"]
    keys = ("n_layer", "n_embd", "n_head", "intermediate_size")
    assert tuple(config[key] for key in keys) == REFERENCES[name].shape


def test_a_layer_of_the_model_runs(name: str) -> None:
    config = loaded(name)["model_config"]
    with torch.device("meta"):
        model = GPT(Config(**{**config, "n_layer": 1}))
        logits = model(torch.zeros((1, 16), dtype=torch.int64))
    assert logits.shape == (1, 16, config["padded_vocab_size"])


def test_the_architecture_is_that_of_litgpt(name: str) -> None:
    ours = asdict(Config(**loaded(name)["model_config"]))
    known, free = "OLMo-2-1124-7B", SIZES | DERIVED
    if name == "pythia-160m":
        known, free = name, {"hf_config", "vocab_size", "padding_multiple"}
    elif name == "hubble-1b":
        known, free = "Llama-3.2-1B", free | {"block_size", "vocab_size", "padded_vocab_size"}
        free |= {"padding_multiple", "rope_base", "rope_adjustments"}
    theirs = asdict(Config.from_name(known))
    assert {key for key in theirs if ours[key] != theirs[key]} <= free


def test_names() -> None:
    for name in REFERENCES:
        config = loaded(name)
        assert config["model_name"] == config["model_config"]["name"]
        assert config["model_name"] == name.removesuffix("-8-nodes").removesuffix("-gaussian")
        assert config["out_dir"] == f"out/{name}"


def test_eight_nodes_change_nothing_but_the_nodes() -> None:
    one, eight = loaded("olmo2-1b"), loaded("olmo2-1b-8-nodes")
    assert {key for key in one if one[key] != eight[key]} == {"num_nodes", "out_dir"}
    assert (topology("olmo2-1b").ranks, topology("olmo2-1b-8-nodes").ranks) == (8, 64)


def test_tokens_and_steps(name: str) -> None:
    found, (steps, batch, length) = topology(name), REFERENCES[name].batch
    assert found.steps == steps
    assert (found.global_batch, found.max_seq_length) == (batch, length)
    assert found.max_tokens == steps * batch * length
    assert found.iterations == steps * found.accumulation
    assert found.ranks * found.micro_batch * found.accumulation == batch
    assert numbers(header(name)) >= {batch, length, batch * length, steps, steps * batch * length}


def test_the_comments_beside_the_numbers(name: str) -> None:
    text, found = path_of(name).read_text("utf-8"), topology(name)
    assert re.findall(r"micro_batch_size: \d+ +# (\d+) iterations", text) == [
        str(found.accumulation)
    ]
    assert re.findall(r"max_tokens: \d+ +# ([\d,]+) steps", text) == [f"{found.steps:,}"]


def test_litgpt_accepts_it(name: str, tmp_path: Path) -> None:
    path = path_of(name)
    config, raw = read_trainer(path)
    made = litgpt_config(raw, config, read_topology(config, path), tmp_path, "train")
    assert litgpt_problems(made, path) == []
    arguments = TrainArgs(**raw["train"]), EvalArgs(**raw["eval"])
    validate_args(*arguments, initial_checkpoint_dir=None, resume=False)


def test_the_learning_rate_that_litgpt_sets(name: str) -> None:
    raw, found = loaded(name), topology(name)
    peak, last, warmup = REFERENCES[name].rate
    train = TrainArgs(**raw["train"])
    warm = train.warmup_iters(found.devices, found.nodes, found.iterations, None)
    assert warm == warmup * found.accumulation
    rate = raw["optimizer"]["init_args"]["lr"]
    at = {it: get_lr(rate, it, warm, found.iterations, train.min_lr) for it in (0, warm // 2, warm)}
    assert at == pytest.approx({0: 0.0, warm // 2: peak / 2, warm: peak})
    end = get_lr(rate, found.iterations, warm, found.iterations, train.min_lr)
    assert end == pytest.approx(last)


def test_the_optimizer(name: str) -> None:
    raw = loaded(name)
    made = instantiate_torch_optimizer(raw["optimizer"], [torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(made, torch.optim.AdamW)
    chosen = {key: made.defaults[key] for key in ("weight_decay", "betas", "eps")}
    assert chosen == {"weight_decay": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}
    assert raw["train"]["max_norm"] == 1.0
    assert raw["precision"] == "bf16-mixed"


def test_the_layout_holds_the_run(name: str) -> None:
    found = topology(name)
    vocabulary = model_vocabulary(read_trainer(path_of(name))[0])
    token_bytes = 2 if vocabulary is not None and vocabulary <= 2**16 else 4
    assert found.workers >= 1
    layout = train_layout(found, token_bytes, DEFAULT_CHUNK_BYTES)
    assert layout.n_blocks > found.sequences
    assert layout.n_blocks < found.sequences * 1.01
    assert layout.chunks_per_worker < MAX_CHUNKS_PER_WORKER
    assert layout.blocks_per_chunk * found.sequence_tokens * token_bytes <= DEFAULT_CHUNK_BYTES
    share = found.ranks * found.workers * found.micro_batch
    assert val_layout(found, 2 * share, token_bytes, DEFAULT_CHUNK_BYTES).n_blocks >= 2 * share


def test_the_evaluation_needs_no_more_than_the_least_validation_set(name: str) -> None:
    config, found = loaded(name), topology(name)
    assert config["eval"]["max_iters"] <= 2 * found.workers


def test_a_checkpoint_takes_what_the_header_says(name: str) -> None:
    said = re.search(r"A checkpoint takes ([\d.]+) GB", header(name))
    assert said is not None
    weights_and_two_moments = 3 * 4 * REFERENCES[name].parameters / 1e9
    assert float(said[1]) == pytest.approx(weights_and_two_moments, abs=0.05)


def test_the_header_is_short(name: str) -> None:
    lines = path_of(name).read_text("utf-8").splitlines()
    assert 0 < next(i for i, line in enumerate(lines) if not line.startswith("#")) <= 12
    assert max(len(line) for line in lines) <= 100
    assert "Nothing was trained with this file" in header(name)


def test_the_gaussian_config_differs_in_its_data_module_alone() -> None:
    plain, gaussian = loaded("olmo2-1b"), loaded("olmo2-1b-gaussian")
    assert {key for key in plain if plain[key] != gaussian[key]} == {"data", "out_dir"}
    assert gaussian["data"] == {**plain["data"], "class_path": GAUSSIAN_DATA}
