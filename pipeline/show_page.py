"""show.html: placements to browse by experiment, item, step and chunk, decoded, the payload marked.

One file, no network. Every placement stands in the page as text, so it reads without a script too;
the one script that the page's policy allows, by its digest, only hides and sorts.

Of a build with more placements than `limit` each experiment has its share, taken evenly over its
rows (so over its items and copies): 3 experiments of 10, 500 and 90,000 rows and a limit of 400
give 10, 195 and 195. The page says so, and what narrows the choice.

Price: a kilobyte or two a placement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.injections.encode import Encoder, load_encoder
from mixctl.pipeline.page import template
from mixctl.pipeline.show import Choice, chosen_rows, sequence_of
from mixctl.shards.draws import I64
from mixctl.shards.files import write_text
from mixctl.shards.record import BuildRecord, read_record

CONTEXT_TOKENS = 48
PAYLOAD_TOKENS = 256
"""of a longer payload the middle is left out"""


@dataclass(frozen=True)
class Excerpt:
    """A placement with some of the text around it.

    Attributes:
        row: of placements.parquet.
        before, payload, after: decoded.
        n_before, n_left_out, n_after: tokens that are not shown: before, inside, after.
    """

    row: dict[str, object]
    before: str
    payload: str
    after: str
    n_before: int
    n_left_out: int
    n_after: int


def write_show_page(build: Path, choice: Choice, limit: int, path: Path) -> tuple[int, int]:
    """Returns (placements on the page, placements of the choice), after writing the page.

    Raises:
        InputError: when the folder is no build, or it has no such experiment, item, step or chunk.
    """
    record = read_record(build)
    rows = chosen_rows(build, record, choice)
    some = rows.take(pa.array(spread(experiment_sizes(rows), limit)))
    encoder = load_encoder(build / "tokenizer", eod=record.tokenizer.eod)
    excerpts = [_excerpt(build, record, row, encoder) for row in some.to_pylist()]
    write_text(path, render(build, record, choice, excerpts, rows.num_rows))
    return len(excerpts), rows.num_rows


def experiment_sizes(rows: pa.Table) -> list[int]:
    """Returns the rows of each experiment, in the table's order, which is by experiment."""
    counts = rows["experiment"].value_counts().to_pylist() if rows.num_rows else []
    return [entry["counts"] for entry in counts]


def spread(sizes: Sequence[int], limit: int) -> I64:
    """Returns which rows are shown, int64, sorted: every group's share of `limit`, evenly spread.

    Args:
        sizes: the rows of each group; groups lie one behind the other.
        limit: rows in all, at most; but each group has one at least.
    """
    shares = _shares(sizes, limit)
    begins = np.cumsum([0, *sizes])[:-1]
    rows = [
        begin + np.arange(n) * size // n
        for begin, size, n in zip(begins.tolist(), sizes, shares, strict=True)
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *rows]).astype(np.int64)


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Returns how many rows of each group are shown; small groups leave the rest to the large."""
    shares, left = [0] * len(sizes), limit
    waiting = sorted(range(len(sizes)), key=lambda n: sizes[n])
    for place, n in enumerate(waiting):
        shares[n] = max(1, min(sizes[n], left // (len(sizes) - place)))
        left -= shares[n]
    return shares


def render(
    build: Path, record: BuildRecord, choice: Choice, excerpts: Sequence[Excerpt], n_all: int
) -> str:
    """Returns the HTML of the page."""
    rows = [excerpt.row for excerpt in excerpts]
    return template("show.html.j2").render(
        build=str(build),
        geometry=record.geometry,
        choice=choice,
        excerpts=excerpts,
        n_all=n_all,
        experiments=list(dict.fromkeys(row["experiment"] for row in rows)),
        arms=sorted({str(row["arm"]) for row in rows}),
        chunks=sorted({str(row["chunk"]) for row in rows}),
    )


def _excerpt(build: Path, record: BuildRecord, row: dict[str, object], encoder: Encoder) -> Excerpt:
    tokens = sequence_of(build, record, row)
    begin = int(str(row["offset"]))
    end = begin + int(str(row["length"]))
    first, last = max(0, begin - CONTEXT_TOKENS), min(len(tokens), end + CONTEXT_TOKENS)
    payload, n_left_out = _shortened(tokens[begin:end], encoder)
    return Excerpt(
        row=row,
        before=encoder.decode(tokens[first:begin]),
        payload=payload,
        after=encoder.decode(tokens[end:last]),
        n_before=first,
        n_left_out=n_left_out,
        n_after=len(tokens) - last,
    )


def _shortened(payload: np.ndarray, encoder: Encoder) -> tuple[str, int]:
    """Returns (the text of a payload, its middle left out where it is long; tokens left out)."""
    if len(payload) <= PAYLOAD_TOKENS:
        return encoder.decode(payload), 0
    half = PAYLOAD_TOKENS // 2
    n_left_out = len(payload) - 2 * half
    head, tail = encoder.decode(payload[:half]), encoder.decode(payload[-half:])
    return f"{head} … {n_left_out} tokens … {tail}", n_left_out
