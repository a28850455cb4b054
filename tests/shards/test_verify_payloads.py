"""Payloads in place: each thing that may be wrong with one is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mixctl.shards.manifest import payload_digest
from mixctl.shards.verify_payloads import ItemTokens, Placed, check_payloads

EOD, FIRST_BLOCK = 0, 4
TOKENS = {"a": [5, 6, 7], "b": [8, 9]}
ROWS = [  # item, variant, part, copy, block, offset, what stands there
    ("a", 0, 0, 0, 4, 2, TOKENS["a"]),
    ("b", 0, 0, 0, 4, 8, TOKENS["b"]),
    ("a", 0, 0, 1, 5, 1, TOKENS["a"]),
    ("b", 1, 0, 1, 5, 6, [3, 3, 4]),  # another variant: not the item's tokens
    ("long", 0, 0, 0, 6, 3, [11, 12]),  # the first part of an item that is split
    ("long", 0, 1, 0, 6, 7, [13, 14, 15]),
]
WHOLE = [0, 1, 2]
"""the rows that hold the tokens of their items in items.parquet"""
PAYLOAD, ITEM = "the tokens are not the payload", "the tokens are not those of items.parquet"
SEPARATOR = "no end-of-document token on both sides"


def blocks() -> np.ndarray:
    """Returns blocks 4 to 6 with the payloads of ROWS between separators."""
    tokens = np.full((3, 12), 99, dtype="<u2")
    for *_, block, offset, held in ROWS:
        row = tokens[block - FIRST_BLOCK]
        row[offset : offset + len(held)] = held
        row[[offset - 1, offset + len(held)]] = EOD
    return tokens


def found(tokens: np.ndarray, digests: dict[int, str]) -> list[tuple[int, str]]:
    """Returns (row, what is said of it) where the manifest has these digests instead."""
    items = pa.table(
        {
            "experiment": ["x"] * 3,
            "item": ["a", "b", "long"],
            "tokens": [*TOKENS.values(), [11, 12, 13, 14, 15]],
        }
    )
    names = ("item", "variant", "part", "copy", "block", "offset")
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(names)}
    held = [np.array(row[-1]) for row in ROWS]
    digest = [digests.get(row, payload_digest(one)) for row, one in enumerate(held)]
    rows = pa.table(
        columns
        | {"experiment": ["x"] * len(ROWS), "length": [len(one) for one in held]}
        | {"mode": ["overwrite"] * len(ROWS), "digest": digest}
    )
    known = ItemTokens(items)
    placed = Placed.of(rows, known.numbers(rows), known)
    said = check_payloads(Path("c"), tokens, FIRST_BLOCK, placed, known, EOD)
    places = [
        f"c: block {row[4]}, offset {row[5]} (experiment 'x', item '{row[0]}', copy {row[3]}): "
        for row in ROWS
    ]
    parts = [one.rpartition(": ") for one in said]
    return [(places.index(place + colon), why) for place, colon, why in parts]


def test_payloads_in_place_are_not_spoken_of() -> None:
    assert found(blocks(), {}) == []


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_another_digest_in_the_manifest(row: int) -> None:
    """Of any placement, also of one whose tokens are those of its item."""
    assert found(blocks(), {row: payload_digest(np.array([1]))}) == [(row, PAYLOAD)]


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_another_token_in_the_chunk(row: int) -> None:
    tokens = blocks()
    tokens[ROWS[row][4] - FIRST_BLOCK, ROWS[row][5]] += 1
    expected = [(row, PAYLOAD), (row, ITEM)] if row in WHOLE else [(row, PAYLOAD)]
    assert found(tokens, {}) == expected


@pytest.mark.parametrize("row", WHOLE)
def test_another_token_in_the_chunk_and_its_digest_in_the_manifest(row: int) -> None:
    tokens = blocks()
    _, _, _, _, block, offset, held = ROWS[row]
    tokens[block - FIRST_BLOCK, offset] += 1
    changed = payload_digest(np.array([held[0] + 1, *held[1:]]))
    assert found(tokens, {row: changed}) == [(row, ITEM)]


@pytest.mark.parametrize("row", range(len(ROWS)))
@pytest.mark.parametrize("behind", [False, True])
def test_no_separator(row: int, behind: bool) -> None:
    tokens = blocks()
    _, _, _, _, block, offset, held = ROWS[row]
    tokens[block - FIRST_BLOCK, offset + len(held) if behind else offset - 1] = 98
    assert found(tokens, {}) == [(row, SEPARATOR)]
