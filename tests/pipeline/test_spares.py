"""Spare sequences: different, free, and another wish's draw changes nothing unless they meet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.pipeline.spares import allot
from mixctl.shards.draws import bits, stream


def keys(name, n):
    return bits(stream(name), np.arange(n))


@given(st.integers(1, 60), st.data())
def test_each_wish_gets_a_free_spare_of_its_own(n, data):
    taken = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    wishes = data.draw(st.integers(0, int((~taken).sum())))
    before = taken.copy()
    found = allot(keys("wish", wishes), taken)
    assert len(set(found.tolist())) == wishes
    assert not before[found].any()
    assert np.flatnonzero(taken != before).tolist() == sorted(found.tolist())


def test_wishes_of_another_experiment_move_only_those_that_met_them():
    alone = allot(keys("b", 40), np.zeros(4000, np.bool_))
    taken = np.zeros(4000, np.bool_)
    first = allot(keys("a", 40), taken)
    after = allot(keys("b", 40), taken)
    met = np.isin(alone, first)
    assert met.sum() < 5
    assert (alone == after)[~met].mean() > 0.9


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="3 wishes, 2 free spares"):
        allot(keys("c", 3), np.array([True, False, False]))
