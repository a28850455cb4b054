"""The stock loader against the training order: what LitGPT will read, batch by batch.

For every rank that is looked at, the batches of the stock loader are compared with the blocks that
the training order predicts for them. `full` reads the whole epoch of every rank; otherwise a few
batches at the beginning, the middle and the end of the run, for a few ranks.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.order import TrainingOrder
from mixctl.shards.reading import read_batches
from mixctl.shards.record import BuildRecord, Geometry

SAMPLE_RANKS = 3
SAMPLE_BATCHES = 4


def check_loader(build: Path, record: BuildRecord, full: bool) -> tuple[list[str], int]:
    """Returns (findings, batches read) over all splits of the build."""
    _chunk.cache_clear()  # a chunk may have been replaced since an earlier call in this process
    geometry = record.geometry
    topology = geometry.topology()
    train = TrainingOrder(topology, geometry.layout())
    splits = {"train": train, "val": TrainingOrder(topology, geometry.val_layout(), shuffled=False)}
    if record.control:
        splits["control/train"] = train
    findings: list[str] = []
    n_batches = 0
    for split, order in splits.items():
        for rank in _ranks(topology.ranks, full):
            for first, count in _spans(order, full):
                found, read = _check_span(build, split, order, geometry, rank, first, count)
                findings += found
                n_batches += read
    return findings, n_batches


def _ranks(ranks: int, full: bool) -> list[int]:
    if full or ranks <= SAMPLE_RANKS:
        return list(range(ranks))
    return [0, ranks // 2, ranks - 1]


def _spans(order: TrainingOrder, full: bool) -> list[tuple[int, int]]:
    """Returns (first iteration, number of iterations) of the spans to be read."""
    per_rank = order.layout.n_blocks // (order.layout.ranks * order.topology.micro_batch)
    if full or per_rank <= 3 * SAMPLE_BATCHES:
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
    chunk, block = order.slots(np.arange(begin, begin + topology.micro_batch))
    width, dtype = geometry.sequence_tokens, geometry.dtype
    rows = [
        _chunk(build / split / chunk_name(int(c)), width, dtype)[b]
        for c, b in zip(chunk, block, strict=True)
    ]
    return np.stack(rows)


@lru_cache(maxsize=64)
def _chunk(path: Path, sequence_tokens: int, dtype: str) -> Tokens:
    return open_chunk(path, sequence_tokens, dtype)
