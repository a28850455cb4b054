"""Near-duplicates: token lists whose sets of shingles overlap by at least a threshold.

A shingle is a run of `shingle` tokens; the similarity of two lists is the Jaccard index of their
sets of shingles, |both| / |either|. Lists linked by a chain of similar pairs get the same label.

    tokens      [1 2 3 4 5 6 7]   [1 2 3 4 5 6 8]   shingles of 5: {12345 23456 34567} {.. .. 34568}
    similarity  2 / 4 = 0.5

The search is exact: no pair at or above the threshold is missed, and the result is the same on
every platform. (MinHash with 128 permutations in 16 bands misses 1 pair in 20 at 0.8 and 1 in
8,000 at 0.9, and proposes half of all pairs at 0.67, as a shared template makes them.) It is a
set-similarity join with prefix filters: shingles are ordered from the rarest to the most frequent.
Two sets of n <= m shingles with Jaccard >= t share a shingle among the rarest
n - ceil(2t/(1+t) n) + 1 of the smaller and the rarest m - ceil(t m) + 1 of the larger; only pairs
that do are compared. What a template puts into all payloads ("Question:", "Answer:") is frequent,
so it comes last and proposes no pair. A pair that is already linked through others is not compared,
so a heap of copies costs a few passes, not a square.

A list shorter than a shingle is compared as a whole. An empty list is similar to nothing. Shingles
are told apart by 64-bit hashes: among 20 million different ones the chance that any two are taken
for one is 1e-5, and that would change a similarity by one shingle.

Price (2 cores): 75,000 lists of 290 tokens 15 s and 0.9 GB; 54,000 of 117 tokens 4 s; 20,000 copies
of one list with two changed tokens each 13 s. The worst case are sets that share their rarest
shingles and still are not similar: 5,000 random lists of 60 tokens over an alphabet of 3, all
12 million pairs compared, 8 s.
Sources: Bayardo, Ma & Srikant, "Scaling up all pairs similarity search", WWW 2007; Xiao, Wang, Lin
& Yu, "Efficient similarity joins for near duplicate detection", WWW 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.components import components
from mixctl.shards.draws import I64, U64, mix

_BASE = np.uint64(0x9E3779B97F4A7C15)
_LISTS_AT_ONCE = 1 << 12
_PAIRS_AT_ONCE = 1 << 14
_CLASSES = 512
_HALVES = [(np.uint64(1 << n), np.uint64((2**64 - 1) // (2 ** (1 << n) + 1))) for n in range(6)]
"""shift and mask of each step in which neighbouring fields are added: counts the ones of a word"""
_SLACK = 1e-9
"""so that rounding never makes a prefix too short"""


@dataclass(frozen=True)
class _Sets:
    """The sets of shingles, without those that only one set has: they count, but match nothing.

    Attributes:
        shingles: the others as ranks (0 is the rarest of all), set after set, ascending in each.
        start: where each set begins in `shingles`, and the end of the last; shape (n + 1,).
        alone: how many shingles each set has that no other has.
        marks: 512 bits a set, the parities of its shingles' hash classes; shape (n, 8).
    """

    shingles: I64
    start: I64
    alone: I64
    marks: U64

    @property
    def size(self) -> I64:
        """Returns the number of shingles of each set."""
        return np.asarray(np.diff(self.start) + self.alone, dtype=np.int64)


@dataclass(frozen=True)
class _Entries:
    """Which sets have a shingle in their prefix: sorted by shingle, then by size of the set.

    Attributes:
        item: the set of each entry.
        end: where the entries of the same shingle end.
        index: whether the shingle is in the shorter prefix, that of the smaller of two sets.
    """

    item: I64
    end: I64
    index: NDArray[np.bool_]


def near_duplicates(
    tokens: Sequence[NDArray[np.uint32]], threshold: float = 0.8, shingle: int = 5
) -> I64:
    """Returns a label for each list, equal for near-duplicates: the index of the first of them.

    Args:
        tokens: the token lists.
        threshold: the least Jaccard similarity of a pair, over 0 and at most 1.
        shingle: tokens of a shingle, 1 or more.

    Raises:
        ValueError: when threshold or shingle is outside its range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}: it must be over 0 and at most 1")
    if shingle < 1:
        raise ValueError(f"shingle is {shingle}: it must be 1 or more")
    labels = _equal(tokens)
    different = np.array([n for n in np.unique(labels) if len(tokens[n])], dtype=np.int64)
    if len(different) > 1:
        joined = np.arange(len(tokens), dtype=np.int64)
        sets = _sets([tokens[n] for n in different], shingle)
        joined[different] = different[_joined(sets, threshold)]
        labels = joined[labels]
    return labels


def _equal(tokens: Sequence[NDArray[np.uint32]]) -> I64:
    """Returns for each list the first that has the same tokens: itself, if it is empty."""
    first: dict[bytes, int] = {}
    found = [first.setdefault(ids.tobytes(), n) if len(ids) else n for n, ids in enumerate(tokens)]
    return np.array(found, dtype=np.int64)


def _sets(tokens: Sequence[NDArray[np.uint32]], shingle: int) -> _Sets:
    """Returns the sets of shingles of non-empty token lists."""
    hashes, owner = _all_hashes(tokens, shingle)
    order = np.argsort(hashes)
    hashes = hashes[order]
    as_before = np.concatenate([[False], hashes[1:] == hashes[:-1]])
    repeated = as_before.copy()
    repeated[:-1] |= as_before[1:]
    alone = np.bincount(owner[order[~repeated]], minlength=len(tokens))
    ids = np.cumsum(~as_before[repeated]) - 1
    n_ids = int(ids.max(initial=-1)) + 1
    keys = np.sort(owner[order[repeated]].astype(np.int64) * n_ids + ids)
    keys = keys[np.diff(keys, prepend=-1) != 0]  # np.unique hashes, and takes six times as long
    rank = np.empty(n_ids, dtype=np.int64)
    rank[np.argsort(np.bincount(keys % n_ids, minlength=n_ids), kind="stable")] = np.arange(n_ids)
    keys = np.sort(keys // n_ids * n_ids + rank[keys % n_ids])
    start = np.searchsorted(keys, np.arange(len(tokens) + 1) * n_ids).astype(np.int64)
    shingles = keys % n_ids
    return _Sets(shingles, start, alone.astype(np.int64), _marks(shingles, start))


def _all_hashes(
    tokens: Sequence[NDArray[np.uint32]], shingle: int
) -> tuple[U64, NDArray[np.int32]]:
    """Returns the hash of each shingle and the list that it is from."""
    hashes, owners = [], []
    for n in range(0, len(tokens), _LISTS_AT_ONCE):
        some, owner = _hashes(tokens[n : n + _LISTS_AT_ONCE], shingle)
        hashes.append(some)
        owners.append((owner + n).astype(np.int32))
    return np.concatenate(hashes), np.concatenate(owners)


def _hashes(tokens: Sequence[NDArray[np.uint32]], shingle: int) -> tuple[U64, I64]:
    """Returns the same for some of the lists; one shorter than a shingle has one hash."""
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    taken = np.minimum(lengths, shingle)
    owner, place = _spread(lengths - taken + 1)
    at = place + (np.cumsum(lengths) - lengths)[owner]
    flat = np.concatenate(tokens).astype(np.uint64)
    size = taken[owner]
    hashes = size.astype(np.uint64)
    for step in range(shingle):
        more = np.flatnonzero(size > step)
        hashes[more] = hashes[more] * _BASE + flat[at[more] + step]
    return hashes, owner


def _spread(counts: I64) -> tuple[I64, I64]:
    """Returns the owner of each of counts[0] + counts[1] + ... things, and its place there."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _marks(shingles: I64, start: I64) -> U64:
    """Returns for each set which of 512 hash classes hold an odd number of its shingles."""
    marks = np.zeros((len(start) - 1, _CLASSES // 64), dtype=np.uint64)
    classes = (mix(shingles.astype(np.uint64)) % np.uint64(_CLASSES)).astype(np.int64)
    for n in range(0, len(marks), _LISTS_AT_ONCE):
        ends = start[n : n + _LISTS_AT_ONCE + 1]
        cells = _spread(np.diff(ends))[0] * _CLASSES + classes[ends[0] : ends[-1]]
        counts = np.bincount(cells, minlength=(len(ends) - 1) * _CLASSES)
        odd = (counts & 1).astype(np.bool_).reshape(-1, _CLASSES)
        marks[n : n + _LISTS_AT_ONCE] = np.packbits(odd, axis=1).view(np.uint64)
    return marks


def _prefixes(sets: _Sets, share: float) -> I64:
    """Returns, for each set, how many of its rarest shingles two that share `share` meet in."""
    return np.asarray(sets.size - np.ceil(share * sets.size - _SLACK) + 1, dtype=np.int64)


def _entries(sets: _Sets, threshold: float) -> _Entries:
    """Returns the entries of the prefixes; the shingles that a set has alone come first there."""
    probe = np.maximum(_prefixes(sets, threshold) - sets.alone, 0)
    index = _prefixes(sets, 2 * threshold / (1 + threshold)) - sets.alone
    item, place = _spread(probe)
    shingle = sets.shingles[sets.start[item] + place]
    by_size = np.argsort(np.argsort(sets.size, kind="stable"), kind="stable")
    order = np.lexsort((by_size[item], shingle))
    _, position, counts = np.unique(shingle[order], return_index=True, return_counts=True)
    end = np.repeat(position + counts, counts)
    return _Entries(item=item[order], end=end, index=(place < index[item])[order])


def _joined(sets: _Sets, threshold: float) -> I64:
    """Returns the label of each set: in round k each entry is paired with the k-th after it."""
    entries = _entries(sets, threshold)
    size, item = sets.size, entries.item
    labels = np.arange(len(size), dtype=np.int64)
    active = np.flatnonzero(entries.index)
    step = 0
    while active.size:
        step += 1
        active = active[active + step < entries.end[active]]
        small, large = item[active], item[active + step]
        near = size[small] >= threshold * size[large] - _SLACK
        active, small, large = active[near], small[near], large[near]
        apart = labels[small] != labels[large]
        pairs = np.unique(small[apart] * len(size) + large[apart])
        before = labels
        labels = _confirmed(sets, labels, pairs // len(size), pairs % len(size), threshold)
        if labels is not before:
            active = active[~_settled(entries, labels)[active]]
    return labels


def _confirmed(sets: _Sets, labels: I64, one: I64, other: I64, threshold: float) -> I64:
    """Returns the labels after those pairs were linked that reach the threshold."""
    for n in range(0, len(one), _PAIRS_AT_ONCE):
        a, b = one[n : n + _PAIRS_AT_ONCE], other[n : n + _PAIRS_AT_ONCE]
        hopeful = labels[a] != labels[b]
        hopeful[hopeful] = _possible(sets, a[hopeful], b[hopeful]) >= threshold - _SLACK
        a, b = a[hopeful], b[hopeful]
        similar = _jaccard(sets, a, b) >= threshold
        if similar.any():
            labels = _linked(labels, a[similar], b[similar])
    return labels


def _possible(sets: _Sets, one: I64, other: I64) -> NDArray[np.float64]:
    """Returns what the Jaccard index is at most: each mark that differs is a shingle not shared."""
    bits = sets.marks[one] ^ sets.marks[other]
    for shift, mask in _HALVES:
        bits = (bits & mask) + ((bits >> shift) & mask)
    shared = np.diff(sets.start)[one] + np.diff(sets.start)[other] - bits.sum(axis=1).astype(int)
    both = shared // 2
    return np.asarray(both / (sets.size[one] + sets.size[other] - both), dtype=np.float64)


def _jaccard(sets: _Sets, one: I64, other: I64) -> NDArray[np.float64]:
    """Returns the Jaccard index of each pair of sets."""
    side = int(sets.shingles.max()) + 1
    keys = np.sort(np.concatenate([_keyed(sets, one, side), _keyed(sets, other, side)]))
    twice = keys[:-1][keys[1:] == keys[:-1]]
    both = np.bincount(twice // side, minlength=len(one))
    return np.asarray(both / (sets.size[one] + sets.size[other] - both), dtype=np.float64)


def _keyed(sets: _Sets, items: I64, side: int) -> I64:
    """Returns the shingles of the given sets, each as pair * side + shingle."""
    pair, place = _spread(np.diff(sets.start)[items])
    return np.asarray(pair * side + sets.shingles[sets.start[items[pair]] + place], dtype=np.int64)


def _linked(labels: I64, one: I64, other: I64) -> I64:
    """Returns the labels after the pairs were linked: the first member of each component."""
    n = len(labels)
    return components(n, np.concatenate([one, np.arange(n)]), np.concatenate([other, labels]))


def _settled(entries: _Entries, labels: I64) -> NDArray[np.bool_]:
    """Returns whether each entry and all after it with the same shingle carry one label."""
    label = labels[entries.item]
    same = np.ones(len(label), dtype=np.bool_)
    inside = np.arange(1, len(label)) < entries.end[:-1]
    same[:-1] = (label[1:] == label[:-1]) | ~inside
    changes = np.concatenate([[0], np.cumsum(~same)])
    return np.asarray(changes[entries.end] == changes[:-1], dtype=np.bool_)
