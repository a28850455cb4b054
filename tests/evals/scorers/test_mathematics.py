"""Answers are read from what the model writes, and the first one counts."""

from __future__ import annotations

import numpy as np
import pytest

from mixctl.evals.scorers.base import Item
from mixctl.evals.scorers.mathematics import MathematicsScorer, first_answer
from mixctl.shards.meta import MathematicsMeta


def _problem(test=True, decode=None, **changes):
    asked = {"prompt_tokens": [5, 6], "solution_tokens": [7, 8, 9, 9]} if test else {}
    meta = MathematicsMeta(op=2, answer=12, **{**asked, **changes}).model_dump_json()
    return Item("sums", "m1", np.array([1, 2, 3]), meta, decode=decode)


def test_first_answer():
    assert first_answer(" a = 7\nAnswer: 12\n\nQuestion: x\nAnswer: 3") == 12
    assert first_answer("Answer:4") == 4 and first_answer("Answer: -1") == -1
    assert first_answer("answer 12") is None and first_answer("Answer: twelve") is None


def test_test_problems_are_asked():
    scorer = MathematicsScorer()
    (prompt,) = scorer.prompts(_problem(), [0])
    assert (prompt.tokens.tolist(), prompt.n_new) == ([0, 5, 6], 4 * 3 // 2 + 8)
    (request,) = scorer.requests(_problem(), [0])
    assert (request.tokens.tolist(), request.first) == ([0, 1, 2, 3], 1)
    for text, right in (("Answer: 12", 1), ("Answer: 1", 0), ("", 0), ("= 12\nAnswer: 3", 0)):
        item = _problem(decode=lambda ids, text=text: text)
        score = scorer.score_generated(item, [np.array([-1.0, -2, -3])], [[np.array([7])]])
        assert dict(score.values) == {"loglikelihood_per_token": -2.0, "accuracy": right}


def test_training_problems_have_a_likelihood_alone():
    item, scorer = _problem(test=False), MathematicsScorer()
    assert scorer.prompts(item, [0]) == []
    score = scorer.score_generated(item, [np.array([-1.0, -2, -3])], [])
    assert dict(score.values) == {"loglikelihood_per_token": -2.0}


def test_without_a_tokenizer_no_answer_can_be_read_and_that_is_an_error():
    with pytest.raises(ValueError, match="item m1: the build carries no tokenizer"):
        MathematicsScorer().score_generated(_problem(), [np.zeros(3)], [[np.array([7])]])
    with pytest.raises(ValueError, match="without a solution"):
        MathematicsScorer().prompts(_problem(solution_tokens=[]), [0])
