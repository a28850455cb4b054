"""An experiment's payloads and clean base sequences, read out of a finished build.

What an experiment's data is, its placements say: every distinct payload that the build holds, in
every form (paraphrase, piece, template) in which it was placed. Tokens are read from train/ and
compared with their digest. So runs need neither item files nor tokenizer, and hold what the
experiment's own schedule would have given the model.

Base sequences are those of the build that the checkpoint has not met: of steps after it, as
control/train/ holds them, or, without a twin, those of train/ that hold no placement. Sequences
that the build exchanged (purge) are left out in both.

Price: the manifest's placements in memory; a random read a payload and a base sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixctl.pipeline.mixing import CONTROL, TRAIN
from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import payload_digest
from mixctl.shards.marks import MARK
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord, Geometry

_MOST_NAMED = 3


@dataclass(frozen=True)
class Payloads:
    """The distinct payloads of an experiment, a row each, by item, variant and part.

    Attributes:
        table: rows of placements.parquet, of each payload the first one.
    """

    table: pa.Table

    @property
    def length(self) -> I64:
        """Returns the tokens of each payload: int64 (n,)."""
        return np.asarray(self.table["length"].to_numpy(), dtype=np.int64)


def payloads_of(placements: pa.Table, experiment: str) -> Payloads:
    """Returns the distinct payloads of an experiment; marks, which change no token, are none."""
    own = placements.filter(pc.equal(placements["experiment"], experiment))
    own = own.filter(pc.not_equal(own["mode"], MARK))
    own = own.append_column("row", pa.array(np.arange(len(own)), pa.int64()))
    grouped = own.group_by(["item", "digest"], use_threads=False).aggregate([("row", "min")])
    first = np.sort(np.asarray(grouped["row_min"].to_numpy(), dtype=np.int64))
    return Payloads(own.take(pa.array(first)).drop_columns(["row"]))


def read_payloads(build: Path, geometry: Geometry, table: pa.Table) -> list[np.ndarray]:
    """Returns the tokens of each placement of the table, in its order.

    Raises:
        InputError: when train/ does not hold what the manifest has the digest of.
    """
    names = ("chunk", "block", "offset", "length", "digest", "experiment", "item")
    rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    tokens: list[np.ndarray] = [np.empty(0, np.uint32)] * len(rows)
    wrong = []
    for n in sorted(range(len(rows)), key=lambda n: rows[n][:2]):
        chunk, block, offset, length, digest, experiment, item = rows[n]
        blocks = _open(build / TRAIN / chunk, geometry)
        tokens[n] = np.array(blocks[block, offset : offset + length])
        if payload_digest(tokens[n]) != digest:
            wrong.append(f"{build / TRAIN / chunk}, block {block}: not the payload of {item}")
    if wrong:
        more = [f"... and {len(wrong) - _MOST_NAMED} more"] if len(wrong) > _MOST_NAMED else []
        raise InputError([*wrong[:_MOST_NAMED], *more, f"see: mixctl verify {build} --full"])
    return tokens


def _open(path: Path, geometry: Geometry) -> Tokens:
    try:
        return open_chunk(path, geometry.sequence_tokens, geometry.dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def base_pool(record: BuildRecord, placements: pa.Table, replacements: pa.Table, step: int) -> I64:
    """Returns the clean sequences of steps after `step`, in order: int64.

    Args:
        record: of the build.
        placements: all of placements.parquet.
        replacements: all of replacements.parquet.
        step: completed steps of the checkpoint.
    """
    geometry = record.geometry
    clean = np.ones(geometry.sequences, dtype=np.bool_)
    clean[: step * geometry.global_batch] = False
    gone = [replacements["sequence"]] + ([] if record.control else [placements["sequence"]])
    for column in gone:
        taken = np.asarray(column.to_numpy(), dtype=np.int64)
        clean[taken[taken < geometry.sequences]] = False
    return np.flatnonzero(clean)


class BaseReader:
    """Reads base sequences of a build, wherever they lie."""

    def __init__(self, build: Path, record: BuildRecord) -> None:
        """Opens nothing yet."""
        self._folder = build / (CONTROL if record.control else TRAIN)
        self._geometry = record.geometry
        self._order = TrainingOrder(record.geometry.topology(), record.geometry.layout())

    def read(self, sequence: I64) -> Tokens:
        """Returns the blocks that hold these sequences, shape (n, sequence_tokens).

        Raises:
            InputError: when a chunk file is missing or broken.
        """
        geometry = self._geometry
        chunk, block = self._order.slots(sequence)
        out = np.empty(
            (len(sequence), geometry.sequence_tokens),
            dtype=np.dtype(geometry.dtype).newbyteorder("<"),
        )
        for number, rows in _by_chunk(chunk):
            blocks = _open(self._folder / chunk_name(number), geometry)
            out[rows] = blocks[block[rows]]
        return out


def _by_chunk(chunk: I64) -> Iterator[tuple[int, I64]]:
    """Yields each chunk with the rows that lie in it."""
    order = np.argsort(chunk, kind="stable")
    numbers, begins = np.unique(chunk[order], return_index=True)
    ends = [*begins[1:].tolist(), len(chunk)]
    for number, begin, end in zip(numbers.tolist(), begins.tolist(), ends, strict=False):
        yield number, order[begin:end]
