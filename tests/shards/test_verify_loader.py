"""The order of every sequence, against stock datasets that read in another one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litdata.streaming.item_loader import TokensLoader
from litdata.streaming.shuffle import FullShuffle

from mixctl.shards import reading
from mixctl.shards.layout import Layout, train_layout, val_layout
from mixctl.shards.record import BuildRecord, Geometry
from mixctl.shards.topology import Topology
from mixctl.shards.verify_loader import check_loader
from tests.support.sample import record, topology
from tests.support.slots import write_slots

CHUNK_BLOCKS = 8


@pytest.fixture
def sample(monkeypatch) -> Topology:
    """Returns a run on 2 ranks x 2 workers; two sequences of each chunk are read."""
    monkeypatch.setattr(reading, "READ_ROWS", 2)
    return topology(max_tokens=16 * 8 * 20)


@pytest.fixture
def build(tmp_path: Path, sample: Topology) -> tuple[Path, BuildRecord, Layout]:
    """Returns a folder with train/ and val/, its record, and the layout of train/."""
    size = CHUNK_BLOCKS * sample.sequence_tokens * 2
    layout, val = train_layout(sample, 2, size), val_layout(sample, 32, 2, size)
    assert layout.blocks_per_chunk == CHUNK_BLOCKS and layout.chunks_per_worker > 3
    write_slots(tmp_path / "train", layout, sample.sequence_tokens)
    write_slots(tmp_path / "val", val, sample.sequence_tokens)
    geometry = Geometry.of(sample, layout, val, 32, "uint16")
    return tmp_path, record(geometry=geometry.model_dump(), control=False), layout


def of_train(build: tuple[Path, BuildRecord, Layout]) -> list[str]:
    """Returns what a whole look finds, of the shares of train/."""
    folder, made, _ = build
    findings, _ = check_loader(folder, made, full=True)
    return [one.removeprefix(f"{folder}/train: ") for one in findings if "stock dataset" in one]


def test_the_stock_loader_reads_all_of_it_as_predicted(build) -> None:
    folder, made, layout = build
    findings, n_batches = check_loader(folder, made, full=True)
    n_blocks = layout.n_blocks + made.geometry.val_layout().n_blocks
    assert findings == []
    assert n_batches == n_blocks // made.geometry.micro_batch
    findings, n_sampled = check_loader(folder, made, full=False)
    assert findings == []
    assert 0 < n_sampled < n_batches


@pytest.mark.parametrize(("one", "other"), [(2, 3), (0, 5), (5, 7)])
def test_two_sequences_of_one_chunk_in_turn_for_each_other(
    build, monkeypatch, one: int, other: int
) -> None:
    """Neither need be among those that are read."""
    stock: Callable[..., list[int]] = FullShuffle.__call__

    def swapped(self: Any, array: Any, n_chunks: int, epoch: int, turn: int) -> list[int]:
        indexes = stock(self, array, n_chunks, epoch, turn)
        if turn == 2:
            indexes[one], indexes[other] = indexes[other], indexes[one]
        return indexes

    monkeypatch.setattr(FullShuffle, "__call__", swapped)
    begin = 2 * CHUNK_BLOCKS + one
    assert of_train(build) == [
        f"the stock dataset gives worker {worker} of rank {rank} others than the training order "
        f"predicts, from its {begin}th on"
        for rank in (0, 1)
        for worker in (0, 1)
    ]


def test_a_list_that_is_not_what_is_read(build, monkeypatch) -> None:
    """The item loader takes the neighbour of a block that it is asked for: its content says so."""
    stock = TokensLoader.load_item_from_chunk

    def neighbour(self: Any, index: int, chunk: int, path: str, begin: int, size: int) -> Any:
        return stock(self, index ^ 1, chunk, path, begin, size)

    monkeypatch.setattr(TokensLoader, "load_item_from_chunk", neighbour)
    found = of_train(build)
    assert len(found) == 8, "of train/ and of val/"
    assert all("from its 0th on" in one for one in found)


Lists = list[list[int]]


def _assigned(monkeypatch, change: Callable[[Lists, list[Lists]], None]) -> None:
    """Lets the stock shuffle assign chunks and intervals to workers as `change` leaves them."""
    stock = FullShuffle.get_chunks_and_intervals_per_workers

    def changed(self: Any, *arguments: Any) -> tuple[Lists, list[Lists]]:
        chunks, intervals = stock(self, *arguments)
        chunks, intervals = [[*one] for one in chunks], [[[*i] for i in one] for one in intervals]
        change(chunks, intervals)
        return chunks, intervals

    monkeypatch.setattr(FullShuffle, "get_chunks_and_intervals_per_workers", changed)


def test_chunks_of_two_workers_exchanged(build, monkeypatch) -> None:
    def change(chunks: Lists, intervals: list[Lists]) -> None:
        for lists in (chunks, intervals):
            lists[1][1], lists[2][1] = lists[2][1], lists[1][1]

    _assigned(monkeypatch, change)
    found = of_train(build)
    assert [re.findall(r"\d+", one) for one in found] == [["1", "0", "8"], ["0", "1", "8"]]


def test_a_sequence_too_few_a_chunk_too_few_a_chunk_too_many(build, monkeypatch) -> None:
    """With the block orders that the chunks have otherwise: they depend on how many there are."""
    n_chunks = build[2].chunks_per_worker
    n_expected = n_chunks * CHUNK_BLOCKS
    stock = FullShuffle.__call__

    def ordered(self: Any, array: Any, n: int, epoch: int, turn: int) -> list[int]:
        return stock(self, array, n_chunks, epoch, turn)

    monkeypatch.setattr(FullShuffle, "__call__", ordered)

    def change(chunks: Lists, intervals: list[Lists]) -> None:
        intervals[0][2][2] -= 1
        del chunks[1][-1], intervals[1][-1]
        chunks[3].append(chunks[2][0])
        intervals[3].append(intervals[2][0])

    _assigned(monkeypatch, change)
    who = "the stock dataset gives worker"
    assert of_train(build) == [
        f"{who} 0 of rank 0 others than the training order predicts, from its 16th on",
        f"{who} 1 of rank 0 {n_expected - CHUNK_BLOCKS} sequences, {n_expected} were expected",
        f"{who} 1 of rank 1 more than the {n_expected} sequences that are its own",
    ]


def test_an_index_in_another_order(build) -> None:
    folder, _, layout = build
    path = folder / "train/index.json"
    index = json.loads(path.read_text())
    for one, other in ((0, 1), (layout.n_chunks - 2, layout.n_chunks - 1)):
        chunks = [*index["chunks"]]
        chunks[one], chunks[other] = chunks[other], chunks[one]
        path.write_text(json.dumps({**index, "chunks": chunks}))
        assert any("others than the training order predicts" in found for found in of_train(build))


def test_val_in_another_order(build, monkeypatch) -> None:
    from litdata.streaming.shuffle import NoShuffle

    monkeypatch.setattr(NoShuffle, "__call__", lambda self, array, *rest: array.tolist()[::-1])
    findings, _ = check_loader(build[0], build[1], full=True)
    assert any(f"{build[0] / 'val'}: the stock dataset gives" in one for one in findings)


def test_sampled_spans_see_every_rank_of_three_and_all_places(build, monkeypatch) -> None:
    """A loader that is wrong in one place only: the middle for rank 0, the end for rank 1."""
    from mixctl.shards import verify_loader

    stock = reading.read_batches
    folder, made, layout = build
    per_rank = layout.n_blocks // (2 * made.geometry.micro_batch)
    for rank, place in ((0, 0), (0, per_rank // 2), (0, per_rank - 1), (1, per_rank // 2)):

        def wrong(*given: Any, at: tuple[int, int] = (rank, place)) -> Any:
            for number, batch in enumerate(stock(*given), start=given[4]):
                other = given[1] == "train" and (given[3], number) == at
                yield np.flip(batch, 0) if other else batch

        monkeypatch.setattr(verify_loader, "read_batches", wrong)
        findings, _ = check_loader(folder, made, full=False)
        said = f"train: the stock loader gives rank {rank} another micro-batch {place} than"
        assert len(findings) == 1 and said in findings[0], (rank, place, findings)
