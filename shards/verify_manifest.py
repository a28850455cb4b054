"""The manifest against itself and the training order: every row, vectorised, no chunk is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.shards.chunks import chunk_names, token_byte
from mixctl.shards.draws import I64
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord

INSIDE_MODES = ("overwrite", "boundary")
"""placements between two end-of-document tokens; the others fill their sequences"""


def column(table: pa.Table, name: str) -> I64:
    """Returns an integer column as int64."""
    return np.asarray(table[name].to_numpy(), dtype=np.int64)


def names(table: pa.Table, name: str) -> np.ndarray:
    """Returns a string column as an object array."""
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=object)


def check_manifest(
    build: Path, record: BuildRecord, items: pa.Table, placements: pa.Table, blocks: pa.Table
) -> list[str]:
    """Returns what is wrong with the rows, each finding naming the first bad one."""
    path = build / "manifest" / "placements.parquet"
    findings = _check_range(path, record, placements)
    if findings:
        return findings
    findings += _check_slots(path, record, placements)
    findings += _check_extents(path, record, placements)
    findings += _check_doses(build, items, placements)
    findings += _check_totals(build, record, items, placements)
    return findings + _check_blocks(build, record, blocks)


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
    chunk_names_expected = np.array(chunk_names(chunk), dtype=object)
    findings = _first(path, placements, column(placements, "step") != step, "step", why)
    findings += _first(path, placements, column(placements, "block") != block, "block", why)
    findings += _first(path, placements, column(placements, "byte") != byte, "byte", why)
    bad = names(placements, "chunk") != chunk_names_expected
    return findings + _first(path, placements, np.asarray(bad, dtype=bool), "chunk", why)


def _check_extents(path: Path, record: BuildRecord, placements: pa.Table) -> list[str]:
    """Extents lie inside their sequence and no two touch; changed ranges are those of the mode."""
    width = record.geometry.sequence_tokens
    offset, payload = column(placements, "offset"), column(placements, "length")
    mode = names(placements, "mode")
    inside = np.isin(mode, INSIDE_MODES)
    begin, length = np.where(inside, offset - 1, 0), np.where(inside, payload + 2, width)
    outside = (begin < 0) | (begin + length > width) | (~inside & (payload != width))
    findings = _first(path, placements, outside, "offset", "its extent leaves its sequence")
    changed = np.where(mode == "boundary", width - begin, np.where(mode == "mark", 0, length))
    wrong = (column(placements, "changed_offset") != begin) | (
        column(placements, "changed_length") != changed
    )
    why = "the changed range is not that of its mode"
    findings += _first(path, placements, wrong, "changed_offset", why)
    alone = mode != "overwrite"  # shares its sequence with nothing
    begin, length = np.where(alone, 0, begin), np.where(alone, width, length)
    line = column(placements, "sequence") * (width + 1) + begin
    order = np.argsort(line, kind="stable")
    touching = np.zeros(len(line), dtype=bool)
    touching[order[1:]] = line[order[1:]] <= (line + length)[order[:-1]]
    return findings + _first(path, placements, touching, "offset", "touches another extent")


def _check_doses(build: Path, items: pa.Table, placements: pa.Table) -> list[str]:
    """Every item has exactly its copies, each with all its parts; no placement is without item."""
    wanted = {
        (e, i): c
        for e, i, c in zip(
            items["experiment"].to_pylist(),
            items["item"].to_pylist(),
            items["copies"].to_pylist(),
            strict=True,
        )
    }
    whole = placements.filter(pa.compute.equal(placements["part"], 0))
    counted = whole.group_by(["experiment", "item"]).aggregate([("copy", "count_distinct")])
    placed = {
        (e, i): c
        for e, i, c in zip(
            counted["experiment"].to_pylist(),
            counted["item"].to_pylist(),
            counted["copy_count_distinct"].to_pylist(),
            strict=True,
        )
    }
    return _check_parts(build / "manifest" / "placements.parquet", placements) + [
        f"{build / 'manifest'}: experiment '{e}', item '{i}': {placed.get((e, i), 0)} copies "
        f"placed, {wanted.get((e, i), 0)} asked for"
        for e, i in sorted(wanted.keys() | placed.keys())
        if placed.get((e, i), 0) != wanted.get((e, i), 0)
    ]


def _check_parts(path: Path, placements: pa.Table) -> list[str]:
    """Rows are sorted; copies of an item and parts of a copy are 0, 1, 2, ..."""
    if not placements.num_rows:
        return []
    part, copy = column(placements, "part"), column(placements, "copy")
    known = np.zeros(len(part), dtype=bool)
    known[1:] = True
    for name in ("experiment", "item"):
        values = names(placements, name)
        known[1:] &= values[1:] == values[:-1]
    same = known.copy()
    same[1:] &= copy[1:] == copy[:-1]
    next_copy, next_part = np.zeros(len(part), dtype=bool), np.zeros(len(part), dtype=bool)
    next_copy[1:] = copy[1:] == copy[:-1] + 1
    next_part[1:] = part[1:] == part[:-1] + 1
    bad = np.where(known, ~same & ~next_copy, copy != 0)
    findings = _first(path, placements, bad, "copy", "the copies of an item do not follow")
    bad = np.where(same, ~next_part, part != 0)
    why = "the parts of a copy do not follow each other"
    return findings + _first(path, placements, bad, "part", why)


def _check_totals(
    build: Path, record: BuildRecord, items: pa.Table, placements: pa.Table
) -> list[str]:
    findings = []
    experiment, length = names(placements, "experiment"), column(placements, "length")
    item_experiment = names(items, "experiment")
    for name, total in record.totals.items():
        mine = experiment == name
        found = (int((item_experiment == name).sum()), int(mine.sum()), int(length[mine].sum()))
        if found != (total.items, total.placements, total.tokens):
            findings.append(
                f"{build / 'mix.json'}: totals of '{name}' are {total.items} items, "
                f"{total.placements} "
                f"placements, {total.tokens} tokens; the manifest has {found[0]}, {found[1]}, "
                f"{found[2]}"
            )
    return findings


def _check_blocks(build: Path, record: BuildRecord, blocks: pa.Table) -> list[str]:
    n_blocks = record.geometry.layout().n_blocks
    if blocks.num_rows == n_blocks:
        return []
    return [
        f"{build / 'manifest' / 'blocks.parquet'}: {blocks.num_rows} rows, train/ has {n_blocks} "
        "blocks"
    ]


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
