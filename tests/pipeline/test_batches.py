"""Whole batches: a step each, inside the window, the earlier copy first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.pipeline.batches import place_batches
from mixctl.pipeline.placement import DRAW_ROUNDS, NoRoomError
from mixctl.shards.draws import bits, stream


def placed(windows, taken=(), name="a"):
    """Returns (steps, taken) for copies with these (first, stop)."""
    first, stop = np.array(windows, dtype=np.int64).reshape(-1, 2).T
    return place_batches(bits(stream(name), np.arange(len(windows))), first, stop, set(taken))


def plain(windows, taken, name):
    """The rule of the module, copy by copy, with whole numbers."""
    keys = [int(k) for k in bits(stream(name), np.arange(len(windows)))]
    steps, taken = {}, set(taken)
    for turn in range(DRAW_ROUNDS):
        for copy, (first, stop) in enumerate(windows):
            drawn = first + (int(bits(keys[copy], 2 * turn)) * (stop - first) >> 64)
            if copy not in steps and drawn not in taken:
                steps[copy] = drawn
                taken.add(drawn)
    return steps


WINDOWS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=15)


@settings(max_examples=80)
@given(WINDOWS, st.sets(st.integers(0, 40), max_size=10), st.integers(0, 10**6))
def test_no_step_twice_and_every_window_kept(asked, taken, name):
    windows = [(first, first + n) for first, n in asked]
    try:
        steps, after = placed(windows, taken, name)
    except NoRoomError as error:
        for copy in error.lacking:
            first, stop = windows[copy]
            others = {s for f, e in windows for s in range(f, e)} | taken
            assert set(range(first, stop)) <= others
        return
    assert len(set(steps.tolist())) == len(windows)
    assert not set(steps.tolist()) & taken
    assert after == set(steps.tolist()) | taken
    for step, (first, stop) in zip(steps.tolist(), windows, strict=True):
        assert first <= step < stop
    for copy, step in plain(windows, taken, name).items():
        assert steps[copy] == step


def test_given_steps_are_kept_and_the_free_copy_avoids_them():
    for name in range(50):
        steps, _ = placed([(3, 4), (0, 1), (0, 5)], name=name)
        assert steps.tolist()[:2] == [3, 0]
        assert steps[2] in (1, 2, 4)


def test_a_window_is_filled_to_the_last_step():
    steps, _ = placed([(10, 60)] * 50)
    assert sorted(steps.tolist()) == list(range(10, 60))


def test_how_many_lack_a_step_is_said():
    with pytest.raises(NoRoomError) as error:
        placed([(0, 5)] * 8)
    assert len(error.value.lacking) == 3
    with pytest.raises(NoRoomError) as error:
        placed([(7, 8), (0, 9), (7, 8)])
    assert error.value.lacking.tolist() == [2], "the earlier copy has the step"
    with pytest.raises(NoRoomError) as error:
        placed([(7, 8)], taken={7})
    assert error.value.lacking.tolist() == [0]


def test_what_was_taken_before_moves_only_those_that_meet_it():
    windows = [(0, 1000)] * 20
    alone, _ = placed(windows)
    beside, _ = placed(windows, taken={int(alone[4]), 999_999})
    assert [n for n in range(20) if alone[n] != beside[n]] == [4]


def test_the_steps_are_uniform():
    steps = np.array([placed([(0, 10)], name=n)[0][0] for n in range(1000)])
    counts = np.bincount(steps, minlength=10)
    assert abs(counts - 100).max() < 5 * np.sqrt(100 * 0.9)


def test_nothing_to_place():
    steps, taken = placed([], taken={3})
    assert (len(steps), taken) == (0, {3})
