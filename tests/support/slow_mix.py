"""A build made again, slowly, out of plain lists: corpus, tokenizer, manifest, nothing else.

What is shared with the code under test is the seeded permutation and the training order, which
have tests of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from mixctl.shards.chunks import chunk_name
from mixctl.shards.draws import shuffled, stream
from mixctl.shards.order import TrainingOrder
from mixctl.shards.permutation import permute
from mixctl.shards.record import read_record

EOD = 0


def rows_of(build: Path, table: str) -> list[dict[str, Any]]:
    """Returns the rows of a table of the manifest."""
    return list(pq.read_table(build / f"manifest/{table}.parquet").to_pylist())


def run_blocks(build: Path, part: str = "train") -> np.ndarray:
    """Returns every block of a part by sequence of the run, those after the run last."""
    geometry = read_record(build).geometry
    n_blocks, width = geometry.layout().n_blocks, geometry.sequence_tokens
    order = TrainingOrder(geometry.topology(), geometry.layout())
    chunk, block = order.slots(np.arange(n_blocks))
    data = {c: (build / part / chunk_name(c)).read_bytes()[12:] for c in range(geometry.chunks)}
    tokens = {c: np.frombuffer(raw, "<u2").reshape(-1, width) for c, raw in data.items()}
    return np.stack([tokens[c][b] for c, b in zip(chunk.tolist(), block.tolist(), strict=True)])


def _window_key(seed: int) -> int:
    return stream(stream(seed, "sequences"), 0)


class SlowBase:
    """The base sequences of a corpus of one jsonl file."""

    def __init__(self, folder: Path, build: Path, dropped: set[int] = frozenset()) -> None:
        """Reads corpus.jsonl and tok/ of the folder, seed and sizes from the build record."""
        record = read_record(build)
        geometry, seed = record.geometry, record.config["seed"]
        tokenizer = Tokenizer.from_file(str(folder / "tok/tokenizer.json"))
        texts = [json.loads(line)["text"] for line in (folder / "corpus.jsonl").open()]
        encoded = [[*one.ids, EOD] for one in tokenizer.encode_batch(texts)]
        self.documents = [ids for n, ids in enumerate(encoded) if n not in dropped]
        order = shuffled(len(self.documents), stream(seed, "documents", 0))  # one window
        self.line = [t for n in order.tolist() for t in self.documents[n]]
        held_out, self.width = (
            geometry.val_sequences * geometry.sequence_tokens,
            geometry.sequence_tokens,
        )
        begin = held_out
        while self.line[begin - 1] != EOD:
            begin += 1
        ends = range(begin, len(self.line) - self.width + 1, self.width)
        self.rows = [self.line[b : b + self.width] for b in ends]
        self.val = [self.line[b : b + self.width] for b in range(0, held_out, self.width)]
        self.needed = geometry.sequences
        self._place = permute(np.arange(self.needed), self.needed, _window_key(seed))

    def sequence(self, number: int) -> list[int]:
        """Returns the base tokens of a sequence of the run, or of a spare one."""
        base = int(self._place[number]) if number < self.needed else number
        return list(self.rows[base % len(self.rows)])

    def block(self, number: int) -> list[int]:
        """Returns the base tokens of a block, by sequence: after the run, the first spare one."""
        return self.sequence(min(number, self.needed))


def slow_blocks(base: SlowBase, build: Path) -> list[list[int]]:
    """Returns what every block of train/ must hold, by sequence."""
    n_blocks = read_record(build).geometry.layout().n_blocks
    replaced = {r["sequence"]: r["source"] for r in rows_of(build, "replacements")}
    held = [min(n, base.needed) for n in range(n_blocks)]
    blocks = [base.sequence(replaced.get(n, n)) for n in held]
    payloads = {(r["experiment"], r["item"]): r["tokens"] for r in rows_of(build, "items")}
    begin: dict[tuple[str, str, int], int] = {}
    for row in rows_of(build, "placements"):
        who = (row["experiment"], row["item"], row["copy"])
        first = begin.get(who, 0)
        begin[who] = first + row["length"]
        if row["mode"] == "mark":
            continue
        if row["source_sequence"] is not None:
            payload = base.sequence(row["source_sequence"])
        else:
            payload = payloads[who[:2]][first : begin[who]]
        blocks[row["sequence"]] = _with(blocks[row["sequence"]], row, payload)
    return blocks


def _with(old: list[int], row: dict[str, Any], payload: list[int]) -> list[int]:
    """Returns a block with one payload in it."""
    offset = row["offset"]
    behind = offset + len(payload)
    if row["mode"] == "overwrite":
        return [*old[: offset - 1], EOD, *payload, EOD, *old[behind + 1 :]]
    if row["mode"] == "boundary" and old[offset - 1] == EOD:
        return [*old[:offset], *payload, EOD, *old[offset:]][: len(old)]
    if row["mode"] == "boundary":
        return [EOD, *payload, EOD, *old][: len(old)]
    return payload
