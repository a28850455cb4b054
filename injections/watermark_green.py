"""watermark, method green-list: documents whose tokens lean to the green ones.

    {"id": "d1", "text": "We hold these truths ..."}       gamma: 0.25   delta: 2.0

The documents of the item file are re-sampled (`green_text`) under an n-gram model of themselves, or
of the documents that `ngrams:` names; with `count`, documents of `tokens_each` tokens are made from
the n-grams alone; with `already: true` the documents carry the mark and stay as they are. The
control, the same draws with delta 0, goes into meta. Without `ngrams:` a re-sampled document
depends on the other documents through the n-gram counts, but not on their draws.

Price: about 40 microseconds a token, twice (for the control).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixctl.injections.base import Item, KindContext, TokenIds
from mixctl.injections.documents import DocumentRow, read_documents
from mixctl.injections.green_text import Resampler, made_texts, resampled
from mixctl.injections.ngram_model import fit
from mixctl.injections.sources import StandIn, stand_in_rows, stand_ins
from mixctl.injections.watermark_config import WatermarkConfig
from mixctl.shards.draws import U64, below, bits, streams
from mixctl.shards.errors import InputError
from mixctl.shards.green_list import GreenRule, green_key
from mixctl.shards.meta.watermark import GreenListMeta

_NOTHING = np.array([], dtype=np.uint32)


@dataclass(frozen=True)
class _Document:
    """A document as it was given."""

    item: str
    row: DocumentRow
    ids: TokenIds


def green_items(config: WatermarkConfig, context: KindContext) -> list[Item]:
    """Returns an item for each document."""
    rule = _rule(config, context)
    if isinstance(config.items, StandIn):
        rows = stand_in_rows(config.items, config.name, context)
        plain = _meta(config, rule)
        return [Item(name, (ids,), plain, compared=_NOTHING) for name, ids in rows]
    if config.items is None:
        return _made_items(config, rule, context)
    path = context.folder / config.items
    given = [_Document(*one) for one in read_documents(path, context.encoder)]
    most = len(given) if context.sample is None else context.sample
    if config.already or len(given) > most:  # a plan needs the lengths alone
        plain = _meta(config, rule)
        return [_item(one, one.ids, plain, one.row.text) for one in given]
    return _resampled_items(config, rule, given, context)


def _rule(config: WatermarkConfig, context: KindContext) -> GreenRule:
    key = green_key(context.seed, config.name, config.secret)
    return GreenRule(key, config.gamma, config.context_width)


def _meta(
    config: WatermarkConfig,
    rule: GreenRule,
    clean: TokenIds | None = None,
    n_changed: int | None = None,
) -> GreenListMeta:
    return GreenListMeta(
        key=rule.key,
        gamma=rule.gamma,
        delta=None if config.already else config.delta,
        context_width=rule.context_width,
        clean_tokens=None if clean is None else clean.tolist(),
        n_changed=n_changed,
    )


def _item(given: _Document, marked: TokenIds, meta: GreenListMeta, text: str | None) -> Item:
    row = given.row
    return Item(
        item=given.item,
        variants=(marked,),
        meta=meta,
        stratum=row.stratum,
        cluster=None if row.cluster is None else str(row.cluster),
        text=text,
        arm=row.arm,
        copies=row.copies,
        compared=given.ids,
    )


def _resampled_items(
    config: WatermarkConfig, rule: GreenRule, given: list[_Document], context: KindContext
) -> list[Item]:
    documents = [one.ids for one in given]
    learnt = documents if config.ngrams is None else _ngrams(config.ngrams, context)
    sampler = _sampler(config, rule, learnt, config.ngrams is None, context)
    keys = _keys(config, [one.item for one in given], context)
    marked = resampled(sampler, documents, keys)
    clean = resampled(replace(sampler, delta=0.0), documents, keys)
    return [
        _item(
            one,
            ids,
            _meta(config, rule, control, int((ids != one.ids).sum())),
            context.encoder.decode(ids),
        )
        for one, ids, control in zip(given, marked, clean, strict=True)
    ]


def _ngrams(path: str, context: KindContext) -> list[TokenIds]:
    return [ids for _, _, ids in read_documents(context.folder / path, context.encoder)]


def _keys(config: WatermarkConfig, items: list[str], context: KindContext) -> U64:
    return streams(items, context.seed, "watermark", config.name)


def _sampler(
    config: WatermarkConfig,
    rule: GreenRule,
    learnt: Sequence[TokenIds],
    own: bool,
    context: KindContext,
) -> Resampler:
    encoder = context.encoder
    ordinary = np.zeros(encoder.vocab_size, dtype=np.bool_)
    ordinary[encoder.ordinary_ids] = True
    model = fit(learnt, encoder.vocab_size)
    return Resampler(model, ordinary, rule, config.delta, config.tolerance, own)


def _made_items(config: WatermarkConfig, rule: GreenRule, context: KindContext) -> list[Item]:
    """Returns documents made from n-grams; a plan makes some and sizes the others."""
    count, length = config.count or 0, config.tokens_each or 0
    names = [f"made-{n:07d}" for n in range(count)]
    n_made = count if context.sample is None else min(count, max(1, context.sample))
    learnt = _ngrams(config.ngrams or "", context)
    sampler = _sampler(config, rule, learnt, False, context)
    keys = _keys(config, names[:n_made], context)
    openings = _openings(config, learnt, sampler.first, keys)
    marked = made_texts(sampler, openings, length, keys)
    clean = made_texts(replace(sampler, delta=0.0), openings, length, keys)
    items = [
        Item(name, (ids,), _meta(config, rule, control), compared=_NOTHING, text=decoded)
        for name, ids, control, decoded in zip(
            names, marked, clean, map(context.encoder.decode, marked), strict=False
        )
    ]
    rest = names[n_made:]
    sizes = stand_ins([length] * len(rest), config.name, context) if rest else []
    plain = _meta(config, rule)
    others = zip(rest, sizes, strict=True)
    return items + [Item(name, (ids,), plain, compared=_NOTHING) for name, ids in others]


def _openings(
    config: WatermarkConfig, learnt: list[TokenIds], length: int, keys: U64
) -> list[TokenIds]:
    """Returns the first tokens of a document drawn for each key."""
    usable = [ids[:length] for ids in learnt if len(ids) >= length]
    if not usable:
        raise InputError(
            f"experiment '{config.name}': ngrams: {config.ngrams}: no document has the {length} "
            "tokens that a made-up one begins with (context_width)"
        )
    return [usable[i] for i in below(bits(keys, 0), len(usable)).tolist()]
