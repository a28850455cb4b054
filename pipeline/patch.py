"""Writes payloads over base tokens, in memory, many at once.

    base  7 7 7 7 7 7 7     payload 1 2 3 at offset 2, end-of-document 0
    run   7 0 1 2 3 0 7

Price: three vector operations over the payload tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64


@dataclass(frozen=True)
class PayloadPool:
    """All payloads end to end: uint32 tokens, and where each begins and how long it is (int64)."""

    tokens: np.ndarray
    begin: I64
    length: I64


def overwrite(
    blocks: Tokens, row: I64, offset: I64, payload: I64, pool: PayloadPool, eod: int
) -> None:
    """Writes payload[i] into blocks[row[i]] at offset[i], an end-of-document token on each side.

    Args:
        blocks: shape (n, sequence_tokens); changed in place.
        row: int64, one per placement: which block.
        offset: int64, one per placement, at least 1: of the first payload token.
        payload: int64, one per placement: which payload of the pool.
        pool: where payload tokens come from.
        eod: the end-of-document token.
    """
    width = blocks.shape[1]
    flat = blocks.reshape(-1)
    begin = row * width + offset
    length = pool.length[payload]
    flat[begin - 1] = eod
    flat[begin + length] = eod
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    flat[np.repeat(begin, length) + within] = pool.tokens[
        np.repeat(pool.begin[payload], length) + within
    ].astype(blocks.dtype)
