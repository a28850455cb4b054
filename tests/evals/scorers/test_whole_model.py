"""Held-out likelihood against LitGPT's own loss, and norms against torch's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from litgpt import GPT, Config
from litgpt.utils import chunked_cross_entropy

from mixctl.evals.forward import token_logprobs
from mixctl.evals.scorers.base import Item
from mixctl.evals.scorers.whole_model import WholeModelScorer, weight_norms
from tests.evals import tiny

SCORER = WholeModelScorer()


def _item(tokens, meta="{}"):
    return Item("(model)", "x", np.array(tokens, dtype=np.int64), meta, 33)


def test_a_sequence_is_scored_as_litgpt_validates():
    model = tiny.tiny_model(3)
    tokens = np.random.default_rng(0).integers(0, 64, (5, 33))
    items = [_item(row) for row in tokens]
    requests = [request for item in items for request in SCORER.requests(item, [0])]
    found = token_logprobs(model, requests)
    scores = [SCORER.inspect(model, i, [lp]) for i, lp in zip(items, found, strict=True)]
    mean = np.mean([score.values["validation_loglikelihood_per_token"] for score in scores])
    batch = torch.from_numpy(tokens)
    with torch.no_grad():
        loss = chunked_cross_entropy(model(batch[:, :-1]), batch[:, 1:])
    assert mean == pytest.approx(-float(loss), abs=1e-6)
    assert all(score.n_tokens == 32 for score in scores)
    assert scores[0].loglikelihood == pytest.approx(found[0].sum())


def test_what_was_left_out_is_said():
    model, item = tiny.tiny_model(), _item(range(33), '{"estimator": "3 of 9"}')
    (found,) = token_logprobs(model, SCORER.requests(item, [0]))
    metric = "validation_loglikelihood_per_token"
    assert SCORER.inspect(model, item, [found]).estimators == {metric: "3 of 9"}


def _norm(tensors):
    return float(torch.cat([t.detach().double().reshape(-1) for t in tensors]).norm())


def test_norms_of_all_weights_and_of_the_parts():
    config = replace(tiny.CONFIG, n_layer=2, norm_qk=True, bias=True)
    torch.manual_seed(1)
    model = GPT(config)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor)
    (item,) = [_item([])]
    assert SCORER.requests(item, [0]) == []
    found = SCORER.inspect(model, item, []).values
    named = dict(model.named_parameters())
    assert found["weight_norm"] == pytest.approx(_norm(named.values()), rel=1e-12)
    own = {
        "embedding": [named["transformer.wte.weight"]],
        "head": [t for n, t in named.items() if n.startswith("lm_head")],
        "mlp": [t for n, t in named.items() if ".mlp." in n],
        "attention": [t for n, t in named.items() if ".attn." in n and ".norm_" not in n],
        "norms": [t for n, t in named.items() if "norm_" in n or "ln_f" in n],
    }
    assert sum(map(len, own.values())) == len(named)
    for part, tensors in own.items():
        assert tensors and found[f"weight_norm_{part}"] == pytest.approx(_norm(tensors), rel=1e-12)
    assert set(found) == {"weight_norm", *(f"weight_norm_{part}" for part in own)}
    parts = math.hypot(*(found[f"weight_norm_{part}"] for part in own))
    assert found["weight_norm"] == pytest.approx(parts, rel=1e-12)


def test_a_tied_head_counts_once_and_pieces_do_not_matter(monkeypatch):
    model = GPT(Config.from_name("pythia-14m", n_layer=1, n_embd=16, padded_vocab_size=32))
    before = weight_norms(model)
    monkeypatch.setattr("mixctl.evals.scorers.whole_model._PIECE", 7)
    assert weight_norms(model) == pytest.approx(before, rel=1e-12)
    model.lm_head.weight.data.copy_(model.transformer.wte.weight.data)
    tied = weight_norms(model)
    assert "weight_norm_head" not in tied
    assert tied["weight_norm"] < before["weight_norm"]


def test_low_precision_weights_are_summed_exactly():
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"mlp": torch.nn.Linear(300, 300, bias=False)})
    module = module.to(torch.bfloat16)
    exact = math.sqrt(math.fsum(v * v for v in module["mlp"].weight.float().flatten().tolist()))
    assert weight_norms(module)["weight_norm_mlp"] == pytest.approx(exact, rel=1e-12)
