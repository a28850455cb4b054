"""The stages of a relayout: the files of the old build are digested, the new chunks are gathered.

A block of the new build is a block of the old one, byte for byte: the new training order says which
sequence it holds, the old one where that sequence lies. A task takes new chunks in the order of
training, several at a time, and goes once through every old chunk that holds some of their blocks.
While these chunks are digested and written, the next ones are gathered. Every file of the old build
is digested before: mix.json has digests of all of them, of the twin too, whose blocks have none.

    new chunk 3 holds sequences 8, 2, 5;  the old build has them in chunk 0 (8, 5) and chunk 4 (2)
    -> chunk 0 is read for two blocks, chunk 4 for one, and the new chunk is written once

Tasks run in this process, one after another; threads share the work of each, since copying,
digesting and writing let other threads work, and starting a process takes as long as half a
gigabyte.

Price: the old build is read twice, for its digests and for its blocks, the new one written once:
1.5 nanoseconds of processor a byte. Memory is twice `GATHERED_BYTES`, or two chunks where these are
larger. In the order of training, neighbouring chunks hold neighbouring sequences, so an old chunk
is looked at by as many groups of new chunks as a stretch of training has; what is read again comes
from the page cache where a chunk a (rank, worker) of the old build fits into memory, and in runs of
ascending blocks from the disk where it does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from mixctl.pipeline.mixing import CONTROL, TRAIN, VAL, receipt_path
from mixctl.shards.chunks import Tokens, chunk_name, open_chunk, write_chunk
from mixctl.shards.draws import I64
from mixctl.shards.errors import VerificationError
from mixctl.shards.files import write_text
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord, Geometry
from mixctl.shards.verify_files import check_digest

GATHERED_BYTES = 128 * 2**20
"""what is gathered at a time, of new chunks; as much is being written meanwhile"""
TASK_GROUPS = 8
"""as many of these a task, where that makes no more than MAX_TASKS"""
CHECKED_BYTES = 2**30
"""what a task digests of the old build, where that makes no more than MAX_TASKS"""
MAX_TASKS = 128
_COPIED_BLOCKS = 256
"""copied at a time: what stands between the two builds stays in the processor's cache"""


@dataclass(frozen=True)
class Relayout:
    """What the tasks of a relayout need to know.

    Attributes:
        source: the folder of the old build.
        old: its geometry.
        new: the geometry of the new build: the same sequences, other slots.
        control: whether there is a twin.
        out: the folder of the new build.
        receipts: the stage's folder.
        workers: threads at a time.
    """

    source: Path
    old: Geometry
    new: Geometry
    control: bool
    out: Path
    receipts: Path
    workers: int


class CheckChunks(PipelineStep):
    """Digests this task's chunk files of a finished build."""

    name = "Check chunks"
    type = "READER"

    def __init__(self, build: Path, record: BuildRecord, workers: int) -> None:
        """Takes the folder, its mix.json, and how many threads work at a time."""
        super().__init__()
        self.build, self.workers = build, workers
        self.digests = {n: f.digest for n, f in record.files.items() if n.endswith(".bin")}

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Raises VerificationError with every file of the task that is not as recorded."""
        names = sorted(self.digests)[rank::world_size]
        paths, digests = [self.build / name for name in names], [self.digests[n] for n in names]
        with ThreadPoolExecutor(self.workers) as threads, self.track_time("files"):
            found = [one for some in threads.map(check_digest, paths, digests) for one in some]
        if found:
            raise VerificationError(found)
        yield from ()


class RelayChunks(PipelineStep):
    """Writes this task's chunks of train/, control/train/ and val/ from the blocks of a build."""

    name = "Relayout"
    type = "WRITER"

    def __init__(self, relayout: Relayout) -> None:
        """Takes plain values and paths only: a task opens its files itself."""
        super().__init__()
        self.relayout = relayout

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Writes the rank-th share of the groups; neighbours in training stay together."""
        groups = chunk_groups(self.relayout.new, self.relayout.control)
        begin, end = (len(groups) * turn // world_size for turn in (rank, rank + 1))
        with self.track_time("groups"):
            _write_groups(self.relayout, groups[begin:end])
        yield from ()


def n_check_tasks(record: BuildRecord) -> int:
    """Returns the number of tasks that digest the files of a build: one a gigabyte, or fewer."""
    n_bytes = sum(file.bytes for name, file in record.files.items() if name.endswith(".bin"))
    return min(1 + n_bytes // CHECKED_BYTES, MAX_TASKS)


def n_relayout_tasks(geometry: Geometry, control: bool) -> int:
    """Returns the number of tasks: a function of the new geometry alone."""
    return min(-(-len(chunk_groups(geometry, control)) // TASK_GROUPS), MAX_TASKS)


def chunk_groups(geometry: Geometry, control: bool) -> list[tuple[str, I64]]:
    """Returns (part, chunks) of each group of new chunks that is gathered at once.

    Chunks of train/ are taken in the order of training: the first of every (rank, worker), then the
    second of each, ...
    """
    parts = {TRAIN: training_order(geometry).chunks_by_time, VAL: np.arange(geometry.val_chunks)}
    if control:
        parts[CONTROL] = parts[TRAIN]
    return [(part, some) for part, chunks in parts.items() for some in _cut(geometry, part, chunks)]


def _cut(geometry: Geometry, part: str, chunks: I64) -> Iterator[I64]:
    """Yields as many chunks at a time as `GATHERED_BYTES` hold, at least one."""
    size = _n_blocks(geometry, part) * geometry.sequence_tokens * np.dtype(geometry.dtype).itemsize
    together = max(GATHERED_BYTES // size, 1)
    for begin in range(0, len(chunks), together):
        yield chunks[begin : begin + together]


@lru_cache(maxsize=2)
def training_order(geometry: Geometry) -> TrainingOrder:
    """Returns the training order of train/, made once a process."""
    return TrainingOrder(geometry.topology(), geometry.layout())


def source_slots(
    old: Geometry, new: Geometry, part: str, chunk: I64, block: I64
) -> tuple[I64, I64]:
    """Returns (chunk, block), int64: where the old build has what these new slots hold."""
    if part == VAL:
        held = (chunk * new.val_blocks_per_chunk + block) % new.val_sequences
        old_chunk, old_block = np.divmod(held, old.val_blocks_per_chunk)
        return old_chunk, old_block
    return training_order(old).slots(training_order(new).contents(chunk, block))


def _write_groups(relayout: Relayout, groups: Sequence[tuple[str, I64]]) -> None:
    """Gathers one group after another, each while the one before it is written."""
    most = max(_n_blocks(relayout.new, part) * len(chunks) for part, chunks in groups)
    little = np.dtype(relayout.old.dtype).newbyteorder("<")
    buffers = [np.empty((most, relayout.old.sequence_tokens), dtype=little) for _ in range(2)]
    written: list[list[Future[None]]] = [[], []]
    with ThreadPoolExecutor(relayout.workers) as readers:
        with ThreadPoolExecutor(relayout.workers) as writers:
            for turn, (part, chunks) in enumerate(groups):
                for one in written[turn % 2]:
                    one.result()
                blocks = buffers[turn % 2][: _n_blocks(relayout.new, part) * len(chunks)]
                _gather(relayout, part, chunks, blocks, readers)
                of_chunks = zip(chunks.tolist(), np.split(blocks, len(chunks)), strict=True)
                written[turn % 2] = [
                    writers.submit(_write, relayout, part, *one) for one in of_chunks
                ]
            for one in [*written[0], *written[1]]:
                one.result()


def _n_blocks(geometry: Geometry, part: str) -> int:
    """Returns how many blocks a chunk of a part has."""
    return geometry.val_blocks_per_chunk if part == VAL else geometry.blocks_per_chunk


def _write(relayout: Relayout, part: str, chunk: int, blocks: Tokens) -> None:
    """Writes a chunk and its receipt."""
    name = f"{part}/{chunk_name(chunk)}"
    written = write_chunk(relayout.out / name, blocks, digest_blocks=False)
    receipt = {"name": name, "payloads": [], "forbidden": 0, **vars(written)}
    write_text(receipt_path(relayout.receipts, part, chunk), json.dumps(receipt))


def _gather(
    relayout: Relayout, part: str, chunks: I64, blocks: Tokens, readers: ThreadPoolExecutor
) -> None:
    """Copies what some new chunks hold into `blocks`, shape (n, L + 1), an old chunk a thread."""
    old, per_chunk = relayout.old, _n_blocks(relayout.new, part)
    slots = (np.repeat(chunks, per_chunk), np.tile(np.arange(per_chunk), len(chunks)))
    chunk, block = source_slots(old, relayout.new, part, *slots)

    def copy(rows: I64) -> None:
        """Copies those that one old chunk holds."""
        path = relayout.source / part / chunk_name(int(chunk[rows[0]]))
        held = open_chunk(path, old.sequence_tokens, old.dtype)
        for at in range(0, len(rows), _COPIED_BLOCKS):
            some = rows[at : at + _COPIED_BLOCKS]
            blocks[some] = held[block[some]]

    by_slot = np.lexsort([block, chunk])
    list(readers.map(copy, np.split(by_slot, np.flatnonzero(np.diff(chunk[by_slot])) + 1)))
