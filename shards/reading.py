"""Reads shards through the stock loader, exactly as LitGPT sets it up, for any rank.

LitGPT's own `LitData` builds the loader (`litgpt_data.py`). What a process of a distributed run
finds out from its process group is set on the dataset instead, so one process can look through the
eyes of every rank (the tests compare this with real process groups). A loader begins anywhere by
restoring a state, as LitGPT's `--resume` does.

`read_chunks` leaves out the loader's processes and goes through all that one of its workers reads,
with the same stock dataset. When that enters a chunk it reads the first sequence and holds, as a
list, the order in which it will read all others: its `__next__` does nothing but take the first of
the list and read it. The list is what tells the order of every sequence; of the sequences
themselves a few are read, up to which the list is cut, as the stock dataset cuts it when it
resumes.

    the stock dataset enters chunk 7, of 5 blocks  -> it reads block 3, and now holds [0, 4, 1, 2]
    the list is cut to [1, 2]                      -> it reads block 1

Price: a millisecond a micro-batch through the loader; without it 0.1 microseconds a sequence, and
6 for each that is read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.litgpt_data import litdata_class
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import Geometry
from mixctl.shards.topology import Topology

READ_ROWS = 16
"""sequences of each chunk that are read, where the order of all is looked at"""
_QUIET = {"LITDATA_DISABLE_VERSION_CHECK": "1"}
"""litdata's own switch; without it the library asks its package index at every start"""


def stock_loader(build: Path, split: str, topology: Topology, rank: int) -> Any:
    """Returns LitGPT's dataloader of a split for one rank: it yields tensors (M, L + 1).

    Args:
        build: the build folder.
        split: `train`, `control/train` (shuffled) or `val` (in file order).
        topology: the trainer's side.
        rank: 0 <= rank < topology.ranks.
    """
    os.environ.update(_QUIET)
    from litdata.utilities.env import _DistributedEnv

    data = litdata_class()(
        data_path=build,
        split_names=("val", split) if split == "val" else (split, "val"),
        seed=topology.data_seed,
        num_workers=topology.workers,
    )
    data.connect(batch_size=topology.micro_batch, max_seq_length=topology.max_seq_length)
    with warnings.catch_warnings():  # of more workers than this machine has cores
        warnings.simplefilter("ignore", UserWarning)
        loader = data.val_dataloader() if split == "val" else data.train_dataloader()
    loader.dataset.distributed_env = _DistributedEnv(topology.ranks, rank, topology.nodes)
    return loader


def read_batches(
    build: Path, split: str, topology: Topology, rank: int, first: int = 0, count: int | None = None
) -> Iterator[Tokens]:
    """Yields the micro-batches of iterations first, first + 1, ... of a rank: shape (M, L + 1).

    Args:
        build: the build folder.
        split: as in `stock_loader`.
        topology: the trainer's side.
        rank: 0 <= rank < topology.ranks.
        first: the iteration to begin with, by restoring the loader's state.
        count: how many to read; None reads to the end of the epoch.
    """
    loader = stock_loader(build, split, topology, rank)
    if first:
        loader.load_state_dict(_state(loader, topology, first))
    with warnings.catch_warnings():  # of read-only arrays and pinned memory: true and of no concern
        warnings.simplefilter("ignore")
        for batch in islice(loader, count):
            yield np.asarray(batch.numpy())


@dataclass(frozen=True)
class ChunkRead:
    """What a loader worker reads of one chunk, as the stock dataset has it.

    Attributes:
        path: the chunk file.
        chunk: its number in index.json.
        blocks: int64, shape (n - 1,): the blocks it reads after the first, in its order.
        rows: of the n sequences some, shape (L + 1,), by their turn; 0 and n - 1 are among them.
    """

    path: Path
    chunk: int
    blocks: I64
    rows: Mapping[int, Tokens]


def read_chunks(
    build: Path, split: str, topology: Topology, rank: int, worker: int
) -> Iterator[ChunkRead]:
    """Yields what a loader worker of a rank reads, a chunk at a time, in its order.

    The loader takes micro-batches of its workers in turn: iteration t is of worker t mod W.

    Args:
        build: the build folder.
        split: as in `stock_loader`.
        topology: the trainer's side.
        rank: 0 <= rank < topology.ranks.
        worker: 0 <= worker < topology.loader_workers.
    """
    dataset = _as_worker(stock_loader(build, split, topology, rank).dataset, worker, topology)
    return iter(partial(_next_chunk, dataset), None)


def _as_worker(dataset: Any, worker: int, topology: Topology) -> Any:
    """Returns the stock dataset begun as a loader worker begins it."""
    from torch.utils.data._utils import worker as torch_worker

    known = torch_worker._worker_info
    torch_worker._worker_info = torch_worker.WorkerInfo(
        id=worker, num_workers=topology.loader_workers, seed=0, dataset=dataset
    )
    try:
        return iter(dataset)  # it asks torch which worker it is, whenever it begins
    finally:
        torch_worker._worker_info = known


def _next_chunk(dataset: Any) -> ChunkRead | None:
    """Lets the stock dataset read through its next chunk; returns None when it has none."""
    _load_ahead(dataset)
    first = next(dataset, None)
    if first is None:
        return None
    chunk = dataset.worker_chunks[dataset.worker_next_chunk_index - 1]
    path, begin = _place(dataset, chunk)
    blocks = np.array(dataset.upcoming_indexes, dtype=np.int64) - begin
    rows = {0: first}
    for turn in spread(len(blocks) + 1, READ_ROWS)[1:]:
        _skip(dataset, turn - (len(blocks) + 1 - len(dataset.upcoming_indexes)))
        rows[turn] = next(dataset)
    return ChunkRead(path, chunk, blocks, rows)


def _skip(dataset: Any, n_sequences: int) -> None:
    """Cuts what the stock dataset will read of its chunk, as it does when it resumes."""
    del dataset.upcoming_indexes[:n_sequences]
    dataset.global_index += n_sequences
    dataset.consumed_sample_count_in_curr_chunk += n_sequences


def _load_ahead(dataset: Any) -> None:
    """Has the item loader map the next chunk; it waits for one that it meets unprepared, 0.1 s."""
    turn = dataset.worker_next_chunk_index
    if turn < len(dataset.worker_chunks):
        chunk = dataset.worker_chunks[turn]
        dataset.item_loader.pre_load_chunk(chunk, str(_place(dataset, chunk)[0]))


def _place(dataset: Any, chunk: int) -> tuple[Path, int]:
    """Returns (file, index of the first block) of a chunk, as the stock dataset has them."""
    from litdata.streaming.sampler import ChunkedIndex

    path, begin, _ = dataset.cache._reader.config[ChunkedIndex(index=-1, chunk_index=chunk)]
    return Path(path), begin


def spread(n: int, count: int) -> list[int]:
    """Returns up to `count` numbers spread evenly over 0..n-1, first and last among them."""
    return [int(x) for x in np.linspace(0, n - 1, min(n, count)).round()]


def read_sequences(build: Path, geometry: Geometry, sequence: I64) -> Tokens:
    """Returns what sequences of train/ hold, read from the chunk files directly: shape (n, L + 1).

    Args:
        build: the build folder.
        geometry: of the build.
        sequence: int64, which.
    """
    order = TrainingOrder(geometry.topology(), geometry.layout())
    chunk, block = order.slots(np.asarray(sequence, dtype=np.int64))
    found = np.empty((len(chunk), geometry.sequence_tokens), dtype=geometry.dtype)
    for number in np.unique(chunk).tolist():
        path = build / "train" / chunk_name(number)
        rows = np.flatnonzero(chunk == number)
        found[rows] = open_chunk(path, geometry.sequence_tokens, geometry.dtype)[block[rows]]
    return found


def _state(loader: Any, topology: Topology, iteration: int) -> dict[str, Any]:
    """Returns the state that the loader has after `iteration` micro-batches of the first epoch."""
    samples = iteration * topology.micro_batch
    state: dict[str, Any] = loader.state_dict()
    state["dataset"] |= {"num_samples_yielded": samples, "current_epoch": 1}
    return state | {
        "current_epoch": 1,
        "num_samples_yielded": samples,
        "latest_worker_idx": (iteration - 1) % topology.loader_workers,
    }
