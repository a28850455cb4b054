"""What canaries are made of: conditions, and secrets that no two items share.

A condition is a kind of suffix and its length: `random-8`, `rare-32`, `least-likely-1`, `none`.
Where there are several, items are dealt to them at random, within strata: sorted by a draw of the
item's own name and cut into parts that differ by one item at most. So a further item moves at most
a handful of others across a border.

    24 items, conditions none, rare-8, random-8  ->  8 items each

A secret is a row of symbol numbers; the k-th draw of an item depends on (seed, experiment, item, k)
alone, and a draw that another item holds already is passed over. Price: some 50 us an item.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixctl.shards.draws import I64, U64, below, bits, stream, streams
from mixctl.shards.errors import InputError

SuffixKind = Literal["none", "rare", "least-likely", "random"]
MOST_ENUMERATED = 100_000
"""`candidates: all` writes out no larger space than this"""
_MOST_REDRAWS = 1000
_DRAWN_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Condition:
    """How a suffix is made.

    Attributes:
        suffix: its kind.
        length: its tokens; 0 for none.
    """

    suffix: SuffixKind
    length: int

    @property
    def name(self) -> str:
        """Returns what the meta calls it."""
        return self.suffix if self.suffix == "none" else f"{self.suffix}-{self.length}"


@dataclass(frozen=True)
class SecretSpace:
    """The secrets that can be drawn.

    Attributes:
        experiment: whose they are.
        seed: of the mix.
        symbols: how many symbols there are.
        length: how many a secret has.
    """

    experiment: str
    seed: int
    symbols: int
    length: int

    @property
    def size(self) -> int:
        """Returns |R|, the number of secrets."""
        return int(self.symbols**self.length)

    @property
    def size_as_float(self) -> float | None:
        """Returns |R| as the scorer reads it; None where it is beyond the floats."""
        return float(self.size) if self.size.bit_length() < 1024 else None

    def enumerate(self) -> I64:
        """Returns every secret in order, int64 (size, length); the first symbol changes slowest."""
        numbers = np.arange(self.size)
        weights = [self.symbols**place for place in reversed(range(self.length))]
        columns = [numbers // weight % self.symbols for weight in weights]
        return np.stack(columns, axis=1).astype(np.int64)

    def number(self, secret: I64) -> int:
        """Returns the place of a secret in `enumerate()`."""
        return sum(int(s) * self.symbols**n for n, s in enumerate(reversed(secret)))

    def distinct(self, items: Sequence[str], candidates: int) -> list[I64]:
        """Returns int64 (1 + candidates, length) for each item: no secret stands in two places.

        Raises:
            InputError: when there are too few secrets.
        """
        each = 1 + candidates
        self.check_room(len(items), candidates)
        taken: set[bytes] = set()
        found = []
        for item, first in zip(items, self._first_draws(items, each), strict=True):
            draws = itertools.chain(first, self._later_draws(item, each))
            mine = list(itertools.islice(self._unused(draws, taken), each))
            if len(mine) < each:
                raise InputError(
                    f"experiment '{self.experiment}': item '{item}': no unused secret found among "
                    f"{self.size}; use a longer secret or fewer candidates"
                )
            found.append(np.stack(mine))
        return found

    def check_room(self, n_items: int, candidates: int) -> None:
        """Raises InputError when the items with their candidates need more secrets than there are.

        Args:
            n_items: of the experiment (or condition).
            candidates: other secrets of each item.
        """
        needed = n_items * (1 + candidates)
        if self.size < needed:
            raise InputError(
                f"experiment '{self.experiment}': {n_items} items with {candidates} candidates "
                f"each need {needed} different secrets, but there are only {self.size}"
            )

    def _unused(self, draws: Iterable[I64], taken: set[bytes]) -> Iterator[I64]:
        """Yields the draws that nobody holds, taking each."""
        for secret in draws:
            mark = secret.astype(np.uint32).tobytes()
            if mark not in taken:
                taken.add(mark)
                yield secret

    def _first_draws(self, items: Sequence[str], each: int) -> Iterator[I64]:
        """Yields draws 0 to each - 1 of every item: int64 (each, length)."""
        keys = streams(items, self.seed, "memorization", self.experiment)
        n_at_once = max(1, _DRAWN_AT_ONCE // (each * self.length))
        for at in range(0, len(items), n_at_once):
            yield from self._drawn(keys[at : at + n_at_once, None], 0, each)

    def _later_draws(self, item: str, each: int) -> Iterator[I64]:
        """Yields draw `each`, the one after it, ... of an item."""
        key = streams([item], self.seed, "memorization", self.experiment)[:, None]
        for first in range(each, _MOST_REDRAWS + 10 * each, each):
            yield from self._drawn(key, first, each)[0]

    def _drawn(self, keys: U64, first: int, each: int) -> I64:
        """Returns `each` draws of every stream, from one on: int64 (streams, each, length)."""
        counters = np.arange(first * self.length, (first + each) * self.length)
        symbols = below(bits(keys, counters), self.symbols)
        return symbols.reshape(len(keys), each, self.length)


def draw_bits(seed: int, experiment: str, item: str, n: int) -> list[int]:
    """Returns n times 64 random bits of an item, as whole numbers."""
    key = stream(seed, "memorization", experiment, item)
    return [int(one) for one in bits(key, np.arange(n))]


def deal_rare(draws: Sequence[int], n_tokens: int) -> list[int]:
    """Returns a number below n_tokens for each item, all different where there are enough."""
    wanted = [draw * n_tokens >> 64 for draw in draws]
    if len(wanted) > n_tokens:
        return wanted
    taken: set[int] = set()
    for place, first in enumerate(wanted):
        free = (n % n_tokens for n in range(first, first + n_tokens) if n % n_tokens not in taken)
        wanted[place] = next(free)
        taken.add(wanted[place])
    return wanted


def deal_conditions(
    items: Sequence[str], strata: Sequence[str | None], n: int, seed: int, experiment: str
) -> I64:
    """Returns the number of each item's condition, 0 to n - 1: equal shares of every stratum."""
    draws = bits(streams(items, seed, "memorization", experiment, "condition"), 0)
    names, label = np.unique([stratum or "" for stratum in strata], return_inverse=True)
    starts = streams(names.tolist(), seed, "memorization", experiment, "first condition")
    first = below(bits(starts, 0), n)
    dealt = np.empty(len(items), dtype=np.int64)
    for stratum in range(len(names)):
        members = np.flatnonzero(label == stratum)
        ranked = members[np.argsort(draws[members], kind="stable")]
        dealt[ranked] = (np.arange(len(ranked)) * n // len(ranked) + first[stratum]) % n
    return dealt
