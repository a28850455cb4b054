"""Payloads over base tokens, by hand and against plain lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixctl.pipeline.patch import PayloadPool, make_room, write_payloads, write_separators

EOD = 0
WIDTH = 12


def overwrite(blocks, rows, offsets, begins, lengths, tokens):
    rows, offsets, begins, lengths = (
        np.array(x, np.int64) for x in (rows, offsets, begins, lengths)
    )
    pool = PayloadPool(np.array(tokens, np.uint32))
    write_separators(blocks, rows, offsets, lengths, EOD)
    write_payloads(blocks, rows, offsets, begins, lengths, pool)


def splice(blocks, rows, offsets, lengths):
    make_room(blocks, *(np.array(x, np.int64) for x in (rows, offsets, lengths)), EOD)


def test_by_hand():
    blocks = np.full((1, 7), 7, np.uint16)
    overwrite(blocks, [0], [2], [0], [3], [1, 2, 3])
    assert blocks.tolist() == [[7, 0, 1, 2, 3, 0, 7]]


def test_a_splice_by_hand():
    blocks = np.array([[7, 0, 8, 8, 8, 9, 9]] * 2, np.uint16)
    blocks[1, 1] = 5
    splice(blocks, [0, 1], [2, 1], [3, 2])
    overwrite(blocks, [0, 1], [2, 1], [0, 3], [3, 2], [1, 2, 3, 4, 6])
    assert blocks.tolist() == [[7, 0, 1, 2, 3, 0, 8], [0, 4, 6, 0, 7, 5, 8]]


@given(st.data())
def test_equals_the_plain_loop(data):
    """Payloads are stretches of one pool, several in a row of the blocks where they fit."""
    tokens = data.draw(st.lists(st.integers(1, 99), min_size=1, max_size=30))
    expected = np.full((10, WIDTH), 500, np.uint32)
    columns = []
    for row in range(10):
        free = 0
        while free + 3 <= WIDTH and data.draw(st.booleans()):
            length = data.draw(st.integers(1, min(len(tokens), WIDTH - free - 2)))
            offset = data.draw(st.integers(free + 1, WIDTH - length - 1))
            begin = data.draw(st.integers(0, len(tokens) - length))
            wrapped = [EOD, *tokens[begin : begin + length], EOD]
            expected[row, offset - 1 : offset + length + 1] = wrapped
            columns.append((row, offset, begin, length))
            free = offset + length + 2
    blocks = np.full((10, WIDTH), 500, np.uint32)
    overwrite(blocks, *np.array(columns, np.int64).reshape(-1, 4).T, tokens)
    assert np.array_equal(blocks, expected)


@given(st.data())
def test_a_splice_equals_plain_lists(data):
    """A payload goes behind a document end or to the front; what follows moves, the tail is cut."""
    rows = data.draw(st.lists(st.integers(0, 5), unique=True))
    token = st.sampled_from([EOD, 1, 2, 3])
    base = [[data.draw(token) for _ in range(WIDTH)] for _ in range(6)]
    blocks, expected = np.array(base, np.uint16), [list(row) for row in base]
    offsets, lengths, tokens = [], [], []
    for row in rows:
        length = data.draw(st.integers(1, WIDTH - 2))
        payload = data.draw(st.lists(st.integers(50, 60), min_size=length, max_size=length))
        old = base[row]
        places = [n + 1 for n, t in enumerate(old) if t == EOD and n + 1 + length < WIDTH]
        if places and data.draw(st.booleans()):
            offset = data.draw(st.sampled_from(places))
            new = [*old[:offset], *payload, EOD, *old[offset:]]
        elif old[0] != EOD:
            offset, new = 1, [EOD, *payload, EOD, *old]
        else:
            offset, new = 1, [*old[:1], *payload, EOD, *old[1:]]
        expected[row] = new[:WIDTH]
        offsets.append(offset)
        lengths.append(length)
        tokens += payload
    splice(blocks, rows, offsets, lengths)
    begins = np.cumsum(lengths) - lengths if lengths else []
    overwrite(blocks, rows, offsets, begins, lengths, tokens)
    assert blocks.tolist() == expected


def test_nothing_is_written_where_nothing_is_placed():
    blocks = np.arange(24, dtype=np.uint16).reshape(2, 12)
    before = blocks.copy()
    splice(blocks, [], [], [])
    overwrite(blocks, [], [], [], [], [])
    assert np.array_equal(blocks, before)
