"""Which spare base sequences are used for what.

Every wish (a sequence of an iid item, a replacement for a purged sequence) has a stream of its own
and draws among all spare sequences, round by round; one that is taken already, that an earlier wish
of the round drew, or that holds a forbidden string is lost and the wish draws again. So another
experiment changes a wish's spare sequence only where both drew the same one.

    wishes a, b, c among 5 spares: a draws 3, b draws 3 (lost), c draws 0; b draws again: 4

Price: a few vector operations a round; what is left after 32 rounds takes the free ones in order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixctl.shards.draws import I64, U64, below, bits

ROUNDS = 32


def allot(key: U64, taken: NDArray[np.bool_]) -> I64:
    """Returns a different free number for each wish: int64, shape of `key`.

    Args:
        key: uint64, the stream of each wish, in order of priority.
        taken: bool, shape (n_spare,): which spares cannot be had; those given out are marked.

    Raises:
        ValueError: when there are fewer free spares than wishes.
    """
    if len(key) > int((~taken).sum()):
        raise ValueError(f"{len(key)} wishes, {int((~taken).sum())} free spares")
    found = np.full(len(key), -1, dtype=np.int64)
    waiting = np.arange(len(key))
    for turn in range(ROUNDS):
        if not waiting.size:
            break
        drawn = below(bits(key[waiting], turn), len(taken))
        won = np.zeros(len(waiting), dtype=np.bool_)
        won[np.unique(drawn, return_index=True)[1]] = True
        won &= ~taken[drawn]
        found[waiting[won]] = drawn[won]
        taken[drawn[won]] = True
        waiting = waiting[~won]
    if waiting.size:
        free = np.flatnonzero(~taken)[: len(waiting)]
        found[waiting] = free
        taken[free] = True
    return found
