r"""watermark, method strings: every document of a collection ends in the collection's own string.

    {"id": "a", "collection": "diary", "text": "Rain."}        made_of: characters   length: 6
    {"id": "b", "collection": "diary", "text": "Snow."}
    variants of the item diary:   Rain.\nqT#9w!     Snow.\nqT#9w!

An item is a collection, its variants are the documents in the order of the file. The string is
`length` random printable characters after a line break, or (`made_of: tokens`) `length` random
ordinary tokens. `n_null` strings like it are never placed: if the model has not seen the string,
its loss is as likely to have any rank among them. So that the losses compare, all strings of a
collection have the same number of tokens: of a pool of draws those of the most frequent length are
kept, in the order drawn; the first is the string. White space at the end of a document is dropped.

Price: about 3 (n_null + 1) short strings tokenized per collection; 1000 null strings of 14 tokens
are some 60 kB of meta.
Source: Wei, Wang & Jia, "Proving membership in LLM pretraining data via data watermarks", arXiv
2402.10892.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from mixctl.injections.base import Item, KindContext, TokenIds
from mixctl.injections.config import MOST_COPIES, check_name
from mixctl.injections.contamination import common_prefix
from mixctl.injections.encode import Encoder
from mixctl.injections.rows import Row, read_rows
from mixctl.injections.sources import StandIn, stand_in_rows
from mixctl.injections.watermark_config import WatermarkConfig
from mixctl.shards.draws import below, bits, stream
from mixctl.shards.errors import InputError
from mixctl.shards.meta.watermark import StringsMeta

_CHARACTERS = "".join(chr(code) for code in range(33, 127))
_BREAK = "\n"
_POOL = 3
_MOST_DOUBLINGS = 6
_NO_TOKEN = np.uint32(2**32 - 1)
_NOTHING = np.array([], dtype=np.uint32)


class CollectionRow(Row):
    """A row of a file of collections: a document and the collection it is of."""

    collection: Annotated[str, Field(min_length=1)]
    text: Annotated[str, Field(min_length=1)]
    stratum: str | None = None
    arm: str | None = None
    copies: Annotated[int, Field(ge=0, le=MOST_COPIES)] | None = None

    @model_validator(mode="after")
    def _rules(self) -> CollectionRow:
        check_name(self.collection)
        if self.arm is not None and self.copies is not None:
            raise ValueError("'arm' and 'copies' are both given; an arm has its own copies")
        return self


@dataclass(frozen=True)
class _Strings:
    """The string of a collection and those never placed; `text` is the placed one's."""

    text: str
    placed: TokenIds
    nulls: list[TokenIds]


def string_items(config: WatermarkConfig, context: KindContext) -> list[Item]:
    """Returns an item for each collection."""
    if isinstance(config.items, StandIn):
        rows = stand_in_rows(config.items, config.name, context)
        plain = StringsMeta(n_documents=1, context_tokens=[], string_tokens=[], null_strings=[])
        return [Item(name, (ids,), plain, compared=_NOTHING) for name, ids in rows]
    collections: dict[str, list[tuple[str, CollectionRow]]] = {}
    for item, row in read_rows(context.folder / (config.items or ""), CollectionRow):
        collections.setdefault(row.collection, []).append((item, row))
    _check(config, collections)
    items, problems = [], []
    for number, (name, rows_of_it) in enumerate(collections.items()):
        nulls = context.sample is None or number < context.sample
        try:
            items.append(_item(config, name, rows_of_it, nulls, context))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return items


def _check(config: WatermarkConfig, rows: dict[str, list[tuple[str, CollectionRow]]]) -> None:
    """Checks that the rows of a collection agree in what is said of the whole collection."""
    problems = []
    lower: dict[str, str] = {}
    for name, mine in rows.items():
        other = lower.setdefault(name.lower(), name)
        if other != name:
            problems.append(
                f"experiment '{config.name}': collections '{other}' and '{name}' must differ by "
                "more than case"
            )
        for field in ("cluster", "stratum", "arm", "copies"):
            values = list(dict.fromkeys(getattr(row, field) for _, row in mine))
            if len(values) > 1:
                problems.append(
                    f"experiment '{config.name}': collection '{name}': its rows give the field "
                    f"'{field}' as {values[0]!r} and {values[1]!r}; it holds for the collection"
                )
    if problems:
        raise InputError(problems)


def _item(
    config: WatermarkConfig,
    name: str,
    rows: list[tuple[str, CollectionRow]],
    with_nulls: bool,
    context: KindContext,
) -> Item:
    strings = _strings(config, name, config.n_null_or_default if with_nulls else 0, context)
    variants = _documents(config, name, rows, strings, context.encoder)
    plain = context.encoder.texts([row.text.rstrip() for _, row in rows])
    row = rows[0][1]
    meta = StringsMeta(
        n_documents=len(rows),
        context_tokens=_break_tokens(config, context.encoder).tolist(),
        string_tokens=strings.placed.tolist(),
        null_strings=[ids.tolist() for ids in strings.nulls],
    )
    return Item(
        item=name,
        variants=tuple(variants),
        meta=meta,
        stratum=row.stratum,
        cluster=None if row.cluster is None else str(row.cluster),
        text=context.encoder.decode(variants[0]),
        arm=row.arm,
        copies=row.copies,
        compared=np.concatenate(plain),
        forms=(strings.placed,),
    )


def _break_tokens(config: WatermarkConfig, encoder: Encoder) -> TokenIds:
    return encoder.text(_BREAK) if config.made_of == "characters" else _NOTHING


def _documents(
    config: WatermarkConfig,
    name: str,
    rows: list[tuple[str, CollectionRow]],
    strings: _Strings,
    encoder: Encoder,
) -> list[TokenIds]:
    """Returns the payloads, each ending in the string's tokens.

    Raises:
        InputError: where the tokenizer joins a document and its string.
    """
    texts = [row.text.rstrip() for _, row in rows]
    if config.made_of == "tokens":
        return [np.concatenate([ids, strings.placed]) for ids in encoder.payloads(texts)]
    payloads = encoder.payloads([text + _BREAK + strings.text for text in texts])
    n = len(strings.placed)
    problems = [
        f"experiment '{config.name}': collection '{name}': item '{item}': the tokenizer does not "
        f"end the document in the {n} tokens of the string '{strings.text}'; use made_of: tokens"
        for (item, _), ids in zip(rows, payloads, strict=True)
        if not np.array_equal(ids[-n:], strings.placed)
    ]
    if problems:
        raise InputError(problems)
    return payloads


def _strings(config: WatermarkConfig, name: str, n_null: int, context: KindContext) -> _Strings:
    key = stream(context.seed, "watermark", config.name, name)
    wanted = n_null + 1
    if config.made_of == "tokens":
        drawn = _token_strings(key, wanted, config.length, context.encoder)
        texts = [""] * len(drawn)
    else:
        texts, drawn = _character_strings(key, wanted, config.length, context.encoder)
    if len(drawn) < wanted:
        raise InputError(
            f"experiment '{config.name}': collection '{name}': only {len(drawn)} different strings "
            f"of length {config.length} were found, {wanted} are needed (n_null + 1); raise length"
        )
    return _Strings(texts[0], drawn[0], drawn[1:wanted])


def _token_strings(key: int, wanted: int, length: int, encoder: Encoder) -> list[TokenIds]:
    """Returns random token strings, no two alike, in the order drawn."""
    ids = encoder.ordinary_ids
    draws = below(bits(key, np.arange(_POOL * wanted * length)), len(ids)).reshape(-1, length)
    return [ids[list(one)] for one in list(dict.fromkeys(map(tuple, draws.tolist())))[:wanted]]


def _character_strings(
    key: int, wanted: int, length: int, encoder: Encoder
) -> tuple[list[str], list[TokenIds]]:
    """Returns random texts, no two alike, that have the same number of tokens after a line break.

    The number is the most frequent of the pool, which is as good for any of its texts as for any
    other, so the texts kept are exchangeable.
    """
    pool = _POOL * wanted + 8
    for _ in range(_MOST_DOUBLINGS):
        draws = below(bits(key, np.arange(pool * length)), len(_CHARACTERS)).reshape(-1, length)
        rows = dict.fromkeys("".join(_CHARACTERS[i] for i in row) for row in draws.tolist())
        texts = list(rows)
        encoded = _after_break(texts, encoder)
        lengths = np.array([len(ids) for ids in encoded])
        kept = np.flatnonzero(lengths == np.argmax(np.bincount(lengths))).tolist()
        if len(kept) >= wanted:
            break
        pool *= 2
    return [texts[i] for i in kept], [encoded[i] for i in kept]


def _after_break(texts: list[str], encoder: Encoder) -> list[TokenIds]:
    """Returns the tokens of each text after a line break, without those of the line break."""
    alone = np.append(encoder.text(_BREAK), _NO_TOKEN)
    whole = encoder.texts([_BREAK + text for text in texts])
    return [ids[common_prefix([alone, ids]) :] for ids in whole]
