"""Finds many token strings in many tokens, exactly, every occurrence.

A table of short grams (gram_table.py) says where a string could begin. There the hash of the first
16 tokens (8, 4, 2 or 1 for short strings), their anchor, is looked up. Only where it is that of an
anchor, the hash of the full length of each string with that anchor is looked up; where these
stretches are longer than the slice together, cumulative sums over it give the hash of each (a
rolling hash: Karp & Rabin, "Efficient randomized pattern-matching algorithms", IBM J. Res. Dev.
1987). What agrees there is compared token by token. So hashes only ever save work: nothing is
missed, and nothing is found that is not there.

    strings [7 8 7] [8 7]      tokens 7 8 7 8 7
    (0, 0) (1, 1) (0, 2) (1, 3)    as (string, where it begins)

Price: of one core, half a nanosecond a token for a thousand strings of 25 tokens that the text does
not resemble, 1.2 for 10,000 and 1.6 for a hundred thousand; 1.3 for a thousand strings of 8 tokens;
where they are cut out of the same text, 1.3 for a thousand and 4 for 30,000. 60 bytes a string
besides its tokens, tables of up to 64 MB each, 40 MB for the slice.
An automaton over the bytes (ahocorasick_rs 1.0.3) took 1.5 GB and 26 s to make for 100,000 strings
of 145 tokens, and then ran at 6 MB/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64, U64
from mixctl.shards.files import replacing
from mixctl.shards.gram_table import (
    HASH_BASE,
    GramTable,
    hashes_at,
    places_in,
    power_of_two,
    table_bits,
)

U32 = NDArray[np.uint32]

_BASE = HASH_BASE
_LENGTH_MIX = np.uint64(0xBF58476D1CE4E5B9)
_LONGEST_ANCHOR = 16
_SLICE_PLACES = 1 << 17
"""that are looked at before what was found there is compared"""
_SUM_TOKENS = 1 << 20
_BATCH_TOKENS = 1 << 16


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
    """Writes the strings as npz, all or nothing, and before it their tokens as npy beside it."""
    with replacing(_tokens_path(path)) as partial, partial.open("wb") as file:
        np.save(file, strings.tokens)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, begin=strings.begin, length=strings.length)


def load_patterns(path: Path) -> TokenStrings:
    """Returns the strings that `save_patterns` wrote; their tokens are mapped, one copy for all."""
    tokens = np.asarray(np.load(_tokens_path(path), mmap_mode="r"))
    with np.load(path) as saved:
        return TokenStrings(tokens, saved["begin"], saved["length"])


def _tokens_path(path: Path) -> Path:
    return path.with_suffix(".tokens.npy")


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
        self._anchor = power_of_two(min(self._shortest, _LONGEST_ANCHOR))
        self._summed = max(_SUM_TOKENS, self._longest)
        if len(self.strings):
            self._index_anchors()
            strings = self.strings
            n_distinct = len(self._anchors)
            self._grams = GramTable(strings.tokens, strings.begin, self._shortest, n_distinct)
            self._slice = max(_SLICE_PLACES * self._grams.stride, self._longest)

    @cached_property
    def _powers(self) -> U64:
        """Returns what the tokens of a string are multiplied with."""
        return _powers(_BASE, self._longest)

    @cached_property
    def _sum_powers(self) -> U64:
        """Returns what tokens that are summed up are multiplied with."""
        return _powers(_BASE, self._summed + self._longest)

    @cached_property
    def _inverse(self) -> U64:
        """Returns what makes the hash of a stretch independent of where it begins."""
        return np.asarray(_powers(pow(_BASE, -1, 2**64), self._summed) * np.uint64(_BASE))

    @cached_property
    def _by_full(self) -> tuple[U64, I64]:
        """Returns the sorted hashes of the whole strings, and their strings."""
        strings = self.strings
        full = self._hashes(strings.tokens, strings.begin, strings.length)
        full = _with_length(full, strings.length)
        order = np.argsort(full, kind="stable")
        return full[order], order

    def _index_anchors(self) -> None:
        """Keeps the distinct anchors, the lengths of the strings of each, and a table of marks."""
        anchors = hashes_at(self.strings.tokens, self.strings.begin, self._anchor)
        order = np.lexsort((self.strings.length, anchors))
        anchor, length = anchors[order], self.strings.length[order]
        fresh = _changes(anchor) | _changes(length)
        anchor, self._lengths = anchor[fresh], length[fresh]
        self._first = np.flatnonzero(_changes(anchor))
        self._anchors = anchor[self._first]
        self._n_lengths = np.diff(np.append(self._first, len(anchor)))
        self._anchor_bits = table_bits(len(self._anchors))
        self._marked = np.zeros(1 << self._anchor_bits, dtype=np.bool_)
        self._marked[places_in(self._anchors, self._anchor_bits)] = True

    def _hashes(self, tokens: Tokens, begin: I64, length: I64) -> U64:
        """Returns the hash of each stretch of the tokens, which are multiplied one by one."""
        hashes = np.empty(len(begin), dtype=np.uint64)
        size = max(1, _BATCH_TOKENS // int(length.max(initial=1)))
        for at in range(0, len(hashes), size):
            part = slice(at, at + size)
            _, index = expand(begin[part], length[part])
            _, place = expand(np.zeros_like(length[part]), length[part])
            terms = tokens[index] * self._powers[place]
            ends = np.cumsum(length[part])
            hashes[part] = np.add.reduceat(terms, ends - length[part])
        return hashes

    def _stretch_hashes(self, part: Tokens, begin: I64, length: I64) -> U64:
        """Returns the same of stretches of a slice; where they are many, out of sums over it."""
        if length.sum() < len(part):
            return self._hashes(part, begin, length)
        hashes = np.empty(len(begin), dtype=np.uint64)
        for at in range(0, len(part), self._summed):
            mine = np.flatnonzero((begin >= at) & (begin < at + self._summed))
            terms = part[at : at + self._summed + self._longest]
            terms = terms * self._sum_powers[: len(terms)]
            total = np.zeros(len(terms) + 1, dtype=np.uint64)
            np.cumsum(terms, out=total[1:])
            first = begin[mine] - at
            hashes[mine] = (total[first + length[mine]] - total[first]) * self._inverse[first]
        return hashes

    def find(self, tokens: Tokens) -> tuple[I64, I64]:
        """Returns (string, begin) of every occurrence, sorted by begin, then string: int64.

        Args:
            tokens: one line of tokens of any unsigned type, in memory or mapped.
        """
        found = [np.empty((2, 0), dtype=np.int64)]
        n_begins = len(tokens) - self._shortest + 1 if len(self.strings) else 0
        if n_begins <= 0:
            return found[0][0], found[0][1]
        scratch = self._grams.scratch(min(n_begins, self._slice))
        for at in range(0, n_begins, self._slice):
            part = np.asarray(tokens[at : at + self._slice + self._longest - 1])
            begin = self._grams.possible(part, min(self._slice, n_begins - at), scratch)
            string, begin = self._beginning(part, begin)
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

    def _beginning(self, part: Tokens, begin: I64) -> tuple[I64, I64]:
        """Returns (string, begin) of what begins at these tokens of the slice."""
        anchor = hashes_at(part, begin, self._anchor)
        marked = self._marked[places_in(anchor, self._anchor_bits)]
        begin, anchor = begin[marked], anchor[marked]
        group = np.searchsorted(self._anchors, anchor)
        group = np.minimum(group, len(self._anchors) - 1)
        same = self._anchors[group] == anchor
        return self._of_anchor(part, begin[same], group[same])

    def _of_anchor(self, part: Tokens, begin: I64, group: I64) -> tuple[I64, I64]:
        """Returns (string, begin) of the strings whose anchor was found."""
        if len(begin) == 0:
            return begin, group
        row, index = expand(self._first[group], self._n_lengths[group])
        begin, length = begin[row], self._lengths[index]
        fits = begin + length <= len(part)
        begin, length = begin[fits], length[fits]
        full = _with_length(self._stretch_hashes(part, begin, length), length)
        known, string = self._by_full
        first = np.searchsorted(known, full, side="left")
        count = np.searchsorted(known, full, side="right") - first
        row, index = expand(first, count)
        return self._equal(part, string[index], begin[row])

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


def _powers(base: int, n: int) -> U64:
    """Returns base^1, base^2, ... modulo 2^64: uint64 of shape (n,)."""
    return np.cumprod(np.full(n, base, dtype=np.uint64), dtype=np.uint64)


def _with_length(hashes: U64, length: I64) -> U64:
    """Returns the hashes, made to differ by length as well."""
    return np.asarray(hashes + length.astype(np.uint64) * _LENGTH_MIX, dtype=np.uint64)
