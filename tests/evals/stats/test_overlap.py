"""Longest common subsequences against the textbook table, ROUGE-L against `rouge-score`."""

from __future__ import annotations

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from mixctl.evals.stats.overlap import lcs_length, rouge_l_recall
from mixctl.evals.words import word_recall


def _table(first, second):
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            above = max(lengths[i][j + 1], lengths[i + 1][j])
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if a == b else above
    return lengths[-1][-1]


def test_equals_the_table():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, m, alphabet = rng.integers(0, 90), rng.integers(0, 90), rng.integers(1, 12)
        first, second = rng.integers(0, alphabet, n), rng.integers(0, alphabet, m)
        assert lcs_length(first.tolist(), second.tolist()) == _table(first, second)
        assert lcs_length(first, second) == _table(first, second)


def test_recall_by_hand():
    assert rouge_l_recall([1, 2, 3, 4], [1, 9, 3, 4]) == 0.75
    assert rouge_l_recall([1, 2, 3, 4], [4, 3, 2, 1]) == 0.25
    assert rouge_l_recall([1, 2], []) == 0.0
    assert rouge_l_recall(["the", "cat"], ["a", "cat", "the", "cat"]) == 1.0
    with pytest.raises(ValueError, match="at least one token"):
        rouge_l_recall([], [1])


def test_rouge_l_is_that_of_the_package():
    """On tokens written as words, and on words as our own rule cuts them out of text."""
    theirs, rng = RougeScorer(["rougeL"], use_stemmer=False), np.random.default_rng(1)
    pieces = np.array("the The cat's sat-on 42 a3 !? Dog. (mat) x_y \n".split(" "))
    seen = set()
    for _ in range(200):
        first, second = (rng.integers(0, 9, rng.integers(1, 30)) for _ in range(2))
        written = [" ".join(f"w{token}" for token in tokens) for tokens in (first, second)]
        expected = theirs.score(*written)["rougeL"].recall
        assert rouge_l_recall(first, second) == pytest.approx(expected, abs=1e-12)
        texts = [" ".join(rng.choice(pieces, rng.integers(3, 20))) + " end" for _ in range(2)]
        expected = theirs.score(*texts)["rougeL"].recall
        assert word_recall(*texts) == pytest.approx(expected, abs=1e-12)
        seen.add(expected)
    assert len(seen) > 20
