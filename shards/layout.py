"""How many chunks, how many blocks in each: the aligned layout.

Every (rank, worker) owns K whole chunks of C blocks, C a multiple of the micro-batch and at least
two. Then no chunk is shared between workers and no `drop_last` remainder holds a payload.

    1,000 sequences for 2 ranks x 2 workers, micro-batch 4: 250 each, 1 more micro-batch for the
    batch that LitGPT fetches before it stops -> K = 1, C = 256

The loader must still hold a micro-batch when LitGPT has run its last iteration: its loop fetches a
batch before it looks at the count, and an exhausted loader would begin a second epoch and write
that into the last checkpoint. What fills the set up to whole chunks is never trained on: the first
spare base sequence, again and again, so that another layout needs no base data that this one lacks.
litdata 0.2.59 keeps the files of all of a worker's chunks open, so K stays at or below 500.

Price: at most one micro-batch per chunk and worker of spare sequences, plus the last micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from mixctl.shards.errors import InputError
from mixctl.shards.topology import Topology

MAX_CHUNKS_PER_WORKER = 500
DEFAULT_CHUNK_BYTES = 64 * 2**20
_MAX_CHUNK_BYTES = 2**32 - 1 - 12  # the item offsets in a chunk's header are uint32


@dataclass(frozen=True)
class Layout:
    """Equal chunks, whole chunks for each (rank, worker)."""

    ranks: int
    workers: int
    chunks_per_worker: int
    blocks_per_chunk: int

    @property
    def n_chunks(self) -> int:
        """Returns the number of chunk files."""
        return self.ranks * self.workers * self.chunks_per_worker

    @property
    def n_blocks(self) -> int:
        """Returns the number of blocks in all chunks."""
        return self.n_chunks * self.blocks_per_chunk


def train_layout(topology: Topology, token_bytes: int, chunk_bytes: int) -> Layout:
    """Returns the layout of train/: room for every iteration and one more micro-batch.

    Args:
        topology: the trainer's side.
        token_bytes: 2 (uint16) or 4 (uint32).
        chunk_bytes: the size a chunk should not exceed; exceeded only to keep K <= 500.

    Raises:
        InputError: when 500 chunks of the largest possible size do not hold a worker's share.
    """
    workers = topology.loader_workers
    micro_batches = -(-(topology.iterations + 1) // workers)
    return _layout(topology, micro_batches, token_bytes, chunk_bytes)


def val_layout(topology: Topology, sequences: int, token_bytes: int, chunk_bytes: int) -> Layout:
    """Returns the layout of val/: at least two micro-batches for every (rank, worker).

    Raises:
        InputError: when `sequences` are too few for LitGPT's first check of the validation loader.
    """
    share = topology.ranks * topology.loader_workers * topology.micro_batch
    if sequences < 2 * share:
        raise InputError(
            f"validation: {sequences} sequences are too few: LitGPT checks the validation loader "
            "before "
            f"it trains and stops when a rank gets no batch; two micro-batches for each of "
            f"{topology.ranks} ranks x {topology.loader_workers} workers x micro-batch "
            f"{topology.micro_batch} need at least {2 * share}"
        )
    return _layout(topology, -(-sequences // share), token_bytes, chunk_bytes)


def _layout(topology: Topology, micro_batches: int, token_bytes: int, chunk_bytes: int) -> Layout:
    """Returns the layout with room for `micro_batches` a worker."""
    micro_batch_bytes = topology.micro_batch * topology.sequence_tokens * token_bytes
    per_chunk = max(chunk_bytes // micro_batch_bytes, -(-2 // topology.micro_batch), 1)
    chunks = -(-micro_batches // per_chunk)
    chunks = min(chunks, MAX_CHUNKS_PER_WORKER)
    per_chunk = max(-(-micro_batches // chunks), -(-2 // topology.micro_batch))
    chunks = -(-micro_batches // per_chunk)
    if per_chunk * micro_batch_bytes > _MAX_CHUNK_BYTES:
        raise InputError(
            f"a worker's share of {micro_batches} micro-batches needs more than "
            f"{MAX_CHUNKS_PER_WORKER} chunks of {_MAX_CHUNK_BYTES} bytes: use more workers or "
            "devices"
        )
    return Layout(
        ranks=topology.ranks,
        workers=topology.loader_workers,
        chunks_per_worker=chunks,
        blocks_per_chunk=per_chunk * topology.micro_batch,
    )
