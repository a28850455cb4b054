"""`mixctl diff A B`: what changed between two mixes or builds, in settings, doses, places, bytes.

Placements are compared by name (experiment, item, copy, part), so a copy that only moved is told
from one that is new. Of two builds the blocks are compared too, by training position: sequences
that hold other tokens, wherever the two layouts put them on disk.

    item q7, arm x4 in A and x16 in B    items: 1 in another arm; placements: 4 moved, 12 only in B

Price: that of reading both sides, and a join an experiment. Tokens are read only where blocks
differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from mixctl.pipeline.diff_sides import Side, read_side
from mixctl.shards.chunks import chunk_name, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.manifest import read_blocks
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord

_GATHERED = 65_536
_SHAPE = ("sequence_tokens", "sequences", "global_batch", "dtype")


class Setting(BaseModel):
    """A key of the mix file or the trainer config that differs; null where it is not there."""

    key: str
    a: Any
    b: Any


class Dose(BaseModel):
    """An arm that differs: (items, copies of all items, placements, tokens) on each side."""

    experiment: str
    arm: str
    a: tuple[int, int, int, int] | None
    b: tuple[int, int, int, int] | None


class Moves(BaseModel):
    """What became of the items and placements of an experiment.

    `moved`: another sequence or offset; `payload`: in place, but other tokens, length or mode.
    """

    experiment: str
    items_only_a: int
    items_only_b: int
    items_in_another_arm: int
    same: int
    moved: int
    payload: int
    only_a: int
    only_b: int

    @property
    def anything(self) -> bool:
        """Returns whether anything differs."""
        counts = self.model_dump(exclude={"experiment", "same"})
        return any(counts.values())


class Content(BaseModel):
    """The bytes of two builds. Null where the shapes of the two runs cannot be compared.

    Attributes:
        files_only_a, files_only_b, files_changed: names.
        sequences_changed: of the run, that hold other tokens.
        tokens_changed: in them.
        first_step: the first step that trains on one.
    """

    files_only_a: list[str]
    files_only_b: list[str]
    files_changed: list[str]
    sequences_changed: int | None
    tokens_changed: int | None
    first_step: int | None


class Difference(BaseModel):
    """What `mixctl diff --json` prints; `content` is null unless both sides are builds."""

    a: str
    b: str
    same: bool
    settings: list[Setting]
    doses: list[Dose]
    placements: list[Moves]
    content: Content | None


def diff(a: Path, b: Path) -> Difference:
    """Returns what changed from one mix file or build to another.

    Raises:
        InputError: with every problem of both sides.
    """
    one, other = read_side(a), read_side(b)
    settings, doses = list(_settings(one, other)), list(_doses(one, other))
    moves = [moved for moved in _moves(one, other) if moved.anything]
    content = None
    if one.record is not None and other.record is not None:
        content = _content(a, one.record, b, other.record)
    found = [settings, doses, moves, *(_changes(content) if content is not None else [])]
    return Difference(
        a=str(a),
        b=str(b),
        same=not any(found),
        settings=settings,
        doses=doses,
        placements=moves,
        content=content,
    )


def _changes(content: Content) -> list[Any]:
    """Returns what of the bytes makes two builds differ: not where their folders are."""
    files = [content.files_only_a, content.files_only_b, content.files_changed]
    return [*files, content.sequences_changed is None, content.sequences_changed]


def _settings(one: Side, other: Side) -> Iterator[Setting]:
    for key in sorted(one.settings.keys() | other.settings.keys()):
        a, b = one.settings.get(key), other.settings.get(key)
        if a != b:
            yield Setting(key=key, a=a, b=b)


def _doses(one: Side, other: Side) -> Iterator[Dose]:
    mine, theirs = _by_arm(one), _by_arm(other)
    for experiment, arm in sorted(mine.keys() | theirs.keys()):
        a, b = mine.get((experiment, arm)), theirs.get((experiment, arm))
        if a != b:
            yield Dose(experiment=experiment, arm=arm, a=a, b=b)


def _by_arm(side: Side) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """Returns (items, copies, placements, tokens) by experiment and arm."""
    keys = ["experiment", "arm"]
    items = side.items.group_by(keys).aggregate([([], "count_all"), ("copies", "sum")])
    placed = side.placements.group_by(keys).aggregate([([], "count_all"), ("length", "sum")])
    found = {
        (row["experiment"], row["arm"]): (row["count_all"], row["length_sum"])
        for row in placed.to_pylist()
    }
    return {
        (row["experiment"], row["arm"]): (
            row["count_all"],
            row["copies_sum"],
            *found.get((row["experiment"], row["arm"]), (0, 0)),
        )
        for row in items.to_pylist()
    }


def _moves(one: Side, other: Side) -> Iterator[Moves]:
    tables = (one.items, other.items, one.placements, other.placements)
    names = {name for table in tables for name in table["experiment"].unique().to_pylist()}
    for name in sorted(names):
        a, b, placed_a, placed_b = (_only(table, name) for table in tables)
        items = _joined(a, b, ["item"])
        placed = _joined(placed_a, placed_b, ["item", "copy", "part"])
        yield _moves_of(name, items, placed)


def _only(table: pa.Table, experiment: str) -> pa.Table:
    """Returns the rows of an experiment, without the column that names it."""
    rows = table.filter(pc.equal(table["experiment"], experiment))
    return rows.drop_columns(["experiment"])


def _joined(one: pa.Table, other: pa.Table, keys: list[str]) -> pa.Table:
    """Returns the full outer join; `here_a` and `here_b` say where a row is from."""
    sides = [
        table.append_column("here", pa.array(np.ones(table.num_rows, dtype=np.bool_)))
        for table in (one, other)
    ]
    return sides[0].join(
        sides[1], keys, join_type="full outer", left_suffix="_a", right_suffix="_b"
    )


def _moves_of(name: str, items: pa.Table, placed: pa.Table) -> Moves:
    only_a, only_b = _missing(placed, "here_b"), _missing(placed, "here_a")
    both = ~(only_a | only_b)
    moved = both & (_differ(placed, "sequence") | _differ(placed, "offset"))
    other = _differ(placed, "digest") | _differ(placed, "length") | _differ(placed, "mode")
    payload = both & ~moved & other
    gone, new = _missing(items, "here_b"), _missing(items, "here_a")
    return Moves(
        experiment=name,
        items_only_a=int(gone.sum()),
        items_only_b=int(new.sum()),
        items_in_another_arm=int((_differ(items, "arm") & ~gone & ~new).sum()),
        same=int((both & ~moved & ~payload).sum()),
        moved=int(moved.sum()),
        payload=int(payload.sum()),
        only_a=int(only_a.sum()),
        only_b=int(only_b.sum()),
    )


def _missing(table: pa.Table, column: str) -> np.ndarray:
    return np.asarray(table[column].is_null().to_numpy())


def _differ(table: pa.Table, column: str) -> np.ndarray:
    """Returns where the two sides differ; unknown is no difference."""
    apart = pc.not_equal(table[f"{column}_a"], table[f"{column}_b"])
    return np.asarray(apart.fill_null(False).to_numpy())


def _content(a: Path, one: BuildRecord, b: Path, other: BuildRecord) -> Content:
    mine, theirs = one.files, other.files
    shared = mine.keys() & theirs.keys() - _OWN_PATH
    changed = [name for name in shared if mine[name].digest != theirs[name].digest]
    n_sequences = n_tokens = first_step = None
    if all(getattr(one.geometry, name) == getattr(other.geometry, name) for name in _SHAPE):
        sequences = _changed_sequences(a, one, b, other)
        n_sequences, n_tokens = len(sequences), _changed_tokens(a, one, b, other, sequences)
        first_step = int(sequences[0]) // one.geometry.global_batch + 1 if n_sequences else None
    return Content(
        files_only_a=sorted(mine.keys() - theirs.keys()),
        files_only_b=sorted(theirs.keys() - mine.keys()),
        files_changed=sorted(changed),
        sequences_changed=n_sequences,
        tokens_changed=n_tokens,
        first_step=first_step,
    )


_OWN_PATH = {"litgpt.yaml", "litgpt-control.yaml"}
"""files that hold the build's own path"""


def _order(record: BuildRecord) -> TrainingOrder:
    return TrainingOrder(record.geometry.topology(), record.geometry.layout())


def _changed_sequences(a: Path, one: BuildRecord, b: Path, other: BuildRecord) -> I64:
    """Returns the sequences of the run whose block digests differ: int64, sorted."""
    sequence = np.arange(one.geometry.sequences)
    found = []
    for build, record in ((a, one), (b, other)):
        digests = np.array(read_blocks(build)["digest"].to_pylist(), dtype=object)
        chunk, block = _order(record).slots(sequence)
        found.append(digests[chunk * record.geometry.blocks_per_chunk + block])
    return np.flatnonzero(found[0] != found[1])


def _changed_tokens(a: Path, one: BuildRecord, b: Path, other: BuildRecord, sequences: I64) -> int:
    """Returns how many tokens of these sequences differ."""
    total = 0
    for begin in range(0, len(sequences), _GATHERED):
        some = sequences[begin : begin + _GATHERED]
        total += int((_tokens(a, one, some) != _tokens(b, other, some)).sum())
    return total


def _tokens(build: Path, record: BuildRecord, sequences: I64) -> np.ndarray:
    """Returns the tokens of sequences of the run: shape (n, sequence_tokens)."""
    geometry = record.geometry
    chunk, block = _order(record).slots(sequences)
    found = np.empty((len(sequences), geometry.sequence_tokens), dtype=geometry.dtype)
    for number in np.unique(chunk):
        rows = np.flatnonzero(chunk == number)
        path = build / "train" / chunk_name(int(number))
        found[rows] = open_chunk(path, geometry.sequence_tokens, geometry.dtype)[block[rows]]
    return found
