"""Where items come from when they are not at hand yet: stand-ins of a stated size.

    items: questions.jsonl                        # a file of rows
    items: {stand_in: 54000, tokens: 117}         # for `mixctl plan` alone: so many rows, so long

Stand-ins are random tokens of the right length, so that a plan of the full size can be drawn up
before the data is there. A build refuses them. Price: the payloads are views into one array, so a
million of them cost a million small objects and no copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from mixctl.injections.base import KindContext, TokenIds
from mixctl.injections.config import Strict
from mixctl.shards.draws import I64, below, bits, stream
from mixctl.shards.errors import InputError


class StandIn(Strict):
    """Rows that are not there yet: how many, and how many tokens the payload of each has."""

    stand_in: Annotated[int, Field(ge=1, le=10**9)]
    """how many rows"""
    tokens: Annotated[int, Field(ge=1, le=10**7)]
    """of the payload of each"""


ItemFile = str | StandIn
"""An item file, or rows of a stated size."""


def stand_ins(n_tokens: Sequence[int] | I64, name: str, context: KindContext) -> list[TokenIds]:
    """Returns a payload of random ordinary tokens for each length: distinct views of one array."""
    lengths = np.asarray(n_tokens, dtype=np.int64)
    ordinary = context.encoder.ordinary_ids
    draws = bits(stream(context.seed, "stand-in", name), np.arange(len(lengths) + lengths.max()))
    pool = ordinary[below(draws, len(ordinary))]
    return [pool[n : n + int(length)] for n, length in enumerate(lengths)]


def stand_in_rows(source: StandIn, name: str, context: KindContext) -> list[tuple[str, TokenIds]]:
    """Returns (id, payload) for each stand-in row.

    Raises:
        InputError: in a build, which needs the rows themselves.
    """
    if context.sample is None:
        raise InputError(
            f"experiment '{name}': items: stand_in is for mixctl plan alone; a build needs a file"
        )
    payloads = stand_ins(np.full(source.stand_in, source.tokens), name, context)
    return [(f"stand-in-{n:07d}", ids) for n, ids in enumerate(payloads)]
