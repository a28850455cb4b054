"""Where a payload is cut into pieces that are placed apart.

    {pieces: 3} on 10 tokens       -> say [0, 4), [4, 5), [5, 10): the cuts are drawn
    {at_most: 4} on 10 tokens      -> [0, 4), [4, 8), [8, 10)
    {at_most: 4, anew: true}       -> the first piece is 1 to 4 tokens long, drawn for every copy

Pieces are never empty, together they are the payload, and `pieces` gives exactly as many as asked.
Price: a draw a piece, and a pass over the cuts before it.
"""

from __future__ import annotations

import bisect

import numpy as np

from mixctl.injections.config import Split
from mixctl.shards.draws import I64, below, bits


def cuts(n_tokens: int, split: Split, key: int) -> I64:
    """Returns where the pieces begin and the last one ends: int64, 0 first, `n_tokens` last.

    Args:
        n_tokens: of the payload.
        split: the rule.
        key: the stream of the item, or of the copy where every copy is cut anew.

    Raises:
        ValueError: when the payload has fewer tokens than pieces are asked for.
    """
    if split.pieces is not None:
        return _in_pieces(n_tokens, split.pieces, key)
    at_most = split.at_most or 1
    first = int(below(bits(key, 0), min(at_most, n_tokens))) + 1 if split.anew else at_most
    inner = np.arange(first, n_tokens, at_most, dtype=np.int64)
    return np.concatenate([[0], inner, [n_tokens]]).astype(np.int64)


def _in_pieces(n_tokens: int, pieces: int, key: int) -> I64:
    """Returns `pieces` - 1 different cuts drawn among the n_tokens - 1 places, and the ends."""
    if n_tokens < pieces:
        raise ValueError(f"{n_tokens} tokens cannot be cut into {pieces} pieces")
    turn = np.arange(pieces - 1)
    chosen: list[int] = []
    for rank in below(bits(key, turn), n_tokens - 1 - turn).tolist():
        for taken in chosen:  # the rank-th place that is not taken yet
            rank += rank >= taken
        bisect.insort(chosen, rank)
    return np.array([0, *(place + 1 for place in chosen), n_tokens], dtype=np.int64)
