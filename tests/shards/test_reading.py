"""The product's reader, which verify relies on: any rank, beginning anywhere, in one process."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mixctl.shards import reading
from mixctl.shards.layout import train_layout, val_layout
from mixctl.shards.order import TrainingOrder
from mixctl.shards.reading import ChunkRead, read_batches, read_chunks, stock_loader
from mixctl.shards.topology import Topology
from tests.support.sample import topology
from tests.support.slots import as_rank, expected_slots, read_slots, slots_of, write_slots
from tests.support.slots import stock_loader as litgpt_loader

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = [(1, 0), (1, 3), (2, 0), (2, 2)]


def _case(tmp_path: Path, ranks: int, workers: int) -> Topology:
    sample = topology(
        devices=ranks,
        workers=workers,
        micro_batch=2,
        global_batch=4 * ranks,
        max_tokens=ranks * 240,
    )
    size = 4 * sample.sequence_tokens * 2
    write_slots(tmp_path / "train", train_layout(sample, 2, size), 9)
    write_slots(tmp_path / "val", val_layout(sample, 20, 2, size), 9)
    return sample


@pytest.mark.parametrize(("ranks", "workers"), CASES)
def test_beginning_anywhere_gives_the_rest_of_the_epoch(
    tmp_path: Path, ranks: int, workers: int
) -> None:
    sample = _case(tmp_path, ranks, workers)
    layout = train_layout(sample, 2, 4 * sample.sequence_tokens * 2)
    for rank in range(ranks):
        expected = expected_slots(sample, layout, rank)
        stops = sorted({0, 1, 3, len(expected) // 2, len(expected) - 1, len(expected)})
        for first, last in pairwise(stops):
            batches = read_batches(tmp_path, "train", sample, rank, first, last - first)
            np.testing.assert_array_equal(read_slots(batches), expected[first:last])


@pytest.mark.parametrize(("ranks", "workers"), CASES)
def test_validation_is_read_in_the_order_of_the_files(
    tmp_path: Path, ranks: int, workers: int
) -> None:
    sample = _case(tmp_path, ranks, workers)
    layout = val_layout(sample, 20, 2, 4 * sample.sequence_tokens * 2)
    order = TrainingOrder(sample, layout, shuffled=False)
    for rank in range(ranks):
        found = read_slots(read_batches(tmp_path, "val", sample, rank))
        stock = as_rank(litgpt_loader(tmp_path, sample, train=False), ranks, rank)
        np.testing.assert_array_equal(found, read_slots(stock))
        t, m = np.arange(len(found))[:, None], np.arange(2)
        chunk, block = order.slots((t * ranks + rank) * 2 + m)
        np.testing.assert_array_equal(found, chunk * layout.blocks_per_chunk + block)


@pytest.mark.parametrize("split", ["train", "val"])
def test_its_loader_is_litgpts(tmp_path: Path, split: str) -> None:
    sample = _case(tmp_path, 2, 2)
    ours = stock_loader(tmp_path, split, sample, rank=1)
    theirs = as_rank(litgpt_loader(tmp_path, sample, train=split == "train"), 2, 1)
    assert ours.state_dict() == theirs.state_dict()
    for name in ("batch_size", "num_workers", "drop_last", "pin_memory", "prefetch_factor"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.dataset.drop_last is theirs.dataset.drop_last is True


def _slots(read: ChunkRead, n_rows: int) -> np.ndarray:
    """Returns the slots that a worker reads of a chunk; the rows it did read name theirs."""
    n_blocks = len(read.blocks) + 1
    named = {turn: int(slots_of(row[None], 50, "uint16")[0]) for turn, row in read.rows.items()}
    slots = np.append(named[0], read.chunk * n_blocks + read.blocks)
    assert len(named) == n_rows
    assert {turn: int(slots[turn]) for turn in named} == named
    assert read.path.name == f"chunk-{read.chunk:06d}.bin"
    return slots


@pytest.mark.parametrize(("ranks", "workers"), CASES)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("n_rows", [2, 3, 16])
def test_chunks_of_the_workers_in_turn_are_what_the_loader_yields(
    tmp_path: Path, monkeypatch, ranks: int, workers: int, split: str, n_rows: int
) -> None:
    """Whatever is passed over, the order is the same, and the row read next is the next one's."""
    monkeypatch.setattr(reading, "READ_ROWS", n_rows)
    sample = _case(tmp_path, ranks, workers)
    for rank in range(ranks):
        batches = read_slots(read_batches(tmp_path, split, sample, rank))
        taken = []
        for worker in range(sample.loader_workers):
            reads = list(read_chunks(tmp_path, split, sample, rank, worker))
            slots = [_slots(one, min(n_rows, len(one.blocks) + 1)) for one in reads]
            taken.append(np.concatenate(slots).reshape(-1, sample.micro_batch))
        in_turn = np.stack(taken, axis=1).reshape(-1, sample.micro_batch)
        np.testing.assert_array_equal(in_turn, batches)
