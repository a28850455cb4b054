"""Base data that was placed: its tokens are in the shards, not in the manifest.

items.parquet has no tokens for an item that is base data and was placed (a sequence placed again, a
whole batch, a marked batch). Its tokens are what train/ holds at the placements of its first copy,
all parts in order. Every part is read once and compared with its digest in placements.parquet
before anything is scored; after that tokens are read from the mapped chunk when they are asked for,
so that thousands of sequences cost no memory. Few chunks stay open: a map holds a descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mixctl.evals.scorers.base import Decode, Item
from mixctl.shards.chunks import open_chunk
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import payload_digest
from mixctl.shards.record import Geometry

IntArray = npt.NDArray[np.int64]
Key = tuple[str, str]
"""(experiment, item)"""
Read = Callable[[], IntArray]
_MOST_NAMED = 20
_MOST_OPEN = 32


class ShardItem(Item):
    """An item whose tokens are read from the shards each time they are asked for."""

    def __init__(
        self, key: Key, read: Read, meta: str, sequence_tokens: int, decode: Decode | None
    ) -> None:
        """Keeps how the tokens are read instead of the tokens."""
        values = {"experiment": key[0], "name": key[1], "meta": meta, "_read": read}
        values |= {"sequence_tokens": sequence_tokens, "decode": decode}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def tokens(self) -> IntArray:
        """Returns the tokens: int64 (n,), whole sequences one after the other."""
        read: Read = self._read  # type: ignore[attr-defined]
        return read()


@dataclass(frozen=True)
class _Part:
    """A contiguous piece of an item in the shards."""

    chunk: str
    block: int
    offset: int
    length: int
    digest: str


def base_data(
    build: Path, geometry: Geometry, placements: pa.Table, wanted: Collection[Key]
) -> dict[Key, Read]:
    """Returns how the tokens of each item are read; items that were never placed are left out.

    Args:
        build: the build folder.
        geometry: the shape of its shards.
        placements: all of placements.parquet.
        wanted: the items that have no tokens in items.parquet.

    Raises:
        InputError: when a chunk is missing or broken, or what it holds does not match the digest.
    """
    if not wanted:
        return {}
    parts = _first_copies(placements, wanted)
    opened = lru_cache(maxsize=_MOST_OPEN)(partial(_chunk, build, geometry))
    _check(parts, opened)
    return {key: partial(_tokens, of_item, opened) for key, of_item in parts.items()}


def _first_copies(placements: pa.Table, wanted: Collection[Key]) -> dict[Key, list[_Part]]:
    """Returns the parts of the first copy of each item, in order."""
    experiments = pa.array(sorted({experiment for experiment, _ in wanted}), pa.string())
    chosen = placements.filter(pc.is_in(placements["experiment"], value_set=experiments))
    chosen = chosen.filter(pc.equal(chosen["copy"], 0))
    found: dict[Key, list[tuple[int, _Part]]] = {}
    known = set(wanted)
    names = ["experiment", "item", "part", "chunk", "block", "offset", "length", "digest"]
    for row in zip(*(chosen[name].to_pylist() for name in names), strict=True):
        if row[:2] in known:
            found.setdefault(row[:2], []).append((row[2], _Part(*row[3:])))
    return {
        key: [part for _, part in sorted(of_item, key=lambda pair: pair[0])]
        for key, of_item in found.items()
    }


def _chunk(build: Path, geometry: Geometry, name: str) -> Any:
    """Returns the mapped blocks of a chunk of train/."""
    return open_chunk(build / "train" / name, geometry.sequence_tokens, geometry.dtype)


def _check(parts: Mapping[Key, list[_Part]], opened: Callable[[str], Any]) -> None:
    problems: dict[str, None] = {}
    for (experiment, item), of_item in parts.items():
        for part in of_item:
            problem = _problem(part, opened)
            if problem is not None:
                problems[f"experiment {experiment}, item {item}: {problem}"] = None
    if problems:
        listed = list(problems)
        more = [f"... and {len(listed) - _MOST_NAMED} more"] if len(listed) > _MOST_NAMED else []
        raise InputError(listed[:_MOST_NAMED] + more)


def _problem(part: _Part, opened: Callable[[str], Any]) -> str | None:
    try:
        tokens = opened(part.chunk)[part.block][part.offset : part.offset + part.length]
    except FileNotFoundError:
        return f"train/{part.chunk} is missing, which holds its tokens"
    except (OSError, ValueError, IndexError) as error:
        return f"train/{part.chunk}, block {part.block} cannot be read ({error})"
    if payload_digest(tokens) == part.digest:
        return None
    return (
        f"train/{part.chunk}, block {part.block} does not hold the tokens that placements.parquet "
        "has the digest of; see: mixctl verify"
    )


def _tokens(parts: list[_Part], opened: Callable[[str], Any]) -> IntArray:
    pieces = [  # copies: a view would keep its chunk open
        opened(p.chunk)[p.block][p.offset : p.offset + p.length].astype(np.int64) for p in parts
    ]
    return np.concatenate(pieces)
