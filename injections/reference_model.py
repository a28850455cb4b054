"""Which tokens are rare, and which are least likely after another, in the documents themselves.

There is no outside model. The reference is a bigram model of the item file's own documents,
smoothed by its unigram:

    p(b | a) = (n(a b) + q(b)) / (n(a) + 1),        q(b) = (n(b) + 1) / (tokens + vocabulary)

Since q < 1, every b that never follows a is less likely than any that does, and among those the one
seen least is the least likely. Ties (most often all tokens that are never seen) are broken by the
item's own draw: the first that serves, from a drawn place on.

Price: one pass over the documents. Pairs are kept only where the second token is among the 4,096
least seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.base import TokenIds
from mixctl.shards.draws import I64

FEWEST_RARE = 100
"""never-seen tokens are rare; where there are fewer of them than this, so many least-seen ones"""
_KEPT = 4096
_BATCH = 1000


@dataclass(frozen=True)
class ReferenceModel:
    """The least-seen ordinary tokens of some documents.

    Attributes:
        rare: the rare tokens, least seen first (ties by id).
        classes: the least-seen tokens by the number of times they are seen, fewest first.
        pairs: a * vocab_size + b for each a b that occurs, b among the classes.
        vocab_size: of the tokenizer.
    """

    rare: TokenIds
    classes: tuple[tuple[int, ...], ...]
    pairs: frozenset[int]
    vocab_size: int

    @property
    def n_kept(self) -> int:
        """Returns how many tokens a least-likely suffix can be made of."""
        return sum(len(tokens) for tokens in self.classes)

    def least_likely(self, previous: int, draws: Sequence[int]) -> list[int]:
        """Returns a token for each draw of 64 bits: the least likely not yet used, one by one."""
        chosen: list[int] = []
        for draw in draws:
            previous = self._next(previous, set(chosen), draw)
            chosen.append(previous)
        return chosen

    def _next(self, previous: int, used: set[int], draw: int) -> int:
        unused: list[int] = []
        for tokens in self.classes:
            start = draw * len(tokens) >> 64
            for place in range(start, start + len(tokens)):
                token = tokens[place % len(tokens)]
                if token in used:
                    continue
                if previous * self.vocab_size + token not in self.pairs:
                    return token
                unused.append(token)
        return unused[0]  # every one of them follows `previous` somewhere


def reference_model(
    documents: Sequence[TokenIds], ordinary: TokenIds, vocab_size: int
) -> ReferenceModel:
    """Returns the model of the documents; only ordinary tokens are rare or least likely."""
    counts = _counts(documents, vocab_size)[ordinary]
    order = np.argsort(counts, kind="stable")
    sorted_ids, sorted_counts = ordinary[order], counts[order]
    n_rare = max(int((counts == 0).sum()), min(FEWEST_RARE, len(ordinary)))
    last = sorted_counts[min(_KEPT, len(order)) - 1]
    kept = sorted_ids[sorted_counts <= last]
    starts = np.flatnonzero(np.diff(sorted_counts[: len(kept)])) + 1
    return ReferenceModel(
        rare=sorted_ids[:n_rare],
        classes=tuple(tuple(ids.tolist()) for ids in np.split(kept, starts)),
        pairs=_pairs(documents, kept, vocab_size),
        vocab_size=vocab_size,
    )


def _batches(documents: Sequence[TokenIds]) -> list[Sequence[TokenIds]]:
    return [documents[n : n + _BATCH] for n in range(0, len(documents), _BATCH)]


def _counts(documents: Sequence[TokenIds], vocab_size: int) -> I64:
    """Returns how often each token id is seen, int64 (vocab_size,)."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for batch in _batches(documents):
        counts += np.bincount(np.concatenate(batch), minlength=vocab_size)
    return counts


def _pairs(documents: Sequence[TokenIds], seconds: TokenIds, vocab_size: int) -> frozenset[int]:
    """Returns a * vocab_size + b for each a b inside a document, b among `seconds`."""
    wanted = np.zeros(vocab_size, dtype=np.bool_)
    wanted[seconds] = True
    found: set[int] = set()
    for batch in _batches(documents):
        tokens = np.concatenate(batch).astype(np.int64)
        here = wanted[tokens[1:]] & ~_begins(batch)[1:]
        found.update(np.unique(tokens[:-1][here] * vocab_size + tokens[1:][here]).tolist())
    return frozenset(found)


def _begins(batch: Sequence[TokenIds]) -> NDArray[np.bool_]:
    """Returns whether each token of the joined documents is the first of its own."""
    lengths = np.array([len(ids) for ids in batch], dtype=np.int64)
    begins = np.zeros(int(lengths.sum()), dtype=np.bool_)
    begins[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    return begins
