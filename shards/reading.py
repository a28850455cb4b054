"""Reads shards through the stock loader, exactly as LitGPT sets it up, for any rank.

`litgpt.data.LitData` itself builds the loader. What a process of a distributed run finds out from
its process group is set on the dataset instead, so one process can look through the eyes of every
rank (the tests compare this with real process groups). A loader begins anywhere by restoring a
state, as LitGPT's `--resume` does. `read_share` leaves out the loader's processes and gives what
one of its workers reads, from the same stock dataset.

Price: a millisecond a micro-batch through the loader, 6 microseconds a sequence without it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import Geometry
from mixctl.shards.topology import Topology

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
    from litgpt.data import LitData

    data = LitData(
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


def read_share(
    build: Path, split: str, topology: Topology, rank: int, worker: int
) -> Iterator[Tokens]:
    """Yields the sequences, shape (L + 1,), that a loader worker of a rank reads, in its order.

    The loader takes micro-batches of its workers in turn: iteration t is of worker t mod W.

    Args:
        build: the build folder.
        split: as in `stock_loader`.
        topology: the trainer's side.
        rank: 0 <= rank < topology.ranks.
        worker: 0 <= worker < topology.loader_workers.
    """
    from torch.utils.data._utils import worker as torch_worker

    dataset = stock_loader(build, split, topology, rank).dataset
    known = torch_worker._worker_info
    torch_worker._worker_info = torch_worker.WorkerInfo(
        id=worker, num_workers=topology.loader_workers, seed=0, dataset=dataset
    )
    try:
        rows = iter(dataset)  # the stock dataset asks torch which worker it is, whenever it begins
    finally:
        torch_worker._worker_info = known
    while (row := next(rows, None)) is not None:  # a for loop would begin it again
        yield row


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
