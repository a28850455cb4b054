"""The resolved plan in the form the mix tasks need: what goes to which sequence and offset.

Written once as plain arrays sorted by chunk, and mapped into memory by every task, which touches
the placements of its chunks only. Price: 57 bytes a placement and 4 a payload token, on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixctl.pipeline.copies import MARK
from mixctl.pipeline.mapped import map_array, release
from mixctl.pipeline.patch import PayloadPool
from mixctl.pipeline.plan import Copies, Plan
from mixctl.pipeline.resolve import Replacements, Resolved
from mixctl.shards.draws import I64
from mixctl.shards.files import replacing
from mixctl.shards.order import TrainingOrder

COLUMNS = ("sequence", "offset", "begin", "length", "source")


@dataclass(frozen=True)
class Overlay:
    """All placements of a build: int64 arrays of shape (n,), the payload tokens, replacements.

    The n-th placement is row n of placements.parquet. Its tokens begin at `begin` in the pool; base
    data has its sequence in `source`, and nothing in the pool.
    """

    sequence: I64
    offset: I64
    begin: I64
    length: I64
    source: I64
    mode: NDArray[np.int8]
    pool: PayloadPool
    replacements: Replacements


def make_overlay(plan: Plan, resolved: Resolved) -> Overlay:
    """Returns the placements of all experiments and the pool of their payloads."""
    begins, tokens, before = [np.empty(0, np.int64)], [np.empty(0, np.uint32)], 0
    for experiment, copies in zip(plan.experiments, resolved.copies, strict=True):
        payloads = [i.variants or _NOTHING for i in experiment.assigned.items]
        length = np.array([len(ids) for of in payloads for ids in of], dtype=np.int64)
        n_variants = np.array([len(of) for of in payloads], dtype=np.int64)
        first = np.cumsum(n_variants) - n_variants
        begin = before + np.cumsum(length) - length
        begins.append(begin[first[copies.item] + copies.variant] + copies.begin)
        tokens += [ids for of in payloads for ids in of]
        before += int(length.sum())
    columns = {name: _column(resolved, name) for name in COLUMNS if name != "begin"}
    mode = np.concatenate([np.empty(0, np.int8), *(c.mode for c in resolved.copies)])
    return Overlay(
        **columns,
        begin=np.concatenate(begins),
        mode=mode,
        pool=PayloadPool(np.concatenate(tokens).astype(np.uint32)),
        replacements=resolved.replacements,
    )


_NOTHING = (np.empty(0, dtype=np.uint32),)


def _column(resolved: Resolved, name: str) -> I64:
    columns: list[I64] = [getattr(copies, name) for copies in resolved.copies]
    return np.concatenate([np.empty(0, np.int64), *columns])


def has_late_digest(copies: Copies | Placed) -> NDArray[np.bool_]:
    """Returns which placements hold base data, whose digest only mixing can tell."""
    return np.asarray((copies.source >= 0) | (copies.mode == MARK), dtype=np.bool_)


@dataclass(frozen=True)
class Placed:
    """The placements of one chunk: `row` is the block, `number` the row of placements.parquet."""

    row: I64
    offset: I64
    begin: I64
    length: I64
    source: I64
    mode: NDArray[np.int8]
    number: I64

    def where(self, chosen: NDArray[np.bool_]) -> Placed:
        """Returns the chosen placements."""
        return Placed(*(getattr(self, name)[chosen] for name in _PLACED))

    def by_row(self) -> Placed:
        """Returns the placements in the order of their blocks; those of a block stay in order."""
        order = np.argsort(self.row, kind="stable")
        return Placed(*(getattr(self, name)[order] for name in _PLACED))

    def in_rows(self, rows: slice) -> Placed:
        """Returns the placements in some rows, which are counted from the first of them anew.

        Those of `by_row` only.
        """
        low, high = np.searchsorted(self.row, [rows.start, rows.stop])
        some = Placed(*(getattr(self, name)[low:high] for name in _PLACED))
        return some.moved(some.row - rows.start)

    def moved(self, row: I64) -> Placed:
        """Returns the placements in other rows."""
        return replace(self, row=row)


_PLACED = tuple(Placed.__dataclass_fields__)
_REPLACED = ("sequence", "source", "string")


def save_overlay(overlay: Overlay, order: TrainingOrder, folder: Path) -> None:
    """Writes the overlay, its placements by chunk; every file all or nothing."""
    chunk, block = order.slots(overlay.sequence)
    number = np.argsort(chunk, kind="stable")
    columns = {name: getattr(overlay, name)[number] for name in _PLACED[1:-1]}
    arrays = {
        "row": block[number],
        **columns,
        "number": number,
        "first": np.searchsorted(chunk[number], np.arange(order.layout.n_chunks + 1)),
        "tokens": overlay.pool.tokens,
        **{f"replaced-{name}": getattr(overlay.replacements, name) for name in _REPLACED},
    }
    for name, array in arrays.items():
        with replacing(folder / f"{name}.npy") as partial, partial.open("wb") as file:
            np.save(file, array)


class ChunkPlacements:
    """The overlay that `save_overlay` wrote, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        """Maps the files."""
        self._columns = [map_array(folder / f"{name}.npy") for name in _PLACED]
        self._first = map_array(folder / "first.npy")
        self.pool = PayloadPool(map_array(folder / "tokens.npy"))
        self.replacements = Replacements(
            *(map_array(folder / f"replaced-{name}.npy") for name in _REPLACED)
        )

    def release(self) -> None:
        """Gives back the memory of what was read; it stays in the page cache."""
        release((*self._columns, self.pool.tokens))

    def of(self, chunk: int) -> Placed:
        """Returns the placements in one chunk."""
        low, high = self._first[chunk : chunk + 2].tolist()
        return Placed(*(column[low:high] for column in self._columns))
