"""The manifest tables of a resolved plan, with the slot of every placement.

They are made some thousand rows at a time: as Python's texts and numbers a row takes several times
what it takes in a table, and what it takes in the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields

import numpy as np
import pyarrow as pa

from mixctl.pipeline.assignment import ALL
from mixctl.pipeline.base_stream import BaseTokens
from mixctl.pipeline.copies import BOUNDARY, MARK, MODES, OVERWRITE, arm_split
from mixctl.pipeline.mixing import Receipt
from mixctl.pipeline.overlay import has_late_digest
from mixctl.pipeline.placement import SEPARATORS
from mixctl.pipeline.plan import Copies, PlannedExperiment
from mixctl.pipeline.resolve import Replacements, Resolved
from mixctl.shards.chunks import chunk_names, token_byte
from mixctl.shards.columns import arrow_column
from mixctl.shards.draws import I64
from mixctl.shards.manifest import BLOCKS, ITEMS, PLACEMENTS, REPLACEMENTS, payload_digest
from mixctl.shards.order import TrainingOrder

_ROWS = 8192
ITEMS_SCHEMA = ITEMS.append(pa.field("randomised", pa.bool_()))
"""of items.parquet, with the column that amendments may lack"""


def items_tables(
    experiments: Iterable[PlannedExperiment], resolved: Resolved, stream: BaseTokens
) -> Iterator[pa.Table]:
    """Yields items.parquet in pieces: a row an item, holdouts included, by experiment and item."""
    for one in experiments:
        for first in range(0, len(one.assigned.items), _ROWS):
            rows = slice(first, first + _ROWS)
            yield _items(one, rows, _item_tokens(one, rows, resolved, stream))


def _item_tokens(
    experiment: PlannedExperiment, rows: slice, resolved: Resolved, stream: BaseTokens
) -> list[np.ndarray | None]:
    """Returns the payload of each item; None for base data, which the shards hold if it is placed.

    Base data that is held out is in no shard, so it is written here.
    """
    tokens: list[np.ndarray | None] = []
    assigned = experiment.assigned
    columns = (assigned.items[rows], assigned.copies[rows], experiment.spare[rows])
    for item, copies, rank in zip(*columns, strict=True):
        if item.base is None:
            tokens.append(item.variants[0])
        elif copies or rank < 0:
            tokens.append(None)
        else:
            sources = resolved.spares[rank : rank + item.base.n_sequences]
            tokens.append(stream.training(sources).reshape(-1))
    return tokens


def _items(experiment: PlannedExperiment, rows: slice, tokens: list[np.ndarray | None]) -> pa.Table:
    assigned = experiment.assigned
    items = assigned.items[rows]
    columns = [
        arrow_column([experiment.config.name] * len(items), pa.string()),
        arrow_column([experiment.config.kind] * len(items), pa.string()),
        arrow_column([i.item for i in items], pa.string()),
        arrow_column([assigned.arms[a].name for a in assigned.arm[rows]], pa.string()),
        arrow_column([i.stratum or ALL for i in items], pa.string()),
        arrow_column(list(assigned.clusters[rows]), pa.string()),
        arrow_column(assigned.copies[rows], pa.int32()),
        _token_lists(tokens),
        arrow_column([i.text for i in items], pa.string()),
        arrow_column([i.meta.model_dump_json() for i in items], pa.string()),
        arrow_column(assigned.randomised[rows], pa.bool_()),
    ]
    return pa.table(columns, schema=ITEMS_SCHEMA)


def _token_lists(tokens: Sequence[np.ndarray | None]) -> pa.ListArray:
    """Returns a column of token lists; None is a missing value."""
    given = [ids for ids in tokens if ids is not None]
    ends = np.cumsum([0, *(0 if ids is None else len(ids) for ids in tokens)], dtype=np.int64)
    values = np.concatenate([np.empty(0, dtype=np.uint32), *given])
    missing = arrow_column([ids is None for ids in tokens], pa.bool_())
    return pa.ListArray.from_arrays(
        arrow_column(ends, pa.int32()), arrow_column(values, pa.uint32()), mask=missing
    )


def placements_tables(
    experiments: Iterable[PlannedExperiment],
    resolved: Resolved,
    order: TrainingOrder,
    dtype: str,
    late: Mapping[int, str],
) -> Iterator[pa.Table]:
    """Yields placements.parquet in pieces: a row a placement, by experiment, item, copy and part.

    `late` has the digests of placed base data, by row of the table.
    """
    row = 0
    for experiment, copies in zip(experiments, resolved.copies, strict=True):
        for first in range(0, len(copies), _ROWS):
            some = _some(copies, slice(first, first + _ROWS))
            digest = _digests(experiment, some)
            for n in np.flatnonzero(has_late_digest(some)):
                digest[n] = late[row + int(n)]
            yield _placements(experiment, some, digest, order, dtype)
            row += len(some)


def _some(copies: Copies, rows: slice) -> Copies:
    return Copies(**{field.name: getattr(copies, field.name)[rows] for field in fields(copies)})


def _placements(
    experiment: PlannedExperiment,
    copies: Copies,
    digest: np.ndarray,
    order: TrainingOrder,
    dtype: str,
) -> pa.Table:
    assigned, n = experiment.assigned, len(copies)
    chunk, block = order.slots(copies.sequence)
    step, _ = order.steps(copies.sequence)
    sequence_tokens = order.topology.sequence_tokens
    item = [assigned.items[n].item for n in copies.item.tolist()]
    arm = [assigned.arms[a].name for a in assigned.arm[copies.item].tolist()]
    changed_offset, changed_length = _changed(copies, sequence_tokens)
    columns = [
        arrow_column([experiment.config.name] * n, pa.string()),
        arrow_column(item, pa.string()),
        arrow_column(arm, pa.string()),
        arrow_column(copies.copy, pa.int32()),
        arrow_column(copies.part, pa.int32()),
        arrow_column(_variant(experiment, copies), pa.int32()),
        arrow_column(step, pa.int64()),
        arrow_column(copies.sequence, pa.int64()),
        arrow_column(chunk_names(chunk), pa.string()),
        arrow_column(block, pa.int32()),
        arrow_column(copies.offset, pa.int32()),
        arrow_column(copies.length, pa.int32()),
        arrow_column(token_byte(block, copies.offset, sequence_tokens, dtype), pa.int64()),
        arrow_column(copies.length - (copies.offset == 0), pa.int32()),
        arrow_column(changed_offset, pa.int32()),
        arrow_column(changed_length, pa.int32()),
        arrow_column(digest, pa.string()),
        arrow_column(np.array(MODES, dtype=object)[copies.mode], pa.string()),
        arrow_column(copies.source, pa.int64(), copies.source < 0),
    ]
    return pa.table(columns, schema=PLACEMENTS)


def _changed(copies: Copies, sequence_tokens: int) -> tuple[I64, I64]:
    """Returns (offset, length) of all that may differ from the twin because of each placement."""
    inside, marks = copies.mode <= BOUNDARY, copies.mode == MARK
    offset = np.where(inside, copies.offset - 1, 0)
    length = np.where(
        copies.mode == OVERWRITE, copies.length + SEPARATORS, sequence_tokens - offset
    )
    return offset, np.where(marks, 0, length)


def _variant(experiment: PlannedExperiment, copies: Copies) -> I64:
    """Returns which paraphrase each copy is; where every copy is cut anew, its own number."""
    rules = [arm_split(experiment.config, arm) for arm in experiment.assigned.arms]
    anew = np.array([rule is not None and rule.anew for rule in rules], dtype=np.bool_)
    if not anew.any():
        return copies.variant
    return np.where(anew[experiment.assigned.arm[copies.item]], copies.copy, copies.variant)


def _digests(experiment: PlannedExperiment, copies: Copies) -> np.ndarray:
    """Returns the payload digest of each placement: an object array, empty texts for base data.

    Copies of an item stand together, so each payload is digested once, rarely twice.
    """
    items, found = experiment.assigned.items, np.full(len(copies), "", dtype=object)
    known: dict[tuple[int, int, int, int], str] = {}
    parts = (copies.item, copies.variant, copies.begin, copies.length)
    for n, key in enumerate(zip(*(part.tolist() for part in parts), strict=True)):
        item, variant, begin, length = key
        if items[item].base is not None:
            continue
        if key not in known:
            known[key] = payload_digest(items[item].variants[variant][begin : begin + length])
        found[n] = known[key]
    return found


def replacements_table(
    replacements: Replacements, reasons: Sequence[str], digests: Sequence[str]
) -> pa.Table:
    """Returns replacements.parquet: a row a sequence whose base data was exchanged.

    Args:
        replacements: the sequences.
        reasons: of each forbidden string, by its number.
        digests: of the new base data, one a replacement.
    """
    columns = [
        arrow_column(replacements.sequence, pa.int64()),
        arrow_column([reasons[n] for n in replacements.string.tolist()], pa.string()),
        arrow_column(replacements.source, pa.int64()),
        arrow_column(digests, pa.string()),
    ]
    return pa.table(columns, schema=REPLACEMENTS)


def blocks_table(receipt: Receipt) -> pa.Table:
    """Returns the rows of blocks.parquet of one chunk of train/: a row a block."""
    n = len(receipt.blocks)
    columns = [
        arrow_column([receipt.name.rpartition("/")[2]] * n, pa.string()),
        arrow_column(np.arange(n), pa.int32()),
        arrow_column(receipt.blocks, pa.string()),
    ]
    return pa.table(columns, schema=BLOCKS)
