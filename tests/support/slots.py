"""Data sets in which every block says which slot it is, and what the stock loader makes of them.

The blocks are written without the training order: block b of chunk c holds the digits of its slot
number c * C + b. So what a loader yields names slots, and the order has to predict them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.shards.chunks import INDEX_NAME, chunk_bytes, chunk_name, index_text
from mixctl.shards.draws import I64
from mixctl.shards.layout import Layout
from mixctl.shards.order import TrainingOrder
from mixctl.shards.topology import Topology

DIGITS = 3


def coded_blocks(slots: I64, sequence_tokens: int, base: int, dtype: str) -> np.ndarray:
    """Returns blocks that name their slot: three digits, then filler by slot and place."""
    place = np.arange(sequence_tokens)
    slots = np.asarray(slots, dtype=np.int64)[:, None]
    digits = slots // base ** np.minimum(place, DIGITS) % base
    filler = (slots * 7 + place * 13 + 5) % base
    return np.where(place < DIGITS, digits, filler).astype(dtype)


def slots_of(batch: Any, base: int, dtype: str) -> I64:
    """Returns the slots that the rows of a batch name; fails when any token of a row is wrong."""
    tokens = np.asarray(batch).astype(np.int64)
    slots = tokens[:, :DIGITS] @ base ** np.arange(DIGITS)
    np.testing.assert_array_equal(tokens, coded_blocks(slots, tokens.shape[1], base, dtype))
    return slots


def write_slots(
    folder: Path, layout: Layout, sequence_tokens: int, *, base: int = 50, dtype: str = "uint16"
) -> Path:
    """Writes a data set of coded blocks for LitData and returns its folder."""
    folder.mkdir(parents=True)
    capacity = layout.blocks_per_chunk
    assert layout.n_blocks <= base**DIGITS
    for chunk in range(layout.n_chunks):
        slots = chunk * capacity + np.arange(capacity)
        blocks = coded_blocks(slots, sequence_tokens, base, dtype)
        (folder / chunk_name(chunk)).write_bytes(chunk_bytes(blocks))
    index = index_text(layout.n_chunks, capacity, sequence_tokens, dtype)
    (folder / INDEX_NAME).write_text(index)
    return folder


def stock_loader(folder: Path, topology: Topology, *, train: bool = True) -> Any:
    """Returns the loader that `litgpt pretrain` makes: LitData, connected, nothing else."""
    from litgpt.data import LitData

    data = LitData(
        data_path=folder,
        split_names=("train", "val"),
        seed=topology.data_seed,
        num_workers=topology.workers,
    )
    data.connect(batch_size=topology.micro_batch, max_seq_length=topology.max_seq_length)
    data.prepare_data()
    data.setup()
    return data.train_dataloader() if train else data.val_dataloader()


def as_rank(loader: Any, ranks: int, rank: int, nodes: int = 1) -> Any:
    """Returns the loader told that it is one of several ranks, without any process group."""
    from litdata.utilities.env import _DistributedEnv

    loader.dataset.distributed_env = _DistributedEnv(ranks, rank, nodes)
    return loader


def read_slots(batches: Iterable[Any], *, base: int = 50, dtype: str = "uint16") -> I64:
    """Returns the slots of every row of every batch: shape (batches, micro-batch)."""
    rows = [slots_of(batch, base, dtype) for batch in batches]
    return np.stack(rows) if rows else np.empty((0, 0), dtype=np.int64)


def training_positions(topology: Topology, iterations: int, rank: int) -> Iterator[tuple[int, int]]:
    """Yields (step, row) of every row that LitGPT trains on at this rank, in its order.

    Written as the loop runs: an iteration takes a micro-batch on each rank, A of them are a step.
    """
    step, in_step = 1, 0
    for _ in range(iterations):
        for m in range(topology.micro_batch):
            yield step, (in_step * topology.ranks + rank) * topology.micro_batch + m
        in_step += 1
        if in_step == topology.accumulation:
            step, in_step = step + 1, 0


def expected_sequences(topology: Topology, iterations: int, rank: int) -> I64:
    """Returns the sequences of a rank's micro-batches: shape (iterations, micro-batch)."""
    places = np.array(list(training_positions(topology, iterations, rank)), dtype=np.int64)
    sequences = (places[:, 0] - 1) * topology.global_batch + places[:, 1]
    return sequences.reshape(iterations, topology.micro_batch)


def expected_slots(topology: Topology, layout: Layout, rank: int) -> I64:
    """Returns the slots of a rank's micro-batches by the closed form, for the whole epoch."""
    iterations = layout.n_blocks // (topology.ranks * topology.micro_batch)
    order = TrainingOrder(topology, layout)
    chunk, block = order.slots(expected_sequences(topology, iterations, rank))
    return chunk * layout.blocks_per_chunk + block
