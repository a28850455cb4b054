"""What an amendment writes: new blocks, new rows of the manifest, new digests.

Everything goes into the journal; nothing here touches the build. Only free sequences change, so
what a block holds before is base tokens, and the block after is those with the payloads in it.

Price: a chunk that changes is read once; its changed blocks are held in memory, old and new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mixctl.pipeline.finished import BuildStream, FinishedBuild
from mixctl.pipeline.mixing import TRAIN, apply_placements
from mixctl.pipeline.overlay import Overlay, Placed, has_late_digest, make_overlay
from mixctl.pipeline.plan import Plan, PlannedExperiment
from mixctl.pipeline.resolve import Resolved
from mixctl.pipeline.sealing import file_record
from mixctl.pipeline.tables import ITEMS_SCHEMA, items_tables, placements_tables
from mixctl.shards.chunks import Tokens, block_digests, chunk_name, header
from mixctl.shards.draws import I64
from mixctl.shards.errors import VerificationError
from mixctl.shards.files import FileDigest
from mixctl.shards.journal import Journal
from mixctl.shards.manifest import (
    BEFORE,
    BLOCKS,
    PLACEMENTS,
    before_name,
    payload_digest,
    read_blocks,
    write_table,
)
from mixctl.shards.record import FileRecord

_KEYS = [(name, "ascending") for name in ("experiment", "item", "copy", "part")]
_HASHED_TOKENS = 1 << 20


@dataclass
class Changed:
    """What the changed blocks tell the tables and the record.

    Attributes:
        files: the records of the files that change or are new.
        digest: the new digest of each changed block, by its row in blocks.parquet.
        late: digests of marked sequences, by row of the new placements.
        before: the tokens of each changed sequence until then.
    """

    files: dict[str, FileRecord] = field(default_factory=dict)
    digest: dict[int, str] = field(default_factory=dict)
    late: dict[int, str] = field(default_factory=dict)
    before: dict[int, Tokens] = field(default_factory=dict)


def change_blocks(
    build: FinishedBuild, plan: Plan, resolved: Resolved, journal: Journal
) -> Changed:
    """Returns what changes, after writing the new blocks into the journal.

    Raises:
        VerificationError: when a chunk file is not what the record says.
    """
    overlay, stream = make_overlay(plan, resolved), BuildStream(build)
    changed = Changed()
    for chunk, placed in _by_chunk(build, overlay):
        blocks, row = np.unique(placed.row, return_inverse=True)
        old = build.chunk(chunk)[blocks]
        new = old.copy()
        here = placed.moved(row.astype(np.int64))
        taken = here.where(here.source >= 0)
        if len(taken.row):
            new[taken.row] = stream.training(taken.source)
        apply_placements(new, here, overlay.pool, plan.encoder.eod_id)
        late = has_late_digest(placed)
        marked = zip(placed.number[late].tolist(), new[row[late]], strict=True)
        changed.late.update((number, payload_digest(tokens)) for number, tokens in marked)
        touched = (new != old).any(axis=1)
        if touched.any():
            _note(build, chunk, blocks[touched], old[touched], new[touched], changed)
            journal.add_blocks(chunk, blocks[touched], new[touched])
    return changed


def _by_chunk(build: FinishedBuild, overlay: Overlay) -> Iterator[tuple[int, Placed]]:
    """Yields the chunks in which something is placed, with the placements."""
    chunk, block = build.order.slots(overlay.sequence)
    for one in np.unique(chunk).tolist():
        number = np.flatnonzero(chunk == one)
        columns = ("offset", "begin", "length", "source", "mode")
        chosen = {name: getattr(overlay, name)[number] for name in columns}
        yield one, Placed(row=block[number], number=number, **chosen)


def _note(
    build: FinishedBuild, chunk: int, blocks: I64, old: Tokens, new: Tokens, changed: Changed
) -> None:
    """Keeps the digests and the old tokens of changed blocks, and the digest of their file.

    Raises:
        VerificationError: when the file is not what the record says.
    """
    name = f"{TRAIN}/{chunk_name(chunk)}"
    record, (found, digest) = build.record.files[name], _digests(build.chunk(chunk), blocks, new)
    if found != record.digest:
        path = build.folder / name
        raise VerificationError([f"{path}: its content does not match the digest in mix.json"])
    changed.files[name] = FileRecord(bytes=record.bytes, digest=digest)
    first = chunk * build.record.geometry.blocks_per_chunk
    changed.digest.update(zip((first + blocks).tolist(), block_digests(new), strict=True))
    sequence = build.order.sequences(np.full(len(blocks), chunk), blocks)
    changed.before.update(zip(sequence.tolist(), old, strict=True))


def _digests(tokens: Tokens, blocks: I64, new: Tokens) -> tuple[str, str]:
    """Returns the digest of a chunk file as it is, and as it will be."""
    head = header(tokens.nbytes)
    was, will = FileDigest(), FileDigest()
    was.update(head)
    will.update(head)
    some = max(1, _HASHED_TOKENS // tokens.shape[1])
    for first in range(0, len(tokens), some):
        part = np.array(tokens[first : first + some])
        was.update(part.data)
        low, high = np.searchsorted(blocks, [first, first + len(part)])
        part[blocks[low:high] - first] = new[low:high]
        will.update(part.data)
    return was.hexdigest(), will.hexdigest()


def write_changed_tables(
    build: FinishedBuild,
    plan: Plan,
    resolved: Resolved,
    changed: Changed,
    number: int,
    journal: Journal,
) -> None:
    """Writes the new tables of the manifest into the journal; their records go to `changed.files`.

    Args:
        build: before the amendment.
        plan: of the amendment.
        resolved: of the amendment.
        changed: of the amendment.
        number: of the amendment, from 1.
        journal: where to.
    """
    tables = {
        "manifest/items.parquet": _items(build, plan, resolved),
        "manifest/placements.parquet": _placements(build, plan, resolved, changed.late),
        "manifest/blocks.parquet": _blocks(build, changed),
    }
    if not build.record.control:
        tables[before_name(number)] = _before(changed)
    for name, table in tables.items():
        write_table(table, journal.file(name))
        changed.files[name] = file_record(journal.file(name))


def _items(build: FinishedBuild, plan: Plan, resolved: Resolved) -> pa.Table:
    """Returns items.parquet: the doses of known items raised, new items among them."""
    old, more = build.items, dict[tuple[str, str], int]()
    new: list[PlannedExperiment] = []
    for one in plan.experiments:
        if one.assigned.earlier is None:
            new.append(one)
            continue
        added = zip(one.assigned.items, one.assigned.copies.tolist(), strict=True)
        more |= {(one.config.name, item.item): n for item, n in added}
    keys = zip(old["experiment"].to_pylist(), old["item"].to_pylist(), strict=True)
    copies = [n + more.get(key, 0) for n, key in zip(old["copies"].to_pylist(), keys, strict=True)]
    at = old.column_names.index("copies")
    old = old.set_column(at, "copies", pa.array(copies, pa.int32()))
    made = items_tables(new, resolved, BuildStream(build))
    return _joined(old, pa.concat_tables([ITEMS_SCHEMA.empty_table(), *made]), _KEYS[:2])


def _placements(
    build: FinishedBuild, plan: Plan, resolved: Resolved, late: dict[int, str]
) -> pa.Table:
    dtype = build.record.geometry.dtype
    made = placements_tables(plan.experiments, resolved, build.order, dtype, late)
    table = pa.concat_tables([PLACEMENTS.empty_table(), *made])
    return _joined(build.placements, table, _KEYS)


def _joined(old: pa.Table, new: pa.Table, keys: list[tuple[str, str]]) -> pa.Table:
    return pa.concat_tables([old, new.select(old.column_names)]).sort_by(keys)


def _blocks(build: FinishedBuild, changed: Changed) -> pa.Table:
    table = read_blocks(build.folder)
    digest = table["digest"].to_pylist()
    for row, value in changed.digest.items():
        digest[row] = value
    at = table.column_names.index("digest")
    return table.set_column(at, BLOCKS.field("digest"), pa.array(digest, pa.string()))


def _before(changed: Changed) -> pa.Table:
    """Returns what the changed sequences held, by sequence."""
    rows = sorted(changed.before.items())
    columns = [
        pa.array([sequence for sequence, _ in rows], pa.int64()),
        pa.array([tokens for _, tokens in rows], pa.list_(pa.uint32())),
    ]
    return pa.table(columns, schema=BEFORE)
