"""Chunk files against the manifest: block digests, payloads in place, the twin elsewhere.

A chunk is read once. Without `full`, a fixed sample of chunks is looked at, spread over the file
names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.shards.chunks import HEADER_BYTES, Tokens, chunk_name, header, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.files import BLOCK_DIGEST_BYTES, digest_bytes
from mixctl.shards.manifest import payload_digest
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord
from mixctl.shards.verify_manifest import column, names

SAMPLE_CHUNKS = 8
SAMPLE_BLOCKS = 2048
"""blocks looked at in each sampled chunk"""


@dataclass(frozen=True)
class _Tables:
    """The manifest, ready to be looked up by chunk."""

    placements: pa.Table
    by_chunk: I64
    chunk: np.ndarray
    digest: np.ndarray
    replaced: I64
    variants: dict[tuple[str, str], Tokens]


def check_chunks(
    build: Path,
    record: BuildRecord,
    items: pa.Table,
    placements: pa.Table,
    blocks: pa.Table,
    replacements: pa.Table,
    full: bool,
) -> tuple[list[str], int, int]:
    """Returns (findings, placements compared, blocks digested)."""
    tables = _tables(items, placements, blocks, replacements)
    n_chunks = record.geometry.chunks
    chosen = range(n_chunks) if full else sorted({*_spread(n_chunks, SAMPLE_CHUNKS)})
    findings: list[str] = []
    n_placements = n_blocks = 0
    for chunk in chosen:
        try:
            found, placed, digested = _check_chunk(build, record, tables, chunk, full)
        except (OSError, ValueError) as error:
            found, placed, digested = [f"{build}: chunk {chunk} cannot be read ({error})"], 0, 0
        findings += found
        n_placements += placed
        n_blocks += digested
    return findings, n_placements, n_blocks


def _spread(n: int, count: int) -> list[int]:
    """Returns up to `count` numbers spread evenly over 0..n-1, first and last among them."""
    return [int(x) for x in np.linspace(0, n - 1, min(n, count)).round()]


def _tables(
    items: pa.Table, placements: pa.Table, blocks: pa.Table, replacements: pa.Table
) -> _Tables:
    chunk = names(placements, "chunk")
    by_chunk = np.argsort(chunk.astype(str), kind="stable")
    keys = zip(items["experiment"].to_pylist(), items["item"].to_pylist(), strict=True)
    tokens = items["tokens"]
    values = {
        key: tokens[row].values.to_numpy() for row, key in enumerate(keys) if tokens[row].is_valid
    }
    return _Tables(
        placements=placements,
        by_chunk=by_chunk,
        chunk=chunk[by_chunk].astype(str),
        digest=names(blocks, "digest"),
        replaced=column(replacements, "sequence"),
        variants=values,
    )


def _check_chunk(
    build: Path, record: BuildRecord, tables: _Tables, chunk: int, full: bool
) -> tuple[list[str], int, int]:
    geometry, name = record.geometry, chunk_name(chunk)
    path = build / "train" / name
    tokens = open_chunk(path, geometry.sequence_tokens, geometry.dtype)
    if path.read_bytes()[:HEADER_BYTES] != header(tokens.nbytes):
        return [f"{path}: its header is not that of a chunk of tokens"], 0, 0
    n_looked = len(tokens) if full else min(len(tokens), SAMPLE_BLOCKS)
    findings = _check_blocks(path, tokens[:n_looked], tables.digest[chunk * len(tokens) :])
    low = np.searchsorted(tables.chunk, name, side="left")
    high = np.searchsorted(tables.chunk, name, side="right")
    rows = tables.placements.take(tables.by_chunk[low:high])
    rows = rows.filter(pa.compute.less(rows["block"], n_looked))
    findings += _check_payloads(path, tokens, rows, record, tables)
    if record.control:
        twin_path = build / "control" / "train" / name
        twin = open_chunk(twin_path, geometry.sequence_tokens, geometry.dtype)
        replaced = _replaced_blocks(record, tables, chunk, len(tokens))
        findings += _check_twin(path, tokens[:n_looked], twin[:n_looked], rows, replaced)
    return findings, rows.num_rows, n_looked


def _check_blocks(path: Path, tokens: Tokens, expected: np.ndarray) -> list[str]:
    for block, row in enumerate(np.ascontiguousarray(tokens)):
        if digest_bytes(row.view(np.uint8).data, BLOCK_DIGEST_BYTES) != expected[block]:
            return [f"{path}: block {block} does not match its digest in blocks.parquet"]
    return []


def _check_payloads(
    path: Path, tokens: Tokens, rows: pa.Table, record: BuildRecord, tables: _Tables
) -> list[str]:
    """Compares the tokens at each placement with its digest, its item, and its separators."""
    findings, eod = [], record.tokenizer.eod_id
    fields = (
        "experiment",
        "item",
        "copy",
        "variant",
        "part",
        "block",
        "offset",
        "length",
        "digest",
        "mode",
    )
    for row in zip(*(rows[name].to_pylist() for name in fields), strict=True):
        experiment, item, copy, variant, part, block, offset, length, digest, mode = row
        who = f"experiment '{experiment}', item '{item}', copy {copy}"
        place = f"{path}: block {block}, offset {offset} ({who})"
        found = tokens[block, offset : offset + length]
        if payload_digest(found) != digest:
            findings.append(f"{place}: the tokens are not the payload")
        known = tables.variants.get((experiment, item))
        if variant == 0 and part == 0 and known is not None and len(known) == length:
            if not np.array_equal(known, found):
                findings.append(f"{place}: the tokens are not those of items.parquet")
        if (
            mode == "overwrite"
            and not tokens[block, offset - 1] == tokens[block, offset + length] == eod
        ):
            findings.append(f"{place}: no end-of-document token on both sides")
    return findings


def _replaced_blocks(record: BuildRecord, tables: _Tables, chunk: int, n_blocks: int) -> I64:
    """Returns the blocks of a chunk that were purged in the run."""
    if not len(tables.replaced):
        return np.empty(0, np.int64)
    order = TrainingOrder(record.geometry.topology(), record.geometry.layout())
    block = np.arange(n_blocks)
    sequence = order.sequences(np.full(n_blocks, chunk), block)
    return block[np.isin(sequence, tables.replaced)]


def _check_twin(
    path: Path, tokens: Tokens, twin: Tokens, rows: pa.Table, replaced: I64
) -> list[str]:
    """Finds where run and twin differ outside the changed ranges."""
    if tokens.shape != twin.shape:
        return [f"{path}: has another size than its twin"]
    differs = np.asarray(tokens != twin)
    block, begin = column(rows, "block"), column(rows, "changed_offset")
    for b, low, length in zip(block, begin, column(rows, "changed_length"), strict=True):
        differs[b, low : low + length] = False
    differs[replaced[replaced < len(differs)]] = False
    if not differs.any():
        return []
    where = np.argwhere(differs)[0]
    return [
        f"{path}: block {where[0]}, offset {where[1]} differs from the twin, and nothing was "
        "placed there"
    ]
