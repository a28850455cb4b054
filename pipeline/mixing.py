"""The mix stage: finished chunks. A datatrove step; a task writes a group of chunks.

For each chunk of train/ the training order says which sequences it holds, the base stream gives
their tokens, sequences with a forbidden string are exchanged, the overlay writes payloads over
them, and the chunk is digested while it is written, and renamed into place when it is whole. The
control twin is the same chunk before all that. Both are written some megabytes of blocks at a time,
each of them gathered, changed, searched, digested and written before the next, while it is in the
processor's cache; the disk writes meanwhile. Beside the chunks, the stage's folder gets one receipt
a chunk with its size and digests, so sealing reads no chunk again; it also counts the forbidden
strings found in what was written.

A task takes chunks that are read one after another in training, so that they share their windows of
the base stream, which are read once into the page cache.

Price: memory of one chunk, the digests of its blocks, and those of them that are exchanged;
placements and tables are mapped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from mixctl.pipeline.base_stream import BaseSource, BaseStream, BaseTokens
from mixctl.pipeline.copies import BATCH, BOUNDARY, SEQUENCE
from mixctl.pipeline.overlay import ChunkPlacements, Placed, has_late_digest
from mixctl.pipeline.patch import PayloadPool, make_room, write_payloads, write_separators
from mixctl.shards.chunks import ChunkWriter, Tokens, chunk_name, chunk_writer
from mixctl.shards.draws import I64
from mixctl.shards.files import write_text
from mixctl.shards.layout import Layout
from mixctl.shards.manifest import payload_digest
from mixctl.shards.order import TrainingOrder
from mixctl.shards.search import TokenSearch, load_patterns
from mixctl.shards.topology import Topology

MAX_TASKS = 128
TRAIN, VAL, CONTROL = "train", "val", "control/train"


@dataclass(frozen=True)
class MixSource:
    """All that a mix task needs to know.

    Attributes:
        base: the tokenized documents.
        overlay: the folder of `overlay.save_overlay`.
        out: the build folder.
        receipts: the stage's folder.
        control: whether the twin is written.
        forbidden: the file of the strings that must occur nowhere in train/, if there are any.
    """

    base: BaseSource
    overlay: Path
    topology: Topology
    layout: Layout
    val_layout: Layout
    eod_id: int
    out: Path
    receipts: Path
    control: bool
    forbidden: Path | None = None


@dataclass(frozen=True)
class Receipt:
    """What was written: file name below the build folder, size, digest, and the blocks' digests.

    `payloads` are the digests of placed base data, by row of placements.parquet; `forbidden` is how
    many forbidden strings the blocks hold.
    """

    name: str
    bytes: int
    digest: str
    blocks: list[str]
    payloads: list[tuple[int, str]]
    forbidden: int


def n_mix_tasks(layout: Layout, val_layout: Layout) -> int:
    """Returns the number of tasks, a function of the layout alone."""
    return min(layout.n_chunks + val_layout.n_chunks, MAX_TASKS)


class MixChunks(PipelineStep):
    """Writes this task's chunks of train/, val/ and control/train/."""

    name = "Mix"
    type = "WRITER"

    def __init__(self, source: MixSource) -> None:
        """Takes plain values and paths only: a task opens its files itself."""
        super().__init__()
        self.source = source

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Writes the task's share of the chunks: those of val/, then of train/ as time goes."""
        for part, chunk in _share(self.source, rank, world_size):
            with self.track_time("chunk"):
                (_write_val if part == VAL else _write_train)(self.source, chunk)
            _stream(self.source.base).release()
            _placements(self.source.overlay).release()
        yield from ()


def _share(source: MixSource, rank: int, world_size: int) -> list[tuple[str, int]]:
    """Returns (part, chunk) of the chunks that a task writes."""
    by_time = TrainingOrder(source.topology, source.layout).chunks_by_time.tolist()
    units = [(VAL, chunk) for chunk in range(source.val_layout.n_chunks)]
    units += [(TRAIN, chunk) for chunk in by_time]
    return units[len(units) * rank // world_size : len(units) * (rank + 1) // world_size]


@lru_cache(maxsize=1)
def _stream(base: BaseSource) -> BaseStream:
    return BaseStream(base)


@lru_cache(maxsize=1)
def _placements(overlay: Path) -> ChunkPlacements:
    return ChunkPlacements(overlay)


@lru_cache(maxsize=1)
def _order(topology: Topology, layout: Layout) -> TrainingOrder:
    return TrainingOrder(topology, layout)


@lru_cache(maxsize=1)
def _search(forbidden: Path) -> TokenSearch:
    return TokenSearch(load_patterns(forbidden))


@dataclass
class _Output:
    """A chunk file that is being written, and what its receipt will say besides."""

    writer: ChunkWriter
    payloads: list[tuple[int, str]] = field(default_factory=list)
    forbidden: int = 0


@contextmanager
def _output(source: MixSource, part: str, chunk: int, n_blocks: int) -> Iterator[_Output]:
    """Yields a new chunk file; writes its receipt when it is whole and in its place."""
    n_bytes = n_blocks * source.topology.sequence_tokens * np.dtype(source.base.dtype).itemsize
    name = f"{part}/{chunk_name(chunk)}"
    with chunk_writer(source.out / name, n_bytes) as writer:
        output = _Output(writer)
        yield output
    kept = {"name": name, "payloads": output.payloads, "forbidden": output.forbidden}
    text = json.dumps(kept | vars(writer.written()))
    write_text(receipt_path(source.receipts, part, chunk), text)


def _write_train(source: MixSource, chunk: int) -> None:
    """Writes a chunk of train/ and its twin, some blocks after another."""
    sequence = _order(source.topology, source.layout).contents_of(chunk)
    stream = _stream(source.base)
    stream.read_ahead(sequence)
    placed = _placements(source.overlay).of(chunk).by_row()
    exchanged = _Exchanged.of(_placements(source.overlay), sequence, placed, stream)
    n, first = len(sequence), 0
    twin = _output(source, CONTROL, chunk, n) if source.control else nullcontext()
    with _output(source, TRAIN, chunk, n) as run, twin as control:
        for blocks in stream.training_pieces(sequence):
            rows = slice(first, first + len(blocks))
            if control is not None:
                control.writer.write(blocks, digest_blocks=False)
            exchanged.write_to(blocks, rows)
            _write_run(source, run, blocks, placed.in_rows(rows))
            first = rows.stop


@dataclass(frozen=True)
class _Exchanged:
    """The blocks of a chunk that hold other base data than their own: purged, or taken from there.

    They are gathered together: to gather the few of a piece takes as long.
    """

    row: I64
    tokens: Tokens

    @staticmethod
    def of(
        placements: ChunkPlacements, sequence: I64, placed: Placed, stream: BaseTokens
    ) -> _Exchanged:
        """Returns those of the blocks that are these sequences, with what is placed in them."""
        content = np.array(placements.replacements.content(sequence))
        taken = placed.where(placed.source >= 0)
        content[taken.row] = taken.source
        row = np.flatnonzero(content != sequence)
        return _Exchanged(row, stream.training(content[row]))

    def write_to(self, blocks: Tokens, rows: slice) -> None:
        """Writes those among some rows of the chunk over what their blocks held."""
        low, high = np.searchsorted(self.row, [rows.start, rows.stop])
        blocks[self.row[low:high] - rows.start] = self.tokens[low:high]


def _write_run(source: MixSource, run: _Output, blocks: Tokens, placed: Placed) -> None:
    """Writes some blocks of train/, given as the base tokens that they hold."""
    apply_placements(blocks, placed, _placements(source.overlay).pool, source.eod_id)
    late = placed.where(has_late_digest(placed))
    digests = [payload_digest(blocks[row]) for row in late.row]
    run.payloads += zip(late.number.tolist(), digests, strict=True)
    if source.forbidden is not None:
        run.forbidden += _search(source.forbidden).count_inside(blocks)
    run.writer.write(blocks, digest_blocks=True)


def apply_placements(blocks: Tokens, placed: Placed, pool: PayloadPool, eod: int) -> None:
    """Writes payloads into their blocks, in place; `row` says which of `blocks`.

    Where base data is placed, the block holds it already.
    """
    spliced = placed.where(placed.mode == BOUNDARY)
    make_room(blocks, spliced.row, spliced.offset, spliced.length, eod)
    whole = (placed.mode == SEQUENCE) | (placed.mode == BATCH)
    inside = placed.where(placed.mode <= BOUNDARY)
    write_separators(blocks, inside.row, inside.offset, inside.length, eod)
    for some in (inside, placed.where(whole & (placed.source < 0))):
        write_payloads(blocks, some.row, some.offset, some.begin, some.length, pool)


def _write_val(source: MixSource, chunk: int) -> None:
    n = source.val_layout.blocks_per_chunk
    with _output(source, VAL, chunk, n) as val:
        for blocks in _stream(source.base).validation_pieces(chunk * n + np.arange(n)):
            val.writer.write(blocks, digest_blocks=False)


def receipt_path(folder: Path, part: str, chunk: int) -> Path:
    """Returns the file of a chunk's receipt."""
    return folder / part.replace("/", "-") / f"{chunk:06d}.json"


def read_receipts(folder: Path, part: str, n_chunks: int) -> Iterator[Receipt]:
    """Yields the receipts of one part of the build, by chunk."""
    for chunk in range(n_chunks):
        yield Receipt(**json.loads(receipt_path(folder, part, chunk).read_text(encoding="utf-8")))
