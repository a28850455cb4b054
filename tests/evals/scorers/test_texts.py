"""Documents, articles and strings: by hand, and against torch code of its own."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from mixctl.evals.forward import token_logprobs
from mixctl.evals.generation import generate
from mixctl.evals.scorers.base import Item
from mixctl.evals.scorers.documents import DocumentsScorer
from mixctl.evals.scorers.unlearning import UnlearningScorer
from mixctl.evals.scorers.verbatim import VerbatimScorer
from mixctl.shards.meta import DocumentsMeta, UnlearningMeta, VerbatimMeta
from tests.evals import tiny

FOUND = np.array(
    [
        [-1.0, -2.0, -6.0, -0.5, -3.0, -0.1, -4.0, -1.0, -1.0, -2.0, -0.2],
        [-2.0, -2.0, -3.0, -1.0, -2.0, -1.0, -2.0, -2.0, -2.0, -2.0, -1.0],
        [1.0, 1.0, 3.0, 1.0, 0.5, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0],
    ]
)


def _document(tokens, decode=None, **meta):
    text = DocumentsMeta(**meta).model_dump_json()
    return Item("facts", "d1", np.array(tokens), text, decode=decode)


def test_membership_values_by_hand():
    item = _document(range(1, 12), decode=lambda ids: "x" * len(ids))
    (request,) = DocumentsScorer().requests(item, [0])
    assert (request.first, request.tokens.tolist(), request.moments) == (1, list(range(12)), True)
    score = DocumentsScorer().score_generated(item, [FOUND], [])
    assert set(score.values) == {
        "loglikelihood_per_token",
        "min_k",
        "min_k_plus_plus",
        "zlib_ratio",
    }
    mean = -20.8 / 11
    assert score.values["loglikelihood_per_token"] == pytest.approx(mean)
    assert score.values["min_k"] == pytest.approx((-6 - 4) / 2)  # 20% of 11 are two
    assert score.values["min_k_plus_plus"] == pytest.approx((-2 - 1) / 2)
    assert score.values["zlib_ratio"] == pytest.approx(mean / len(zlib.compress(b"x" * 11)))
    assert (score.n_tokens, score.loglikelihood) == (11, pytest.approx(-20.8))


def test_without_a_tokenizer_there_is_no_zlib_ratio_and_a_short_text_has_its_lowest_token():
    score = DocumentsScorer().score_generated(_document([1, 2]), [FOUND[:, :2]], [])
    assert "zlib_ratio" not in score.values
    assert score.values["min_k"] == -2.0


def test_a_control_is_scored_beside_the_text():
    item = _document([1, 2], control_tokens=[3, 4, 5])
    requests = DocumentsScorer().requests(item, [0])
    assert requests[1].tokens.tolist() == [0, 3, 4, 5] and not requests[1].moments
    for control, right in ((-1.4, 0.0), (-1.6, 1.0)):
        against = np.full(3, control)
        values = DocumentsScorer().score_generated(item, [FOUND[:, :2], against], []).values
        assert values["control_margin"] == pytest.approx(-1.5 - control)
        assert values["control_accuracy"] == right


def test_long_documents_are_extracted():
    tokens = np.arange(100, 176)
    assert DocumentsScorer().prompts(_document(tokens[:75]), [0]) == []
    item = _document(tokens)
    prompts = DocumentsScorer().prompts(item, [0])
    assert [p.tokens.tolist() for p in prompts] == [[0, *tokens[:25]], [0, *tokens[:50]]]
    assert [p.n_new for p in prompts] == [25, 25] and [p.n_samples for p in prompts] == [1, 1]
    half = np.concatenate([tokens[50:62], np.full(13, 7)])
    found = np.tile(FOUND[:, :1], 76)
    values = DocumentsScorer().score_generated(item, [found], [[tokens[25:50]], [half]]).values
    assert (values["exact_25"], values["rouge_l_25"]) == (1.0, 1.0)
    assert (values["exact_50"], values["rouge_l_50"]) == (0.0, pytest.approx(12 / 25))


def test_moments_equal_an_independent_computation():
    model = tiny.tiny_model(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    item = _document(np.random.default_rng(0).integers(1, 64, 31))
    (request,) = DocumentsScorer().requests(item, [0])
    found = token_logprobs(model, [request, request], batch_tokens=200)
    np.testing.assert_array_equal(found[0], found[1])
    values = DocumentsScorer().score_generated(item, [found[0]], []).values
    with torch.no_grad():
        logits = model(torch.tensor([[0, *item.tokens[:-1].tolist()]]))[0].double()
    # As Zhang et al. write it: mu = E_p[log p], sigma^2 = E_p[(log p)^2] - mu^2.
    p, log_p = logits.softmax(-1), logits.log_softmax(-1)
    own = log_p[range(31), item.tokens]
    mu = (p * log_p).sum(-1)
    sigma = ((p * log_p.square()).sum(-1) - mu.square()).sqrt()
    scores = np.sort(((own - mu) / sigma).numpy())
    assert values["min_k_plus_plus"] == pytest.approx(scores[:6].mean(), abs=1e-4)
    assert values["min_k"] == pytest.approx(np.sort(own.numpy())[:6].mean(), abs=1e-5)


def _article(prefix_lengths=(3, 6), n_tokens=12):
    meta = UnlearningMeta(prefix_lengths=list(prefix_lengths), suffix_length=4)
    return Item("news", "a1", np.arange(1, n_tokens + 1), meta.model_dump_json())


def test_articles_are_extracted_at_the_prefix_lengths_of_their_meta():
    item, scorer = _article(), UnlearningScorer()
    prompts = scorer.prompts(item, [0])
    assert [p.tokens.tolist() for p in prompts] == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]]
    assert [p.n_new for p in prompts] == [4, 4]
    outputs = [[np.array([4, 5, 9, 7])], [np.array([7, 8, 9, 10])]]
    values = scorer.score_generated(item, [np.tile(FOUND[:, :1], 12)], outputs).values
    assert (values["exact_3"], values["rouge_l_3"]) == (0.0, 0.75)
    assert (values["exact_6"], values["rouge_l_6"]) == (1.0, 1.0)
    assert scorer.prompts(_article(()), [0]) == []
    with pytest.raises(ValueError, match="item a1: 12 tokens do not hold prefixes of"):
        scorer.prompts(_article((9,)), [0])


def _string(prefix=3, suffix=5, n_tokens=8):
    meta = VerbatimMeta(prefix_length=prefix, suffix_length=suffix).model_dump_json()
    return Item("unseen", "s1", np.arange(1, n_tokens + 1), meta)


def test_verbatim_by_hand():
    item, scorer = _string(), VerbatimScorer()
    (request,) = scorer.requests(item, [0])
    assert (request.first, request.tokens.tolist()) == (4, list(range(9)))
    (prompt,) = scorer.prompts(item, [0])
    assert (prompt.tokens.tolist(), prompt.n_new) == ([0, 1, 2, 3], 5)
    logprobs = [np.array([-1.0, -1, -1, -1, -6])]
    for made, exact, rouge in (([4, 5, 6, 7, 8], 1, 1.0), ([4, 5, 7, 8, 9], 0, 0.8), ([], 0, 0)):
        score = scorer.score_generated(item, logprobs, [[np.array(made, np.int64)]])
        expected = {"exact": exact, "rouge_l": rouge, "loglikelihood_per_token": -2.0}
        assert dict(score.values) == pytest.approx(expected)
    assert (score.n_tokens, score.loglikelihood) == (5, -10.0)


def test_verbatim_finds_what_a_model_was_taught():
    rng = np.random.default_rng(5)
    items = [rng.integers(1, 64, 8) for _ in range(4)]
    model = tiny.teach(tiny.tiny_model(), [(i.tolist(), 1) for i in items[:2]], rounds=60)
    meta, scorer = _string().meta, VerbatimScorer()
    exact = []
    for tokens in items:
        item = Item("unseen", "s", tokens, meta)
        outputs = generate(model, scorer.prompts(item, [0]), 0)
        logprobs = token_logprobs(model, scorer.requests(item, [0]))
        exact.append(scorer.score_generated(item, logprobs, outputs).values["exact"])
    assert exact == [1, 1, 0, 0]


@pytest.mark.parametrize("lengths", [(3, 4), (0, 8), (8, 0), (4, 8)])
def test_verbatim_refuses_lengths_that_do_not_fit(lengths):
    with pytest.raises(ValueError, match="item s1: 8 tokens are not prefix"):
        VerbatimScorer().requests(_string(*lengths), [0])
