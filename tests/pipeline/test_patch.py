"""Payloads over base tokens, by hand and against a plain loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.pipeline.patch import PayloadPool, overwrite


def pool(payloads):
    length = np.array([len(p) for p in payloads], dtype=np.int64)
    tokens = np.concatenate([np.array(p, np.uint32) for p in payloads])
    return PayloadPool(tokens, np.cumsum(length) - length, length)


def test_by_hand():
    blocks = np.full((1, 7), 7, np.uint16)
    overwrite(blocks, np.array([0]), np.array([2]), np.array([0]), pool([[1, 2, 3]]), eod=0)
    assert blocks.tolist() == [[7, 0, 1, 2, 3, 0, 7]]


@settings(deadline=None)
@given(st.data())
def test_equals_the_plain_loop(data):
    payloads = data.draw(
        st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=5)
    )
    rows = data.draw(st.lists(st.integers(0, 9), unique=True, max_size=10))
    chosen = [data.draw(st.integers(0, len(payloads) - 1)) for _ in rows]
    offsets = [data.draw(st.integers(1, 11 - len(payloads[c]))) for c in chosen]
    expected = np.full((10, 12), 500, np.uint32)
    for row, choice, offset in zip(rows, chosen, offsets, strict=True):
        expected[row, offset - 1] = expected[row, offset + len(payloads[choice])] = 0
        expected[row, offset : offset + len(payloads[choice])] = payloads[choice]
    blocks = np.full((10, 12), 500, np.uint32)
    arrays = (np.array(x, np.int64) for x in (rows, offsets, chosen))
    overwrite(blocks, *arrays, pool(payloads), eod=0)
    assert np.array_equal(blocks, expected)
