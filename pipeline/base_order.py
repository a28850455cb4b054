"""The order of the base documents: a seeded shuffle that reads the token files in long stretches.

Documents as they are stored, over all token files, are cut into strips of about 131,072 tokens.
With more strips than a window has (1,024, about 134 million tokens), consecutive strips form
segments, as long as there are windows, and every window takes one strip of each segment, drawn. So
a window is a stratified sample of the whole corpus. Inside a window the documents are put into
random order, all of them; the line is window after window.

    stored      A B | C D | E F | G H | I J | K L       6 strips of two documents
    3 windows   segments (AB CD EF) (GH IJ KL)
    window 0    CD and GH    ->  G D H C
    line        G D H C | A J I B | F K E L

A corpus of up to one window is shuffled uniformly. A larger one needs no small reads: a window is
read as 1,024 stretches of about 256 KiB, in the order of the files, and lies in the page cache
while its sequences are written. The order depends on the documents' lengths and the seed, not on
how documents are dealt to token files. How well it shuffles is measured in docs/how-it-works.md.

Price: the lengths are read twice; three int64 a document on disk (`OrderTables`), written once and
mapped by everybody; memory of one window's documents.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixctl.pipeline.mapped import map_array, new_array, release
from mixctl.shards.draws import I64, bits, shuffled, stream
from mixctl.shards.files import sync
from mixctl.shards.search import expand

STRIP_TOKENS = 1 << 17
WINDOW_STRIPS = 1 << 10
_BATCH_DOCUMENTS = 1 << 20
_TABLES = ("ends", "begin", "place", "window_ends", "strips", "first_strip")


@dataclass(frozen=True)
class OrderTables:
    """The order of the documents, mapped from files; int64 arrays.

    Attributes:
        ends: on the line, of the document at each place.
        begin: the stored token, counted over all files, at which the document at each place begins.
        place: of each document by its number, counted over all files; -1 for one that is dropped.
        window_ends: on the line, of each window.
        strips: shape (n, 2), stored tokens from and to, of each strip; window by window, ascending.
        first_strip: of each window in `strips`, and one more.
    """

    ends: I64
    begin: I64
    place: I64
    window_ends: I64
    strips: I64
    first_strip: I64


def open_order(folder: Path) -> OrderTables:
    """Returns the tables that `write_order` wrote, mapped into memory."""
    return OrderTables(*(map_array(folder / f"{name}.npy") for name in _TABLES))


def write_order(
    lengths: Sequence[Path],
    dropped: Path | None,
    seed: int,
    folder: Path,
    strip_tokens: int = STRIP_TOKENS,
    window_strips: int = WINDOW_STRIPS,
) -> None:
    """Writes the tables of the order into a new folder, all or nothing; an old one stays.

    Args:
        lengths: a file for each token file, the tokens of its documents (int64).
        dropped: a file with the numbers of documents that are left out (int64, sorted).
        seed: of the mix.
        folder: where the tables go.
        strip_tokens: tokens of a strip.
        window_strips: strips of a window.
    """
    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    stored = _Stored([map_array(path) for path in lengths])
    first, begin = stored.strips(strip_tokens)
    windows = strip_windows(len(first), window_strips, seed)
    left_out = np.empty(0, np.int64) if dropped is None else map_array(dropped)
    _write_documents(stored, first, begin, windows, left_out, seed, partial)
    _write_strips(stored, begin, windows, partial)
    for path in (*partial.iterdir(), partial):
        sync(path)
    os.replace(partial, folder)
    sync(folder.parent)


def strip_windows(n_strips: int, window_strips: int, seed: int) -> list[I64]:
    """Returns the strips of each window, ascending: one of each segment, drawn."""
    n_windows = -(-n_strips // window_strips)
    if n_windows <= 1:
        return [np.arange(n_strips)] * n_windows
    segment = np.arange(-(-n_strips // n_windows))
    keys = bits(stream(seed, "strips"), segment)
    turn = np.argsort(bits(keys[:, None], np.arange(n_windows)), axis=1, kind="stable")
    strips = segment[:, None] * n_windows + turn
    return [column[column < n_strips] for column in strips.T]


class _Stored:
    """The lengths of all stored documents, over all files."""

    def __init__(self, lengths: Sequence[I64]) -> None:
        self.mapped = lengths
        self.first = np.cumsum([0, *(len(one) for one in lengths)])
        self.n_tokens = 0

    def strips(self, strip_tokens: int) -> tuple[I64, I64]:
        """Returns (first document, first token) of each strip that a document begins in."""
        firsts, begins, last = [np.empty(0, np.int64)], [np.empty(0, np.int64)], -1
        n_documents = int(self.first[-1])
        for at in range(0, n_documents, _BATCH_DOCUMENTS):
            length = self.lengths(at, min(at + _BATCH_DOCUMENTS, n_documents))
            begin = self.n_tokens + np.cumsum(length) - length
            strip = begin // strip_tokens
            fresh = np.flatnonzero(np.diff(strip, prepend=last))
            firsts.append(at + fresh)
            begins.append(begin[fresh])
            self.n_tokens, last = int(begin[-1] + length[-1]), int(strip[-1])
        return np.concatenate(firsts), np.concatenate(begins)

    def lengths(self, first: int, stop: int) -> I64:
        """Returns the tokens of documents first <= number < stop."""
        low = int(np.searchsorted(self.first, first, side="right")) - 1
        parts = [np.empty(0, np.int64)]
        while first < stop:
            end = min(stop, int(self.first[low + 1]))
            parts.append(self.mapped[low][first - self.first[low] : end - self.first[low]])
            first, low = end, low + 1
        return np.concatenate(parts)


def _write_documents(
    stored: _Stored,
    first: I64,
    begin: I64,
    windows: list[I64],
    left_out: I64,
    seed: int,
    folder: Path,
) -> None:
    """Writes ends, begin and place of the documents, and where the windows end on the line."""
    n_stored = int(stored.first[-1])
    n_kept = n_stored - len(left_out)
    ends, begins = new_array(folder / "ends.npy", n_kept), new_array(folder / "begin.npy", n_kept)
    place = new_array(folder / "place.npy", n_stored)
    place[:] = -1
    behind = np.append(first[1:], n_stored)
    at, line, window_ends = 0, 0, []
    for window, strips in enumerate(windows):
        spans = list(zip(first[strips].tolist(), behind[strips].tolist(), strict=True))
        length = np.concatenate([stored.lengths(*span) for span in spans])
        row, number = expand(first[strips], behind[strips] - first[strips])
        token = np.cumsum(length) - length
        token += (begin[strips] - token[np.flatnonzero(np.diff(row, prepend=-1))])[row]
        number, length, token = _without(left_out, number, length, token)
        order = shuffled(len(number), stream(seed, "documents", window))
        there = slice(at, at + len(number))
        ends[there] = line + np.cumsum(length[order])
        begins[there] = token[order]
        place[number[order]] = np.arange(at, at + len(number))
        at, line = at + len(number), line + int(length.sum())
        window_ends.append(line)
        release((ends, begins, place, *stored.mapped))
    np.save(folder / "window_ends.npy", np.array(window_ends, dtype=np.int64))


def _without(left_out: I64, number: I64, *columns: I64) -> tuple[I64, ...]:
    """Returns number and columns without the rows of numbers that are left out (sorted)."""
    if not len(left_out):
        return number, *columns
    found = np.minimum(np.searchsorted(left_out, number), len(left_out) - 1)
    kept = left_out[found] != number
    return tuple(column[kept] for column in (number, *columns))


def _write_strips(stored: _Stored, begin: I64, windows: list[I64], folder: Path) -> None:
    """Writes the stored tokens of each strip, window by window."""
    spans = np.stack([begin, np.append(begin[1:], stored.n_tokens)[: len(begin)]], axis=1)
    order = np.concatenate([np.empty(0, np.int64), *windows])
    np.save(folder / "strips.npy", spans[order])
    first = np.cumsum([0, *(len(window) for window in windows)], dtype=np.int64)
    np.save(folder / "first_strip.npy", first)
