"""A trigram model with back-off, fitted on documents of token ids.

The estimate of each order is drawn towards that of the next lower one, by a fixed number of
imagined observations (MacKay & Peto, "A hierarchical Dirichlet language model", 1995):

    p(c)      = (n(c) + 1) / (N + V)
    p(c|b)    = (n(b c) + m p(c)) / (n(b .) + m)
    p(c|a b)  = (n(a b c) + m p(c|b)) / (n(a b .) + m)

`gone` takes one occurrence out of the counts, so that a document that the model was fitted on is
judged by what the others say, not by itself.

    fit([[1, 2, 3], [1, 2, 4]], 5).log_p(1, 2, 3)  ->  log p(3 | 1 2)

Price: fitting sorts the n-grams once (about 1 s for 3 million tokens); a probability is three
look-ups in sorted arrays, about 0.5 microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.shards.draws import I64

F64 = NDArray[np.float64]
NOTHING = -1
"""stands for a token that is not there"""
_NEVER = -2
IMAGINED = 2.0
"""imagined observations that speak for the lower order"""


@dataclass(frozen=True)
class Counts:
    """Sorted keys with their counts."""

    keys: I64
    counts: I64

    def index(self, wanted: I64) -> I64:
        """Returns the place of each key, NOTHING where it was never seen."""
        if not len(self.keys):
            return np.full(np.shape(wanted), NOTHING, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, places, NOTHING)

    def of(self, wanted: I64) -> I64:
        """Returns the count of each key, 0 where it was never seen."""
        return at(self.counts, self.index(wanted))


def at(values: I64, places: I64) -> I64:
    """Returns the value at each place, 0 where the place is NOTHING."""
    if not len(values):
        return np.zeros(np.shape(places), dtype=np.int64)
    return np.where(places == NOTHING, 0, values[np.maximum(places, 0)])


@dataclass(frozen=True)
class NgramModel:
    """The counts, and the most frequent neighbours: tables padded with NOTHING."""

    vocab_size: int
    n_tokens: int
    ones: I64
    twos: Counts
    threes: Counts
    two_totals: I64
    """of each token, how often something follows it"""
    three_totals: I64
    """of each pair (in the order of `twos`), how often something follows it"""
    followers: I64
    """of each token, what most often follows it"""
    predecessors: I64
    """of each token, what most often stands before it"""
    pair_followers: I64
    """of each pair (in the order of `twos`), what most often follows it"""

    def pair(self, first: I64, second: I64) -> I64:
        """Returns the place of each pair in `twos`; NOTHING where unseen or where there is none."""
        places = self.twos.index(first * self.vocab_size + second)
        return np.where(first == NOTHING, NOTHING, places)

    def log_p(self, a: I64, b: I64, c: I64, gone: tuple[I64, I64, I64] | None = None) -> F64:
        """Returns log p(c | a b), broadcast; a is NOTHING at the front of a document.

        Args:
            a: the token before the last.
            b: the last token.
            c: the token to judge.
            gone: an occurrence (a, b, c) of the fitted documents to take out of the counts.
        """
        ga, gb, gc = (_NEVER, _NEVER, _NEVER) if gone is None else gone
        one, two_before = c == gc, b == gb
        three_before = two_before & (a == ga) & (np.asarray(a) != NOTHING)
        n = self.n_tokens - (gone is not None)
        p = (at(self.ones, c) - one + 1) / (n + self.vocab_size)
        seen = self.twos.of(b * self.vocab_size + c) - (two_before & one)
        p = (seen + IMAGINED * p) / (at(self.two_totals, b) - two_before + IMAGINED)
        pairs = self.pair(a, b)
        tri = np.where(pairs == NOTHING, 0, self.threes.of(pairs * self.vocab_size + c))
        total = at(self.three_totals, pairs) - three_before
        p = (tri - (three_before & one) + IMAGINED * p) / (total + IMAGINED)
        return np.asarray(np.log(p), dtype=np.float64)


def fit(
    documents: Sequence[NDArray[np.integer]], vocab_size: int, neighbours: int = 16
) -> NgramModel:
    """Returns the model of the documents; n-grams do not reach over their ends."""
    text = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in documents])
    owner = np.repeat(np.arange(len(documents)), [len(ids) for ids in documents])
    two = owner[1:] == owner[:-1]
    a, b = text[:-1][two], text[1:][two]
    twos = _counted(a * vocab_size + b)
    three = owner[2:] == owner[:-2]
    pairs = twos.index(text[:-2] * vocab_size + text[1:-1])[three]
    threes = _counted(pairs * vocab_size + text[2:][three])
    first, second = twos.keys // vocab_size, twos.keys % vocab_size
    return NgramModel(
        vocab_size=vocab_size,
        n_tokens=len(text),
        ones=np.bincount(text, minlength=vocab_size),
        twos=twos,
        threes=threes,
        two_totals=np.bincount(a, minlength=vocab_size),
        three_totals=np.bincount(pairs, minlength=len(twos.keys)),
        followers=_neighbours(first, second, twos.counts, vocab_size, neighbours),
        predecessors=_neighbours(second, first, twos.counts, vocab_size, neighbours),
        pair_followers=_neighbours(
            threes.keys // vocab_size,
            threes.keys % vocab_size,
            threes.counts,
            len(twos.keys),
            neighbours // 2,
        ),
    )


def _counted(keys: I64) -> Counts:
    return Counts(*np.unique(keys, return_counts=True))


def _neighbours(of: I64, others: I64, counts: I64, n: int, most: int) -> I64:
    """Returns the `most` most frequent others of each token, padded with NOTHING."""
    order = np.lexsort((others, -counts, of))
    of, others = of[order], others[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    table = np.full((n, most), NOTHING, dtype=np.int64)
    kept = rank < most
    table[of[kept], rank[kept]] = others[kept]
    return table
