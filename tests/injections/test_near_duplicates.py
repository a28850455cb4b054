"""Near-duplicates against brute force, by hand, and where a square of pairs would be too many."""

import numpy as np
import pytest

from mixctl.injections import near_duplicates as module
from mixctl.injections.near_duplicates import near_duplicates


def shingles(ids, k):
    ids = ids.tolist()
    if len(ids) < k:
        return {tuple(ids)} if ids else set()
    return {tuple(ids[n : n + k]) for n in range(len(ids) - k + 1)}


def brute(tokens, threshold, k):
    """Labels by comparing all pairs of Python sets and walking the graph."""
    sets = [shingles(ids, k) for ids in tokens]
    labels = [-1] * len(tokens)
    for root in range(len(tokens)):
        if labels[root] >= 0:
            continue
        labels[root], heap = root, [root]
        while heap:
            one = sets[heap.pop()]
            for other in range(len(tokens)):
                if labels[other] < 0 and one and sets[other]:
                    both = len(one & sets[other])
                    if both / (len(one) + len(sets[other]) - both) >= threshold:
                        labels[other] = root
                        heap.append(other)
    return labels


def ids(*values):
    return np.array(values, dtype=np.uint32)


def edited(rng, tokens, n_edits):
    """A copy with tokens replaced, deleted or inserted."""
    values = tokens.tolist()
    for _ in range(n_edits):
        at = int(rng.integers(len(values) + 1))
        new = [int(rng.integers(1000))] * int(rng.integers(3))
        values[at : at + int(rng.integers(2))] = new
    return np.array(values, dtype=np.uint32)


def corpus(seed, vocabulary, n=150):
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, vocabulary, rng.integers(0, 80)).astype(np.uint32) for _ in range(n)]
    tokens += [
        edited(rng, tokens[int(rng.integers(n))], 1 + j % 4) for j in range(n) if len(tokens[j])
    ]
    return [tokens[j] for j in rng.permutation(len(tokens))]


@pytest.mark.parametrize("vocabulary", [3, 30, 1000])
@pytest.mark.parametrize(("threshold", "k"), [(0.8, 5), (0.5, 3), (0.95, 2), (1.0, 5), (0.3, 1)])
def test_the_same_components_as_all_pairs_by_brute_force(vocabulary, threshold, k):
    tokens = corpus(vocabulary, vocabulary)
    expected = brute(tokens, threshold, k)
    found = near_duplicates(tokens, threshold, k)
    assert found.dtype == np.int64
    assert found.tolist() == expected
    if threshold < 0.9 and vocabulary > 3:
        assert len(set(expected)) < len(tokens) - 10, "there was something to find"


def test_batches_of_pairs_and_lists_change_nothing(monkeypatch):
    tokens = corpus(4, 30)
    whole = near_duplicates(tokens, 0.6, 3)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(module, "_LISTS_AT_ONCE", 3)
    assert near_duplicates(tokens, 0.6, 3).tolist() == whole.tolist()


def test_every_planted_near_duplicate_is_found():
    rng = np.random.default_rng(2)
    tokens = [rng.integers(0, 50_000, 300).astype(np.uint32) for _ in range(1000)]
    copies = []
    for one in tokens:
        copy = one.copy()
        copy[[50, 200]] = 60_000  # 10 of 296 shingles change: 286 / 306 = 0.93
        copies.append(copy)
    labels = near_duplicates([*tokens, *copies])
    assert labels.tolist() == [*range(1000), *range(1000)]


def test_the_threshold_is_included_and_labels_are_the_first_of_each_set():
    one, same, half = ids(*range(1, 8)), ids(*range(1, 8)), ids(1, 2, 3, 4, 5, 6, 9)
    assert near_duplicates([one, half, same], 0.5).tolist() == [0, 0, 0]
    assert near_duplicates([one, half, same], 0.51).tolist() == [0, 1, 0]
    nine, ten = ids(*range(12)), ids(*range(14))  # 8 and 10 shingles, 8 shared
    assert near_duplicates([nine, ten], 0.8).tolist() == [0, 0]
    assert near_duplicates([nine, ten], 0.8001).tolist() == [0, 1]


def test_a_chain_is_one_set():
    chain = [np.arange(start, start + 60, dtype=np.uint32) for start in range(0, 30, 3)]
    assert near_duplicates(chain, 0.8).tolist() == [0] * 10
    assert near_duplicates([chain[0], chain[9]], 0.8).tolist() == [0, 1]


def test_empty_lists_match_nothing_and_short_ones_are_compared_whole():
    tokens = [ids(), ids(7, 8), ids(), ids(7, 8), ids(8, 7), ids(7), ids(7, 8, 9, 10, 11), ids(7)]
    assert near_duplicates(tokens).tolist() == [0, 1, 2, 1, 4, 5, 6, 5]
    assert near_duplicates([]).tolist() == []
    assert near_duplicates([ids(), ids()]).tolist() == [0, 1]
    assert near_duplicates([ids(0), ids(0, 0), ids(0, 0, 0)]).tolist() == [0, 1, 2]


def test_neither_the_order_nor_other_lists_change_who_belongs_together():
    tokens = corpus(5, 30)
    labels = near_duplicates(tokens)
    backwards = near_duplicates(tokens[::-1])[::-1]
    pairs = {(a, b) for a, b in zip(labels.tolist(), backwards.tolist(), strict=True)}
    assert len(pairs) == len(set(labels.tolist())) == len(set(backwards.tolist()))


@pytest.mark.parametrize(("shared", "n_sets"), [(1, 4000), (80, 4000), (86, 4000), (95, 1)])
def test_thousands_that_share_a_template_are_told_apart(shared, n_sets):
    rng = np.random.default_rng(3)
    template = np.arange(shared)
    tokens = [
        np.concatenate([template, rng.integers(1000, 60_000, 100 - shared)]).astype(np.uint32)
        for _ in range(4000)
    ]
    assert len(np.unique(near_duplicates(tokens))) == n_sets


@pytest.mark.parametrize("bad", [{"threshold": 0.0}, {"threshold": 1.1}, {"shingle": 0}])
def test_values_outside_their_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        near_duplicates([ids(1), ids(2)], **bad)
