"""Where copies go: every copy gets a sequence and an offset, or the build fails.

An extent is what a copy changes: end-of-document token, payload, end-of-document token. Extents lie
inside one sequence and at least one base token apart from each other.

**The rule.** Experiments take their turn in the order of their names. Within an experiment every
copy has a stream of its own, keyed by (seed, experiment, item, copy). In each round every copy not
placed yet takes its next draw (a sequence of its window, an offset). A draw that touches a placed
extent, or the draw of an earlier copy of the same round, is lost and the copy draws again in the
next round. After `DRAW_ROUNDS` rounds what is left draws among the places that are still free; when
none is free, the build fails and says how many copies lack a place.

So an experiment's placements depend on those whose names sort before it only where two touch:
taking the last one away moves nothing, taking the first one away moves only copies that had met it
(or had met a copy that moved because of it).

    two copies of 3 tokens in one sequence of 8: extents [0, 5) and [5, 8)? no: 5 + 1 + 5 > 8,
    refused

Price: a million copies in about a second when the run is sparse; 40 bytes a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.shards.draws import I64, U64, below, bits

DRAW_ROUNDS = 32
SEPARATORS = 2
"""tokens that a payload is wrapped in: an end-of-document token on each side"""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Requests:
    """Copies to be placed, all arrays of shape (n,), in order of priority.

    Attributes:
        key: the stream of each copy.
        first, stop: the copy is drawn among sequences first <= n < stop.
        extent: tokens that the copy changes, payload and separators.
    """

    key: U64
    first: I64
    stop: I64
    extent: I64

    def __len__(self) -> int:
        """Returns the number of copies."""
        return len(self.key)

    def take(self, chosen: I64) -> Requests:
        """Returns the chosen copies."""
        return Requests(
            self.key[chosen], self.first[chosen], self.stop[chosen], self.extent[chosen]
        )


@dataclass(frozen=True)
class Occupied:
    """Extents already placed: begin and end (exclusive) on the line, sorted, none touching.

    The line holds each sequence's tokens and one that belongs to none, so that extents in
    neighbouring sequences never touch: token `offset` of `sequence` is at sequence *
    (sequence_tokens + 1) + offset.
    """

    begin: I64
    end: I64

    @classmethod
    def nothing(cls) -> Occupied:
        """Returns the occupation before the first experiment."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    def touches(self, begin: I64, end: I64) -> Mask:
        """Returns whether each extent overlaps or adjoins an occupied one."""
        if not len(self.begin):
            return np.zeros(len(begin), dtype=np.bool_)
        last = np.searchsorted(self.begin, end, side="right") - 1
        return (last >= 0) & (self.end[last] >= begin)

    def plus(self, begin: I64, end: I64) -> Occupied:
        """Returns the occupation with these extents added."""
        order = np.argsort(begin, kind="stable")
        before = np.searchsorted(self.begin, begin[order])
        return Occupied(
            np.insert(self.begin, before, begin[order]), np.insert(self.end, before, end[order])
        )

    def between(self, first: int, stop: int) -> Occupied:
        """Returns the extents that begin at first <= begin < stop of the line."""
        low, high = np.searchsorted(self.begin, [first, stop])
        return Occupied(self.begin[low:high], self.end[low:high])


class NoRoomError(Exception):
    """Copies that no place is left for."""

    def __init__(self, lacking: I64) -> None:
        """Keeps the places of the lacking copies in the request."""
        self.lacking = lacking
        super().__init__(f"{len(lacking)} copies lack a place")


def most_extents(extent: I64, sequence_tokens: int) -> I64:
    """Returns how many extents of that length an empty sequence holds, one token apart."""
    return (sequence_tokens + 1) // (extent + 1)


def place(
    requests: Requests, occupied: Occupied, sequence_tokens: int
) -> tuple[I64, I64, Occupied]:
    """Returns (sequence, offset of the extent, the new occupation); the arrays have shape (n,).

    Raises:
        NoRoomError: when copies lack a place; nothing is placed then.
    """
    begin = np.full(len(requests), -1, dtype=np.int64)
    waiting = np.arange(len(requests))
    for turn in range(DRAW_ROUNDS):
        if not waiting.size:
            break
        asked = requests.take(waiting)
        drawn = _draw(asked, turn, sequence_tokens)
        won = _winners(drawn, drawn + asked.extent, occupied)
        begin[waiting[won]] = drawn[won]
        occupied = occupied.plus(drawn[won], (drawn + asked.extent)[won])
        waiting = waiting[~won]
    occupied = _fill(requests, begin, waiting, occupied, sequence_tokens)
    sequence, offset = np.divmod(begin, sequence_tokens + 1)
    return sequence, offset, occupied


def _draw(asked: Requests, turn: int, sequence_tokens: int) -> I64:
    """Returns where each copy's extent would begin on the line, its draw number `turn`."""
    sequence = asked.first + below(bits(asked.key, 2 * turn), asked.stop - asked.first)
    offset = below(bits(asked.key, 2 * turn + 1), sequence_tokens - asked.extent + 1)
    return sequence * (sequence_tokens + 1) + offset


def _winners(begin: I64, end: I64, occupied: Occupied) -> Mask:
    """Returns which draws touch neither the occupation nor an earlier draw (one of lower place)."""
    order = np.argsort(begin, kind="stable")
    lost = np.zeros(len(begin), dtype=np.bool_)
    shift, left = 1, np.arange(len(begin) - 1)
    while left.size:
        touching = begin[order[left + shift]] <= end[order[left]]
        left = left[touching]
        lost[np.maximum(order[left], order[left + shift])] = True
        shift += 1
        left = left[left + shift < len(begin)]
    return ~lost & ~occupied.touches(begin, end)


def _fill(
    requests: Requests, begin: I64, waiting: I64, occupied: Occupied, sequence_tokens: int
) -> Occupied:
    """Places what is waiting among the free places, alike copies together; writes into `begin`."""
    lacking = []
    for group in _alike(requests, waiting):
        turn = 2 * DRAW_ROUNDS
        while group.size:
            drawn = _draw_free(requests.take(group), turn, occupied, sequence_tokens)
            if drawn is None:
                lacking.append(group)
                break
            extent = requests.extent[group]
            won = _winners(drawn, drawn + extent, occupied)
            begin[group[won]] = drawn[won]
            occupied = occupied.plus(drawn[won], (drawn + extent)[won])
            group, turn = group[~won], turn + 1
    if lacking:
        raise NoRoomError(np.concatenate(lacking))
    return occupied


def _alike(requests: Requests, waiting: I64) -> list[I64]:
    """Returns the waiting copies in groups of equal window and extent, longest extents first."""
    if not waiting.size:
        return []
    asked = requests.take(waiting)
    labels = np.stack([-asked.extent, asked.first, asked.stop], axis=1)
    _, group = np.unique(labels, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    cuts = np.flatnonzero(np.diff(group.ravel()[order])) + 1
    return np.split(waiting[order], cuts)


def _draw_free(asked: Requests, turn: int, occupied: Occupied, sequence_tokens: int) -> I64 | None:
    """Returns a draw for each copy among the free places of their window, None if none is."""
    extent = int(asked.extent[0])
    low, high = free_places(
        int(asked.first[0]), int(asked.stop[0]), extent, occupied, sequence_tokens
    )
    total = np.cumsum(high - low)
    if not total.size or total[-1] == 0:
        return None
    chosen = below(bits(asked.key, turn), int(total[-1]))
    gap = np.searchsorted(total, chosen, side="right")
    return np.asarray(low[gap] + chosen - (total[gap] - (high - low)[gap]), dtype=np.int64)


def free_places(
    first: int, stop: int, extent: int, occupied: Occupied, sequence_tokens: int
) -> tuple[I64, I64]:
    """Returns the intervals low <= begin < high of the line where an extent could begin, in order.

    Between two neighbours on the line, one ending at e and the next beginning at b, an extent
    begins after e and ends before b. The edges of sequences are neighbours that may be touched.
    """
    stride = sequence_tokens + 1
    edges = np.arange(first, stop + 1, dtype=np.int64) * stride
    inside = occupied.between(first * stride, stop * stride)
    begins = np.concatenate([edges, inside.begin])
    order = np.argsort(begins, kind="stable")
    ends = np.concatenate([edges - 1, inside.end])[order]
    low, high = ends[:-1] + 1, begins[order][1:] - extent
    fits = high > low
    return low[fits], high[fits]


class FreeRoom:
    """What the occupation leaves free, made ready for many questions.

    Price: one sort of the occupied extents; a question is a division over the gaps in its window.
    """

    def __init__(self, occupied: Occupied, sequence_tokens: int) -> None:
        """Measures the gaps of every sequence that holds something."""
        stride = sequence_tokens + 1
        self._width = sequence_tokens
        self._touched = np.unique(occupied.begin // stride)
        low, high = self._touched * stride, self._touched * stride + stride
        begins = np.concatenate([low, occupied.begin, high])
        ends = np.concatenate([low - 1, occupied.end, high - 1])
        rank = np.repeat(np.array([1, 2, 0], np.int8), [len(low), len(occupied.begin), len(low)])
        order = np.lexsort([rank, begins])
        begins, ends, rank = begins[order], ends[order], rank[order]
        inside = rank[:-1] != 0  # not between the end of a touched sequence and the next one
        self._gap = (begins[1:] - ends[:-1] - 1)[inside]
        self._sequence = ((begins[1:] - 1) // stride)[inside]

    def left(self, first: int, stop: int, extent: int) -> int:
        """Returns how many more extents of one length first <= sequence < stop hold, packed."""
        low, high = np.searchsorted(self._touched, [first, stop])
        empty = (stop - first - (high - low)) * int(most_extents(np.int64(extent), self._width))
        low, high = np.searchsorted(self._sequence, [first, stop])
        return int(empty) + int((self._gap[low:high] // (extent + 1)).sum())
