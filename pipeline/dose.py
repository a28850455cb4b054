"""How many copies each item of an arm gets.

An arm that says `copies` gives each item as many. An arm with a budget (`tokens`, or a `share` of
the run's tokens) hands out copies round by round, each round to the arm's items in random order,
until the next copy would exceed the budget. So doses in such an arm differ by one at most, and the
budget is missed by less than the longest payload.

    budget 100 tokens, items a and b of 30 tokens each  ->  a 2 copies, b 1 copy (or the reverse)

Price: a vector operation a round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mixctl.injections.base import Item
from mixctl.injections.config import Arm, Variants
from mixctl.injections.quantities import parse_share
from mixctl.shards.draws import I64, bits, streams

ROUND_DRAW = 2**42


def budget_tokens(arm: Arm, run_tokens: int) -> int | None:
    """Returns the tokens that the arm may spend, rounded down; None when it says copies."""
    if arm.share is not None:
        return int(parse_share(arm.share) * run_tokens)
    return None if arm.tokens is None else int(arm.tokens)


def variant_lengths(items: Sequence[Item], variants: Variants, sequence_tokens: int) -> list[I64]:
    """Returns the tokens of the payloads that each item's copies go through, in turn."""
    found = []
    for item in items:
        if item.base is not None:
            found.append(np.array([item.base.n_sequences * sequence_tokens], dtype=np.int64))
        else:
            of = item.variants[:1] if variants == "first" else item.variants
            found.append(np.array([len(ids) for ids in of], dtype=np.int64))
    return found


def spend(budget: int, lengths: list[I64], order: I64) -> I64:
    """Returns the copies of each item, int64 of shape (n,), that together stay within the budget.

    Args:
        budget: tokens.
        lengths: of each item's payloads; copy c takes payload c mod their number.
        order: the items in the order in which a round goes through them.
    """
    copies = np.zeros(len(lengths), dtype=np.int64)
    cycle = _cycle(lengths)
    full = sum(int(one.sum()) * (cycle // len(one)) for one in lengths)
    rounds = cycle * (budget // full) if full else 0
    copies += rounds
    left = budget - (budget // full) * full if full else 0
    while left > 0:
        costs = np.array([lengths[i][rounds % len(lengths[i])] for i in order], dtype=np.int64)
        paid = int(np.searchsorted(np.cumsum(costs), left, side="right"))
        copies[order[:paid]] += 1
        left -= int(costs[:paid].sum())
        rounds += 1
        if paid < len(order):
            break
    return copies


def _cycle(lengths: list[I64]) -> int:
    """Returns after how many rounds all payload lists begin again together."""
    return math.lcm(*{len(one) for one in lengths})


def round_order(names: list[str], seed: int, experiment: str) -> I64:
    """Returns the items in random order; an item's draw depends on its own name alone."""
    draws = bits(streams(names, seed, "budget", experiment), ROUND_DRAW)
    return np.argsort(draws, kind="stable").astype(np.int64)
