"""memorization: canaries, a prefix followed by a secret that occurs nowhere else.

The prefix is a document of the item file, or one `template` for all (then `count` canaries are
made). The secret is either `suffix_tokens` tokens drawn from the tokenizer's ordinary tokens (whole
characters, no control token), or, with `secret: {alphabet: "0123456789", length: 6}`, text drawn
from an alphabet as in the Secret Sharer. Every item's secret is different from all others,
candidates included.

    template: "The code of the vault is "      suffix_tokens: 8      count: 200

`candidates` other secrets per item, from the same space, are written for the scorer, which ranks
the placed one among them (exposure). A draw depends on (seed, experiment, item) alone.
Sources: Carlini et al., "The Secret Sharer", USENIX Security 2019; Bordt & Pawelczyk, arXiv
2509.23383.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mixctl.injections.base import Item, Kind, KindContext
from mixctl.injections.config import ExperimentConfig, Strict
from mixctl.injections.documents import read_documents
from mixctl.injections.encode import Encoder
from mixctl.shards.draws import below, bits, stream
from mixctl.shards.errors import InputError
from mixctl.shards.meta import MemorizationMeta

_MOST_REDRAWS = 1000


class SecretConfig(Strict):
    """A secret made of text."""

    alphabet: Annotated[str, Field(min_length=2)]
    length: Annotated[int, Field(ge=1, le=1000)]


class MemorizationConfig(ExperimentConfig):
    """The section of a `memorization` experiment."""

    kind: Literal["memorization"]
    items: str | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    template: str = ""
    prefix_tokens: Annotated[int, Field(ge=1)] | None = None
    suffix_tokens: Annotated[int, Field(ge=0, le=100_000)] | None = None
    secret: SecretConfig | None = None
    candidates: Annotated[int, Field(ge=0, le=100_000)] = 0

    @model_validator(mode="after")
    def _one_source_one_secret(self) -> MemorizationConfig:
        if (self.items is None) == (self.count is None):
            raise ValueError(
                "exactly one of 'items' (a file) and 'count' (with 'template') must be given"
            )
        if (self.suffix_tokens is None) == (self.secret is None):
            raise ValueError("exactly one of 'suffix_tokens' and 'secret' must be given")
        if self.items is not None and self.template:
            raise ValueError("'template' goes with 'count', not with 'items'")
        if self.count is not None and self.suffix_tokens == 0:
            raise ValueError(
                "'suffix_tokens: 0' needs 'items': there would be nothing to tell apart"
            )
        if self.candidates and self.suffix_tokens == 0:
            raise ValueError("'candidates' need a secret: suffix_tokens is 0")
        return self


@dataclass(frozen=True)
class _Prefix:
    item: str
    ids: NDArray[np.uint32]
    text: str | None
    cluster: str | None = None
    stratum: str | None = None
    arm: str | None = None
    copies: int | None = None


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(MemorizationConfig, config)
    prefixes = _prefixes(config, context)
    if config.secret is not None:
        return _text_canaries(config, config.secret, prefixes, context)
    return _token_canaries(config, config.suffix_tokens or 0, prefixes, context)


def _prefixes(config: MemorizationConfig, context: KindContext) -> list[_Prefix]:
    if config.items is None:
        ids = context.encoder.payloads([config.template])[0][: config.prefix_tokens]
        names = [f"canary-{n:06d}" for n in range(config.count or 0)]
        return [_Prefix(name, ids, config.template) for name in names]
    rows = read_documents(context.folder / config.items, context.encoder)
    return [
        _Prefix(
            item=name,
            ids=ids[: config.prefix_tokens],
            text=row.text if config.prefix_tokens is None else None,
            cluster=None if row.cluster is None else str(row.cluster),
            stratum=row.stratum,
            arm=row.arm,
            copies=row.copies,
        )
        for name, row, ids in rows
    ]


def _secrets(
    prefix: _Prefix, config: MemorizationConfig, seed: int, symbols: int, length: int
) -> Iterator[tuple[int, ...]]:
    """Yields the secrets of one item, as symbol numbers: draw 0, draw 1, ..."""
    key = stream(seed, "memorization", config.name, prefix.item)
    for draw in range(_MOST_REDRAWS + 10 * config.candidates):
        counters = np.arange(length) + draw * length
        yield tuple(below(bits(key, counters), symbols).tolist())


def _distinct(
    prefixes: list[_Prefix], config: MemorizationConfig, seed: int, symbols: int, length: int
) -> list[list[tuple[int, ...]]]:
    """Returns 1 + candidates secrets for each item, no two alike in the experiment."""
    each = 1 + config.candidates
    if symbols**length < len(prefixes) * each:
        raise InputError(
            f"experiment '{config.name}': {len(prefixes)} items with {config.candidates} "
            "candidates each "
            f"need {len(prefixes) * each} different secrets, but there are only {symbols**length}"
        )
    taken: set[tuple[int, ...]] = set()
    found = []
    for prefix in prefixes:
        fresh = (s for s in _secrets(prefix, config, seed, symbols, length) if s not in taken)
        mine: list[tuple[int, ...]] = []
        for secret in itertools.islice(fresh, each):
            taken.add(secret)
            mine.append(secret)
        if len(mine) < each:
            raise InputError(
                f"experiment '{config.name}': item '{prefix.item}': no unused secret found among "
                f"{symbols**length}; use a longer secret or fewer candidates"
            )
        found.append(mine)
    return found


def _token_canaries(
    config: MemorizationConfig, length: int, prefixes: list[_Prefix], context: KindContext
) -> list[Item]:
    ids = context.encoder.ordinary_ids
    if length == 0:
        return [_item(p, p.ids, p.ids[:0], [], None, "whole-text", p.text) for p in prefixes]
    secrets = _distinct(prefixes, config, context.seed, len(ids), length)
    items = []
    for prefix, (mine, *others) in zip(prefixes, secrets, strict=True):
        suffix = ids[list(mine)]
        text = None if prefix.text is None else prefix.text + context.encoder.decode(suffix)
        candidates = [ids[list(other)].tolist() for other in others]
        space = float(len(ids)) ** length
        name = f"random-{length}"
        items.append(_item(prefix, prefix.ids, suffix, candidates, space, name, text))
    return items


def _text_canaries(
    config: MemorizationConfig, secret: SecretConfig, prefixes: list[_Prefix], context: KindContext
) -> list[Item]:
    alphabet = "".join(dict.fromkeys(secret.alphabet))
    secrets = _distinct(prefixes, config, context.seed, len(alphabet), secret.length)
    items = []
    for prefix, mine in zip(prefixes, secrets, strict=True):
        if prefix.text is None:
            raise InputError(
                f"experiment '{config.name}': item '{prefix.item}': a text secret needs a text "
                "before it "
                f"(no 'tokens' rows, no 'prefix_tokens')"
            )
        texts = [prefix.text + "".join(alphabet[symbol] for symbol in one) for one in mine]
        items.append(
            _text_canary(prefix, texts, float(len(alphabet)) ** secret.length, context.encoder)
        )
    return items


def _text_canary(prefix: _Prefix, texts: list[str], space: float, encoder: Encoder) -> Item:
    """Returns the item; prefix and secret are cut where all candidates still share their tokens."""
    encoded = encoder.payloads(texts)
    most = min(len(prefix.ids), *(len(ids) - 1 for ids in encoded))
    agree = np.stack([ids[:most] == prefix.ids[:most] for ids in encoded]).all(axis=0)
    cut = most if agree.all() else int(np.argmin(agree))
    candidates = [ids[cut:].tolist() for ids in encoded[1:]]
    return _item(prefix, encoded[0][:cut], encoded[0][cut:], candidates, space, "secret", texts[0])


def _item(
    prefix: _Prefix,
    head: NDArray[np.uint32],
    suffix: NDArray[np.uint32],
    candidates: list[list[int]],
    space: float | None,
    condition: str,
    text: str | None,
) -> Item:
    meta = MemorizationMeta(
        condition=condition,
        prefix_length=len(head),
        suffix_length=len(suffix),
        candidates=candidates,
        space_size=space,
    )
    return Item(
        item=prefix.item,
        variants=(np.concatenate([head, suffix]),),
        meta=meta,
        stratum=prefix.stratum,
        cluster=prefix.cluster,
        text=text,
        arm=prefix.arm,
        copies=prefix.copies,
    )


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    items = cast(MemorizationConfig, config).items
    return [] if items is None else [folder / items]


KIND = Kind("memorization", 1, MemorizationConfig, _make_items, _inputs)
