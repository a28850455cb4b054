"""Placement: the vectorised rule against a plain loop, and its promises as properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.pipeline.placement import (
    DRAW_ROUNDS,
    FreeRoom,
    NoRoomError,
    Occupied,
    Requests,
    free_places,
    most_extents,
    place,
)
from mixctl.shards.draws import below, bits, stream

WIDTH = 33


def requests(n, first, stop, extent, name="a"):
    """Returns n copies with one window; `extent` is a number or one for each copy."""
    return Requests(
        key=bits(stream(name), np.arange(n)),
        first=np.full(n, first, np.int64),
        stop=np.full(n, stop, np.int64),
        extent=np.broadcast_to(np.asarray(extent, np.int64), (n,)).copy(),
    )


def plain_rounds(asked, taken, width):
    """The rule of the module written as loops over tuples: returns {copy: (sequence, offset)}."""
    placed, waiting = {}, list(range(len(asked)))
    taken = list(taken)
    for turn in range(DRAW_ROUNDS):
        draws = {}
        for c in waiting:
            span = int(asked.stop[c] - asked.first[c])
            s = int(asked.first[c]) + (int(bits(int(asked.key[c]), 2 * turn)) * span >> 64)
            room = width - int(asked.extent[c]) + 1
            draws[c] = (s, int(bits(int(asked.key[c]), 2 * turn + 1)) * room >> 64)

        def touch(a, la, b, lb):
            return a[0] == b[0] and a[1] <= b[1] + lb and b[1] <= a[1] + la

        won = [
            c
            for c in waiting
            if not any(touch(draws[c], int(asked.extent[c]), t[:2], t[2]) for t in taken)
            and not any(
                touch(draws[c], int(asked.extent[c]), draws[d], int(asked.extent[d]))
                for d in waiting
                if d < c
            )
        ]
        for c in won:
            placed[c] = draws[c]
            taken.append((*draws[c], int(asked.extent[c])))
        waiting = [c for c in waiting if c not in placed]
    return placed, waiting


def assert_apart(sequence, offset, extent, width):
    assert (offset >= 0).all()
    assert (offset + extent <= width).all()
    order = np.lexsort([offset, sequence])
    s, begin, end = sequence[order], offset[order], (offset + extent)[order]
    same = s[1:] == s[:-1]
    assert (begin[1:][same] > end[:-1][same]).all(), "two extents overlap or adjoin"


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(3, 20), min_size=1, max_size=25),
    sequences=st.integers(5, 40),
    seed=st.integers(0, 2**32),
)
def test_vectorised_equals_the_plain_loop(lengths, sequences, seed):
    asked = requests(len(lengths), 3, 3 + sequences, lengths, name=seed)
    expected, waiting = plain_rounds(asked, [], WIDTH)
    try:
        sequence, offset, _ = place(asked, Occupied.nothing(), WIDTH)
    except NoRoomError as error:
        assert set(error.lacking.tolist()) <= set(waiting)
        return
    for copy, slot in expected.items():
        assert (int(sequence[copy]), int(offset[copy])) == slot
    assert_apart(sequence, offset, asked.extent, WIDTH)


@settings(max_examples=60)
@given(
    first=st.lists(st.integers(3, 30), min_size=1, max_size=60),
    second=st.lists(st.integers(3, 30), min_size=1, max_size=60),
    seed=st.integers(0, 2**32),
)
def test_every_copy_in_its_window_and_none_touch(first, second, seed):
    a = requests(len(first), 0, 60, first, name=seed)
    b = requests(len(second), 30, 90, second, name=seed + 1)
    try:
        sequence_a, offset_a, occupied = place(a, Occupied.nothing(), WIDTH)
        sequence_b, offset_b, both = place(b, occupied, WIDTH)
    except NoRoomError:
        return
    assert ((sequence_a >= 0) & (sequence_a < 60)).all()
    assert ((sequence_b >= 30) & (sequence_b < 90)).all()
    assert_apart(
        np.concatenate([sequence_a, sequence_b]),
        np.concatenate([offset_a, offset_b]),
        np.concatenate([a.extent, b.extent]),
        WIDTH,
    )
    assert len(both.begin) == len(first) + len(second)
    assert (np.diff(both.begin) > 0).all()


def test_a_window_is_filled_to_the_last_place():
    """One extent a sequence fits: every sequence gets one, and one more is refused."""
    asked = requests(500, 7, 507, 20)
    sequence, offset, occupied = place(asked, Occupied.nothing(), WIDTH)
    assert sorted(sequence) == list(range(7, 507))
    assert_apart(sequence, offset, asked.extent, WIDTH)
    with pytest.raises(NoRoomError) as error:
        place(requests(1, 7, 507, 20, name="late"), occupied, WIDTH)
    assert error.value.lacking.tolist() == [0]


def test_two_extents_may_meet_at_a_sequence_boundary_but_not_inside():
    whole = requests(2, 0, 2, WIDTH)
    sequence, offset, _ = place(whole, Occupied.nothing(), WIDTH)
    assert sorted(sequence) == [0, 1]
    assert offset.tolist() == [0, 0]
    assert most_extents(np.int64(16), WIDTH) == 2  # 16 + 1 + 16 = 33
    assert most_extents(np.int64(17), WIDTH) == 1


def test_positions_are_uniform_over_sequences_and_offsets():
    asked = requests(40_000, 0, 1_000_000, 13)
    sequence, offset, _ = place(asked, Occupied.nothing(), WIDTH)
    counts = np.bincount(sequence // 100_000, minlength=10)
    assert abs(counts - 4000).max() < 5 * np.sqrt(4000 * 0.9)
    starts = np.bincount(offset, minlength=WIDTH - 13 + 1)
    expected = 40_000 / (WIDTH - 13 + 1)
    assert len(starts) == 21
    assert abs(starts - expected).max() < 5 * np.sqrt(expected)


@settings(max_examples=80)
@given(
    taken=st.lists(st.tuples(st.integers(0, 5), st.integers(0, WIDTH - 3)), max_size=10),
    extent=st.integers(1, WIDTH),
)
def test_free_places_and_capacity_by_brute_force(taken, extent):
    grid = np.zeros((6, WIDTH), dtype=bool)
    begins, ends = [], []
    for s, o in sorted(set(taken)):
        if grid[s, max(o - 1, 0) : o + 4].any():
            continue
        grid[s, o : o + 3] = True
        begins.append(s * (WIDTH + 1) + o)
        ends.append(s * (WIDTH + 1) + o + 3)
    occupied = Occupied(np.array(begins, np.int64), np.array(ends, np.int64))
    free = [
        s * (WIDTH + 1) + o
        for s in range(1, 5)
        for o in range(WIDTH - extent + 1)
        if not grid[s, max(o - 1, 0) : o + extent + 1].any()
    ]
    low, high = free_places(1, 5, extent, occupied, WIDTH)
    assert [p for a, b in zip(low, high, strict=True) for p in range(a, b)] == free
    packed = 0
    for s in range(1, 5):
        o = 0
        while o + extent <= WIDTH:
            if grid[s, max(o - 1, 0) : o + extent + 1].any():
                o += 1
                continue
            packed, o = packed + 1, o + extent + 1
    assert FreeRoom(occupied, WIDTH).left(1, 5, extent) == packed


def test_a_million_copies_are_exact():
    asked = requests(1_000_000, 0, 5_000_000, 119)
    sequence, offset, _ = place(asked, Occupied.nothing(), 4097)
    assert len(sequence) == 1_000_000
    assert ((sequence >= 0) & (sequence < 5_000_000)).all()
    assert_apart(sequence, offset, asked.extent, 4097)


def test_below_is_what_the_plain_loop_uses():
    values = bits(7, np.arange(100))
    assert below(values, 1000).tolist() == [int(v) * 1000 >> 64 for v in values]
