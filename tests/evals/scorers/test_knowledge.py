"""Probes by hand: probabilities, and targets found in what the model writes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from litgpt import GPT

from mixctl.evals.forward import token_logprobs
from mixctl.evals.generation import generate
from mixctl.evals.scorers.base import Item
from mixctl.evals.scorers.knowledge import KnowledgeScorer
from mixctl.shards.meta import KnowledgeMeta, Probe
from tests.evals import tiny

PROBES = [
    Probe(id="p1", type="memorization", input_tokens=[1, 2], target_tokens=[3]),
    Probe(id="p2", type="memorization", input_tokens=[4], target_tokens=[5, 6]),
    Probe(id="p3", type="semantic", input_tokens=[7, 8], target_tokens=[9, 9]),
]
WORDS = {3: " Vess", 5: " lake", 6: "\n", 9: "o", 11: "VESSEL", 12: " Lake"}


def _item(probes=PROBES, decode=None):
    meta = KnowledgeMeta(probes=probes).model_dump_json()
    return Item("facts", "f1", np.array([1, 2, 3]), meta, decode=decode)


def test_requests_and_prompts():
    requests = KnowledgeScorer().requests(_item(), [0])
    assert [r.tokens.tolist() for r in requests] == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 9, 9]]
    assert [r.first for r in requests] == [3, 2, 3]
    prompts = KnowledgeScorer().prompts(_item(), [0])
    assert [p.tokens.tolist() for p in prompts] == [[0, 1, 2], [0, 4], [0, 7, 8]]
    assert {p.n_new for p in prompts} == {25} and prompts[2].label.endswith("item f1, probe p3")


LOGPROBS = [np.log([0.5]), np.log([0.5, 0.2]), np.log([0.1, 0.1])]


def test_values_by_hand_with_token_ids():
    outputs = [[np.array([8, 3, 1])], [np.array([5, 7, 6])], [np.array([9])]]
    score = KnowledgeScorer().score_generated(_item(), LOGPROBS, outputs)
    expected = {
        "probability": (0.5 + 0.1 + 0.01) / 3,
        "probability_memorization": 0.3,
        "probability_semantic": 0.01,
        "logprob": (math.log(0.5) + math.log(0.1) / 2 + math.log(0.1)) / 3,
        "accuracy": 1 / 3,
        "accuracy_memorization": 0.5,
        "accuracy_semantic": 0.0,
    }
    assert dict(score.values) == pytest.approx(expected)
    assert score.estimators["accuracy"] == "target found by token ids"
    assert score.n_tokens == 5 and score.loglikelihood == pytest.approx(math.log(0.0005))


def test_targets_are_found_in_the_text_whatever_the_case():
    decode = lambda ids: "".join(WORDS.get(int(i), "?") for i in ids)  # noqa: E731
    outputs = [[np.array([8, 11])], [np.array([12, 1])], [np.array([9, 1, 9])]]
    score = KnowledgeScorer().score_generated(_item(decode=decode), LOGPROBS, outputs)
    assert score.values["accuracy_memorization"] == 1.0
    assert score.values["accuracy_semantic"] == 0.0
    assert "text" in score.estimators["accuracy"]
    blank = [Probe(id="b", type="semantic", input_tokens=[1], target_tokens=[6])]
    with pytest.raises(ValueError, match="target of probe b is blank"):
        KnowledgeScorer().score_generated(
            _item(blank, decode), [np.array([-1.0])], [[np.array([6])]]
        )


def test_an_item_without_probes_is_an_error():
    with pytest.raises(ValueError, match="item f1: no probe"):
        KnowledgeScorer().requests(_item([]), [0])


def test_a_taught_fact_is_known_and_another_is_not():
    model = tiny.teach(tiny.tiny_model(), [([1, 2, 3], 1), ([4, 5, 6], 1)], rounds=80)
    assert isinstance(model, GPT)
    item, scorer = _item(), KnowledgeScorer()
    logprobs = token_logprobs(model, scorer.requests(item, [0]))
    outputs = generate(model, scorer.prompts(item, [0]), 0)
    values = scorer.score_generated(item, logprobs, outputs).values
    assert values["probability_memorization"] > 0.9 and values["accuracy_memorization"] == 1
    assert values["probability_semantic"] < 0.1
