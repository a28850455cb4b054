"""Chunk files against the manifest: block digests, payloads in place, the twin elsewhere.

A chunk is read once, its file digested while it is at hand. Without `full`, a fixed sample of
chunks is looked at, spread over the file names, and no file is digested.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.shards.chunks import HEADER_BYTES, Tokens, block_digests, chunk_name, header, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import payload_digest, read_block_digests
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord
from mixctl.shards.search import TokenSearch
from mixctl.shards.verify_files import check_digest
from mixctl.shards.verify_manifest import INSIDE_MODES, chunk_numbers, column, holds

CHUNKED_PARTS = ("train/", "control/train/")
"""whose chunk files are digested here"""
SAMPLE_CHUNKS = 8
SAMPLE_BLOCKS = 2048
"""blocks looked at in each sampled chunk"""
_READ_TOKENS = 1 << 20


@dataclass(frozen=True)
class _Tables:
    """The manifest, ready to be looked up by chunk: `chunk` is that of each placement, sorted."""

    placements: pa.Table
    chunk: I64
    replaced: dict[int, str]
    variants: dict[tuple[str, str], Tokens]
    forbidden: TokenSearch | None


def check_chunks(
    build: Path,
    record: BuildRecord,
    items: pa.Table,
    placements: pa.Table,
    replacements: pa.Table,
    full: bool,
) -> tuple[list[str], int, int]:
    """Returns (findings, placements compared, blocks digested)."""
    n_chunks = record.geometry.chunks
    chosen = range(n_chunks) if full else sorted({*_spread(n_chunks, SAMPLE_CHUNKS)})
    tables = _tables(record, items, placements, replacements, chosen)
    findings: list[str] = []
    n_placements = n_blocks = 0
    check = partial(_check_chunk, build, record, tables, full)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # hashing lets other threads work
        checked = threads.map(check, chosen)
    for found, placed, digested in checked:
        findings += found
        n_placements += placed
        n_blocks += digested
    return findings, n_placements, n_blocks


def _spread(n: int, count: int) -> list[int]:
    """Returns up to `count` numbers spread evenly over 0..n-1, first and last among them."""
    return [int(x) for x in np.linspace(0, n - 1, min(n, count)).round()]


def _tables(
    record: BuildRecord,
    items: pa.Table,
    placements: pa.Table,
    replacements: pa.Table,
    chosen: Sequence[int],
) -> _Tables:
    chunk = chunk_numbers(placements, record.geometry.chunks)
    row = np.flatnonzero(np.isin(chunk, chosen))
    row = row[np.argsort(chunk[row], kind="stable")]
    placements = placements.take(row)
    values = _payloads(items, placements, record.absent)
    return _Tables(
        placements=placements,
        chunk=chunk[row],
        replaced=dict(
            zip(
                replacements["sequence"].to_pylist(),
                replacements["digest"].to_pylist(),
                strict=True,
            )
        ),
        variants=values,
        forbidden=_forbidden(record, values),
    )


def _payloads(
    items: pa.Table, placements: pa.Table, absent: Sequence[str]
) -> dict[tuple[str, str], Tokens]:
    """Returns the payload, where it is known, of every item placed here or that must be absent."""
    keys = ["experiment", "item"]
    placed = placements.select(keys).group_by(keys).aggregate([])
    numbered = items.select(keys).append_column("row", pa.array(np.arange(items.num_rows)))
    row = numbered.join(placed, keys, join_type="left semi")["row"].to_numpy()
    row = np.union1d(row, np.flatnonzero(holds(items, "experiment", *absent)))
    some = items.take(row)
    key = zip(some["experiment"].to_pylist(), some["item"].to_pylist(), strict=True)
    return {
        one: tokens.values.to_numpy()
        for one, tokens in zip(key, some["tokens"], strict=True)
        if tokens.is_valid
    }


def _forbidden(record: BuildRecord, payloads: dict[tuple[str, str], Tokens]) -> TokenSearch | None:
    """Returns the search for the strings that must occur nowhere, None when there are none."""
    strings = [tokens for (name, _), tokens in payloads.items() if name in record.absent]
    return TokenSearch(strings) if strings else None


def _check_chunk(
    build: Path, record: BuildRecord, tables: _Tables, full: bool, chunk: int
) -> tuple[list[str], int, int]:
    """Returns (findings, placements compared, blocks digested) of one chunk."""
    try:
        return _check_readable(build, record, tables, full, chunk)
    except InputError as error:
        return error.problems, 0, 0
    except (OSError, ValueError) as error:
        return [f"{build}: chunk {chunk} cannot be read ({error})"], 0, 0


def _check_readable(
    build: Path, record: BuildRecord, tables: _Tables, full: bool, chunk: int
) -> tuple[list[str], int, int]:
    geometry, name = record.geometry, chunk_name(chunk)
    path = build / "train" / name
    tokens = open_chunk(path, geometry.sequence_tokens, geometry.dtype)
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if head != header(tokens.nbytes):
        return [f"{path}: its header is not that of a chunk of tokens"], 0, 0
    findings = _check_digests(build, record, name) if full else []
    n_looked = len(tokens) if full else min(len(tokens), SAMPLE_BLOCKS)
    digests = read_block_digests(build, chunk * geometry.blocks_per_chunk, n_looked)
    findings += _check_blocks(path, tokens[:n_looked], digests)
    low, high = np.searchsorted(tables.chunk, [chunk, chunk + 1]).tolist()
    rows = tables.placements.slice(low, high - low)
    rows = rows.filter(pa.compute.less(rows["block"], n_looked))
    findings += _check_payloads(path, tokens, rows, record, tables)
    found = tables.forbidden.count_inside(tokens[:n_looked]) if tables.forbidden else 0
    if found:
        findings.append(f"{path}: holds {found} strings that must occur nowhere in the run")
    replaced = _replaced_blocks(record, tables, chunk, n_looked)
    findings += _check_replaced(path, tokens, rows, replaced)
    if record.control:
        twin_path = build / "control" / "train" / name
        twin = open_chunk(twin_path, geometry.sequence_tokens, geometry.dtype)
        shown, eod = twin[:n_looked], record.tokenizer.eod_id
        findings += check_twin(path, tokens[:n_looked], shown, rows, replaced, eod)
    return findings, rows.num_rows, n_looked


def _check_digests(build: Path, record: BuildRecord, name: str) -> list[str]:
    """Digests the files of a chunk, of the run and of its twin."""
    names = [part + name for part in CHUNKED_PARTS if part + name in record.files]
    return [f for one in names for f in check_digest(build / one, record.files[one].digest)]


def _check_blocks(path: Path, tokens: Tokens, expected: list[str]) -> list[str]:
    if len(expected) < len(tokens):
        return [f"{path}: blocks.parquet has no digest of its last blocks"]
    some = max(1, _READ_TOKENS // tokens.shape[1])
    for first in range(0, len(tokens), some):
        found = block_digests(tokens[first : first + some])
        if found != expected[first : first + len(found)]:
            pairs = zip(found, expected[first:], strict=False)
            block = first + next(n for n, (one, other) in enumerate(pairs) if one != other)
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
            mode in INSIDE_MODES
            and not tokens[block, offset - 1] == tokens[block, offset + length] == eod
        ):
            findings.append(f"{place}: no end-of-document token on both sides")
    return findings


def _replaced_blocks(
    record: BuildRecord, tables: _Tables, chunk: int, n_blocks: int
) -> dict[int, str]:
    """Returns the blocks of a chunk whose base data was exchanged, with the digest of the new."""
    if not tables.replaced:
        return {}
    order = TrainingOrder(record.geometry.topology(), record.geometry.layout())
    sequence = order.contents_of(chunk)[:n_blocks].tolist()
    held = ((b, tables.replaced.get(n)) for b, n in enumerate(sequence))
    return {b: digest for b, digest in held if digest is not None}


def _check_replaced(
    path: Path, tokens: Tokens, rows: pa.Table, replaced: dict[int, str]
) -> list[str]:
    """Compares the replaced blocks that hold nothing else with the digest of their base data."""
    alone = replaced.keys() - {*rows["block"].to_pylist()}
    wrong = [b for b in sorted(alone) if payload_digest(tokens[b]) != replaced[b]]
    return [f"{path}: block {b} is not the base data that replaces it" for b in wrong]


def check_twin(
    path: Path, tokens: Tokens, twin: Tokens, rows: pa.Table, replaced: dict[int, str], eod: int
) -> list[str]:
    """Finds where run and twin differ outside the payloads, moved base tokens included."""
    if tokens.shape != twin.shape:
        return [f"{path}: has another size than its twin"]
    differs = np.asarray(tokens != _moved(twin, rows, eod))
    spliced = holds(rows, "mode", "boundary")
    payload = np.where(spliced, column(rows, "length") + 2, column(rows, "changed_length"))
    block, begin = column(rows, "block"), column(rows, "changed_offset")
    for b, low, length in zip(block, begin, payload, strict=True):
        differs[b, low : low + length] = False
    differs[list(replaced)] = False
    if not differs.any():
        return []
    where = np.argwhere(differs)[0]
    return [
        f"{path}: block {where[0]}, offset {where[1]} differs from the twin, and nothing was "
        "placed there"
    ]


def _moved(twin: Tokens, rows: pa.Table, eod: int) -> Tokens:
    """Returns the twin's blocks with what follows a spliced payload moved to the right."""
    spliced = rows.filter(pa.compute.equal(rows["mode"], "boundary"))
    if not spliced.num_rows:
        return twin
    moved, width = np.array(twin), twin.shape[1]
    places = zip(*(column(spliced, name) for name in ("block", "offset", "length")), strict=True)
    for block, offset, length in places:
        first = offset if twin[block, offset - 1] == eod else 0
        behind = offset + length + 1
        moved[block, behind:] = twin[block, first : first + width - behind]
    return moved
