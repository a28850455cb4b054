"""memorization: canaries, a prefix followed by a secret that occurs nowhere else.

The prefix is a document of the item file, or one `template` for all (then `count` canaries are
made; `{secret}` in it is where the secret stands, else it stands at the end). The secret is

- `suffix_tokens` tokens: `suffix: random` (default; ordinary tokens, that is whole characters and
  no control token), `rare` (one token that the documents never or hardly use, repeated) or
  `least-likely` (each token the least likely after the one before it, see `reference_model`);
  `suffix: none` leaves the documents as they are; or
- text, `secret: {alphabet: "0123456789", length: 6}`, as in the Secret Sharer.

    template: "The code is {secret}, do not tell."      suffix_tokens: 8      count: 200

`grid` is the whole design of the reference study: documents are dealt at random to the conditions
(`none`, `rare-1`, ..., `random-32`), each condition is a stratum, and the arms are its doses:

    items: documents.jsonl
    grid: {suffixes: [none, rare, least-likely, random], lengths: [1, 8, 32],
           copies: [1, 4, 16], items: 4000, holdout: 34907}

is ten conditions with arms x1, x4, x16 of 40,000 items each and a holdout; every condition has its
share of every arm to within about one item. Without `copies` and `items` the arms are written out.

Random and text secrets differ from all others of the experiment (of the condition, in a grid),
candidates included. Rare suffixes differ within a condition while rare tokens last; beyond that,
and for least-likely suffixes, what differs is document and suffix together. `candidates` other
secrets per item, from the same space, are written for the scorer, which ranks the placed one among
them (exposure); `all` writes the whole space. A draw depends on (seed, experiment, item) alone,
rare and least-likely tokens on the documents as well.

Sources: Carlini et al., "The Secret Sharer", USENIX Security 2019; Bordt & Pawelczyk, arXiv
2509.23383. Price: some 100 us an item, and 8 bytes a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from mixctl.injections.base import Item, Kind, KindContext
from mixctl.injections.canaries import Condition, deal_conditions, deal_rare, draw_bits
from mixctl.injections.canary_items import (
    NO_TOKENS,
    Prefix,
    Secret,
    Work,
    check_enumerable,
    make_item,
    sized_items,
)
from mixctl.injections.config import ExperimentConfig
from mixctl.injections.documents import (
    DocumentRow,
    check_steps,
    document_files,
    find_documents,
)
from mixctl.injections.memorization_config import SECRET, MemorizationConfig
from mixctl.injections.sources import StandIn
from mixctl.injections.text_canaries import text_canaries
from mixctl.shards.errors import InputError


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(MemorizationConfig, config)
    prefixes = _prefixes(config, context)
    check_steps([(p.item, p.row) for p in prefixes], config.name, context.steps)
    work = Work(config, context, prefixes)
    if config.secret is not None:
        return text_canaries(work, config.secret)
    dealt = _dealt(work)
    return [
        item
        for number, condition in enumerate(config.conditions)
        for item in _token_canaries(
            work, condition, [p for p, n in zip(prefixes, dealt, strict=True) if n == number]
        )
    ]


def _prefixes(config: MemorizationConfig, context: KindContext) -> list[Prefix]:
    cut = config.prefix_tokens
    if config.items is None:
        text = config.template.partition(SECRET)[0]
        ids = context.encoder.payloads([text])[0][:cut]
        row = DocumentRow.model_construct()
        names = [f"canary-{n:06d}" for n in range(config.count or 0)]
        return [Prefix(name, ids, text if cut is None else None, row) for name in names]
    return [
        Prefix(name, ids[:cut], row.text if cut is None else None, row)
        for name, row, ids in find_documents(config.items, config.name, context)
    ]


def _dealt(work: Work) -> list[int]:
    """Returns the number of each item's condition."""
    names, n = [p.item for p in work.prefixes], len(work.config.conditions)
    if n == 1:
        return [0] * len(names)
    strata = [p.row.stratum for p in work.prefixes]
    dealt = deal_conditions(names, strata, n, work.context.seed, work.config.name)
    return [int(number) for number in dealt]


def _token_canaries(work: Work, condition: Condition, prefixes: list[Prefix]) -> list[Item]:
    """Returns the items of one condition."""
    name = condition.name
    if condition.suffix == "none":
        if work.config.suffix_tokens == 0:
            name = "whole-text"
        whole = Secret(NO_TOKENS, [], None)
        return [make_item(work, p, p.ids, whole, name, p.text) for p in prefixes]
    n_made = -(-work.n_made // len(work.config.conditions))
    made, sized = prefixes[:n_made], prefixes[n_made:]
    secrets = list(_MAKERS[condition.suffix](work, condition.length, made, len(prefixes)))
    suffixes = work.context.encoder.decode_each([secret.suffix for secret in secrets])
    items = []
    for prefix, secret, suffix in zip(made, secrets, suffixes, strict=True):
        text = None if prefix.text is None else prefix.text + suffix + work.tail
        items.append(make_item(work, prefix, prefix.ids, secret, name, text, work.tail_ids))
    return items + sized_items(work, sized, [condition.length + len(work.tail_ids)], name)


def _random_secrets(work: Work, length: int, made: list[Prefix], n_items: int) -> Iterator[Secret]:
    """Returns a secret of ordinary tokens for each prefix, all different."""
    ordinary, candidates = work.context.encoder.ordinary_ids, work.config.candidates
    space = work.space(len(ordinary), length)
    names, size = [p.item for p in made], space.size_as_float
    if candidates == "all":
        check_enumerable(space, n_items)
        every = ordinary[space.enumerate()].tolist()
        return (Secret(ordinary[one[0]], every, size) for one in space.distinct(names, 0))
    if not isinstance(work.config.items, StandIn):  # whose tokenizer may be a stand-in as well
        space.check_room(n_items, candidates)
    drawn = space.distinct(names, candidates)
    return (Secret(ordinary[one[0]], ordinary[one[1:]].tolist(), size) for one in drawn)


def _rare_secrets(work: Work, length: int, made: list[Prefix], n_items: int) -> Iterator[Secret]:
    """Returns a rare token, repeated, for each prefix."""
    if not made:
        return iter(())
    rare, seed, name = work.model.rare, work.context.seed, work.config.name
    dealt = deal_rare([draw_bits(seed, name, p.item, 1)[0] for p in made], len(rare))
    return (Secret(np.repeat(rare[n], length), [], float(len(rare))) for n in dealt)


def _least_likely_secrets(
    work: Work, length: int, made: list[Prefix], n_items: int
) -> Iterator[Secret]:
    """Returns the least likely tokens after each prefix."""
    if made and length > work.model.n_kept:
        raise InputError(
            f"experiment '{work.config.name}': suffix least-likely: {length} different tokens are "
            f"asked for, there are {work.model.n_kept}"
        )
    seed, name = work.context.seed, work.config.name
    for prefix in made:
        draws = draw_bits(seed, name, prefix.item, length)
        chosen = work.model.least_likely(int(prefix.ids[-1]), draws)
        yield Secret(np.array(chosen, dtype=np.uint32), [], None)


_MAKERS: dict[str, Callable[[Work, int, list[Prefix], int], Iterator[Secret]]] = {
    "random": _random_secrets,
    "rare": _rare_secrets,
    "least-likely": _least_likely_secrets,
}


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    items = cast(MemorizationConfig, config).items
    return [] if items is None else document_files(items, folder)


KIND = Kind("memorization", 1, MemorizationConfig, _make_items, _inputs)
