"""The core of an amendment: which sequences are free, and that nothing leaves them."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixctl.pipeline.copies import _PayloadTables, _variant
from mixctl.pipeline.drafts import occupied_sequences, step_sequences
from mixctl.pipeline.finished import held_sequences
from mixctl.pipeline.placement import NoRoomError, Requests, place
from mixctl.shards.topology import Topology

WIDTH, BATCH, STEPS = 12, 4, 10
RUN = Topology(
    devices=1,
    nodes=1,
    workers=0,
    micro_batch=BATCH,
    global_batch=BATCH,
    max_seq_length=WIDTH - 1,
    max_tokens=STEPS * BATCH * (WIDTH - 1),
    data_seed=1,
)
sequences = st.lists(st.integers(0, STEPS * BATCH - 1), max_size=60)


@given(sequences, st.lists(st.integers(0, STEPS * BATCH + 5), max_size=20))
def test_held_is_what_anything_lies_in(placed, replaced):
    found = held_sequences(np.array(placed, int), np.array(replaced, int), STEPS * BATCH)
    assert found.tolist() == sorted({*placed, *(n for n in replaced if n < STEPS * BATCH)})


@given(
    sequences, st.integers(0, STEPS - 1), st.lists(st.integers(1, WIDTH), min_size=1, max_size=40)
)
def test_copies_go_to_later_sequences_that_hold_nothing(held, after, extents):
    held = held_sequences(np.array(held, int), np.array([], int), STEPS * BATCH)
    n, extent = len(extents), np.array(extents)
    keys = np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    first = np.full(n, after * BATCH)
    requests = Requests(keys, first, np.full(n, STEPS * BATCH), extent)
    free = set(range(after * BATCH, STEPS * BATCH)) - set(held.tolist())
    try:
        sequence, offset, _ = place(requests, occupied_sequences(held, RUN), WIDTH)
    except NoRoomError:
        assert n > len(free)  # a free sequence each is always enough
        return
    assert set(sequence.tolist()) <= free
    taken = sorted(zip(sequence.tolist(), offset.tolist(), (offset + extent).tolist(), strict=True))
    for (one, _, end), (other, begin, _) in zip(taken, taken[1:], strict=False):
        assert one != other or end < begin
    assert (offset >= 0).all() and (offset + extent <= WIDTH).all()


@given(st.sets(st.integers(0, STEPS - 1)))
def test_the_sequences_of_steps(steps):
    found = step_sequences(steps, RUN).tolist()
    assert found == [n for n in range(STEPS * BATCH) if n // BATCH in steps]


@given(
    st.integers(0, 50),
    st.integers(1, 30),
    st.integers(0, 5),
    st.integers(1, 5),
)
def test_payloads_go_on_in_turn_over_those_that_are_kept(earlier, n, n_first, n_reserve):
    """Of an item with n_first payloads that a build places and n_reserve others."""
    tables = _PayloadTables(np.array([n_first + n_reserve]), np.array([0]), np.ones(9), np.ones(1))
    assigned = SimpleNamespace(first_variant=np.array([n_first]))
    copy = earlier + np.arange(n)
    found = _variant(assigned, tables, np.zeros(n, int), copy).tolist()
    assert found[0] == n_first + earlier % n_reserve
    for one, following in zip(found, found[1:], strict=False):
        assert following == (one + 1 if one + 1 < n_first + n_reserve else n_first)
