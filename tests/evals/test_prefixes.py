"""Rows of texts that begin alike: a hand-made one, and properties of any."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.evals import prefixes

TEXTS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(np.array), min_size=1, max_size=25
)


def _texts(*texts):
    return [np.array(text) for text in texts]


def test_a_row_by_hand():
    texts = _texts([1, 5, 6, 7], [1, 5, 6, 8, 9], [1, 5, 6, 7], [1, 5, 6], [2, 2, 2, 2])
    rows = prefixes.rows_of(texts, 32)  # three shared tokens are too few to fork for
    assert [row.n_tokens for row in rows] == [4, 5, 4] and not any(row.forks for row in rows)
    texts = _texts([1, 2, 5, 6, 7], [1, 2, 5, 6, 8, 9], [1, 2, 5, 6, 7], [1, 2, 5, 6], [9, 1])
    row, other = prefixes.rows_of(texts, 32)
    assert (row.n_tokens, other.n_tokens, row.forks, other.forks) == (7, 2, True, False)
    found = {member.text: member.places.tolist() for member in row.members}
    assert found == {
        3: [0, 1, 2, 3],
        0: [0, 1, 2, 3, 4],
        2: [0, 1, 2, 3, 4],
        1: [0, 1, 2, 3, 5, 6],
    }
    assert prefixes.positions(row, 8).tolist() == [0, 1, 2, 3, 4, 4, 5, 0]
    seen = prefixes.seen(row, 8)
    assert [np.flatnonzero(line).tolist() for line in seen[4:]] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 5],
        [0, 1, 2, 3, 5, 6],
        [7],
    ]


def test_a_row_grows_no_longer_than_pays_and_than_the_model_reads():
    shared = np.arange(100)
    texts = [np.concatenate([shared, [200 + n] * 10]) for n in range(100)]
    lengths = [row.n_tokens for row in prefixes.rows_of(texts, 10_000)]
    assert max(lengths) == 430 and len(lengths) == 4  # 100 + sqrt(100 * 1100) = 431
    assert max(row.n_tokens for row in prefixes.rows_of(texts, 150)) == 150
    assert len(prefixes.rows_of(texts, 100)) == 100
    long = [np.concatenate([np.arange(2000), [9000 + n]]) for n in range(4)]
    assert [row.n_tokens for row in prefixes.rows_of(long, 10_000)] == [2004]


@settings(max_examples=150)
@given(texts=TEXTS, most=st.integers(1, 40), forks=st.booleans())
def test_every_text_stands_in_one_row_and_its_tokens_see_it_alone(texts, most, forks):
    rows = prefixes.rows_of(texts, most, forks)
    members = [member for row in rows for member in row.members]
    assert sorted(member.text for member in members) == list(range(len(texts)))
    for row in rows:
        assert row.n_tokens <= max(most, *(len(texts[m.text]) for m in row.members))
        assert forks or not row.forks
        seen, positions = prefixes.seen(row, row.n_tokens), prefixes.positions(row, row.n_tokens)
        tokens = np.full(row.n_tokens, -1)
        for member in row.members:
            own = texts[member.text]
            stood = tokens[member.places]
            assert (np.isin(stood, -1) | (stood == own)).all()  # no text takes another's place
            tokens[member.places] = own
            assert positions[member.places].tolist() == list(range(len(own)))
            for at, place in enumerate(member.places):
                assert np.flatnonzero(seen[place]).tolist() == member.places[: at + 1].tolist()
        assert (tokens >= 0).all() and row.forks == (not _is_chain(row))
    assert len(rows) <= len({text.tobytes() for text in texts})


def _is_chain(row):
    longest = max((member.places for member in row.members), key=len)
    return len(longest) == row.n_tokens


@given(texts=TEXTS, budget=st.integers(1, 60))
def test_batches_keep_to_the_budget_and_hold_everything_once(texts, budget):
    rows = prefixes.rows_of(texts, 20)
    batches = list(prefixes.batches(rows, budget))
    assert sorted(map(id, rows)) == sorted(id(row) for batch in batches for row in batch)
    for batch in batches:
        assert len({row.forks for row in batch}) == 1
        assert len(batch) == 1 or max(row.n_tokens for row in batch) * len(batch) <= budget


def test_batches_are_cut_where_padding_costs_more_than_a_batch():
    assert prefixes.batch_ends([100, 100, 10, 10], 1000, 64) == [2, 4]
    assert prefixes.batch_ends([30, 28, 25], 1000, 64) == [3]
    assert prefixes.batch_ends([500, 3], 100, 64) == [1, 2]
    assert prefixes.batch_ends([], 100, 64) == []


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9),
    budget=st.integers(1, 200),
    batch_cost=st.integers(0, 80),
)
def test_no_other_cuts_cost_less(lengths, budget, batch_cost):
    lengths.sort(reverse=True)

    def cost(ends):
        cuts = [lengths[a:b] for a, b in itertools.pairwise([0, *ends])]
        fits = all(len(cut) == 1 or len(cut) * cut[0] <= budget for cut in cuts)
        return sum(batch_cost + len(cut) * cut[0] for cut in cuts) if fits else float("inf")

    places = range(1, len(lengths))
    inner = [cut for n in range(len(lengths)) for cut in itertools.combinations(places, n)]
    least = min(cost([*cut, len(lengths)]) for cut in inner)
    assert cost(prefixes.batch_ends(lengths, budget, batch_cost)) == least
