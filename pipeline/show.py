"""Placements decoded: the sequence around a payload, the payload marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixctl.injections.encode import Encoder, load_encoder
from mixctl.shards.chunks import Tokens, open_chunk
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.manifest import read_placements
from mixctl.shards.record import BuildRecord, read_record


@dataclass(frozen=True)
class Choice:
    """Which placements are wanted; None takes all.

    Attributes:
        experiment: its name.
        item: the item's name.
        step: the optimizer step, from 1.
        chunk: the file of train/.
    """

    experiment: str | None = None
    item: str | None = None
    step: int | None = None
    chunk: str | None = None


@dataclass(frozen=True)
class Shown:
    """One placement and the text of its sequence.

    Attributes:
        row: of placements.parquet.
        before: the text before the payload.
        payload: the payload's own.
        after: the text behind it.
    """

    row: dict[str, object]
    before: str
    payload: str
    after: str


def show(build: Path, choice: Choice, limit: int) -> tuple[list[Shown], int]:
    """Returns (the first `limit` placements of the choice, how many there are).

    Raises:
        InputError: when the folder is no build, or it has no such experiment, item, step or chunk.
    """
    record = read_record(build)
    rows = chosen_rows(build, record, choice)
    encoder = load_encoder(build / "tokenizer", eod=record.tokenizer.eod)
    return list(_shown(build, record, rows.slice(0, limit), encoder)), rows.num_rows


def chosen_rows(build: Path, record: BuildRecord, choice: Choice) -> pa.Table:
    """Returns the rows of placements.parquet that are wanted; others are hardly read.

    Raises:
        InputError: when the build has no such experiment, item, step or chunk.
    """
    if choice.experiment is not None and choice.experiment not in record.totals:
        hint = nearest(choice.experiment, record.totals)
        raise InputError(f"--experiment: the build has no experiment '{choice.experiment}'{hint}")
    if choice.step is not None and not 1 <= choice.step <= record.geometry.steps:
        raise InputError(
            f"--step: {choice.step} is outside the run's steps 1 to {record.geometry.steps}"
        )
    if choice.chunk is not None and f"train/{choice.chunk}" not in record.files:
        names = [name.removeprefix("train/") for name in record.files if name.endswith(".bin")]
        raise InputError(
            f"--chunk: train/ has no file '{choice.chunk}'{nearest(choice.chunk, names)}"
        )
    placements = read_placements(build, choice.experiment, choice.item)
    if choice.step is not None:
        placements = placements.filter(pc.equal(placements["step"], choice.step))
    if choice.chunk is not None:
        placements = placements.filter(pc.equal(placements["chunk"], choice.chunk))
    if choice.item is not None and not placements.num_rows:
        raise InputError(f"--item: no placement of an item '{choice.item}' (a holdout has none)")
    return placements


def sequence_of(build: Path, record: BuildRecord, row: dict[str, object]) -> Tokens:
    """Returns the tokens of the sequence that a placement lies in.

    Raises:
        InputError: when the chunk cannot be read.
    """
    geometry, path = record.geometry, build / "train" / str(row["chunk"])
    try:
        blocks = open_chunk(path, geometry.sequence_tokens, geometry.dtype)
        tokens: Tokens = blocks[int(str(row["block"]))]
        return tokens
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _shown(build: Path, record: BuildRecord, rows: pa.Table, encoder: Encoder) -> Iterator[Shown]:
    for row in rows.to_pylist():
        tokens = sequence_of(build, record, row)
        parts = np.split(tokens, [row["offset"], row["offset"] + row["length"]])
        yield Shown(row, *(encoder.decode(part) for part in parts))
