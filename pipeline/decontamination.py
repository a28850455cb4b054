"""Which token strings of the items are looked for in the base corpus.

An item that the corpus holds already was seen more often than its copies say. So every item's first
payload, and every other form of it that is scored, is looked for (rule of Hubble, arXiv
2510.19811):

    fewer than `shortest` tokens    not looked for, and counted
    up to `exact` tokens            the whole string
    L tokens, more than that        L // 2 tokens, beginning at 0, L // 4, 2 * (L // 4), ... while
                                    they fit: a document that shares half of the item is found

What is looked for lies inside one document: a payload that holds end-of-document tokens is cut
there, and a BOS token before it is left out, for it stands at the beginning of documents only.

In running text the first word of an item has a space before it, which is another token: "Once upon"
is [Once][ upon], and inside a text [ Once][ upon]. So for items made of text a string that begins
where the text begins is also looked for without its first token, when `shortest` tokens remain.
(First words of another number of tokens, [Al][ice] and [ Alice], are still missed by exact match;
the other parts of longer items are not touched by this.)

Items of kinds that must be absent (`Kind.absent`) are not looked for here: every sequence that
holds one is replaced anyway. Base data is the corpus itself.

    decontamination: {action: drop}

Price: 4 bytes a token of the items (parts of one payload share its tokens) and 600 a string while
they are collected. 75,000 documents of 290 tokens: 300,000 strings, 280 MB, 1.2 s of processor.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mixctl.injections.base import Item, Kind, TokenIds
from mixctl.injections.config import Strict
from mixctl.injections.encode import Encoder
from mixctl.shards.draws import I64
from mixctl.shards.search import TokenStrings, expand


class Decontamination(Strict):
    """What is looked for in the base corpus, and what is done with documents that hold it."""

    action: Literal["report", "drop", "off"] = "report"
    """report lists matches; drop leaves their documents out, of run and twin; off does not look"""
    shortest: Annotated[int, Field(ge=1)] = 10
    """strings of fewer tokens are not looked for"""
    exact: Annotated[int, Field(ge=2)] = 40
    """strings of up to so many tokens are looked for whole, longer ones in parts"""

    @model_validator(mode="after")
    def _halves_are_long_enough(self) -> Decontamination:
        if self.exact < 2 * self.shortest - 1:
            raise ValueError(
                f"exact is {self.exact}: it must be at least {2 * self.shortest - 1}, so that half "
                f"of a longer string has the {self.shortest} tokens of 'shortest'"
            )
        return self


@dataclass(frozen=True)
class Patterns:
    """The strings to look for, each once, and whose they are.

    Attributes:
        items: (experiment, item), sorted.
        strings: the strings, all different.
        owner: numbers of items; those of string p stand from first[p] to first[p + 1]; int64.
        first: int64, one more than strings.
        too_short: by experiment, how many strings were too short to look for.
        not_searched: numbers of the items with no string that is looked for; int64, sorted.
    """

    items: tuple[tuple[str, str], ...]
    strings: TokenStrings
    owner: I64
    first: I64
    too_short: dict[str, int]
    not_searched: I64

    @property
    def n_owners(self) -> I64:
        """Returns how many items each string belongs to: int64."""
        return np.diff(self.first)


def patterns(
    experiments: Iterable[tuple[str, Kind, Sequence[Item]]], encoder: Encoder, rule: Decontamination
) -> Patterns:
    """Returns the strings to look for.

    Args:
        experiments: name, kind and items of each.
        encoder: for its control tokens.
        rule: how long strings have to be.
    """
    searched = sorted(
        ((name, item) for name, kind, items in experiments if not kind.absent for item in items),
        key=lambda one: (one[0], one[1].item),
    )
    searched = [(name, item) for name, item in searched if item.base is None]
    stretches = _stretches([item for _, item in searched], encoder)
    parts = _parts(stretches, rule)
    strings, number = _distinct(parts)
    owned = np.unique(number * len(searched) + parts.item)
    short = stretches.item[stretches.length < rule.shortest]
    too_short = Counter(searched[n][0] for n in short.tolist())
    owner = owned % max(1, len(searched))
    return Patterns(
        items=tuple((name, item.item) for name, item in searched),
        strings=strings,
        owner=owner,
        first=np.searchsorted(owned, np.arange(len(strings) + 1) * len(searched)),
        too_short={name: too_short[name] for name, _ in searched},
        not_searched=np.setdiff1d(np.arange(len(searched)), owner),
    )


@dataclass(frozen=True)
class _Stretches:
    """Stretches of one array of tokens, int64 arrays of shape (n,) unless said.

    Attributes:
        tokens: uint32, of all of them.
        item: whose they are.
        begin: where each begins in `tokens`.
        length: in tokens.
        is_text: whether its item is made of text; bool.
    """

    tokens: TokenIds
    item: I64
    begin: I64
    length: I64
    is_text: NDArray[np.bool_]

    def where(self, chosen: I64 | NDArray[np.bool_], begin: I64, length: I64) -> _Stretches:
        """Returns the chosen ones with another place and length."""
        return _Stretches(self.tokens, self.item[chosen], begin, length, self.is_text[chosen])


def _stretches(items: Sequence[Item], encoder: Encoder) -> _Stretches:
    """Returns the stretches without control tokens of the first payload and of every other form."""
    forms = [{f.tobytes(): f for f in (*item.variants[:1], *item.forms)} for item in items]
    flat = [form for of_item in forms for form in of_item.values()]
    tokens = np.concatenate([np.empty(0, dtype=np.uint32), *flat]).astype(np.uint32)
    form_length = np.array([len(form) for form in flat], dtype=np.int64)
    form_end = np.cumsum(form_length)
    eods = np.flatnonzero(tokens == encoder.eod_id)
    begin = np.sort(np.concatenate([form_end - form_length, eods + 1]))
    end = np.sort(np.concatenate([form_end, eods]))
    begin, end = begin[begin < end], end[begin < end]
    if encoder.bos_id is not None:
        begin += tokens[begin] == encoder.bos_id
        begin, end = begin[begin < end], end[begin < end]
    item = np.repeat(np.arange(len(items)), [len(of_item) for of_item in forms])
    owner = item[np.searchsorted(form_end, begin, side="right")]
    is_text = np.array([item.text is not None for item in items], dtype=np.bool_)
    return _Stretches(tokens, owner, begin, end - begin, is_text[owner])


def _parts(stretches: _Stretches, rule: Decontamination) -> _Stretches:
    """Returns the parts of the stretches to look for; none of those that are too short."""
    enough = np.flatnonzero(stretches.length >= rule.shortest)
    n_tokens, begin = stretches.length[enough], stretches.begin[enough]
    whole = n_tokens <= rule.exact
    length = np.where(whole, n_tokens, n_tokens // 2)
    stride = np.where(whole, n_tokens, np.maximum(1, n_tokens // 4))
    row, turn = expand(np.zeros_like(stride), (n_tokens - length) // stride + 1)
    later = np.flatnonzero(stretches.is_text[enough] & (length > rule.shortest))
    return stretches.where(
        np.concatenate([enough[row], enough[later]]),
        np.concatenate([begin[row] + turn * stride[row], begin[later] + 1]),
        np.concatenate([length[row], length[later] - 1]),
    )


def _distinct(parts: _Stretches) -> tuple[TokenStrings, I64]:
    """Returns the different strings among the parts, and the number of the string of each part."""
    held, width = parts.tokens.view(np.uint8).data, parts.tokens.itemsize
    begin, end = parts.begin * width, (parts.begin + parts.length) * width
    known: dict[bytes, int] = {}
    numbers = [
        known.setdefault(hashlib.blake2b(held[b:e], digest_size=16).digest(), len(known))
        for b, e in zip(begin.tolist(), end.tolist(), strict=True)
    ]
    number = np.array(numbers, dtype=np.int64)
    first = np.unique(number, return_index=True)[1]
    return TokenStrings(parts.tokens, parts.begin[first], parts.length[first]), number
