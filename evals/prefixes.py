"""Texts that begin alike, laid out so that a model reads what they share once.

The texts are sorted by their tokens and laid into rows one after the other. A row is a tree: a text
adds only what it does not share with the one before, and remembers where its tokens stand.

    1 5 6 7                 tokens     1 5 6 7 8 9        a row of 6 tokens instead of 12;
    1 5 6 8        ->       positions  0 1 2 3 3 4        8 sees 1 5 6 8, 9 sees 1 5 6 8 9
    1 5 6 8 9

Equal texts, and texts that another one continues, cost nothing. A row without a fork is an ordinary
text: each token sees all before it. One with forks needs a mask and positions of its own.

Price: every token of a row is compared with every other one, whether it sees it or not. With P
shared tokens and T in the row, the work a new token is proportional to T (1 + r T) / (T - P), where
r, the work of a comparison against that of a token, is some 1/1000 for small models and less for
large ones. It is least at T = P + sqrt(P (P + 1/r)): rows grow no longer than that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
_COMPARISONS = 1000  # that cost as much as a token
_LEAST_SHARED = 4
_LEAST_SHARE = 0.25


@dataclass(frozen=True)
class Member:
    """A text in a row.

    Attributes:
        text: which one.
        places: int64 (n,), where its tokens stand in the row.
        shared: how many of them stand there for the text before it already.
    """

    text: int
    places: IntArray
    shared: int


@dataclass
class Row:
    """A tree of texts.

    Attributes:
        n_tokens: how many tokens the row has.
        members: the texts, sorted by their tokens.
    """

    n_tokens: int = 0
    members: list[Member] = field(default_factory=list)

    @property
    def forks(self) -> bool:
        """Returns whether some token does not see all that stand before it."""
        return any(len(m.places) and m.places[-1] != len(m.places) - 1 for m in self.members)

    def add(self, text: int, length: int, shared: int) -> None:
        """Lays a text of so many tokens into the row, which shares the first ones with the last."""
        begin = self.members[-1].places[:shared] if shared else np.zeros(0, np.int64)
        new = np.arange(self.n_tokens, self.n_tokens + length - shared)
        self.members.append(Member(text, np.concatenate([begin, new]), shared))
        self.n_tokens += len(new)


def rows_of(texts: Sequence[IntArray], most: int, forks: bool = True) -> list[Row]:
    """Returns rows that hold every text once.

    Args:
        texts: int64 (n,) each.
        most: tokens in a row, unless one text alone is longer.
        forks: whether rows may fork; if not, only equal texts and continuations share one.
    """
    rows: list[Row] = []
    last: IntArray = np.zeros(0, np.int64)
    for text in sorted(range(len(texts)), key=lambda at: texts[at].astype(">i8").tobytes()):
        tokens = texts[text]
        shared = common_length(last, tokens)
        if rows and _belongs(rows[-1], len(last), len(tokens), shared, most, forks):
            rows[-1].add(text, len(tokens), shared)
        else:
            rows.append(Row())
            rows[-1].add(text, len(tokens), 0)
        last = tokens
    return rows


def common_length(first: IntArray, second: IntArray) -> int:
    """Returns how many tokens two texts share from the beginning on."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length


def _belongs(row: Row, last: int, length: int, shared: int, most: int, forks: bool) -> bool:
    """Returns whether a text is laid into the row of the text before it."""
    if shared == length or (shared == last and not row.forks):
        return True  # it costs nothing, or it goes on where the row ends
    if not forks or shared < max(_LEAST_SHARED, _LEAST_SHARE * length):
        return False
    longest = shared + math.isqrt(shared * (shared + _COMPARISONS))
    return row.n_tokens + length - shared <= min(most, longest)


def batches(rows: Sequence[Row], budget: int, batch_cost: int = 64) -> Iterator[list[Row]]:
    """Yields rows with forks, then those without, longest first, in the cheapest batches.

    Args:
        rows: what is to be read.
        budget: padded tokens in a batch, unless one row alone has more.
        batch_cost: what a batch costs beside its padded tokens, in tokens.
    """
    for forks in (True, False):
        alike = sorted((row for row in rows if row.forks == forks), key=lambda row: -row.n_tokens)
        ends = batch_ends([row.n_tokens for row in alike], budget, batch_cost)
        for start, end in zip([0, *ends], ends, strict=False):
            yield alike[start:end]


def batch_ends(lengths: Sequence[int], budget: int, batch_cost: int) -> list[int]:
    """Returns where the batches end that together cost least, in tokens.

    A batch of rows costs `batch_cost` and its rows times the longest of them. All ways to cut are
    weighed, from the longest row on: the least cost of all rows before each cut is kept.

        [100, 100, 10, 10], batch_cost 64 -> [2, 4]        [30, 28, 25], batch_cost 64 -> [3]

    Args:
        lengths: of the rows in tokens, longest first.
        budget: padded tokens in a batch, unless one row alone has more.
        batch_cost: tokens.
    """
    cost = np.full(len(lengths) + 1, np.iinfo(np.int64).max)
    cost[0] = 0
    begin = np.zeros(len(lengths) + 1, np.int64)
    for start, longest in enumerate(lengths):
        fitting = min(max(1, budget // longest), len(lengths) - start)
        ends = slice(start + 1, start + 1 + fitting)
        reached = cost[start] + batch_cost + longest * np.arange(1, fitting + 1)
        begin[ends] = np.where(reached < cost[ends], start, begin[ends])
        cost[ends] = np.minimum(reached, cost[ends])
    found, end = [], len(lengths)
    while end:
        found.append(end)
        end = int(begin[end])
    return found[::-1]


def seen(row: Row, width: int) -> npt.NDArray[np.bool_]:
    """Returns which tokens each token of the row sees: bool (width, width); padding sees itself."""
    visible = np.eye(width, dtype=bool)
    for member in row.members:
        begin, new = member.places[: member.shared], member.places[member.shared :]
        visible[np.ix_(new, begin)] = True
        visible[np.ix_(new, new)] = np.tri(len(new), dtype=bool)
    return visible


def positions(row: Row, width: int) -> IntArray:
    """Returns where each token of the row stands in its own text: int64 (width,), padding at 0."""
    found = np.zeros(width, np.int64)
    for member in row.members:
        found[member.places] = np.arange(len(member.places))
    return found
