"""The stock loader against the training order: what LitGPT will read, batch by batch.

For every rank that is looked at, the batches of the stock loader are compared with the blocks that
the training order predicts for them: a few at the beginning, the middle and the end of the run, for
a few ranks. `full` also reads the whole epoch of every worker of every rank, through the same stock
dataset but without the loader's processes: of large builds as many workers at a time as there are
cores. Of the twin it reads no more than the few: the stock dataset orders what it reads by
index.json and seed, never by tokens, and both are those of the run, so its order is proven with the
run's.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.order import TrainingOrder
from mixctl.shards.reading import read_batches, read_share
from mixctl.shards.record import BuildRecord, Geometry

TWIN = "control/train"
SAMPLE_RANKS = 3
SAMPLE_BATCHES = 4
_COMPARED = 512
"""sequences of a worker's share that are compared at a time"""
_LARGE_BYTES = 1 << 30
"""of a split: from here on it pays to start processes, some seconds each"""


def check_loader(build: Path, record: BuildRecord, full: bool) -> tuple[list[str], int]:
    """Returns (findings, batches read) over all splits of the build."""
    _chunk.cache_clear()  # a chunk may have been replaced since an earlier call in this process
    geometry = record.geometry
    topology = geometry.topology()
    train = TrainingOrder(topology, geometry.layout())
    splits = {"train": train, "val": TrainingOrder(topology, geometry.val_layout(), shuffled=False)}
    if record.control:
        splits[TWIN] = train
    findings: list[str] = []
    n_batches = 0
    for split, order in splits.items():
        whole = full and split != TWIN
        for rank in _ranks(topology.ranks):
            for first, count in _spans(order):
                found, read = _check_span(build, split, order, geometry, rank, first, count)
                findings += found
                n_batches += 0 if whole else read
        if whole:
            found, read = _check_shares(build, split, order, geometry)
            findings += found
            n_batches += read
    return findings, n_batches


def _check_shares(
    build: Path, split: str, order: TrainingOrder, geometry: Geometry
) -> tuple[list[str], int]:
    """Compares what every worker of every rank reads with the order; counts micro-batches."""
    ranks, workers = range(order.topology.ranks), range(order.topology.loader_workers)
    shares = list(product(ranks, workers))
    check = partial(_check_share, build, split, order, geometry)
    if len(shares) == 1 or _split_bytes(order, geometry) < _LARGE_BYTES:
        checked = [check(share) for share in shares]
    else:  # not forked from here: threads of other libraries are running
        processes = min(len(shares), os.cpu_count() or 1)
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            checked = list(pool.map(check, shares))
    findings = [finding for found, _ in checked for finding in found]
    return findings, sum(read for _, read in checked) // order.topology.micro_batch


def _split_bytes(order: TrainingOrder, geometry: Geometry) -> int:
    return order.layout.n_blocks * geometry.sequence_tokens * np.dtype(geometry.dtype).itemsize


def _check_share(
    build: Path, split: str, order: TrainingOrder, geometry: Geometry, share: tuple[int, int]
) -> tuple[list[str], int]:
    """Compares all that a worker of a rank reads with the order, some hundred rows at a time."""
    rank, worker = share
    expected, n_read = order.share(rank, worker), 0
    who = f"{build / split}: the stock dataset gives worker {worker} of rank {rank}"
    rows = read_share(build, split, order.topology, rank, worker)
    while part := list(islice(rows, _COMPARED)):
        sequence = expected[n_read : n_read + len(part)]
        if len(sequence) < len(part):
            return [f"{who} more than the {len(expected)} sequences that are its own"], n_read
        if not np.array_equal(np.stack(part), _blocks(build, split, order, geometry, sequence)):
            return [
                f"{who} others than the training order predicts, from its {n_read}th on"
            ], n_read
        n_read += len(part)
    if n_read < len(expected):
        return [f"{who} {n_read} sequences, {len(expected)} were expected"], n_read
    return [], n_read


def _blocks(
    build: Path, split: str, order: TrainingOrder, geometry: Geometry, sequence: I64
) -> Tokens:
    """Returns the blocks that hold these sequences, read from the chunk files directly."""
    chunk, block = order.slots(sequence)
    width, dtype = geometry.sequence_tokens, geometry.dtype
    out = np.empty((len(sequence), width), dtype=np.dtype(dtype).newbyteorder("<"))
    for c in np.unique(chunk).tolist():
        rows = np.flatnonzero(chunk == c)
        out[rows] = _chunk(build / split / chunk_name(c), width, dtype)[block[rows]]
    return out


def _ranks(ranks: int) -> list[int]:
    if ranks <= SAMPLE_RANKS:
        return list(range(ranks))
    return [0, ranks // 2, ranks - 1]


def _spans(order: TrainingOrder) -> list[tuple[int, int]]:
    """Returns (first iteration, number of iterations) of the spans to be read."""
    per_rank = order.layout.n_blocks // (order.layout.ranks * order.topology.micro_batch)
    if per_rank <= 3 * SAMPLE_BATCHES:
        return [(0, per_rank)]
    starts = [0, per_rank // 2, per_rank - SAMPLE_BATCHES]
    return [(first, SAMPLE_BATCHES) for first in starts[: 3 if order.shuffled else 1]]


def _check_span(
    build: Path,
    split: str,
    order: TrainingOrder,
    geometry: Geometry,
    rank: int,
    first: int,
    count: int,
) -> tuple[list[str], int]:
    n_read = 0
    for iteration, batch in enumerate(
        read_batches(build, split, order.topology, rank, first, count), start=first
    ):
        n_read += 1
        expected = _expected(build, split, order, geometry, rank, iteration)
        if not np.array_equal(batch, expected):
            return [
                f"{build / split}: the stock loader gives rank {rank} another micro-batch "
                f"{iteration} than the "
                f"training order predicts"
            ], n_read
    if n_read < count:
        return [
            f"{build / split}: the stock loader gives rank {rank} {n_read} micro-batches from "
            f"{first} on, "
            f"{count} were expected"
        ], n_read
    return [], n_read


def _expected(
    build: Path, split: str, order: TrainingOrder, geometry: Geometry, rank: int, iteration: int
) -> Tokens:
    """Returns the micro-batch that the order predicts, read from the chunk files directly."""
    topology = order.topology
    begin = (iteration * topology.ranks + rank) * topology.micro_batch
    sequence = np.arange(begin, begin + topology.micro_batch)
    return _blocks(build, split, order, geometry, sequence)


@lru_cache(maxsize=64)
def _chunk(path: Path, sequence_tokens: int, dtype: str) -> Tokens:
    return open_chunk(path, sequence_tokens, dtype)
