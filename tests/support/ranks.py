"""Real torch.distributed groups on one machine (gloo, file store) that read coded data sets."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mixctl.shards.draws import I64
from mixctl.shards.topology import Topology
from tests.support.slots import read_slots, stock_loader


def read_in_group(ranks: int, jobs: Mapping[str, tuple[Path, Topology, bool]]) -> dict[str, I64]:
    """Returns what each rank's loader yields: job -> slots, shape (ranks, batches, micro-batch).

    A job is a folder, a topology and whether it is train/ that is read. The group is started once.
    """
    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory(prefix="ranks-") as scratch:
        multiprocessing.set_forkserver_preload(["litgpt.data", "tests.support.slots"])
        arguments = (ranks, scratch, dict(jobs))
        mp.start_processes(_run_rank, arguments, nprocs=ranks, start_method="forkserver")
        loaded = [np.load(Path(scratch) / f"rank-{rank}.npz") for rank in range(ranks)]
        return {name: np.stack([part[name] for part in loaded]) for name in jobs}


def _run_rank(
    rank: int, ranks: int, scratch: str, jobs: dict[str, tuple[Path, Topology, bool]]
) -> None:
    import torch
    import torch.distributed as dist

    multiprocessing.set_start_method(None, force=True)  # not the group's: the platform's own
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{scratch}/store", rank=rank, world_size=ranks
    )
    found = {}
    for name, (folder, topology, train) in jobs.items():
        with _nodes(topology.nodes):
            loader = stock_loader(folder, topology, train=train)
        assert loader.dataset.distributed_env.world_size == topology.ranks == ranks
        assert loader.dataset.distributed_env.num_nodes == topology.nodes
        found[name] = read_slots(loader)
    np.savez(Path(scratch) / f"rank-{rank}.npz", **found)
    dist.barrier()
    dist.destroy_process_group()


@contextmanager
def _nodes(nodes: int) -> Iterator[None]:
    """Sets what a launcher sets on a machine of several, as litdata reads it."""
    os.environ["NNODES"] = str(nodes)
    try:
        yield
    finally:
        del os.environ["NNODES"]
