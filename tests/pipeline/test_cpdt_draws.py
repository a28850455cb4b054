"""Draws of dependence runs: base sequences, payloads and their places, as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.pipeline.cpdt_build import base_text
from mixctl.pipeline.cpdt_draws import base_draw, deal, places, shares_base
from mixctl.pipeline.placement import NoRoomError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(np.array)


@given(st.integers(2, 400), st.integers(1, 60), st.integers(1, 8), st.integers(0, 99))
def test_every_run_has_base_sequences_of_its_own_where_there_are_enough(pool, needed, runs, seed):
    if needed > pool:
        with pytest.raises(ValueError, match="a run needs"):
            base_draw(pool, needed, 0, runs, seed)
        return
    drawn = [base_draw(pool, needed, run, runs, seed) for run in range(runs)]
    for one in drawn:
        assert len(set(one.tolist())) == needed and one.min() >= 0 and one.max() < pool
    apart = len(set(np.concatenate(drawn).tolist())) == runs * needed
    assert apart or shares_base(pool, needed, runs)
    assert shares_base(pool, needed, runs) == (runs * needed > pool)


def test_a_pool_that_is_too_small_gives_draws_of_their_own():
    drawn = [base_draw(100, 60, run, 3, 0) for run in range(3)]
    shared = len(set(drawn[0].tolist()) & set(drawn[1].tolist()))
    assert 20 <= shared < 60 and drawn[0].tolist() != drawn[1].tolist()


def test_another_seed_draws_another_base():
    assert base_draw(1000, 50, 1, 4, 0).tolist() != base_draw(1000, 50, 1, 4, 1).tolist()


@given(LENGTHS, st.integers(0, 900), st.integers(0, 99))
def test_payloads_are_dealt_evenly_until_the_budget(length, budget, seed):
    dealt = deal(length, budget, seed, "run", "experiment")
    tokens = length[dealt]
    assert tokens.sum() >= budget
    assert budget == 0 or tokens[:-1].sum() < budget  # no copy more than needed
    times = np.bincount(dealt, minlength=len(length))
    assert times.max() - times.min() <= 1
    first = dealt[: len(length)]
    assert len(set(first.tolist())) == len(first)  # a round has every payload once


def test_rounds_and_runs_have_orders_of_their_own():
    length = np.full(20, 5)
    dealt = deal(length, 200, 3, "run", "x")
    assert dealt[:20].tolist() != dealt[20:].tolist()
    assert deal(length, 200, 3, "other", "x").tolist() != dealt.tolist()


@given(st.lists(st.sampled_from([3, 9, 18, 20]), max_size=12), st.integers(0, 99))
def test_places_lie_apart_inside_their_sequences(lengths, seed):
    """Sequences of 20: a payload of 20 fills one, one of 18 and its separators too."""
    length = np.array(lengths, dtype=np.int64)
    where = places(length, 40, 20, seed, "run")
    used = np.zeros((40, 22), dtype=int)
    for n, tokens in enumerate(lengths):
        whole = tokens == 20
        begin = where.offset[n] - (not whole)
        end = where.offset[n] + tokens + (not whole)
        assert where.whole[n] == whole and begin >= 0 and end <= 20
        used[where.sequence[n], begin : end + 1] += 1  # and one token apart from the next
    assert used[:, :20].max(initial=0) <= 1


def test_places_that_are_not_there():
    with pytest.raises(NoRoomError):
        places(np.full(5, 20), 4, 20, 0, "run")
    with pytest.raises(ValueError, match="more than 18"):
        places(np.array([19]), 4, 20, 0, "run")


def test_base_text_begins_with_a_document_where_one_fits():
    block = np.array([5, 6, 0, 7, 8, 9, 0, 4], dtype=np.uint16)
    assert base_text(block, 3, 0).tolist() == [7, 8, 9]
    assert base_text(block, 5, 0).tolist() == [7, 8, 9, 0, 4]
    assert base_text(block, 6, 0).tolist() == [5, 6, 0, 7, 8, 9]
    assert base_text(block, 8, 0).tolist() == block.tolist()
