"""The training order: the bijection between training positions and slots.

With the aligned layout (`layout.py`) the order of litdata 0.2.59's shuffle has a closed form. R
ranks, W = max(workers, 1), K chunks per (rank, worker), C blocks a chunk, micro-batch M, seed s:

    chunk_order   = RandomState([s, 1]).permutation(R * W * K)
    block_order_k = RandomState([s, K, 1, k]).permutation(C)
    iteration t, rank r, row m of the micro-batch:
        w = t mod W;  q = (t div W) * M + m;  k = q div C
        slot = (chunk_order[(r * W + w) * K + k], block_order_k[q mod C])

Sequences of the run are numbered (step - 1) * global batch + row, row = ((t mod A) * R + r) * M +
m, which is n = (t * R + r) * M + m whatever the accumulation A. So n in [0, R * W * K * C) names
every slot once. The slots from `topology.sequences` on come after the run; they all hold the same
spare base sequence, the first one, so that what they hold does not depend on how many they are.

    order = TrainingOrder(topology, layout)
    chunk, block = order.slots(np.array([0, 1, 2]))
    order.sequences(chunk, block)            # [0, 1, 2]

Price: tables of R*W*K + K*C int64 for each direction, then a few integer operations a lookup. The
permutations are litdata's own calls, written out because its classes want a cache on disk; the
tests compare with the stock loader over a grid of topologies.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from mixctl.shards.draws import I64
from mixctl.shards.layout import Layout
from mixctl.shards.topology import Topology


class TrainingOrder:
    """Training position <-> slot, both ways, vectorised. Pure: no files, no state."""

    def __init__(self, topology: Topology, layout: Layout, shuffled: bool = True) -> None:
        """Takes shuffled=False for val/, which LitGPT reads in the order of the files.

        Raises:
            ValueError: when the topology is unsound or the layout is not made for it.
        """
        problems = topology.problems()
        if (layout.ranks, layout.workers) != (topology.ranks, topology.loader_workers):
            problems.append(f"{layout} is not made for {topology.ranks} ranks")
        if layout.blocks_per_chunk % topology.micro_batch:
            problems.append(f"{layout} cuts a micro-batch of {topology.micro_batch}")
        if layout.blocks_per_chunk < 2:
            problems.append(f"{layout}: litdata needs at least 2 blocks in a chunk")
        if problems:
            raise ValueError("; ".join(problems))
        self.topology = topology
        self.layout = layout
        self.shuffled = shuffled

    @cached_property
    def chunk_order(self) -> I64:
        """Returns the chunk at each place (rank, worker, k): int64, shape (R * W * K,)."""
        if not self.shuffled:
            return np.arange(self.layout.n_chunks, dtype=np.int64)
        seed = [self.topology.data_seed, 1]
        return np.random.RandomState(seed).permutation(self.layout.n_chunks).astype(np.int64)

    @cached_property
    def block_order(self) -> I64:
        """Returns the block read at each turn of a worker's k-th chunk: int64, shape (K, C)."""
        return np.stack([self._block_order(k) for k in range(self.layout.chunks_per_worker)])

    def _block_order(self, k: int) -> I64:
        """Returns the block read at each turn of every worker's k-th chunk: int64, shape (C,)."""
        n_chunks, n_blocks = self.layout.chunks_per_worker, self.layout.blocks_per_chunk
        if not self.shuffled:
            return np.arange(n_blocks, dtype=np.int64)
        seed = [self.topology.data_seed, n_chunks, 1, k]
        return np.random.RandomState(seed).permutation(n_blocks).astype(np.int64)

    @cached_property
    def _chunk_place(self) -> I64:
        return np.argsort(self.chunk_order)

    @cached_property
    def _block_turn(self) -> I64:
        return np.argsort(self.block_order, axis=1)

    def slots(self, sequence: I64) -> tuple[I64, I64]:
        """Returns (chunk, block), int64 arrays of the shape of `sequence`.

        Raises:
            ValueError: when a sequence lies outside [0, layout.n_blocks).
        """
        sequence = np.asarray(sequence, dtype=np.int64)
        if sequence.size and (sequence.min() < 0 or sequence.max() >= self.layout.n_blocks):
            raise ValueError(f"sequences must lie in [0, {self.layout.n_blocks})")
        ranks, workers = self.layout.ranks, self.layout.workers
        micro_batch, row = np.divmod(sequence, self.topology.micro_batch)
        iteration, rank = np.divmod(micro_batch, ranks)
        turn, worker = np.divmod(iteration, workers)
        k, place = np.divmod(turn * self.topology.micro_batch + row, self.layout.blocks_per_chunk)
        owner = (rank * workers + worker) * self.layout.chunks_per_worker + k
        return self.chunk_order[owner], self.block_order[k, place]

    def sequences(self, chunk: I64, block: I64) -> I64:
        """Returns the sequence that lies in each slot: int64, broadcast shape of chunk and block.

        Raises:
            ValueError: when a slot lies outside the layout.
        """
        limits = (self.layout.n_chunks, self.layout.blocks_per_chunk)
        for what, limit in zip((chunk, block), limits, strict=True):
            if np.size(what) and (np.min(what) < 0 or np.max(what) >= limit):
                raise ValueError(f"slots must lie in [0, {limits[0]}) x [0, {limits[1]})")
        owner, k = np.divmod(self._chunk_place[chunk], self.layout.chunks_per_worker)
        return self._sequence(owner, k, self._block_turn[k, block])

    def contents_of(self, chunk: int) -> I64:
        """Returns what `contents` does, for each block of a chunk; needs no table of all blocks.

        Raises:
            ValueError: when there is no such chunk.
        """
        if not 0 <= chunk < self.layout.n_chunks:
            raise ValueError(f"chunks must lie in [0, {self.layout.n_chunks})")
        owner, k = divmod(int(self._chunk_place[chunk]), self.layout.chunks_per_worker)
        sequence = self._sequence(owner, k, np.argsort(self._block_order(k)))
        return np.minimum(sequence, self.topology.sequences)

    def _sequence(self, owner: int | I64, k: int | I64, place: I64) -> I64:
        """Returns the sequence read at a turn of the k-th chunk of each owner (rank, worker)."""
        rank, worker = np.divmod(owner, self.layout.workers)
        q = k * self.layout.blocks_per_chunk + place
        turn, row = np.divmod(q, self.topology.micro_batch)
        iteration = turn * self.layout.workers + worker
        return np.asarray(
            (iteration * self.layout.ranks + rank) * self.topology.micro_batch + row, dtype=np.int64
        )

    @property
    def chunks_by_time(self) -> I64:
        """Returns all chunks, those that are read first come first: int64."""
        by_owner = self.chunk_order.reshape(-1, self.layout.chunks_per_worker)
        return np.asarray(by_owner.T.ravel(), dtype=np.int64)

    def contents(self, chunk: I64, block: I64) -> I64:
        """Returns the sequence each slot holds: its own; after the run, `topology.sequences`.

        Raises:
            ValueError: when a slot lies outside the layout.
        """
        return np.minimum(self.sequences(chunk, block), self.topology.sequences)

    def share(self, rank: int, worker: int, k: int) -> I64:
        """Returns what a worker of a rank reads of its k-th chunk, in its order: int64, shape (C,).

        Args:
            rank: 0 <= rank < R.
            worker: 0 <= worker < W.
            k: 0 <= k < K.
        """
        owner = rank * self.layout.workers + worker
        return self._sequence(owner, k, np.arange(self.layout.blocks_per_chunk))

    def steps(self, sequence: I64) -> tuple[I64, I64]:
        """Returns (step, row): the optimizer step, from 1, and the row of its global batch."""
        step, row = np.divmod(np.asarray(sequence, dtype=np.int64), self.topology.global_batch)
        return step + 1, row
