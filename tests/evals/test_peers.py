"""The same weights and tokens under `transformers` and lm-evaluation-harness.

LitGPT's own functions convert weights that carry the names of `transformers`, and what it computed
of them is kept in transformers_values.json (4.57.6). Where it is installed (`make test-peers`) the
file is checked too, and so is the harness on the real model and real questions.

    .venv-peers/bin/python -m tests.evals.test_peers     writes the file anew
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from litgpt import GPT, Config
from litgpt.scripts.convert_hf_checkpoint import copy_weights_gpt_neox, copy_weights_hf_llama

from mixctl.evals.forward import Request, token_logprobs

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("transformers_values.json")
WIDTH, HEADS, GROUPS, INNER, LAYERS, VOCABULARY, CONTEXT = 64, 4, 2, 96, 2, 80, 64
SIZES = {
    "name": "tiny",
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": WIDTH,
    "intermediate_size": INNER,
    "vocab_size": VOCABULARY,
    "padded_vocab_size": VOCABULARY,
    "block_size": CONTEXT,
}
HF_SIZES = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
}
LLAMA = Config(
    **SIZES,
    n_query_groups=GROUPS,
    rotary_percentage=1.0,
    parallel_residual=False,
    bias=False,
    norm_class_name="RMSNorm",
    norm_eps=1e-5,
    mlp_class_name="LLaMAMLP",
    rope_base=5000,
)
PYTHIA = Config(**SIZES, rotary_percentage=0.25, parallel_residual=True, bias=True)
NAMES = ("llama", "pythia")


def _llama_shapes():
    narrow = WIDTH * GROUPS // HEADS
    yield from (("model.embed_tokens.weight", (VOCABULARY, WIDTH)), ("model.norm.weight", (WIDTH,)))
    yield ("lm_head.weight", (VOCABULARY, WIDTH))
    for layer in range(LAYERS):
        for part, shape in (
            ("self_attn.q_proj", (WIDTH, WIDTH)),
            ("self_attn.k_proj", (narrow, WIDTH)),
            ("self_attn.v_proj", (narrow, WIDTH)),
            ("self_attn.o_proj", (WIDTH, WIDTH)),
            ("mlp.gate_proj", (INNER, WIDTH)),
            ("mlp.up_proj", (INNER, WIDTH)),
            ("mlp.down_proj", (WIDTH, INNER)),
            ("input_layernorm", (WIDTH,)),
            ("post_attention_layernorm", (WIDTH,)),
        ):
            yield f"model.layers.{layer}.{part}.weight", shape


def _pythia_shapes():
    yield from (
        ("gpt_neox.embed_in.weight", (VOCABULARY, WIDTH)),
        ("embed_out.weight", (VOCABULARY, WIDTH)),
    )
    for part, shape in (
        ("attention.query_key_value", (3 * WIDTH, WIDTH)),
        ("attention.dense", (WIDTH, WIDTH)),
        ("mlp.dense_h_to_4h", (INNER, WIDTH)),
        ("mlp.dense_4h_to_h", (WIDTH, INNER)),
        ("input_layernorm", (WIDTH,)),
        ("post_attention_layernorm", (WIDTH,)),
    ):
        for layer in range(LAYERS):
            yield f"gpt_neox.layers.{layer}.{part}.weight", shape
            yield f"gpt_neox.layers.{layer}.{part}.bias", shape[:1]
    yield from (("gpt_neox.final_layer_norm." + end, (WIDTH,)) for end in ("weight", "bias"))


def _weights(name):
    """Returns random weights by the names of transformers, large enough for contexts to matter."""
    rng = np.random.Generator(np.random.Philox(7))
    shapes = dict(_llama_shapes() if name == "llama" else _pythia_shapes())
    made = {}
    for key in sorted(shapes):
        spread = 0.3 if len(shapes[key]) > 1 else 0.1
        values = spread * rng.standard_normal(shapes[key]) + ("norm.weight" in key)
        made[key] = torch.from_numpy(values.astype(np.float32))
    return made


def _litgpt(name):
    config, state = (LLAMA if name == "llama" else PYTHIA), {}
    copy = partial(copy_weights_hf_llama, config, {}) if name == "llama" else None
    (copy or partial(copy_weights_gpt_neox, config))(state, _weights(name))
    model = GPT(config)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _transformers(name):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

    if name == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                **HF_SIZES, num_key_value_heads=GROUPS, rms_norm_eps=1e-5, rope_theta=5000.0
            )
        )
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**HF_SIZES, rotary_pct=0.25))
    model.load_state_dict(_weights(name))
    return model.eval().requires_grad_(False)


def _questions():
    """Returns 20 questions: requests of 4 choices each, which share their context."""
    rng = np.random.Generator(np.random.Philox(8))
    found = []
    for _ in range(20):
        context = rng.integers(0, VOCABULARY, rng.integers(5, 30))
        ends = [rng.integers(0, VOCABULARY, rng.integers(1, 9)) for _ in range(4)]
        found.append([Request(np.concatenate([context, end]), len(context)) for end in ends])
    return found


def _values(name):
    """Returns log-likelihoods under transformers, a request at a time: (questions, choices)."""
    model = _transformers(name)
    found = []
    for choices in _questions():
        found.append([])
        for request in choices:
            logits = model(torch.from_numpy(request.tokens[None, :-1])).logits[0].double()
            logs = logits.log_softmax(-1)[range(request.n_read), request.tokens[1:]]
            found[-1].append(float(logs[request.first - 1 :].sum()))
    return np.array(found)


@pytest.mark.parametrize("name", NAMES)
def test_loglikelihoods_are_those_of_transformers(name):
    questions = _questions()
    found = token_logprobs(_litgpt(name), [r for choices in questions for r in choices])
    sums = np.array([values.sum() for values in found]).reshape(20, 4)
    expected = np.array(json.loads(KEPT.read_text())[name])
    np.testing.assert_allclose(sums, expected, atol=1e-3)
    assert sums.argmax(1).tolist() == expected.argmax(1).tolist()
    assert len(set(expected.argmax(1).tolist())) > 1 and np.ptp(expected) > 10


@pytest.mark.parametrize("name", NAMES)
def test_the_kept_values_are_those_of_the_transformers_here(name):
    pytest.importorskip("transformers", reason="not in the tested set; see make test-peers")
    np.testing.assert_allclose(_values(name), json.loads(KEPT.read_text())[name], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["openbookqa", "piqa"])
def test_real_questions_are_answered_as_the_harness_and_transformers_do(benchmark, monkeypatch):
    pytest.importorskip("lm_eval", reason="not in the tested set; see make test-peers")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import eval_peers

    found = eval_peers.compared(benchmark, n_questions=20)
    assert found.same_choices == found.n_questions == 20
    assert found.largest_difference < 1e-3


if __name__ == "__main__":
    kept = {name: _values(name).round(6).tolist() for name in NAMES}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    sys.stdout.write(f"{KEPT}\n")
