"""Whole sequences are scored as LitGPT trains on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixctl.evals.forward import token_logprobs
from mixctl.evals.scorers.base import Item
from mixctl.evals.scorers.base_data import ForgettingScorer, IidScorer
from tests.evals import tiny


def _item(n_tokens, width=33):
    tokens = np.random.default_rng(0).integers(0, 64, n_tokens)
    return Item("batches", "b1", tokens, '{"step": 3}', sequence_tokens=width)


@pytest.mark.parametrize("scorer", [ForgettingScorer(), IidScorer()])
def test_equals_minus_the_training_loss_of_the_batch(scorer):
    model, item = tiny.tiny_model(), _item(4 * 33)
    requests = scorer.requests(item, [0])
    assert [(len(r.tokens), r.first) for r in requests] == [(33, 1)] * 4
    score = scorer.score(item, token_logprobs(model, requests))
    batch = torch.from_numpy(item.tokens).reshape(4, 33)
    with torch.no_grad():
        logits = model(batch[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 64), batch[:, 1:].reshape(-1))
    assert score.values["loglikelihood_per_token"] == pytest.approx(-float(loss), abs=1e-5)
    assert score.n_tokens == 4 * 32


@pytest.mark.parametrize("item", [_item(34), _item(0), _item(33, width=0)])
def test_what_is_no_whole_sequence_is_an_error(item):
    with pytest.raises(ValueError, match="item b1: .* are not whole sequences"):
        IidScorer().requests(item, [0])
