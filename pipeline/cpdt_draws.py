"""What the dependence runs hold: draws as pure functions on integers.

Every run has base sequences of its own, so that no-op runs differ as the others do: run r takes the
r-th stretch of one permutation of the pool. Where the pool is too small for that, each run takes
the beginning of a permutation of its own, and runs share sequences by chance.

    pool of 1,000, 3 runs of 300: stretches [0, 300), [300, 600), [600, 900) of one permutation
    pool of 500:                  the first 300 of three permutations

An experiment's payloads are dealt in rounds, each round in an order of its own, until their tokens
reach the budget: no payload is dealt twice more often than another. Their places in the run are
drawn as a build draws those of `overwrite` (`placement.py`); a payload as long as a sequence takes
a whole one.

Price: that of `permutation.py` and `placement.py`, over the sequences of one run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixctl.pipeline.placement import SEPARATORS, Occupied, Requests, place
from mixctl.shards.draws import I64, bits, shuffled, stream
from mixctl.shards.permutation import permute


def base_draw(pool: int, needed: int, run: int, n_runs: int, seed: int) -> I64:
    """Returns which of the pool's sequences a run holds, in its order: int64 (needed,), distinct.

    Args:
        pool: base sequences to choose from.
        needed: base sequences of a run.
        run: 0 <= run < n_runs.
        n_runs: how many runs draw from the pool.
        seed: of all draws.

    Raises:
        ValueError: when the pool does not hold one run.
    """
    if needed > pool:
        raise ValueError(f"a run needs {needed} base sequences, there are {pool}")
    if shares_base(pool, needed, n_runs):
        return permute(np.arange(needed), pool, stream(seed, "cpdt", "base", run))
    return permute(run * needed + np.arange(needed), pool, stream(seed, "cpdt", "base"))


def shares_base(pool: int, needed: int, n_runs: int) -> bool:
    """Returns whether the pool is too small for every run to have base sequences of its own."""
    return n_runs * needed > pool


def deal(length: I64, budget: int, seed: int, *names: str) -> I64:
    """Returns which payload each copy is, int64: round after round until `budget` tokens.

    Args:
        length: int64 (n,), the tokens of each payload; positive.
        budget: tokens to be reached; the last copy may go beyond.
        seed: of all draws.
        names: of the run and the experiment.
    """
    rounds: list[I64] = []
    left = budget
    while left > 0:
        turn = shuffled(len(length), stream(seed, "cpdt", "deal", *names, len(rounds)))
        reached = np.cumsum(length[turn])
        n_copies = int(np.searchsorted(reached, left)) + 1
        rounds.append(turn[:n_copies])
        left -= int(reached[min(n_copies, len(turn)) - 1])
    return np.concatenate(rounds) if rounds else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Places:
    """Where payloads lie in a run: int64 arrays of shape (n,).

    Attributes:
        sequence: of the run, from 0.
        offset: of the first payload token.
        whole: bool, whether it takes the whole sequence (no separators).
    """

    sequence: I64
    offset: I64
    whole: np.ndarray


def places(length: I64, n_sequences: int, sequence_tokens: int, seed: int, run: str) -> Places:
    """Returns a place for each payload, none touching another.

    Args:
        length: int64 (n,), tokens of each payload: at most sequence_tokens - 2, or just
            sequence_tokens.
        n_sequences: of the run.
        sequence_tokens: max_seq_length + 1.
        seed: of all draws.
        run: its name.

    Raises:
        ValueError: when a payload has another length.
        NoRoomError: when they do not fit.
    """
    whole = length == sequence_tokens
    if np.any(~whole & (length > sequence_tokens - SEPARATORS)):
        raise ValueError(f"a payload has more than {sequence_tokens - SEPARATORS} tokens")
    n = len(length)
    requests = Requests(
        key=bits(stream(seed, "cpdt", "place", run), np.arange(n)),
        first=np.zeros(n, dtype=np.int64),
        stop=np.full(n, n_sequences, dtype=np.int64),
        extent=np.where(whole, length, length + SEPARATORS),
    )
    sequence, begin, occupied = np.empty(n, np.int64), np.empty(n, np.int64), Occupied.nothing()
    for chosen in (np.flatnonzero(whole), np.flatnonzero(~whole)):  # whole ones while there is room
        found = place(requests.take(chosen), occupied, sequence_tokens)
        sequence[chosen], begin[chosen], occupied = found
    return Places(sequence, begin + ~whole, whole)
