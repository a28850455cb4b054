"""Placements against the tokens of their chunk: digest, item, end-of-document tokens around them.

All tokens of a piece's placements are taken out of it at once, and compared at once with those of
their items in items.parquet. Equal tokens have equal digests: so that of an item is computed once,
and a placement's own only where its tokens are not, or not known to be, those of an item.

    piece of blocks 8..11, placement at block 9, offset 40, length 3
    -> tokens[1, 40:43] has the digest and is the item, tokens[1, 39] and [1, 43] are separators

Price: two microseconds a placement, and two more for a digest of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixctl.shards.chunks import Tokens
from mixctl.shards.columns import token_values, whole_numbers
from mixctl.shards.draws import I64
from mixctl.shards.manifest import payload_digest, payload_digests
from mixctl.shards.verify_manifest import (
    INSIDE_MODES,
    ITEM_KEYS,
    column,
    holds,
    numbered_items,
)


class ItemTokens:
    """The tokens of all items of items.parquet, one after another."""

    def __init__(self, items: pa.Table) -> None:
        """Takes the table; items without tokens have none here."""
        tokens = items["tokens"].combine_chunks()
        self.values = token_values(pc.list_flatten(tokens))
        self.length = whole_numbers(pc.list_value_length(tokens), missing=0)
        self.begin = np.cumsum(self.length) - self.length
        self._digests: dict[int, str] = {}
        self._named = items.select(ITEM_KEYS)

    def digest(self, item: int) -> str:
        """Returns the payload digest of an item's tokens; it is computed once."""
        if item not in self._digests:
            begin, end = self.begin[item], self.begin[item] + self.length[item]
            self._digests[item] = payload_digest(self.values[begin:end])
        return self._digests[item]

    def numbers(self, placements: pa.Table) -> I64:
        """Returns the row in items.parquet of each placement's item: int64, -1 for none."""
        own, placed, n_items = numbered_items(self._named, placements)
        row = np.full(n_items, -1, dtype=np.int64)
        row[own] = np.arange(len(own))
        return row[placed]


@dataclass(frozen=True)
class Placed:
    """Placements of one chunk, sorted by block.

    Attributes:
        rows: of placements.parquet.
        first: the number of the first of these placements in `rows`.
        block: int64, of each.
        offset: int64, likewise, as the next.
        length: of the payload.
        item: the item whose tokens the payload must be, -1 where it is another variant or a part.
        inside: bool, whether it stands between two end-of-document tokens.
        digest: of the payload.
        agreed: bool, whether that is the digest of the item's tokens.
    """

    rows: pa.Table
    first: int
    block: I64
    offset: I64
    length: I64
    item: I64
    inside: NDArray[np.bool_]
    digest: list[str]
    agreed: NDArray[np.bool_]

    @staticmethod
    def of(rows: pa.Table, item: I64, items: ItemTokens) -> Placed:
        """Returns these rows; `item` is the number of each one's item."""
        length = column(rows, "length")
        whole = (column(rows, "variant") == 0) & (column(rows, "part") == 0)
        whole &= (item >= 0) & (np.append(items.length, -1)[item] == length)
        item, digest = np.where(whole, item, -1), rows["digest"].to_pylist()
        pairs = zip(item.tolist(), digest, strict=True)
        agreed = [one >= 0 and items.digest(one) == expected for one, expected in pairs]
        return Placed(
            rows=rows,
            first=0,
            block=column(rows, "block"),
            offset=column(rows, "offset"),
            length=length,
            item=item,
            inside=holds(rows, "mode", *INSIDE_MODES),
            digest=digest,
            agreed=np.array(agreed, dtype=np.bool_),
        )

    def between(self, low: int, high: int) -> Placed:
        """Returns placements low, low + 1, ... high - 1."""
        some = slice(low, high)
        return Placed(
            rows=self.rows,
            first=self.first + low,
            block=self.block[some],
            offset=self.offset[some],
            length=self.length[some],
            item=self.item[some],
            inside=self.inside[some],
            digest=self.digest[some],
            agreed=self.agreed[some],
        )


def check_payloads(
    path: Path, tokens: Tokens, first: int, placed: Placed, items: ItemTokens, eod: int
) -> list[str]:
    """Compares the tokens at each placement with its digest, its item, and its separators.

    Args:
        path: of the chunk file.
        tokens: blocks of it, shape (n, L + 1).
        first: the number of the first of these blocks.
        placed: the placements in these blocks.
        items: of items.parquet.
        eod: the end-of-document token.
    """
    if not len(placed.block):
        return []
    flat = tokens.reshape(-1)
    begin = (placed.block - first) * tokens.shape[1] + placed.offset
    found = _taken(flat, begin, placed.length)
    strange = _not_the_item(found, placed, items)
    other = _not_the_payload(found, placed, strange)
    findings = _findings(path, placed, other, "the tokens are not the payload")
    findings += _findings(path, placed, strange, "the tokens are not those of items.parquet")
    inside = np.flatnonzero(placed.inside)
    low, high = begin[inside] - 1, (begin + placed.length)[inside]
    other = inside[(flat[low] != eod) | (flat[high] != eod)].tolist()
    return findings + _findings(path, placed, other, "no end-of-document token on both sides")


def _not_the_item(found: Tokens, placed: Placed, items: ItemTokens) -> list[int]:
    """Returns which placements hold other tokens than their item in items.parquet."""
    known = placed.item >= 0
    length = placed.length[known]
    if not known.all():
        found = found[np.repeat(known, placed.length)]
    differs = found != _taken(items.values, items.begin[placed.item[known]], length)
    if not differs.any():
        return []
    before, end = np.append(0, np.cumsum(differs)), np.cumsum(length)
    other: list[int] = np.flatnonzero(known)[before[end] != before[end - length]].tolist()
    return other


def _not_the_payload(found: Tokens, placed: Placed, strange: list[int]) -> list[int]:
    """Returns which placements have another digest; `strange` are those that are not their item."""
    looked = ~placed.agreed
    looked[strange] = True
    numbers, length = np.flatnonzero(looked).tolist(), placed.length[looked]
    digests = payload_digests(found[np.repeat(looked, placed.length)], length)
    pairs = zip(numbers, digests, strict=True)
    return [number for number, digest in pairs if digest != placed.digest[number]]


def _taken(values: Tokens, begin: I64, length: I64) -> Tokens:
    """Returns the tokens of some ranges, one range after another."""
    ranges = zip(begin.tolist(), (begin + length).tolist(), strict=True)
    return np.concatenate([values[:0], *(values[low:high] for low, high in ranges)])


def _findings(path: Path, placed: Placed, numbers: list[int], why: str) -> list[str]:
    """Returns a finding for each of these placements, naming its place."""
    found = []
    for number in numbers:
        row = placed.rows.slice(placed.first + number, 1).to_pylist()[0]
        found.append(
            f"{path}: block {row['block']}, offset {row['offset']} (experiment "
            f"'{row['experiment']}', item '{row['item']}', copy {row['copy']}): {why}"
        )
    return found
