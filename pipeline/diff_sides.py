"""The two sides of `mixctl diff`: a mix file or a build, as settings, items, placements and bytes.

A mix file is planned for it, as a build would: every item made, every copy placed. What only the
base corpus can tell is unknown then, and counts as equal: the offset of a `boundary` placement, and
the tokens of placed base data.

Price: that of the plan; of a build, its manifest in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixctl.pipeline.copies import BOUNDARY, MODES
from mixctl.pipeline.mixfile import located, read_mix
from mixctl.pipeline.plan import NO_SOURCE, Plan, make_plan
from mixctl.pipeline.prepare import choose_layouts
from mixctl.pipeline.resolve import Replacements, Resolved
from mixctl.pipeline.tables import placements_tables
from mixctl.shards.chunks import token_dtype
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import PLACEMENTS, read_items, read_placements
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import RECORD_NAME, BuildRecord, read_record

ITEM_COLUMNS = ["experiment", "item", "arm", "copies"]
PLACEMENT_COLUMNS = [
    *("experiment", "item", "copy", "part"),
    *("arm", "step", "sequence", "offset", "length", "mode", "digest"),
]


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        path: of the mix file or the build.
        settings: what the mix file and the trainer config say, by dotted key; items of lists that
            have a name go by it.
        items: ITEM_COLUMNS, a row an item that is in an arm.
        placements: PLACEMENT_COLUMNS; null where unknown.
        record: of a build; None for a mix file.
    """

    path: Path
    settings: dict[str, Any]
    items: pa.Table
    placements: pa.Table
    record: BuildRecord | None


def read_side(path: Path) -> Side:
    """Returns a side.

    Raises:
        InputError: when the path is neither a mix file nor a build, or is not valid.
    """
    if not path.is_dir():
        return _of_mix(path)
    if not (path / RECORD_NAME).exists():
        raise InputError(f"{path}: no build (it has no {RECORD_NAME}), and no mix file")
    record = read_record(path)
    return Side(
        path,
        dict(flat(record.config)),
        read_items(path).select(ITEM_COLUMNS),
        read_placements(path).select(PLACEMENT_COLUMNS),
        record,
    )


def _of_mix(path: Path) -> Side:
    mix = read_mix(path)
    try:
        plan = make_plan(mix)
        placements = _placements(plan)
    except InputError as error:
        raise InputError(located(error.problems, path)) from None
    config = {**mix.config.model_dump(mode="json"), "trainer_config": mix.trainer_raw}
    return Side(path, dict(flat(config)), _items(plan), placements, None)


def _items(plan: Plan) -> pa.Table:
    rows = [
        (one.config.name, item.item, one.assigned.arms[arm].name, copies)
        for one in plan.experiments
        for item, arm, copies in zip(
            one.assigned.items,
            one.assigned.arm.tolist(),
            one.assigned.copies.tolist(),
            strict=True,
        )
    ]
    types = (pa.string(), pa.string(), pa.string(), pa.int32())
    columns = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(types)]
    return pa.table(columns, names=ITEM_COLUMNS)


def _placements(plan: Plan) -> pa.Table:
    """Returns the placements of a plan; what only the base corpus can tell is null."""
    layout, _ = choose_layouts(plan)
    order = TrainingOrder(plan.topology, layout)
    copies = tuple(one.copies for one in plan.experiments)
    open_ = Resolved(copies, Replacements.nothing(), np.empty(0, dtype=np.int64))
    unknown: Mapping[int, str] = defaultdict(str)
    dtype = token_dtype(plan.encoder.vocab_size)
    made = placements_tables(plan.experiments, open_, order, dtype, unknown)
    table = pa.concat_tables([PLACEMENTS.empty_table(), *made])
    spliced = np.array(table["mode"].to_pylist(), dtype=object) == MODES[BOUNDARY]
    sources = np.concatenate([np.empty(0, np.int64), *(one.source for one in copies)])
    offset = pa.array(table["offset"].to_numpy(), pa.int32(), mask=spliced)
    digests = np.array(table["digest"].to_pylist(), dtype=object)
    digest = pa.array(digests, pa.string(), mask=(sources != NO_SOURCE) | (digests == ""))
    for name, column in (("offset", offset), ("digest", digest)):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table.select(PLACEMENT_COLUMNS)


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of everything below; None and empty parts are left out.

    {"arms": [{"name": "x4", "copies": 4}], "seed": 7}  ->  ("arms.x4.copies", 4), ("seed", 7)
    """
    if isinstance(value, Mapping):
        named = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list) and value and all(_name(inner) for inner in value):
        named = [(str(inner["name"]), {**inner, "name": None}) for inner in value]
    elif value is None or value == []:
        return
    else:
        yield key, value
        return
    for name, inner in named:
        yield from flat(inner, f"{key}.{name}" if key else name)


def _name(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("name"), str)
