"""Each scorer on hand-made log-probabilities."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from mixctl.evals.scorers import registry
from mixctl.evals.scorers.base import Item, Metric, ScorerOfMethods, expanded
from mixctl.evals.scorers.contamination import ContaminationScorer
from mixctl.evals.scorers.documents import DocumentsScorer
from mixctl.evals.scorers.memorization import MemorizationScorer
from mixctl.shards.errors import InputError
from mixctl.shards.meta import ContaminationMeta, MemorizationMeta
from tests.support.plugin import HaikuScorer


def _question(normalisation="none", **more):
    values = {
        "benchmark": "b",
        "context_tokens": [5, 6],
        "choice_tokens": [[7], [8, 9], [1, 2, 3, 4]],
        "choice_characters": [10, 2, 8],
        "gold": 1,
        "normalisation": normalisation,
    }
    meta = ContaminationMeta(**{**values, **more})
    return Item("leak", "q1", np.array([5, 6, 8, 9]), meta.model_dump_json())


LOGPROBS = [np.array([-2.0]), np.array([-1.0, -2.0]), np.array([-1.0] * 4)]


def test_contamination_requests():
    requests = ContaminationScorer().requests(_question(), [0])
    assert [r.tokens.tolist() for r in requests] == [
        [0, 5, 6, 7],
        [0, 5, 6, 8, 9],
        [0, 5, 6, 1, 2, 3, 4],
    ]
    assert [r.first for r in requests] == [3, 3, 3]


@pytest.mark.parametrize(
    ("normalisation", "gold", "right"),
    [("none", 0, 1), ("none", 1, 0), ("characters", 0, 1), ("tokens", 2, 1), ("tokens", 1, 0)],
)
def test_contamination_normalisation(normalisation, gold, right):
    # Sums -2, -3, -4; by character -0.2, -1.5, -0.5; by token -2, -1.5, -1.
    score = ContaminationScorer().score(_question(normalisation, gold=gold), LOGPROBS)
    assert score.values["accuracy"] == right
    assert score.values["gold_logprob"] == pytest.approx([-2, -1.5, -1][gold])
    assert score.n_tokens == [1, 2, 4][gold]


def test_a_tie_is_not_right():
    logprobs = [np.array([-3.0]), np.array([-1.0, -2.0]), np.array([-9.0] * 4)]
    assert ContaminationScorer().score(_question(), logprobs).values["accuracy"] == 0


@pytest.mark.parametrize("more", [{"gold": 3}, {"choice_tokens": [[1], [], [2]]}])
def test_contamination_refuses_broken_meta(more):
    with pytest.raises(ValueError, match="item q1"):
        ContaminationScorer().requests(_question(**more), [0])


def _canary(suffix_length=2, candidates=(), space_size=None):
    meta = MemorizationMeta(
        condition="random",
        prefix_length=4 - suffix_length if suffix_length else 0,
        suffix_length=suffix_length,
        candidates=[list(c) for c in candidates],
        space_size=space_size,
    )
    return Item("secrets", "c1", np.array([1, 2, 3, 4]), meta.model_dump_json())


def test_memorization_scores_the_suffix_and_ranks_it():
    item = _canary(candidates=[(5, 6), (5, 6), (3, 4), (7, 8), (9, 9)], space_size=4)
    requests = MemorizationScorer().requests(item, [0, 60])
    assert [r.tokens.tolist()[4:] for r in requests] == [[3, 4], [5, 6], [7, 8], [9, 9]]
    assert requests[0].first == 4
    logprobs = [np.array([-1.0, -1.0]), *[np.array([-0.5, x]) for x in (-1.0, -2.0, -3.0)]]
    score = MemorizationScorer().score(item, logprobs)
    assert score.values["loglikelihood"] == -2.0
    assert score.values["exposure"] == math.log2(4 / 2)
    assert score.estimators["exposure"] == "exact rank"


def test_memorization_without_suffix_scores_the_text():
    requests = MemorizationScorer().requests(_canary(suffix_length=0), [0])
    assert (requests[0].first, requests[0].tokens.tolist()) == (1, [0, 1, 2, 3, 4])
    score = MemorizationScorer().score(_canary(suffix_length=0), [np.array([-1.0] * 4)])
    assert dict(score.values) == {"loglikelihood": -4.0}


def test_candidates_of_another_number_of_tokens_are_ranked_by_their_sums():
    """A secret of text may be cut into more tokens than another one of the same space."""
    item = _canary(candidates=[(5, 6, 7)])
    requests = MemorizationScorer().requests(item, [0])
    assert [r.tokens.tolist()[3:] for r in requests] == [[3, 4], [5, 6, 7]]
    logprobs = [np.array([-1.0, -1.0]), np.array([-0.9, -0.9, -0.9])]
    assert MemorizationScorer().score(item, logprobs).values["exposure"] == 1.0


def test_documents_without_tokens_are_an_error():
    with pytest.raises(ValueError, match="nothing to score"):
        DocumentsScorer().requests(Item("facts", "d1", np.array([]), "{}"), [0])


def test_contamination_scores_the_other_forms_beside_the_placed_one():
    other = {
        "template": "mcq",
        "context_tokens": [1],
        "choice_tokens": [[20], [21], [22]],
        "choice_characters": [1, 1, 1],
    }
    item = _question(other_forms=[other])
    requests = ContaminationScorer().requests(item, [0])
    assert [r.tokens.tolist() for r in requests[3:]] == [[0, 1, 20], [0, 1, 21], [0, 1, 22]]
    letters = [np.array([x]) for x in (-2.0, -0.5, -1.0)]
    score = ContaminationScorer().score(item, [*LOGPROBS, *letters])
    assert dict(score.values) == {
        "accuracy": 0.0,
        "gold_logprob": -1.5,
        "accuracy_mcq": 1.0,
        "gold_logprob_mcq": -0.5,
    }
    assert (score.n_tokens, score.loglikelihood) == (2, -3.0)
    with pytest.raises(ValueError, match="item q1"):
        broken = {**other, "choice_characters": [1]}
        ContaminationScorer().requests(_question(other_forms=[broken]), [0])


def test_names_with_a_star_stand_for_what_items_have():
    metrics = (Metric("exact", primary=True), Metric("exact_*", share=True), Metric("exact_all"))
    names = ["exact", "exact_100", "exact_25", "exact_all", "other"]
    found = expanded(metrics, names)
    assert [m.name for m in found] == ["exact", "exact_25", "exact_100", "exact_all"]
    assert [m.share for m in found] == [False, True, True, False]


def test_third_parties_register_by_entry_point(monkeypatch):
    asked = []
    named = {"haiku": "HaikuScorer", "nothing": "NOTHING", "kind": "MineConfig"}
    points = [
        EntryPoint(name, f"tests.support.plugin:{attribute}", registry.GROUP)
        for name, attribute in named.items()
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: asked.append(group) or points)
    assert isinstance(registry.scorer_for("haiku"), HaikuScorer)
    assert asked == ["mixctl.scorers"]
    assert registry.scorer_for("documents").kind == "documents"
    for name in ("nothing", "kind"):
        with pytest.raises(InputError, match=f"scorer '{name}': .*, not the class of a scorer"):
            registry.scorer_for(name)


def test_registry():
    for kind in registry.BUILT_IN:
        scorer = registry.scorer_for(kind)
        assert scorer.kind == kind
        if not isinstance(scorer, ScorerOfMethods):
            assert sum(metric.primary for metric in scorer.metrics) == (kind != "model")
    with pytest.raises(LookupError, match="did you mean 'documents'"):
        registry.scorer_for("document")
