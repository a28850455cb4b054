"""The manifest against itself and the training order: every row, vectorised, no chunk is read.

Strings are compared by number: a column of names becomes its different names and, for each row,
which of them it is. Price: 0.4 microseconds a placement, and some 500 bytes, the tables included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixctl.shards.chunks import chunk_names, token_byte
from mixctl.shards.columns import arrow_column, whole_numbers
from mixctl.shards.draws import I64
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord

Names = tuple[I64, list[str]]
"""a column of names: which of the names each row holds, and the names"""
INSIDE_MODES = ("overwrite", "boundary")
"""placements between two end-of-document tokens; the others fill their sequences"""
ITEM_KEYS = ["experiment", "item"]


def column(table: pa.Table, name: str) -> I64:
    """Returns an integer column as int64; tables with rows that lack a value were refused."""
    return whole_numbers(table[name], missing=0)


def numbered(table: pa.Table, name: str) -> Names:
    """Returns (numbers, names) of a string column: row r holds names[numbers[r]]; null is -1."""
    encoded = table[name].dictionary_encode().unify_dictionaries()
    parts = [whole_numbers(chunk.indices, missing=-1) for chunk in encoded.chunks]
    known = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    return np.concatenate([np.empty(0, dtype=np.int64), *parts]), known


def numbered_items(items: pa.Table, rows: pa.Table) -> tuple[I64, I64, int]:
    """Returns the item of each row of two tables as a number, int64, 0 to n - 1, and n.

    Rows have the same number when they name the same experiment and item. (A join of tables says
    as much, but Arrow imports pandas for it, a quarter of a second.)
    """
    key = np.zeros(items.num_rows + rows.num_rows, dtype=np.int64)
    for name in ITEM_KEYS:
        both = pa.chunked_array([*items[name].chunks, *rows[name].chunks], pa.string())
        number, known = numbered(pa.table([both], [name]), name)
        key = key * len(known) + number
    different, number = np.unique(key, return_inverse=True)
    return number[: items.num_rows], number[items.num_rows :], len(different)


def holds(table: pa.Table, name: str, *wanted: str) -> NDArray[np.bool_]:
    """Returns which rows of a string column hold one of these: bool, shape (rows,)."""
    return _among(numbered(table, name), *wanted)


def _among(names: Names, *wanted: str) -> NDArray[np.bool_]:
    """Returns which rows of a numbered column hold one of these."""
    number, known = names
    return np.append(np.isin(known, wanted), False)[number]


def chunk_numbers(table: pa.Table, n_chunks: int) -> I64:
    """Returns the chunk that each row names: int64; -1 for a name that is none of the build's."""
    number, known = numbered(table, "chunk")
    chunks = {name: chunk for chunk, name in enumerate(chunk_names(np.arange(n_chunks)))}
    return np.array([*(chunks.get(name, -1) for name in known), -1], dtype=np.int64)[number]


@dataclass(frozen=True)
class _Placements:
    """placements.parquet, its columns of names as numbers."""

    path: Path
    table: pa.Table
    experiment: Names
    item: Names
    mode: Names

    def follows(self) -> NDArray[np.bool_]:
        """Returns which rows are of the item of the row before: bool, shape (rows,)."""
        same = np.zeros(self.table.num_rows, dtype=bool)
        same[1:] = True
        for number, _ in (self.experiment, self.item):
            same[1:] &= number[1:] == number[:-1]
        return same


def check_manifest(
    build: Path, record: BuildRecord, items: pa.Table, placements: pa.Table, n_blocks: int
) -> list[str]:
    """Returns what is wrong with the rows, each finding naming the first bad one.

    `n_blocks` is the number of rows of blocks.parquet.
    """
    path = build / "manifest" / "placements.parquet"
    findings = _check_range(path, record, placements)
    if findings:
        return findings
    names = (numbered(placements, name) for name in ("experiment", "item", "mode"))
    rows = _Placements(path, placements, *names)
    findings += _check_slots(path, record, placements)
    findings += _check_extents(record, rows)
    findings += _check_doses(build, items, rows)
    findings += _check_totals(build, record, items, rows)
    return findings + _check_blocks(build, record, n_blocks)


def _check_range(path: Path, record: BuildRecord, placements: pa.Table) -> list[str]:
    sequence = column(placements, "sequence")
    bad = (sequence < 0) | (sequence >= record.geometry.sequences)
    return _first(
        path, placements, bad, "sequence", f"outside the {record.geometry.sequences} of the run"
    )


def _check_slots(path: Path, record: BuildRecord, placements: pa.Table) -> list[str]:
    geometry = record.geometry
    order = TrainingOrder(geometry.topology(), geometry.layout())
    sequence, offset = column(placements, "sequence"), column(placements, "offset")
    chunk, block = order.slots(sequence)
    step, _ = order.steps(sequence)
    byte = token_byte(block, offset, geometry.sequence_tokens, geometry.dtype)
    why = "not where the training order puts its sequence"
    findings = _first(path, placements, column(placements, "step") != step, "step", why)
    findings += _first(path, placements, column(placements, "block") != block, "block", why)
    findings += _first(path, placements, column(placements, "byte") != byte, "byte", why)
    bad = chunk_numbers(placements, geometry.chunks) != chunk
    return findings + _first(path, placements, bad, "chunk", why)


def _check_extents(record: BuildRecord, rows: _Placements) -> list[str]:
    """Extents lie inside their sequence and no two touch; changed ranges are those of the mode."""
    path, placements, width = rows.path, rows.table, record.geometry.sequence_tokens
    offset, payload = column(placements, "offset"), column(placements, "length")
    inside = _among(rows.mode, *INSIDE_MODES)
    begin, length = np.where(inside, offset - 1, 0), np.where(inside, payload + 2, width)
    outside = (begin < 0) | (begin + length > width) | (~inside & (payload != width))
    findings = _first(path, placements, outside, "offset", "its extent leaves its sequence")
    spliced, marks = _among(rows.mode, "boundary"), _among(rows.mode, "mark")
    changed = np.where(spliced, width - begin, np.where(marks, 0, length))
    wrong = (column(placements, "changed_offset") != begin) | (
        column(placements, "changed_length") != changed
    )
    why = "the changed range is not that of its mode"
    findings += _first(path, placements, wrong, "changed_offset", why)
    alone = ~_among(rows.mode, "overwrite")  # shares its sequence with nothing
    begin, length = np.where(alone, 0, begin), np.where(alone, width, length)
    line = column(placements, "sequence") * (width + 1) + begin
    order = np.argsort(line)
    touching = np.zeros(len(line), dtype=bool)
    touching[order[1:]] = line[order[1:]] <= (line + length)[order[:-1]]
    return findings + _first(path, placements, touching, "offset", "touches another extent")


def _check_doses(build: Path, items: pa.Table, rows: _Placements) -> list[str]:
    """Every item has exactly its copies, each with all its parts; no placement is without item."""
    follows, whole = rows.follows(), column(rows.table, "part") == 0
    first = np.flatnonzero(~follows)
    n_copies = np.diff(np.append(0, np.cumsum(whole))[np.append(first, len(whole))])
    runs = rows.table.select(ITEM_KEYS).take(arrow_column(first, pa.int64()))
    wrong = _wrong_doses(items, runs, n_copies)
    return [
        *_check_parts(rows, follows),
        *_check_together(rows, first),
        *(
            f"{build / 'manifest'}: experiment '{experiment}', item '{item}': "
            f"{n_placed} copies placed, {n_wanted} asked for"
            for experiment, item, n_placed, n_wanted in sorted(wrong)
        ),
    ]


def _wrong_doses(
    items: pa.Table, runs: pa.Table, n_copies: I64
) -> Iterator[tuple[str, str, int, int]]:
    """Yields (experiment, item, copies placed, copies asked for) where these are not the same.

    Args:
        items: items.parquet.
        runs: experiment and item of runs of placements; not all need to be in `items`.
        n_copies: of each run, int64.
    """
    item, run, n_items = numbered_items(items, runs)
    placed = np.zeros(n_items, dtype=np.int64)
    np.add.at(placed, run, n_copies)
    wanted = column(items, "copies")
    for row in np.flatnonzero(placed[item] != wanted).tolist():
        yield *_named(items, row), int(placed[item[row]]), int(wanted[row])
    _, once = np.unique(run, return_index=True)
    for row in once[~np.isin(run[once], item) & (placed[run[once]] != 0)].tolist():
        yield *_named(runs, row), int(placed[run[row]]), 0


def _named(rows: pa.Table, row: int) -> tuple[str, str]:
    experiment, item = (rows[name][row].as_py() for name in ITEM_KEYS)
    return experiment, item


def _check_together(rows: _Placements, first: I64) -> list[str]:
    """The rows of an item follow each other; `first` are those that another item's stand before."""
    number = rows.experiment[0][first] * (len(rows.item[1]) + 1) + rows.item[0][first]
    _, once = np.unique(number, return_index=True)
    again = np.zeros(rows.table.num_rows, dtype=bool)
    again[np.delete(first, once)] = True
    return _first(rows.path, rows.table, again, "copy", "the rows of an item lie apart")


def _check_parts(rows: _Placements, known: NDArray[np.bool_]) -> list[str]:
    """Copies of an item, parts of a copy are 0, 1, ...; `known`: the item is the row before's."""
    part, copy = column(rows.table, "part"), column(rows.table, "copy")
    same, next_copy, next_part = known.copy(), np.zeros_like(known), np.zeros_like(known)
    same[1:] &= copy[1:] == copy[:-1]
    next_copy[1:] = copy[1:] == copy[:-1] + 1
    next_part[1:] = part[1:] == part[:-1] + 1
    bad = np.where(known, ~same & ~next_copy, copy != 0)
    why = "the copies of an item do not follow"
    findings = _first(rows.path, rows.table, bad, "copy", why)
    bad = np.where(same, ~next_part, part != 0)
    why = "the parts of a copy do not follow each other"
    return findings + _first(rows.path, rows.table, bad, "part", why)


def _check_totals(
    build: Path, record: BuildRecord, items: pa.Table, rows: _Placements
) -> list[str]:
    findings = []
    length, of_items = column(rows.table, "length"), numbered(items, "experiment")
    for name, total in record.totals.items():
        mine = _among(rows.experiment, name)
        n_items = int(_among(of_items, name).sum())
        found = (n_items, int(mine.sum()), int(length[mine].sum()))
        if found != (total.items, total.placements, total.tokens):
            findings.append(
                f"{build / 'mix.json'}: totals of '{name}' are {total.items} items, "
                f"{total.placements} "
                f"placements, {total.tokens} tokens; the manifest has {found[0]}, {found[1]}, "
                f"{found[2]}"
            )
    return findings


def _check_blocks(build: Path, record: BuildRecord, n_rows: int) -> list[str]:
    n_blocks = record.geometry.layout().n_blocks
    if n_rows == n_blocks:
        return []
    return [f"{build / 'manifest' / 'blocks.parquet'}: {n_rows} rows, train/ has {n_blocks} blocks"]


def _first(path: Path, table: pa.Table, bad: np.ndarray, field: str, why: str) -> list[str]:
    """Returns a finding that names the first bad row, nothing when there is none."""
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    of = {name: table[name][row].as_py() for name in ("experiment", "item", "copy", field)}
    return [
        f"{path}: row {row} (experiment '{of['experiment']}', item '{of['item']}', copy "
        f"{of['copy']}): "
        f"{field} {of[field]}: {why} ({int(bad.sum())} such rows)"
    ]
