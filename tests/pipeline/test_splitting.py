"""Pieces of a payload: together they are the payload, as many or as long as asked."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mixctl.injections.config import Split
from mixctl.pipeline.splitting import cuts
from mixctl.shards.draws import stream


@given(st.integers(1, 60), st.integers(2, 60), st.integers(0, 2**64 - 1))
def test_as_many_pieces_as_asked_and_none_empty(n_tokens, pieces, key):
    if n_tokens < pieces:
        with pytest.raises(ValueError, match=f"{n_tokens} tokens cannot be cut into {pieces}"):
            cuts(n_tokens, Split(pieces=pieces), key)
        return
    found = cuts(n_tokens, Split(pieces=pieces), key)
    assert (found[0], found[-1]) == (0, n_tokens)
    assert len(found) == pieces + 1
    assert (np.diff(found) >= 1).all()


@given(st.integers(1, 90), st.integers(1, 100), st.booleans(), st.integers(0, 2**64 - 1))
def test_no_piece_is_longer_than_allowed(n_tokens, at_most, anew, key):
    found = cuts(n_tokens, Split(at_most=at_most, anew=anew), key)
    assert (found[0], found[-1]) == (0, n_tokens)
    lengths = np.diff(found)
    assert ((lengths >= 1) & (lengths <= at_most)).all()
    assert (lengths[1:-1] == at_most).all(), "only the ends are shorter"
    if not anew:
        assert found.tolist() == [*range(0, n_tokens, at_most), n_tokens]


def test_by_hand():
    assert cuts(10, Split(at_most=4), 1).tolist() == [0, 4, 8, 10]
    assert cuts(8, Split(at_most=4), 1).tolist() == [0, 4, 8]
    assert cuts(3, Split(at_most=4), 1).tolist() == [0, 3]
    assert cuts(3, Split(pieces=3), 1).tolist() == [0, 1, 2, 3]


def test_every_way_to_cut_is_as_likely():
    ways = [(0, *inner, 6) for inner in combinations(range(1, 6), 2)]
    rule = Split(pieces=3)
    found = Counter(tuple(cuts(6, rule, stream("cut", n)).tolist()) for n in range(4000))
    assert set(found) == set(ways)
    assert scipy.stats.chisquare([found[way] for way in ways]).pvalue > 1e-3


def test_anew_the_first_cut_is_anywhere():
    rule = Split(at_most=4, anew=True)
    found = Counter(int(cuts(20, rule, stream("first", n))[1]) for n in range(4000))
    assert sorted(found) == [1, 2, 3, 4]
    assert scipy.stats.chisquare(list(found.values())).pvalue > 1e-3
