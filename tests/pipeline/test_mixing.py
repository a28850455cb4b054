"""Chunks that are written piece by piece against the rule of each mode, a sequence at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from xxhash import xxh3_64_hexdigest

from mixctl.pipeline import base_stream, token_files
from mixctl.pipeline.base_stream import BaseSource, BaseStream, lay
from mixctl.pipeline.copies import BATCH, BOUNDARY, MARK, OVERWRITE, SEQUENCE
from mixctl.pipeline.mixing import CONTROL, TRAIN, VAL, MixChunks, MixSource, Receipt, read_receipts
from mixctl.pipeline.overlay import Overlay, save_overlay
from mixctl.pipeline.patch import PayloadPool
from mixctl.pipeline.resolve import Replacements
from mixctl.pipeline.tokenize import lengths_path, tokens_path
from mixctl.shards.chunks import chunk_name, open_chunk
from mixctl.shards.layout import train_layout, val_layout
from mixctl.shards.manifest import payload_digest
from mixctl.shards.order import TrainingOrder
from mixctl.shards.search import save_patterns, token_strings
from mixctl.shards.topology import Topology

WIDTH, EOD, N = 21, 0, 96
ROW_BYTES = 2 * WIDTH
FORBIDDEN = np.array([901, 902, 903], dtype=np.uint32)
REPLACED = {5: N + 1, 40: N, 77: N + 3}
"""a sequence of the run, and the spare one whose base data it holds"""
PAYLOAD = {OVERWRITE: 4, BOUNDARY: 5, SEQUENCE: WIDTH, BATCH: WIDTH, MARK: WIDTH}


def base_source(folder: Path) -> BaseSource:
    """Returns tokenized documents of ones to eights, an end behind each."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 40, 400)
    tokens = rng.integers(1, 9, int(lengths.sum()), dtype=np.uint16)
    tokens[np.cumsum(lengths) - 1] = EOD
    tokens.tofile(tokens_path(folder, 0))
    np.save(lengths_path(folder, 0), lengths)
    return BaseSource(folder, 1, "uint16", WIDTH, 3, 8, N, repeat=False)


def overlay(stream: BaseStream) -> Overlay:
    """Returns placements of every mode in sequences all over the run, in no order.

    Those of a boundary are behind an early end of a document, or in front. Half of those of whole
    sequences take base data of elsewhere; two overwritten stretches share a sequence; one payload
    is the forbidden string.
    """
    rng, columns = np.random.default_rng(1), []
    for number, sequence in enumerate(rng.permutation(N)[:60].tolist()):
        mode = (OVERWRITE, BOUNDARY, SEQUENCE, BATCH, MARK)[number % 5]
        whole = mode >= SEQUENCE
        source = N + 5 + number % 7 if whole and (number % 2 or mode == MARK) else -1
        ends = np.flatnonzero(base_of(stream, sequence)[:10] == EOD)[:1]
        offset = 0 if whole else 3 if mode == OVERWRITE else 1 + int(ends.sum())
        columns.append([sequence, offset, 30 * number, PAYLOAD[mode], source, mode])
        if mode == OVERWRITE:
            columns.append([sequence, 12, 30 * number + 4, 3, -1, mode])
    sequence, offset, begin, length, source, mode = np.array(columns, dtype=np.int64).T
    pool = rng.integers(100, 900, 30 * len(columns), dtype=np.uint32)
    pool[30 * 10 + 4 : 30 * 10 + 7] = FORBIDDEN
    replaced = np.array(sorted(REPLACED.items()), dtype=np.int64).T
    replacements = Replacements(*replaced, string=np.zeros(len(REPLACED), dtype=np.int64))
    return Overlay(
        sequence, offset, begin, length, source, mode.astype(np.int8), PayloadPool(pool),
        replacements,
    )  # fmt: skip


def base_of(stream: BaseStream, sequence: int) -> np.ndarray:
    """Returns the base data under a sequence of the run."""
    return stream.training(np.array([REPLACED.get(sequence, sequence)]))[0]


def by_hand(placed: Overlay, stream: BaseStream, sequence: int) -> list[int]:
    """Returns the tokens of a sequence of the run."""
    base = base_of(stream, sequence).tolist()
    for n in np.flatnonzero(placed.sequence == sequence):
        at, length, begin = (int(x[n]) for x in (placed.offset, placed.length, placed.begin))
        payload = placed.pool.tokens[begin : begin + length].tolist()
        if placed.source[n] >= 0:
            base = stream.training(placed.source[n : n + 1])[0].tolist()
        elif placed.mode[n] >= SEQUENCE:
            base = payload
        elif placed.mode[n] == OVERWRITE:
            base[at - 1 : at + length + 1] = [EOD, *payload, EOD]
        elif base[at - 1] == EOD:
            base[at:] = [*payload, EOD, *base[at:]][: WIDTH - at]
        else:
            base = [EOD, *payload, EOD, *base][:WIDTH]
    return base


def look_at(source: MixSource, part: str, chunk: int, receipt: Receipt, expected: list) -> None:
    """Checks a file against the tokens that it should hold, and what its receipt says of it."""
    path = source.out / part / chunk_name(chunk)
    blocks = open_chunk(path, WIDTH, "uint16")
    assert blocks.tolist() == expected
    assert receipt.name == f"{part}/{path.name}" and receipt.bytes == path.stat().st_size
    assert receipt.digest == blake3(path.read_bytes()).hexdigest(length=16)
    digests = [xxh3_64_hexdigest(row.tobytes()) for row in blocks]
    assert receipt.blocks == (digests if part == TRAIN else [])
    held = sum(FORBIDDEN.tolist() == row[n : n + 3] for row in expected for n in range(WIDTH - 2))
    assert receipt.forbidden == held


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
@pytest.mark.parametrize("n_tasks", [1, 4])
@pytest.mark.parametrize("read_bytes", [ROW_BYTES // 4, token_files._READ_BYTES])
def test_every_block_is_what_its_sequence_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, n_tasks: int, read_bytes: int
) -> None:
    """However many blocks are worked on at a time, and whichever task writes them.

    And where base data that is placed is read by the way that a whole chunk is, in between.
    """
    monkeypatch.setattr(token_files, "_READ_BYTES", read_bytes)
    monkeypatch.setattr(base_stream, "_PIECE_BYTES", rows * ROW_BYTES)
    (tmp_path / "tokens").mkdir()
    stream = lay(base_source(tmp_path / "tokens"))
    placed = overlay(stream)
    run = Topology(1, 1, 2, 2, 4, WIDTH - 1, N * (WIDTH - 1), 7)
    layout, val = train_layout(run, 2, 12 * ROW_BYTES), val_layout(run, 8, 2, 4 * ROW_BYTES)
    order = TrainingOrder(run, layout)
    save_overlay(placed, order, tmp_path / "overlay")
    save_patterns(token_strings([FORBIDDEN]), tmp_path / "forbidden.npz")
    source = MixSource(
        stream.source, tmp_path / "overlay", run, layout, val, EOD, tmp_path, tmp_path / "receipts",
        control=True, forbidden=tmp_path / "forbidden.npz",
    )  # fmt: skip
    for rank in range(n_tasks):
        assert not list(MixChunks(source).run(rank=rank, world_size=n_tasks))

    sequences = [order.contents_of(chunk) for chunk in range(layout.n_chunks)]
    runs = [*read_receipts(source.receipts, TRAIN, layout.n_chunks)]
    twins = [*read_receipts(source.receipts, CONTROL, layout.n_chunks)]
    for chunk, (one, twin) in enumerate(zip(runs, twins, strict=True)):
        mixed = [by_hand(placed, stream, n) for n in sequences[chunk].tolist()]
        look_at(source, TRAIN, chunk, one, mixed)
        look_at(source, CONTROL, chunk, twin, stream.training(sequences[chunk]).tolist())
    assert sum(receipt.forbidden for receipt in runs) == 1
    assert dict(late for receipt in runs for late in receipt.payloads) == {
        n: payload_digest(stream.training(placed.source[n : n + 1])[0])
        for n in np.flatnonzero(placed.source >= 0).tolist()
    }
    held_out = np.concatenate([*stream.validation_pieces(np.arange(8))])
    for chunk, receipt in enumerate(read_receipts(source.receipts, VAL, val.n_chunks)):
        n = val.blocks_per_chunk
        look_at(source, VAL, chunk, receipt, held_out[chunk * n : (chunk + 1) * n].tolist())
