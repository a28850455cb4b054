"""Run against twin: equal outside the changed ranges of placements and the replaced sequences.

Of a spliced payload (`boundary`) the base tokens behind it are compared too: they are the twin's,
moved to the right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixctl.shards.chunks import Room, Tokens
from mixctl.shards.draws import I64
from mixctl.shards.verify_manifest import column, holds


@dataclass(frozen=True)
class Changes:
    """Where a run may differ from its twin, a range of tokens for each placement.

    Attributes:
        block: int64, of each.
        begin: int64, the first token of the range.
        length: int64, of the range.
        spliced: bool, whether the twin's tokens are moved behind it.
    """

    block: I64
    begin: I64
    length: I64
    spliced: NDArray[np.bool_]

    @staticmethod
    def of(rows: pa.Table) -> Changes:
        """Returns those of some rows of placements.parquet, in their order."""
        spliced = holds(rows, "mode", "boundary")
        length = np.where(spliced, column(rows, "length") + 2, column(rows, "changed_length"))
        return Changes(column(rows, "block"), column(rows, "changed_offset"), length, spliced)

    def between(self, low: int, high: int) -> Changes:
        """Returns numbers low, low + 1, ... high - 1."""
        some = slice(low, high)
        return Changes(self.block[some], self.begin[some], self.length[some], self.spliced[some])


def check_twin(path: Path, tokens: Tokens, twin: Tokens, rows: pa.Table, eod: int) -> list[str]:
    """Finds where blocks and what the twin holds there differ, and nothing was placed.

    Args:
        path: of what holds the blocks.
        tokens: shape (n, L + 1).
        twin: shape (n, L + 1).
        rows: of placements.parquet, `block` from 0 to n - 1.
        eod: the end-of-document token.
    """
    if tokens.shape != twin.shape:
        return [f"{path}: has another size than its twin"]
    difference = first_difference(tokens, twin, 0, Changes.of(rows), (), eod, Room())
    return [] if difference is None else [differs(path, *difference)]


def differs(path: Path, block: int, offset: int) -> str:
    """Returns the finding of a token that differs."""
    return (
        f"{path}: block {block}, offset {offset} differs from the twin, and nothing was "
        "placed there"
    )


def first_difference(
    tokens: Tokens,
    twin: Tokens,
    first: int,
    changes: Changes,
    replaced: Iterable[int],
    eod: int,
    room: Room,
) -> tuple[int, int] | None:
    """Returns (block, offset) of the first token that differs and must not, None if there is none.

    Args:
        tokens: blocks of the run, shape (n, L + 1).
        twin: the same blocks of the twin.
        first: the number of the first of them.
        changes: those in these blocks.
        replaced: those of these blocks whose base sequence was exchanged.
        eod: the end-of-document token.
        room: where what differs is marked; new memory costs as much as to compare.
    """
    other = room.array(np.bool_, tokens.shape)
    np.not_equal(tokens, twin, out=other)
    rows, moved = _moved(twin, first, changes, eod)
    other[rows] = tokens[rows] != moved
    places = (changes.block - first, changes.begin, changes.begin + changes.length)
    for block, low, high in zip(*(one.tolist() for one in places), strict=True):
        other[block, low:high] = False
    other[[block - first for block in replaced]] = False
    if not other.any():
        return None
    block, offset = divmod(int(np.argmax(other)), tokens.shape[1])
    return first + block, offset


def _moved(twin: Tokens, first: int, changes: Changes, eod: int) -> tuple[I64, Tokens]:
    """Returns the blocks that hold a spliced payload, and the twin's with what follows it moved.

    Only these are copied: memory for all blocks costs more than to compare them.

    Returns:
        Their numbers among these blocks, int64, shape (m,), and their tokens, shape (m, L + 1).
    """
    spliced = np.flatnonzero(changes.spliced)
    rows, row = np.unique(changes.block[spliced] - first, return_inverse=True)
    moved, width = twin[rows], twin.shape[1]
    places = (rows[row], row, changes.begin[spliced], changes.length[spliced])
    for block, at, begin, length in zip(*(one.tolist() for one in places), strict=True):
        taken, behind = begin + 1 if twin[block, begin] == eod else 0, begin + length
        moved[at, behind:] = twin[block, taken : taken + width - behind]
    return rows, moved
