"""Log-probabilities against a plain loop with cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mixctl.evals import forward
from mixctl.evals.forward import Request, token_logprobs
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
    assert sum(seen) == sum(request.n_read for request in requests)


def test_batches_keep_to_the_budget_and_hold_everything_once():
    lengths = [request.n_read for request in _requests()]
    batches = list(forward._batches(lengths, 64))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 64


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
    with pytest.raises(ValueError, match="not finite"):
        token_logprobs(model, _requests(2))
