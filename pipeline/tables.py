"""The manifest tables of a plan: items and placements, with the slot of every placement."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from mixctl.pipeline.assignment import ALL
from mixctl.pipeline.mixing import Receipt
from mixctl.pipeline.plan import PlannedExperiment
from mixctl.shards.chunks import chunk_names, token_byte
from mixctl.shards.manifest import BLOCKS, ITEMS, PLACEMENTS, REPLACEMENTS, payload_digest
from mixctl.shards.order import TrainingOrder


def items_table(experiments: Iterable[PlannedExperiment]) -> pa.Table:
    """Returns items.parquet: a row an item, holdouts included, by experiment and item."""
    empty = ITEMS.empty_table().append_column("randomised", pa.array([], pa.bool_()))
    return pa.concat_tables([empty, *(_items(e) for e in experiments)])


def _items(experiment: PlannedExperiment) -> pa.Table:
    assigned = experiment.assigned
    n = len(assigned.items)
    columns = [
        pa.array([experiment.config.name] * n, pa.string()),
        pa.array([experiment.config.kind] * n, pa.string()),
        pa.array([i.item for i in assigned.items], pa.string()),
        pa.array([assigned.arms[a].name for a in assigned.arm], pa.string()),
        pa.array([i.stratum or ALL for i in assigned.items], pa.string()),
        pa.array(list(assigned.clusters), pa.string()),
        pa.array(assigned.copies, pa.int32()),
        pa.array([i.variants[0] for i in assigned.items], pa.list_(pa.uint32())),
        pa.array([i.text for i in assigned.items], pa.string()),
        pa.array([i.meta.model_dump_json() for i in assigned.items], pa.string()),
    ]
    table = pa.table(columns, schema=ITEMS)
    return table.append_column("randomised", pa.array(assigned.randomised, pa.bool_()))


def placements_table(
    experiments: Iterable[PlannedExperiment], order: TrainingOrder, dtype: str
) -> pa.Table:
    """Returns placements.parquet: a row a copy, by experiment, item and copy."""
    tables = [_placements(e, order, dtype) for e in experiments]
    return pa.concat_tables([PLACEMENTS.empty_table(), *tables])


def _placements(experiment: PlannedExperiment, order: TrainingOrder, dtype: str) -> pa.Table:
    copies, assigned = experiment.copies, experiment.assigned
    n = len(copies)
    chunk, block = order.slots(copies.sequence)
    step, _ = order.steps(copies.sequence)
    sequence_tokens = order.topology.sequence_tokens
    item = np.array([i.item for i in assigned.items], dtype=object)
    arm = np.array([assigned.arms[a].name for a in assigned.arm], dtype=object)
    variant, digest = _variants(experiment)
    name = [experiment.config.name] * n
    columns = [
        pa.array(name, pa.string()),
        pa.array(item[copies.item], pa.string()),
        pa.array(arm[copies.item], pa.string()),
        pa.array(copies.copy, pa.int32()),
        pa.array(np.zeros(n), pa.int32()),
        pa.array(variant, pa.int32()),
        pa.array(step, pa.int64()),
        pa.array(copies.sequence, pa.int64()),
        pa.array(chunk_names(chunk), pa.string()),
        pa.array(block, pa.int32()),
        pa.array(copies.offset, pa.int32()),
        pa.array(copies.length, pa.int32()),
        pa.array(token_byte(block, copies.offset, sequence_tokens, dtype), pa.int64()),
        pa.array(copies.length - (copies.offset == 0), pa.int32()),
        pa.array(copies.offset - 1, pa.int32()),
        pa.array(copies.length + 2, pa.int32()),
        pa.array(digest, pa.string()),
        pa.array(["overwrite"] * n, pa.string()),
        pa.nulls(n, pa.int64()),
    ]
    return pa.table(columns, schema=PLACEMENTS)


def _variants(experiment: PlannedExperiment) -> tuple[np.ndarray, np.ndarray]:
    """Returns (variant, payload digest) of each copy."""
    items, copies = experiment.assigned.items, experiment.copies
    n_variants = np.array([len(i.variants) for i in items], dtype=np.int64)
    digests = np.array([payload_digest(v) for i in items for v in i.variants], dtype=object)
    first = np.cumsum(n_variants) - n_variants
    if not len(copies):
        return np.empty(0, np.int64), np.empty(0, dtype=object)
    variant = copies.copy % n_variants[copies.item]
    return variant, digests[first[copies.item] + variant]


def replacements_table() -> pa.Table:
    """Returns replacements.parquet: no kind purges sequences yet, so it has no rows."""
    return REPLACEMENTS.empty_table()


def blocks_table(receipts: Iterable[Receipt]) -> pa.Table:
    """Returns blocks.parquet: a row a block of train/, by chunk and block."""
    tables = [BLOCKS.empty_table()]
    for receipt in receipts:
        n = len(receipt.blocks)
        columns = [
            pa.array([receipt.name.rpartition("/")[2]] * n, pa.string()),
            pa.array(np.arange(n), pa.int32()),
            pa.array(receipt.blocks, pa.string()),
        ]
        tables.append(pa.table(columns, schema=BLOCKS))
    return pa.concat_tables(tables)
