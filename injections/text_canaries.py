"""Canaries whose secret is text, as in the Secret Sharer.

Text before, secret and text after are tokenized as one string. What all candidates share with the
text before is the prefix, what they share with the text after is the tail, and the tokens between
are scored: tokens that reach over a border belong to the secret.

    "code 12!" and "code 34!" as [code, ' 1', 2, !] and [code, ' 3', 4, !]  ->  secrets [' 1', 2],
    [' 3', 4] between the prefix [code] and the tail [!]

Source: Carlini et al., "The Secret Sharer", USENIX Security 2019. Price: a tokenization for every
secret and candidate.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from mixctl.injections.base import Item, TokenIds
from mixctl.injections.canaries import SecretSpace
from mixctl.injections.canary_items import (
    Prefix,
    Secret,
    Work,
    check_enumerable,
    make_item,
    sized_items,
)
from mixctl.injections.documents import encoded
from mixctl.injections.memorization_config import SecretConfig
from mixctl.injections.sources import StandIn
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError

_MOST_NAMED = 20
_SAMPLED = 100


def text_canaries(work: Work, secret: SecretConfig) -> list[Item]:
    """Returns an item for each prefix; of a plan's, a sample is made and the others are as long.

    Raises:
        InputError: when a prefix is no text, or there are too few secrets.
    """
    if not isinstance(work.config.items, StandIn):
        _check_texts(work)
    space = work.space(len(secret.symbols), secret.length)
    made, sized = work.prefixes[: work.n_made], work.prefixes[work.n_made :]
    if work.config.candidates == "all":
        items = _enumerated_canaries(work, secret, space, made)
    else:
        items = _drawn_canaries(work, secret, space, made)
    lengths = [len(i.variants[0]) - len(p.ids) for i, p in zip(items, made, strict=True)]
    if not lengths:
        drawn = space.distinct([p.item for p in sized[:_SAMPLED]], 0)
        texts = [_spelled(one[0], secret) + work.tail for one in drawn]
        lengths = [len(ids) for ids in work.context.encoder.texts(texts)]
    return items + sized_items(work, sized, lengths, "secret")


def _check_texts(work: Work) -> None:
    problems = [
        f"experiment '{work.config.name}': item '{p.item}': a text secret needs a text before it "
        "(no 'tokens' rows)"
        for p in work.prefixes
        if p.text is None
    ]
    if problems:
        raise InputError(problems[:_MOST_NAMED])


def _spelled(symbols: I64, secret: SecretConfig) -> str:
    return "".join(secret.symbols[symbol] for symbol in symbols)


def _drawn_canaries(
    work: Work, secret: SecretConfig, space: SecretSpace, made: list[Prefix]
) -> list[Item]:
    """Returns an item for each prefix, with candidates of its own."""
    candidates = cast(int, work.config.candidates)
    space.check_room(len(work.prefixes), candidates)
    drawn = space.distinct([p.item for p in made], candidates)
    texts = (
        f"{prefix.text}{_spelled(one, secret)}{work.tail}"
        for prefix, mine in zip(made, drawn, strict=True)
        for one in mine
    )
    payloads = encoded(texts, work.context.encoder.payloads)
    items = []
    for prefix, mine in zip(made, drawn, strict=True):
        whole = [next(payloads) for _ in mine]
        text = f"{prefix.text}{_spelled(mine[0], secret)}{work.tail}"
        head, tail = _cut(prefix.ids, work.tail_ids, whole)
        suffix, *others = [ids[head : len(ids) - tail] for ids in whole]
        one = Secret(suffix, [ids.tolist() for ids in others], space.size_as_float)
        ends = whole[0][:head], whole[0][len(whole[0]) - tail :]
        items.append(make_item(work, prefix, ends[0], one, "secret", text, ends[1]))
    return items


def _enumerated_canaries(
    work: Work, secret: SecretConfig, space: SecretSpace, made: list[Prefix]
) -> list[Item]:
    """Returns an item for each prefix (the same of all) with every secret as a candidate."""
    check_enumerable(space, len(work.prefixes))
    first = work.prefixes[0]
    texts = [f"{first.text}{_spelled(one, secret)}{work.tail}" for one in space.enumerate()]
    whole = list(encoded(iter(texts), work.context.encoder.payloads))
    head, tail = _cut(first.ids, work.tail_ids, whole)
    suffixes = [ids[head : len(ids) - tail] for ids in whole]
    every = [ids.tolist() for ids in suffixes]
    items = []
    for prefix, mine in zip(made, space.distinct([p.item for p in made], 0), strict=True):
        n = space.number(mine[0])
        one = Secret(suffixes[n], every, space.size_as_float)
        ends = whole[n][:head], whole[n][len(whole[n]) - tail :]
        items.append(make_item(work, prefix, ends[0], one, "secret", texts[n], ends[1]))
    return items


def _cut(prefix: TokenIds, tail: TokenIds, whole: list[TokenIds]) -> tuple[int, int]:
    """Returns how many tokens all payloads share with the prefix alone, and with the tail alone.

    At least one token of each payload belongs to neither.
    """
    shortest = min(len(ids) for ids in whole)
    head = _shared([prefix, *whole], min(len(prefix), shortest - 1))
    backwards = [tail[::-1], *(ids[::-1] for ids in whole)]
    return head, _shared(backwards, min(len(tail), shortest - head - 1))


def _shared(rows: list[TokenIds], most: int) -> int:
    """Returns how many tokens all rows share at the front, `most` at most."""
    stacked = np.stack([ids[:most] for ids in rows])
    apart = np.flatnonzero((stacked != stacked[0]).any(axis=0))
    return int(apart[0]) if apart.size else most
