"""The training order as a function: a bijection, whatever the topology; refusals; size."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.shards.layout import Layout, train_layout
from mixctl.shards.order import TrainingOrder
from mixctl.shards.topology import Topology
from tests.support.sample import topologies_with_layouts, topology

quick = settings(derandomize=True, max_examples=150)


@quick
@given(topologies_with_layouts())
def test_slots_and_sequences_are_inverse_bijections(case: tuple[Topology, Layout]) -> None:
    made_for, layout = case
    order = TrainingOrder(made_for, layout)
    sequences = np.arange(layout.n_blocks)
    chunk, block = order.slots(sequences)
    assert chunk.min() >= 0 and chunk.max() < layout.n_chunks
    assert block.min() >= 0 and block.max() < layout.blocks_per_chunk
    assert len(np.unique(chunk * layout.blocks_per_chunk + block)) == layout.n_blocks
    np.testing.assert_array_equal(order.sequences(chunk, block), sequences)
    all_chunks, all_blocks = np.divmod(sequences, layout.blocks_per_chunk)
    back = order.slots(order.sequences(all_chunks, all_blocks))
    np.testing.assert_array_equal(back, (all_chunks, all_blocks))
    held = order.contents(chunk, block).tolist()
    assert held == [min(n, made_for.sequences) for n in range(layout.n_blocks)]


@quick
@given(topologies_with_layouts())
def test_no_chunk_is_shared_and_each_is_read_to_its_end(case: tuple[Topology, Layout]) -> None:
    made_for, layout = case
    order = TrainingOrder(made_for, layout)
    chunk, _ = order.slots(np.arange(layout.n_blocks))
    micro_batch = np.arange(layout.n_blocks) // made_for.micro_batch
    rank, t = micro_batch % made_for.ranks, micro_batch // made_for.ranks
    owner = rank * layout.workers + t % layout.workers
    for who in range(layout.ranks * layout.workers):
        runs = [key for key, _ in itertools.groupby(chunk[owner == who])]
        assert len(runs) == len(set(runs)) == layout.chunks_per_worker


@quick
@given(topologies_with_layouts(), st.data())
def test_steps_count_rows_micro_batch_by_micro_batch_rank_by_rank(
    case: tuple[Topology, Layout], data: st.DataObject
) -> None:
    made_for, layout = case
    order = TrainingOrder(made_for, layout)
    sequence = data.draw(st.integers(0, layout.n_blocks - 1))
    step, row = order.steps(np.array([sequence]))
    micro_batch, m = divmod(int(row[0]), made_for.micro_batch)
    in_step, rank = divmod(micro_batch, made_for.ranks)
    t = (int(step[0]) - 1) * made_for.accumulation + in_step
    assert sequence == (t * made_for.ranks + rank) * made_for.micro_batch + m
    assert 0 <= row[0] < made_for.global_batch and step[0] >= 1


def test_closed_form_by_hand() -> None:
    """One rank, one worker, micro-batch 1, K = 1: the order is one permutation of one chunk."""
    made_for = topology(devices=1, workers=0, micro_batch=1, global_batch=2, max_tokens=2 * 8 * 2)
    order = TrainingOrder(made_for, Layout(1, 1, 1, 5))
    chunk, block = order.slots(np.arange(5))
    assert chunk.tolist() == [0] * 5
    assert block.tolist() == np.random.RandomState([42, 1, 1, 0]).permutation(5).tolist()
    assert [part.tolist() for part in order.steps(np.arange(5))] == [
        [1, 1, 2, 2, 3],
        [0, 1, 0, 1, 0],
    ]


def test_golden_slots() -> None:
    """Pinned: a change of the order is noticed even without the stock loader."""
    order = TrainingOrder(topology(), Layout(2, 2, 2, 8))
    chunk, block = order.slots(np.array([0, 1, 2, 3, 4, 8, 16, 31, 40, 63]))
    assert chunk.tolist() == GOLDEN_CHUNKS
    assert block.tolist() == GOLDEN_BLOCKS


GOLDEN_CHUNKS = [1, 1, 1, 1, 0, 5, 1, 4, 6, 7]
GOLDEN_BLOCKS = [2, 6, 1, 4, 2, 2, 5, 7, 1, 5]


def test_shapes_are_kept_and_empty_is_fine() -> None:
    order = TrainingOrder(topology(), Layout(2, 2, 2, 8))
    square = np.arange(6).reshape(2, 3)
    chunk, block = order.slots(square)
    assert chunk.shape == block.shape == (2, 3)
    np.testing.assert_array_equal(order.sequences(chunk, block), square)
    empty = np.empty(0, dtype=np.int64)
    assert order.sequences(*order.slots(empty)).size == 0


@pytest.mark.parametrize("sequence", [-1, 64])
def test_sequences_outside_are_refused(sequence: int) -> None:
    order = TrainingOrder(topology(), Layout(2, 2, 2, 8))
    with pytest.raises(ValueError, match=r"\[0, 64\)"):
        order.slots(np.array([0, sequence]))


@pytest.mark.parametrize(("chunk", "block"), [(-1, 0), (8, 0), (0, -1), (0, 8)])
def test_slots_outside_are_refused(chunk: int, block: int) -> None:
    order = TrainingOrder(topology(), Layout(2, 2, 2, 8))
    with pytest.raises((ValueError, IndexError)):
        order.sequences(np.array([chunk]), np.array([block]))


@pytest.mark.parametrize(
    ("changes", "layout", "word"),
    [
        ({"litdata": "0.2.76"}, Layout(2, 2, 2, 8), "litdata 0.2.76"),
        ({"global_batch": 12}, Layout(2, 2, 2, 8), "global_batch_size 12"),
        ({}, Layout(1, 2, 2, 8), "not made for 2 ranks"),
        ({}, Layout(2, 1, 2, 8), "not made for 2 ranks"),
        ({}, Layout(2, 2, 2, 6), "cuts a micro-batch of 4"),
    ],
)
def test_unsound_cases_are_refused(changes: dict, layout: Layout, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        TrainingOrder(topology(**changes), layout)


def test_a_chunk_of_one_block_is_refused() -> None:
    """litdata 0.2.59 returns wrong data or crashes on a worker's share of one block."""
    single = topology(devices=1, workers=0, micro_batch=1, global_batch=1, max_tokens=8 * 4)
    with pytest.raises(ValueError):
        TrainingOrder(single, Layout(1, 1, 6, 1))


def test_size_of_a_large_run() -> None:
    """51.2 million sequences on 8 x 8 ranks with 4 workers: tables of a chunk, not of the run."""
    large = Topology(
        devices=8,
        nodes=8,
        workers=4,
        micro_batch=4,
        global_batch=1024,
        max_seq_length=4096,
        max_tokens=50_000 * 1024 * 4096,
        data_seed=42,
    )
    layout = train_layout(large, 4, 64 * 2**20)
    assert large.sequences == 51_200_000 and layout.n_blocks >= large.sequences
    asked = np.random.default_rng(3).integers(0, large.sequences, 300_000)
    slots = np.random.default_rng(4).integers(0, layout.n_blocks, 300_000)
    tracemalloc.start()
    order = TrainingOrder(large, layout)
    there_and_back = order.sequences(*order.slots(asked))
    chunk, block = np.divmod(slots, layout.blocks_per_chunk)
    back_and_there = order.slots(order.sequences(chunk, block))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(there_and_back, asked)
    np.testing.assert_array_equal(back_and_there, (chunk, block))
    assert peak < 100 * 2**20


def test_a_chunk_alone_is_what_the_whole_order_says() -> None:
    for changes in ({}, {"devices": 2, "workers": 3, "micro_batch": 2}):
        run = topology(**changes)
        layout = train_layout(run, 2, 200)
        for order in (TrainingOrder(run, layout), TrainingOrder(run, layout, shuffled=False)):
            block = np.arange(layout.blocks_per_chunk)
            for chunk in range(layout.n_chunks):
                expected = order.contents(np.full_like(block, chunk), block)
                assert np.array_equal(order.contents_of(chunk), expected)
            first = [order.contents_of(chunk).min() for chunk in order.chunks_by_time]
            assert sorted(order.chunks_by_time) == list(range(layout.n_chunks))
            group = [n // (layout.n_blocks // layout.chunks_per_worker) for n in first]
            assert group == sorted(group)
            with pytest.raises(ValueError, match="chunks must lie in"):
                order.contents_of(layout.n_chunks)
