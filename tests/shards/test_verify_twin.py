"""Run against twin: the same as a comparison token by token in plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixctl.shards.chunks import Room, Tokens
from mixctl.shards.verify_twin import Changes, first_difference

WIDTH, EOD, FIRST = 12, 0, 40
"""tokens of a block; the separator; the number of the first block"""


def laid(twin: Tokens, changes: Changes) -> Tokens:
    """Returns the run: other tokens in the ranges, behind spliced ones the twin's, moved."""
    run = twin.copy()
    places = (changes.block - FIRST, changes.begin, changes.length, changes.spliced)
    for block, begin, length, spliced in zip(*(one.tolist() for one in places), strict=True):
        before = twin[block].tolist()
        row = before[:begin] + [9] * length
        skipped = 1 if spliced and before[begin] == EOD else 0
        row += before[begin + skipped :] if spliced else before[begin + length :]
        run[block] = row[:WIDTH]
    return run


@st.composite
def placed(draw: st.DrawFn) -> tuple[Tokens, Changes]:
    """Draws the twin's blocks and at most one change a block.

    What is spliced in stands at a separator or at the block's beginning.
    """
    n_blocks = draw(st.integers(1, 6))
    tokens = st.lists(st.integers(0, 3), min_size=WIDTH, max_size=WIDTH)
    twin = np.array([draw(tokens) for _ in range(n_blocks)], dtype=np.uint16)
    rows = []
    for block in sorted(draw(st.sets(st.integers(0, n_blocks - 1)))):
        spliced = draw(st.booleans())
        separators = np.flatnonzero(twin[block] == EOD).tolist()
        begin = draw(st.sampled_from([0, *separators]) if spliced else st.integers(0, WIDTH - 1))
        length = draw(st.integers(1, WIDTH - begin))
        rows.append((FIRST + block, begin, length, spliced))
    columns = [np.array([row[at] for row in rows], dtype=np.int64) for at in range(4)]
    return twin, Changes(*columns[:3], columns[3].astype(bool))


@given(placed())
def test_a_run_that_differs_where_it_may_has_no_difference(case: tuple[Tokens, Changes]) -> None:
    twin, changes = case
    run = laid(twin, changes)
    assert first_difference(run, twin, FIRST, changes, (), EOD, Room()) is None


@given(placed(), st.data())
def test_the_first_other_token_is_named(case: tuple[Tokens, Changes], data: st.DataObject) -> None:
    """Of several, whatever the room held before; none where a range or a sequence was exchanged."""
    twin, changes = case
    run = laid(twin, changes)
    exchanged = data.draw(st.sets(st.integers(0, len(twin) - 1)))
    places = st.tuples(st.integers(0, len(twin) - 1), st.integers(0, WIDTH - 1))
    damaged = data.draw(st.lists(places, min_size=1, unique=True))
    for block, offset in damaged:
        run[block, offset] += 20
    free = {(block, offset) for block in exchanged for offset in range(WIDTH)}
    ranges = (changes.block - FIRST, changes.begin, changes.begin + changes.length)
    for block, low, high in zip(*(one.tolist() for one in ranges), strict=True):
        free |= {(block, offset) for offset in range(low, high)}
    expected = min((place for place in damaged if place not in free), default=None)
    room = Room()
    room.array(np.uint8, (1000,))[:] = 255
    replaced = [FIRST + block for block in exchanged]
    found = first_difference(run, twin, FIRST, changes, replaced, EOD, room)
    assert found == (expected and (FIRST + expected[0], expected[1]))
