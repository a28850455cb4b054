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

Price: 4 bytes a token of the items (parts of one payload share its tokens) and 400 a string while
they are collected. 75,000 documents of 290 tokens: 300,000 strings, 200 MB, 6 s.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from mixctl.injections.base import Item, Kind, TokenIds
from mixctl.injections.config import Strict
from mixctl.injections.encode import Encoder
from mixctl.shards.draws import I64
from mixctl.shards.search import TokenStrings

Part = tuple[int, int]
"""where a string begins in a payload, and its length"""


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
    made = _Collected()
    too_short: Counter[str] = Counter()
    for number, (name, item) in enumerate(searched):
        for payload in _forms(item, encoder):
            parts = list(_parts(len(payload), item.text is not None, rule))
            too_short[name] += len(parts) == 0
            made.add(payload, parts, number)
    strings, owner, first = made.done()
    return Patterns(
        items=tuple((name, item.item) for name, item in searched),
        strings=strings,
        owner=owner,
        first=first,
        too_short={name: too_short[name] for name, _ in searched},
        not_searched=np.setdiff1d(np.arange(len(searched)), owner),
    )


def _forms(item: Item, encoder: Encoder) -> list[TokenIds]:
    """Returns the stretches without control tokens of the first payload and of every other form."""
    found: dict[bytes, TokenIds] = {}
    for form in (*item.variants[:1], *item.forms):
        ends = np.flatnonzero(form == encoder.eod_id)
        for begin, end in zip([0, *(ends + 1)], [*ends, len(form)], strict=True):
            begin += begin < end and int(form[begin]) == encoder.bos_id
            if begin < end:
                found[form[begin:end].tobytes()] = form[begin:end]
    return list(found.values())


def _parts(n_tokens: int, is_text: bool, rule: Decontamination) -> Iterator[Part]:
    """Yields the parts of a payload to look for; none when it is too short."""
    if n_tokens < rule.shortest:
        return
    length = n_tokens if n_tokens <= rule.exact else n_tokens // 2
    if is_text and length > rule.shortest:
        yield 1, length - 1
    stride = length if n_tokens <= rule.exact else max(1, n_tokens // 4)
    for begin in range(0, n_tokens - length + 1, stride):
        yield begin, length


@dataclass
class _Collected:
    """Payloads one after another, and the different strings in them with their owners."""

    payloads: list[TokenIds] = field(default_factory=list)
    n_tokens: int = 0
    number: dict[bytes, int] = field(default_factory=dict)
    places: list[Part] = field(default_factory=list)
    owned: set[Part] = field(default_factory=set)

    def add(self, payload: TokenIds, parts: Sequence[Part], item: int) -> None:
        """Adds the parts that are not there yet, and says that they are the item's."""
        known = len(self.places)
        for begin, length in parts:
            ids = payload[begin : begin + length].astype(np.uint32)
            digest = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
            number = self.number.setdefault(digest, len(self.places))
            if number == len(self.places):
                self.places.append((self.n_tokens + begin, length))
            self.owned.add((number, item))
        if len(self.places) > known:
            self.payloads.append(payload)
            self.n_tokens += len(payload)

    def done(self) -> tuple[TokenStrings, I64, I64]:
        """Returns the strings, their owners, and where the owners of each string begin."""
        tokens = np.concatenate([np.empty(0, dtype=np.uint32), *self.payloads])
        places = np.array(self.places, dtype=np.int64).reshape(-1, 2)
        owned = np.array(sorted(self.owned), dtype=np.int64).reshape(-1, 2)
        first = np.searchsorted(owned[:, 0], np.arange(len(places) + 1))
        strings = TokenStrings(tokens.astype(np.uint32), places[:, 0].copy(), places[:, 1].copy())
        return strings, owned[:, 1].copy(), first.astype(np.int64)
