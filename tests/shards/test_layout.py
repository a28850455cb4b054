"""The aligned layout: room for the run and one more fetch, whole chunks, limits kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.shards.errors import InputError
from mixctl.shards.layout import MAX_CHUNKS_PER_WORKER, Layout, train_layout, val_layout
from mixctl.shards.topology import Topology
from tests.support.sample import topologies, topology


def _fetches(sample: Topology, worker: int) -> int:
    """Returns the micro-batches asked of a worker: LitGPT fetches one more than it trains on."""
    fetched = range(sample.iterations + 1)
    return sum(t % sample.loader_workers == worker for t in fetched)


def _check_aligned(sample: Topology, layout: Layout) -> None:
    assert (layout.ranks, layout.workers) == (sample.ranks, sample.loader_workers)
    assert layout.blocks_per_chunk % sample.micro_batch == 0
    assert layout.blocks_per_chunk >= 2
    assert 1 <= layout.chunks_per_worker <= MAX_CHUNKS_PER_WORKER
    assert layout.n_chunks == sample.ranks * sample.loader_workers * layout.chunks_per_worker
    assert layout.n_blocks == layout.n_chunks * layout.blocks_per_chunk


@settings(derandomize=True, max_examples=200)
@given(topologies(), st.sampled_from([2, 4]), st.integers(1, 20_000))
def test_train_layout_holds_the_run_and_one_more_fetch(
    sample: Topology, token_bytes: int, chunk_bytes: int
) -> None:
    layout = train_layout(sample, token_bytes, chunk_bytes)
    _check_aligned(sample, layout)
    held = layout.chunks_per_worker * layout.blocks_per_chunk // sample.micro_batch
    assert all(held >= _fetches(sample, worker) for worker in range(sample.loader_workers))
    assert layout.n_blocks > sample.sequences


@settings(derandomize=True, max_examples=200)
@given(topologies(), st.integers(1, 20_000))
def test_spares_cost_no_more_than_promised(sample: Topology, chunk_bytes: int) -> None:
    layout = train_layout(sample, 2, chunk_bytes)
    held = layout.chunks_per_worker * layout.blocks_per_chunk // sample.micro_batch
    most = max(_fetches(sample, worker) for worker in range(sample.loader_workers))
    two_blocks = -(-2 // sample.micro_batch)
    assert held <= max(most + layout.chunks_per_worker, two_blocks)


@settings(derandomize=True, max_examples=100)
@given(topologies(), st.integers(1, 20_000))
def test_chunks_keep_their_size(sample: Topology, chunk_bytes: int) -> None:
    layout = train_layout(sample, 2, chunk_bytes)
    smallest = -(-2 // sample.micro_batch) * sample.micro_batch
    if layout.chunks_per_worker < MAX_CHUNKS_PER_WORKER and layout.blocks_per_chunk > smallest:
        assert layout.blocks_per_chunk * sample.sequence_tokens * 2 <= chunk_bytes


def test_layout_by_hand() -> None:
    sample = topology(global_batch=8, max_tokens=8 * 8 * 125)  # 125 iterations, 1,000 sequences
    assert train_layout(sample, 2, 2**26) == Layout(2, 2, 1, 252)  # ceil(126 / 2) = 63 fetches each
    assert train_layout(sample, 2, 4 * 9 * 2 * 21) == Layout(2, 2, 3, 84)


def test_more_than_500_chunks_become_larger_ones() -> None:
    sample = topology(global_batch=8, max_tokens=8 * 8 * 5000, workers=1)
    layout = train_layout(sample, 2, 1)
    assert layout.chunks_per_worker <= MAX_CHUNKS_PER_WORKER
    assert layout.chunks_per_worker * layout.blocks_per_chunk >= 5001 * 4


def test_a_share_beyond_500_largest_chunks_is_refused() -> None:
    huge = topology(global_batch=8, max_seq_length=2**20, max_tokens=2**20 * 8 * 600_000)
    with pytest.raises(InputError, match="more than 500 chunks"):
        train_layout(huge, 4, 2**26)


def test_header_offsets_fit_into_uint32() -> None:
    wide = topology(global_batch=8, max_seq_length=2**20 - 1, max_tokens=2**20 * 8 * 100_000)
    layout = train_layout(wide, 4, 2**31)
    assert 12 + layout.blocks_per_chunk * wide.sequence_tokens * 4 < 2**32


@settings(derandomize=True, max_examples=200)
@given(topologies(), st.integers(0, 400), st.integers(1, 20_000))
def test_val_layout_holds_two_micro_batches_or_says_how_many_it_needs(
    sample: Topology, sequences: int, chunk_bytes: int
) -> None:
    need = 2 * sample.ranks * sample.loader_workers * sample.micro_batch
    if sequences < need:
        with pytest.raises(InputError, match=rf"{sequences} sequences .* at least {need}$"):
            val_layout(sample, sequences, 2, chunk_bytes)
        return
    layout = val_layout(sample, sequences, 2, chunk_bytes)
    _check_aligned(sample, layout)
    assert layout.n_blocks >= sequences
    assert layout.chunks_per_worker * layout.blocks_per_chunk >= 2 * sample.micro_batch
