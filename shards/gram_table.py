"""Where in many tokens one of many strings could begin, told from a few tokens in every stride.

Of every `stride` tokens one place is looked at. A table says at which of the first `stride` offsets
of the strings the 4 tokens there (2 or 1 when the shortest string has fewer) stand: so where
strings could begin; of these places those are kept where the first 4 tokens begin a string. The
stride is as long as the shortest string leaves room for (one of the places looked at lies in the
beginning of every occurrence), at most 32 and no more than keeps the table in the cache. Where it
stays as long with 8 tokens, they are looked at: thousands of strings have many a 4 tokens that
stand all over a text.

    strings [7 8 7 9 1]    stride 2: 7 8 7 9 at offset 0, 8 7 9 1 at offset 1
    tokens 5 7 8 7 9 1     looked at: 5 7 8 7, 8 7 9 1 -> the string could begin at 1

Price: about 11 ns for each place that is looked at (20 at a stride of 32), reading the tokens
included; a table of 16 to 32 places for each string and offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64, U64

HASH_BASE = 0x9E3779B97F4A7C15
"""what hashes are a polynomial in, modulo 2^64: odd, so that it has an inverse"""
_BASE = np.uint64(HASH_BASE)
_LYING_TOKENS = 4
"""of 16 bits are a number of 64 as they lie"""
_TOKEN_BITS = 16
"""that a token is shifted by in a gram, so that one of 16-bit tokens is their bytes as they lie"""
_STRIDES = {32: np.uint32, 16: np.uint16, 8: np.uint8}
"""the longest strides, each with what has a bit for each offset of a gram"""
_CACHED_BYTES = 1 << 22
"""how large a table may be for a stride above the least of these"""
_PLACE_MIX = np.uint64(0x94D049BB133111EB)
_PLACES_A_MARK = 16


@dataclass(frozen=True)
class Scratch:
    """What a search of one slice after another writes its intermediate numbers to.

    Attributes:
        places: uint64 of shape (n,), for each place that is looked at.
        offsets: of the table's type, likewise.
        any: bool, likewise.
    """

    places: U64
    offsets: Tokens
    any: NDArray[np.bool_]


class GramTable:
    """The grams of the strings' beginnings. Memory does not depend on what is searched."""

    def __init__(self, tokens: Tokens, begin: I64, shortest: int, n_distinct: int) -> None:
        """Marks the grams of the strings.

        Args:
            tokens: unsigned; what the strings lie in.
            begin: of each string in the tokens; at least one.
            shortest: tokens of the shortest one, at least 1.
            n_distinct: about how many strings begin otherwise than those before them.
        """
        self._gram, self.stride, self._kind = _chosen(shortest, n_distinct)
        self._bits = table_bits(self.stride * n_distinct)
        self._offsets = np.zeros(1 << self._bits, dtype=self._kind)
        for offset in range(self.stride):
            grams = hashes_at(tokens, begin + offset, self._gram)
            self._offsets[places_in(grams, self._bits)] |= self._kind(1 << offset)
        self._first_bits = table_bits(n_distinct)
        self._first = np.zeros(1 << self._first_bits, dtype=np.bool_)
        self._first[places_in(hashes_at(tokens, begin, self._gram), self._first_bits)] = True

    def scratch(self, n_begins: int) -> Scratch:
        """Returns what `possible` needs for up to so many tokens; not for two threads at once."""
        n = n_begins // self.stride + 2
        return Scratch(
            np.empty(n, dtype=np.uint64),
            np.empty(n, dtype=self._kind),
            np.empty(n, dtype=np.bool_),
        )

    def possible(self, part: Tokens, n_begins: int, scratch: Scratch) -> I64:
        """Returns where, among the first `n_begins` tokens, grams say that a string could begin.

        Each place once, in no order: int64.
        """
        row, offsets = self._rows(part[: n_begins + self.stride + self._gram - 2], scratch)
        width = offsets.itemsize * 8  # a power of two: a shift is faster than a division
        bit = np.flatnonzero(np.unpackbits(offsets.view(np.uint8), bitorder="little").view(bool))
        begin = row.take(bit >> (width.bit_length() - 1)) * self.stride - (bit & (width - 1))
        begin = begin[(begin >= 0) & (begin < n_begins)]
        first = places_in(hashes_at(part, begin, self._gram), self._first_bits)
        return np.asarray(begin[self._first.take(first, mode="clip")])

    def _rows(self, looked: Tokens, scratch: Scratch) -> tuple[I64, Tokens]:
        """Returns which of the places looked at have a gram of a string, and the bits of each."""
        first, *second = _grams(looked, self._gram, self.stride)
        n = len(first)
        places = np.multiply(first, _BASE if second else _PLACE_MIX, out=scratch.places[:n])
        for half in second:
            places += half
            places *= _PLACE_MIX
        places >>= np.uint64(64 - self._bits)
        offsets = self._offsets.take(places.view(np.int64), mode="clip", out=scratch.offsets[:n])
        row = np.flatnonzero(np.not_equal(offsets, 0, out=scratch.any[:n]))
        return row, np.asarray(offsets.take(row), dtype=offsets.dtype.newbyteorder("<"))


def _chosen(shortest: int, n_strings: int) -> tuple[int, int, type[np.unsignedinteger]]:
    """Returns (tokens that are looked at together, stride, the type with a bit for each offset).

    Eight tokens stand in a text by chance far more seldom than four: they are looked at where that
    does not make the stride shorter.
    """
    gram = power_of_two(min(shortest, _LYING_TOKENS))
    stride, kind = _longest_stride(shortest - gram + 1, n_strings)
    if shortest - 2 * _LYING_TOKENS + 1 >= stride:
        gram = 2 * _LYING_TOKENS
    return gram, stride, kind


def _longest_stride(most: int, n_strings: int) -> tuple[int, type[np.unsignedinteger]]:
    """Returns the stride, at most `most`, and the type with a bit for each offset below it."""
    for longest, kind in _STRIDES.items():
        stride = min(most, longest)
        size = np.dtype(kind).itemsize << table_bits(stride * n_strings)
        if size <= _CACHED_BYTES and stride > longest // 2:
            return stride, kind
    return min(most, min(_STRIDES)), _STRIDES[min(_STRIDES)]


def power_of_two(most: int) -> int:
    """Returns the largest power of two that is at most `most`; 0 has none, and gives 0."""
    return 1 << (most.bit_length() - 1) if most else 0


def table_bits(n_marks: int) -> int:
    """Returns the logarithm of how many places a table for so many marks has."""
    return min(26, max(12, (_PLACES_A_MARK * n_marks).bit_length()))


def places_in(hashes: U64, bits: int) -> I64:
    """Returns the place of each hash in a table of 2^bits: the upper bits of a product."""
    places = hashes * _PLACE_MIX
    places >>= np.uint64(64 - bits)
    return np.asarray(places.view(np.int64))


def _grams(tokens: Tokens, n: int, stride: int) -> list[U64]:
    """Returns the n tokens at 0, stride, 2 * stride, ...: their hashes, or in two halves.

    The hash of two halves is the first times HASH_BASE and the second.
    """
    count = max(0, (len(tokens) - n) // stride + 1)
    if n >= _LYING_TOKENS and _lie_as_grams(tokens):
        return [_lying(tokens, first, count, stride) for first in range(0, n, _LYING_TOKENS)]
    return [hashes_at(tokens, np.arange(count) * stride, n)]


def _lying(tokens: Tokens, first: int, count: int, stride: int) -> U64:
    """Returns the four tokens at first, first + stride, ... as a number each: uint64, a view."""
    steps = (stride * tokens.itemsize,)
    return np.asarray(np.ndarray(count, "<u8", tokens.data, first * tokens.itemsize, steps))


def _lie_as_grams(tokens: Tokens) -> bool:
    """Returns whether the bytes of four tokens, as they lie, are their gram."""
    return tokens.dtype == np.dtype("<u2") and tokens.flags.c_contiguous


def hashes_at(tokens: Tokens, begin: I64, n: int) -> U64:
    """Returns the hash of the n tokens (a power of two) from each of these on: uint64.

    It is a polynomial of the grams there; of a single gram, the gram.
    """
    gram = min(n, _LYING_TOKENS)
    lies = gram == _LYING_TOKENS and len(tokens) >= gram and _lie_as_grams(tokens)
    lying = _lying(tokens, 0, len(tokens) - gram + 1, 1) if lies else None
    hashes = np.zeros(len(begin), dtype=np.uint64)
    for first in range(0, n, gram):
        hashes *= _BASE
        if lying is not None:
            hashes += lying[begin + first]
            continue
        for place in range(gram):
            token = tokens[begin + (first + place)].astype(np.uint64)
            hashes += token << np.uint64(_TOKEN_BITS * place)
    return hashes
