"""Writes payloads over base tokens, in memory, many at once.

    base       7 7 7 7 7 7 7     payload 1 2 3 at offset 2, end-of-document 0
    overwrite  7 0 1 2 3 0 7

    base       7 0 8 8 8 8 8     spliced in behind the document that ends at offset 1
    boundary   7 0 1 2 3 0 8     what follows moves right, the tail is cut

Price: a few vector operations over the payload tokens of a chunk, and over the whole rows that a
`boundary` payload goes to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64


@dataclass(frozen=True)
class PayloadPool:
    """All payloads end to end: uint32 tokens."""

    tokens: np.ndarray


def write_payloads(
    blocks: Tokens, row: I64, offset: I64, begin: I64, length: I64, pool: PayloadPool
) -> None:
    """Writes the i-th payload into blocks[row[i]] at offset[i]; nothing around it.

    Args:
        blocks: shape (n, sequence_tokens); changed in place.
        row: int64, one per placement: which block.
        offset: int64, one per placement: of the first payload token.
        begin: int64, one per placement: of its tokens in the pool.
        length: int64, one per placement: its tokens.
        pool: where payload tokens come from.
    """
    flat = blocks.reshape(-1)
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    target = np.repeat(row * blocks.shape[1] + offset, length) + within
    flat[target] = pool.tokens[np.repeat(begin, length) + within].astype(blocks.dtype)


def write_separators(blocks: Tokens, row: I64, offset: I64, length: I64, eod: int) -> None:
    """Writes an end-of-document token before and behind each payload."""
    flat = blocks.reshape(-1)
    begin = row * blocks.shape[1] + offset
    flat[begin - 1] = eod
    flat[begin + length] = eod


def make_room(blocks: Tokens, row: I64, offset: I64, length: I64, eod: int) -> None:
    """Moves what follows each offset to the right, to make room for payload and separators.

    Where the token before `offset` ends a document, it stays and serves as the first separator, so
    payload and one separator are spliced in there. Else the payload goes to the front (offset 1)
    and both separators are new. A row must occur once.

    Args:
        blocks: shape (n, sequence_tokens); changed in place.
        row: int64, one per placement, all different.
        offset: int64, one per placement: of the first payload token.
        length: int64, one per placement: its tokens.
        eod: the end-of-document token.
    """
    old = blocks[row]
    ends = old[np.arange(len(row)), offset - 1] == eod
    splice = np.where(ends, offset, 0)[:, None]
    shift = np.where(ends, length + 1, length + 2)[:, None]
    column = np.arange(blocks.shape[1])[None, :]
    source = np.where(column < splice + shift, column, column - shift)
    blocks[row] = np.take_along_axis(old, source, axis=1)
