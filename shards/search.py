"""Finds many token strings in many tokens, exactly, every occurrence.

Rolling hash (Karp & Rabin, "Efficient randomized pattern-matching algorithms", IBM J. Res. Dev.
1987). The first 16 tokens of a string (8, 4, 2 or 1 when the shortest string has fewer) are its
anchor. From the hashes of every two tokens follow those of every four, and so on: four steps of 32
bits give the hash of every 16. Only where it is that of an anchor, one cumulative sum over the
slice gives the hash of any stretch of it, which is looked up at the full length of each string with
that anchor; and what agrees there is compared token by token. So hashes only ever save work:
nothing is missed, and nothing is found that is not there.

    strings [7 8 7] [8 7]      tokens 7 8 7 8 7
    (0, 0) (1, 1) (0, 2) (1, 3)    as (string, where it begins)

Price: of one core, 5 ns a token for a thousand strings, 11 for a hundred thousand and 25 for a
million (their table of marks leaves the cache), 60 bytes a string besides its tokens, 10 MB for the
slice.
An automaton over the bytes (ahocorasick_rs 1.0.3) took 1.5 GB and 26 s to make for 100,000 strings
of 145 tokens, and then ran at 6 MB/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixctl.shards.draws import I64, U64
from mixctl.shards.files import replacing

U32 = NDArray[np.uint32]
Tokens = NDArray[np.unsignedinteger]

_BASE = 0x9E3779B97F4A7C15
"""what the hash is a polynomial in, modulo 2^64: odd, so that it has an inverse"""
_BASE32 = 0x9E3779B1
"""the same for anchors, modulo 2^32"""
_LENGTH_MIX = np.uint64(0xBF58476D1CE4E5B9)
_LONGEST_ANCHOR = 16
_SLICE_TOKENS = 1 << 16
_BATCH_TOKENS = 1 << 20


@dataclass(frozen=True)
class TokenStrings:
    """Token strings as stretches of one array; stretches may overlap, so that parts cost nothing.

    Attributes:
        tokens: uint32.
        begin: of each string in `tokens`; int64.
        length: of each string, at least 1; int64.
    """

    tokens: U32
    begin: I64
    length: I64

    def __len__(self) -> int:
        """Returns the number of strings."""
        return len(self.begin)

    def __getitem__(self, number: int) -> U32:
        """Returns the tokens of one string."""
        begin = int(self.begin[number])
        return self.tokens[begin : begin + int(self.length[number])]


def token_strings(strings: Sequence[Tokens]) -> TokenStrings:
    """Returns the strings laid end to end.

    Raises:
        ValueError: when one is empty: it would be found everywhere.
    """
    length = np.array([len(one) for one in strings], dtype=np.int64)
    if (length == 0).any():
        raise ValueError(f"string {int(np.flatnonzero(length == 0)[0])} is empty")
    tokens = np.concatenate([np.empty(0, dtype=np.uint32), *strings]).astype(np.uint32)
    return TokenStrings(tokens, np.cumsum(length) - length, length)


def save_patterns(strings: TokenStrings, path: Path) -> None:
    """Writes the strings as npz, all or nothing."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, tokens=strings.tokens, begin=strings.begin, length=strings.length)


def load_patterns(path: Path) -> TokenStrings:
    """Returns the strings that `save_patterns` wrote."""
    with np.load(path) as saved:
        return TokenStrings(saved["tokens"], saved["begin"], saved["length"])


class TokenSearch:
    """The strings, made ready to be found. Memory does not depend on what is searched."""

    def __init__(self, strings: TokenStrings | Sequence[Tokens]) -> None:
        """Hashes the strings; equal ones are all found.

        Raises:
            ValueError: when one is empty.
        """
        self.strings = (
            strings if isinstance(strings, TokenStrings) else token_strings(list(strings))
        )
        length = self.strings.length
        self._shortest = int(length.min(initial=np.iinfo(np.int64).max))
        self._longest = int(length.max(initial=0))
        self._anchor = 1 << (min(self._shortest, _LONGEST_ANCHOR).bit_length() - 1)
        self._slice = max(_SLICE_TOKENS, self._longest)
        if len(self.strings) == 0:
            return
        self._powers = _powers(_BASE, self._slice + self._longest)
        self._inverse = _powers(pow(_BASE, -1, 2**64), self._slice) * np.uint64(_BASE)
        self._index_full()
        self._index_anchors()

    def _index_full(self) -> None:
        """Sorts the strings by the hash of the whole."""
        full = _with_length(self._hashes(self.strings.length), self.strings.length)
        self._by_full = np.argsort(full, kind="stable")
        self._full = full[self._by_full]

    def _index_anchors(self) -> None:
        """Keeps the distinct anchors, the lengths of the strings of each, and a table of marks."""
        anchors = self._anchor_hashes()
        order = np.lexsort((self.strings.length, anchors))
        anchor, length = anchors[order], self.strings.length[order]
        fresh = _changes(anchor) | _changes(length)
        anchor, self._lengths = anchor[fresh], length[fresh]
        self._first = np.flatnonzero(_changes(anchor))
        self._anchors = anchor[self._first]
        self._n_lengths = np.diff(np.append(self._first, len(anchor)))
        bits = min(26, max(12, (64 * len(self._anchors)).bit_length()))
        self._shift = np.uint32(32 - bits)
        self._marked = np.zeros(1 << bits, dtype=np.bool_)
        self._marked[self._anchors >> self._shift] = True

    def _anchor_hashes(self) -> U32:
        """Returns the hash of each string's anchor: uint32."""
        hashes = np.empty(len(self.strings), dtype=np.uint32)
        size = max(1, _BATCH_TOKENS // self._anchor)
        for at in range(0, len(hashes), size):
            index = self.strings.begin[at : at + size, None] + np.arange(self._anchor)
            hashes[at : at + size] = _rolled(self.strings.tokens[index], self._anchor)[:, 0]
        return hashes

    def _hashes(self, length: I64) -> U64:
        """Returns the hash of the first `length` tokens of each string: uint64."""
        hashes = np.empty(len(self.strings), dtype=np.uint64)
        size = max(1, _BATCH_TOKENS // int(length.max()))
        for at in range(0, len(hashes), size):
            part = slice(at, at + size)
            _, index = expand(self.strings.begin[part], length[part])
            _, place = expand(np.zeros_like(length[part]), length[part])
            terms = self.strings.tokens[index] * self._powers[place]
            ends = np.cumsum(length[part])
            hashes[part] = np.add.reduceat(terms, ends - length[part])
        return hashes

    def find(self, tokens: Tokens) -> tuple[I64, I64]:
        """Returns (string, begin) of every occurrence, sorted by begin, then string: int64.

        Args:
            tokens: one line of tokens of any unsigned type, in memory or mapped.
        """
        found = [np.empty((2, 0), dtype=np.int64)]
        n_begins = len(tokens) - self._shortest + 1 if len(self.strings) else 0
        for at in range(0, n_begins, self._slice):
            part = np.asarray(tokens[at : at + self._slice + self._longest - 1])
            string, begin = self._in_slice(part, min(self._slice, n_begins - at))
            order = np.lexsort((string, begin))
            found.append(np.stack([string[order], begin[order] + at]))
        string, begin = np.concatenate(found, axis=1)
        return string, begin

    def count_inside(self, blocks: Tokens) -> int:
        """Returns how often strings occur in the rows of blocks, each within one row.

        Args:
            blocks: shape (n, tokens of a row).
        """
        string, begin = self.find(np.ascontiguousarray(blocks).reshape(-1))
        last = begin + self.strings.length[string] - 1
        return int((begin // blocks.shape[1] == last // blocks.shape[1]).sum())

    def _in_slice(self, part: Tokens, n_begins: int) -> tuple[I64, I64]:
        """Returns (string, begin) of what begins at the first `n_begins` tokens of the slice."""
        anchor = _rolled(part[: n_begins + self._anchor - 1], self._anchor)
        begin = np.flatnonzero(self._marked[anchor >> self._shift])
        group = np.searchsorted(self._anchors, anchor[begin])
        group = np.minimum(group, len(self._anchors) - 1)
        same = self._anchors[group] == anchor[begin]
        return self._of_anchor(part, begin[same], group[same])

    def _of_anchor(self, part: Tokens, begin: I64, group: I64) -> tuple[I64, I64]:
        """Returns (string, begin) of the strings whose anchor was found."""
        if len(begin) == 0:
            return begin, group
        total = np.zeros(len(part) + 1, dtype=np.uint64)
        np.cumsum(part * self._powers[: len(part)], out=total[1:])
        row, index = expand(self._first[group], self._n_lengths[group])
        begin, length = begin[row], self._lengths[index]
        fits = begin + length <= len(part)
        begin, length = begin[fits], length[fits]
        full = (total[begin + length] - total[begin]) * self._inverse[begin]
        full = _with_length(full, length)
        first = np.searchsorted(self._full, full, side="left")
        count = np.searchsorted(self._full, full, side="right") - first
        row, index = expand(first, count)
        return self._equal(part, self._by_full[index], begin[row])

    def _equal(self, part: Tokens, string: I64, begin: I64) -> tuple[I64, I64]:
        """Returns those (string, begin) at which the tokens are the string's."""
        equal = np.zeros(len(string), dtype=np.bool_)
        size = max(1, _BATCH_TOKENS // self._longest)
        for at in range(0, len(string), size):
            some = string[at : at + size]
            length = self.strings.length[some]
            _, here = expand(begin[at : at + size], length)
            _, there = expand(self.strings.begin[some], length)
            same = part[here] == self.strings.tokens[there]
            equal[at : at + size] = np.logical_and.reduceat(same, np.cumsum(length) - length)
        return string[equal], begin[equal]


def expand(first: I64, count: I64) -> tuple[I64, I64]:
    """Returns (row, index) of first[row], first[row] + 1, ..., count[row] of them for each row."""
    row = np.repeat(np.arange(len(count)), count)
    shift = np.asarray(first, dtype=np.int64) - (np.cumsum(count) - count)
    return row, np.arange(len(row)) + shift[row]


def _changes(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Returns where a value differs from the one before it; the first does."""
    fresh = np.ones(len(values), dtype=np.bool_)
    fresh[1:] = values[1:] != values[:-1]
    return fresh


def _rolled(tokens: Tokens, n: int) -> U32:
    """Returns the hash of the n tokens (a power of two) from each on, along the last axis."""
    hashes, done, factor = tokens.astype(np.uint32), 1, _BASE32
    while done < n:
        first = hashes[..., :-done] * np.uint32(factor)
        first += hashes[..., done:]
        hashes, done, factor = first, 2 * done, factor * factor % 2**32
    return hashes


def _powers(base: int, n: int) -> U64:
    """Returns base^1, base^2, ... modulo 2^64: uint64 of shape (n,)."""
    return np.cumprod(np.full(n, base, dtype=np.uint64), dtype=np.uint64)


def _with_length(hashes: U64, length: I64) -> U64:
    """Returns the hashes, made to differ by length as well."""
    return np.asarray(hashes + length.astype(np.uint64) * _LENGTH_MIX, dtype=np.uint64)
