"""Log-probabilities against a plain loop with cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from litgpt import GPT, Config
from torch.nn.functional import cross_entropy

from mixctl.evals import forward
from mixctl.evals.forward import Request, likeliest_tokens, token_logprobs, tokens_to_read
from mixctl.shards.errors import InputError
from tests.evals import tiny


def _requests(n=40, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        tokens = rng.integers(0, tiny.VOCABULARY, rng.integers(2, 34))
        made.append(Request(tokens, int(rng.integers(1, len(tokens))), f"item {len(made)}"))
    return made


def _plain(model, request):
    with torch.no_grad():
        logits = model(torch.from_numpy(request.tokens[None, :-1]))[0]
    targets = torch.from_numpy(request.tokens[1:])
    return -cross_entropy(logits.float(), targets, reduction="none").numpy()[request.first - 1 :]


@pytest.mark.parametrize("batch_tokens", [None, 1, 70])
def test_equals_a_plain_loop(batch_tokens):
    model, requests = tiny.tiny_model(), _requests()
    seen = []
    found = token_logprobs(model, requests, batch_tokens, seen.append)
    for request, values in zip(requests, found, strict=True):
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, _plain(model, request), atol=2e-6)
    assert sum(seen) == tokens_to_read(requests, model.config)


def test_bf16_weights_are_scored_in_float32():
    model = tiny.tiny_model().bfloat16()
    request = _requests(1)[0]
    values = token_logprobs(model, [request])[0]
    assert len(np.unique(values.astype(np.float32))) == len(values)
    with torch.no_grad():
        logits = model(torch.from_numpy(request.tokens[None, :-1]))[0].float()
    expected = torch.log_softmax(logits, -1)[range(request.n_read), request.tokens[1:]].numpy()
    np.testing.assert_allclose(values, expected[request.first - 1 :], atol=1e-6)


def test_too_long_unknown_and_empty_are_refused_by_name_all_at_once():
    bad = [
        Request(np.zeros(34, dtype=np.int64), 1, "experiment a, item long"),
        Request(np.array([0, tiny.VOCABULARY]), 1, "experiment a, item foreign"),
        Request(np.array([0, 1]), 2, "experiment a, item empty"),
    ]
    with pytest.raises(InputError) as caught:
        token_logprobs(tiny.tiny_model(), [*_requests(2), *bad])
    text = "\n".join(caught.value.problems)
    assert "item long: 33 tokens to read, the model's limit is 32" in text
    assert "item foreign: token 64 is outside the model's vocabulary of 64" in text
    assert "item empty: nothing to score" in text


def test_a_broken_model_is_an_error_not_a_score():
    model = tiny.tiny_model()
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="gives log-probabilities that are not finite"):
        token_logprobs(model, _requests(2))


GEMMA = {"sliding_window_size": 5, "sliding_window_indices": [1, 0]}
LOCAL_ROPE = {"rope_local_base_freq": 10_000.0, "rope_indices": [0, 1]}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
VARIANTS = {
    "plain": {},
    "grouped": {"n_head": 4, "n_query_groups": 2},
    "one group": {"n_head": 4, "n_query_groups": 1},
    "half rotary": {"rotary_percentage": 0.5},
    "serial": {"parallel_residual": False, "norm_class_name": "RMSNorm", "bias": False},
    "gated": {"mlp_class_name": "LLaMAMLP", "intermediate_size": 48, "lm_head_bias": True},
    "normed": {"norm_qk": True, "norm_qk_type": "olmo2", "norm_class_name": "RMSNorm"},
    "capped": {"attention_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "stretched": {"rope_adjustments": {"factor": 4.0}, "rope_condense_ratio": 2},
    "latent": {"latent_attention": LATENT, "norm_class_name": "RMSNorm"},
    "experts": {
        "mlp_class_name": "LLaMAMoE",
        "moe_intermediate_size": 24,
        "n_expert": 4,
        "n_expert_per_token": 2,
    },
    "sliding": GEMMA,
    "local rotary": {**GEMMA, **LOCAL_ROPE},
}
ALONE = {"sliding", "local rotary"}


def _model(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32}
    sizes |= {"vocab_size": tiny.VOCABULARY, "padded_vocab_size": tiny.VOCABULARY}
    model = GPT(Config(name="tiny", **{**sizes, **changes})).eval().requires_grad_(False)
    for parameter in model.parameters():  # so that contexts matter
        if parameter.dim() > 1:
            parameter.mul_(3)
    return model


def _families(n=12, seed=1, moments=False):
    """Returns requests in families: one context, several continuations, some of them twice."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        context = rng.integers(0, tiny.VOCABULARY, rng.integers(4, 20))
        for _ in range(rng.integers(1, 5)):
            end = rng.integers(0, tiny.VOCABULARY, rng.integers(1, 10))
            tokens = np.concatenate([context, end])
            first = int(rng.integers(1, len(tokens)))
            made.append(Request(tokens, first, "", moments and bool(rng.integers(2))))
        made.append(made[-1])
    return [made[at] for at in rng.permutation(len(made))]


@pytest.mark.parametrize("name", VARIANTS)
def test_shared_prefixes_change_nothing_but_the_price(name):
    model, requests = _model(**VARIANTS[name]), _families()
    seen = []
    found = token_logprobs(model, requests, 200, seen.append)
    for request, values in zip(requests, found, strict=True):
        np.testing.assert_allclose(values, _plain(model, request), atol=2e-5)
    asked = sum(request.n_read for request in requests)
    assert sum(seen) == tokens_to_read(requests, model.config)
    assert sum(seen) < (0.95 if name in ALONE else 0.6) * asked
    best = likeliest_tokens(model, requests)
    for request, tokens in zip(requests, best, strict=True):
        logits = model(torch.from_numpy(request.tokens[None, :-1]))[0]
        expected = logits.argmax(-1)[request.first - 1 :].tolist()
        assert tokens.tolist() == expected and tokens.dtype == np.int64
    assert not model.lm_head._forward_pre_hooks
    assert not any(block._forward_pre_hooks for block in model.transformer.h)


TOKENS = st.lists(st.integers(0, 3), min_size=2, max_size=20)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["plain", "grouped", "capped", "sliding"]),
    texts=st.lists(st.tuples(TOKENS, st.integers(0, 99), st.booleans()), min_size=1, max_size=12),
    batch_tokens=st.integers(1, 100),
)
def test_values_do_not_depend_on_the_company(name, texts, batch_tokens):
    model = _model(**VARIANTS[name])
    requests = [
        Request(np.array(tokens), 1 + first % (len(tokens) - 1), "", moments)
        for tokens, first, moments in texts
    ]
    found = token_logprobs(model, requests, batch_tokens)
    for request, values in zip(requests, found, strict=True):
        alone = token_logprobs(model, [request])[0]
        assert (
            values.shape
            == alone.shape
            == ((3, alone.shape[-1]) if request.moments else alone.shape)
        )
        np.testing.assert_allclose(values, alone, atol=2e-5)


def test_moments_are_those_of_the_request_that_asks_for_them():
    model, requests = _model(), _families(moments=True)
    found = token_logprobs(model, requests)
    for request, values in zip(requests, found, strict=True):
        with torch.no_grad():
            logs = model(torch.from_numpy(request.tokens[None, :-1]))[0].double().log_softmax(-1)
        logs = logs[request.first - 1 :]
        mean = (logs.exp() * logs).sum(-1)
        spread = ((logs.exp() * logs**2).sum(-1) - mean**2).sqrt()
        if request.moments:
            np.testing.assert_allclose(values[1], mean, atol=2e-5)
            np.testing.assert_allclose(values[2], spread, atol=2e-4)
        assert values.ndim == 1 + request.moments
    assert {request.moments for request in requests} == {True, False}


def test_shared_prefixes_in_bf16_are_as_near_as_texts_read_alone():
    """Rounding noise alone: no nearer to float32 is a text read alone than one in a row."""
    exact, requests = _model(), _families(40)
    expected = np.concatenate([_plain(exact, request) for request in requests])
    rounded = _model().bfloat16()
    in_rows = np.concatenate(token_logprobs(rounded, requests))
    alone = np.concatenate([token_logprobs(rounded, [request])[0] for request in requests])
    errors = [np.sqrt(np.mean((found - expected) ** 2)) for found in (in_rows, alone)]
    assert 0 < errors[0] < 1.5 * errors[1] < 0.3


def test_logits_in_parts_are_the_same(monkeypatch):
    model, requests = _model(), _families(moments=True)
    whole = token_logprobs(model, requests)
    monkeypatch.setattr(forward, "_LOGITS", 3 * tiny.VOCABULARY)
    for one, other in zip(token_logprobs(model, requests), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
