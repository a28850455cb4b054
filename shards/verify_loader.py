"""The stock loader against the training order: what LitGPT will read, batch by batch.

The batches of the stock loader are compared with the blocks that the training order predicts for
them: a few at the beginning, the middle and the end of the run for rank 0, and at one of these for
two more ranks. Of the twin as well: the stock dataset orders what it reads by index.json and seed,
never by tokens, and both are those of the run, so its order is proven with the run's.

`full` goes through the whole epoch of every worker of every rank with the same stock dataset, but
without the loader's processes (`reading.read_chunks`). Which chunk the dataset enters when, and
the order in which it will read every block of it, are compared with the training order, all of
them; what it reads is compared with the bytes of the chunk file at `READ_ROWS` places of each
chunk, its first and last sequence among them. That the bytes themselves are those of the record is
for `verify_chunks.py`.

    order of all sequences: the dataset's own list    which bytes a place of the list is: 16 a chunk

Price: 0.2 microseconds a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.order import TrainingOrder
from mixctl.shards.reading import ChunkRead, read_batches, read_chunks, spread
from mixctl.shards.record import BuildRecord, Geometry

TWIN = "control/train"
SAMPLE_RANKS = 3
SAMPLE_BATCHES = 4


@dataclass(frozen=True)
class _Split:
    """A split of a build, and the order in which its sequences should be read."""

    build: Path
    name: str
    order: TrainingOrder
    geometry: Geometry

    @property
    def folder(self) -> Path:
        return self.build / self.name


@dataclass(frozen=True)
class _Check:
    """Something to look at: `look` returns (findings, sequences read)."""

    look: Callable[[], tuple[list[str], int]]
    counted: bool


SideBySide = Callable[[Callable[[_Check], Any], Sequence[_Check]], Iterable[Any]]


def check_loader(
    build: Path, record: BuildRecord, full: bool, side_by_side: SideBySide = map
) -> tuple[list[str], int]:
    """Returns (findings, batches read) over all splits of the build.

    Args:
        build: the folder.
        record: its mix.json.
        full: whether the order of every sequence is looked at.
        side_by_side: how the checks are called: `map`, or that of a pool of processes.
    """
    _chunk.cache_clear()  # a chunk may have been replaced since an earlier call in this process
    checks = [check for split in _splits(build, record) for check in _checks(split, full)]
    findings: list[str] = []
    n_read = 0
    for check, (found, n_sequences) in zip(checks, side_by_side(_look, checks), strict=True):
        findings += found
        n_read += n_sequences if check.counted else 0
    return findings, n_read // record.geometry.micro_batch


def _look(check: _Check) -> tuple[list[str], int]:
    return check.look()


def _splits(build: Path, record: BuildRecord) -> Iterator[_Split]:
    geometry = record.geometry
    topology = geometry.topology()
    train = TrainingOrder(topology, geometry.layout())
    yield _Split(build, "train", train, geometry)
    val = TrainingOrder(topology, geometry.val_layout(), shuffled=False)
    yield _Split(build, "val", val, geometry)
    if record.control:
        yield _Split(build, TWIN, train, geometry)


def _checks(split: _Split, full: bool) -> Iterator[_Check]:
    """Yields what is looked at of a split; of the twin no more than some spans."""
    whole = full and split.name != TWIN
    for span in _spans(split.order):
        yield _Check(partial(_check_span, split, *span), counted=not whole)
    layout = split.order.layout
    for share in product(range(layout.ranks), range(layout.workers)) if whole else ():
        yield _Check(partial(_check_share, split, *share), counted=True)


def _check_share(split: _Split, rank: int, worker: int) -> tuple[list[str], int]:
    """Compares all that a worker of a rank reads with the order; counts sequences."""
    order, layout, n_read = split.order, split.order.layout, 0
    n_expected = layout.chunks_per_worker * layout.blocks_per_chunk
    who = f"{split.folder}: the stock dataset gives worker {worker} of rank {rank}"
    for turn, read in enumerate(read_chunks(split.build, split.name, order.topology, rank, worker)):
        if turn == layout.chunks_per_worker:
            return [f"{who} more than the {n_expected} sequences that are its own"], n_read
        slots = order.slots(order.share(rank, worker, turn))
        other = _first_other(split, read, *slots)
        if other is not None:
            n_read += other
            return [
                f"{who} others than the training order predicts, from its {n_read}th on"
            ], n_read
        n_read += layout.blocks_per_chunk
    if n_read < n_expected:
        return [f"{who} {n_read} sequences, {n_expected} were expected"], n_read
    return [], n_read


def _first_other(split: _Split, read: ChunkRead, chunk: I64, block: I64) -> int | None:
    """Returns the first turn at which a worker does not read this slot, None when there is none.

    The first block of a chunk is known by what it holds alone.
    """
    path = split.folder / chunk_name(read.chunk)
    if read.path.name != path.name or len(read.blocks) + 1 != len(block):
        return 0
    other = chunk != read.chunk
    other[1:] |= read.blocks != block[1:]
    held = open_chunk(path, split.geometry.sequence_tokens, split.geometry.dtype)
    for turn, row in read.rows.items():
        other[turn] |= not np.array_equal(row, held[block[turn]])
    return int(np.argmax(other)) if other.any() else None


def _blocks(split: _Split, sequence: I64) -> Tokens:
    """Returns the blocks that hold these sequences, read from the chunk files directly."""
    chunk, block = split.order.slots(sequence)
    width, dtype = split.geometry.sequence_tokens, split.geometry.dtype
    out = np.empty((len(sequence), width), dtype=np.dtype(dtype).newbyteorder("<"))
    for c in np.unique(chunk).tolist():
        rows = np.flatnonzero(chunk == c)
        out[rows] = _chunk(split.folder / chunk_name(c), width, dtype)[block[rows]]
    return out


def _spans(order: TrainingOrder) -> Iterator[tuple[int, int, int]]:
    """Yields (rank, first iteration, number of iterations) of the spans to be read.

    All of the epoch's three for rank 0; for each further rank one, another each time.
    """
    per_rank = order.layout.n_blocks // (order.layout.ranks * order.topology.micro_batch)
    spans = [(0, per_rank)]
    if per_rank > 3 * SAMPLE_BATCHES:
        starts = [0, per_rank // 2, per_rank - SAMPLE_BATCHES]
        spans = [(first, SAMPLE_BATCHES) for first in starts[: 3 if order.shuffled else 1]]
    for turn, rank in enumerate(spread(order.layout.ranks, SAMPLE_RANKS)):
        for first, count in spans if rank == 0 else [spans[turn % len(spans)]]:
            yield rank, first, count


def _check_span(split: _Split, rank: int, first: int, count: int) -> tuple[list[str], int]:
    """Compares some micro-batches of a rank with the order; counts sequences."""
    topology, n_read = split.order.topology, 0
    batches = read_batches(split.build, split.name, topology, rank, first, count)
    for iteration, batch in enumerate(batches, start=first):
        n_read += 1
        if not np.array_equal(batch, _expected(split, rank, iteration)):
            return [
                f"{split.folder}: the stock loader gives rank {rank} another micro-batch "
                f"{iteration} than the training order predicts"
            ], n_read * topology.micro_batch
    if n_read < count:
        return [
            f"{split.folder}: the stock loader gives rank {rank} {n_read} micro-batches from "
            f"{first} on, {count} were expected"
        ], n_read * topology.micro_batch
    return [], n_read * topology.micro_batch


def _expected(split: _Split, rank: int, iteration: int) -> Tokens:
    """Returns the micro-batch that the order predicts, read from the chunk files directly."""
    topology = split.order.topology
    begin = (iteration * topology.ranks + rank) * topology.micro_batch
    return _blocks(split, np.arange(begin, begin + topology.micro_batch))


@lru_cache(maxsize=64)
def _chunk(path: Path, sequence_tokens: int, dtype: str) -> Tokens:
    return open_chunk(path, sequence_tokens, dtype)
