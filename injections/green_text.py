"""Texts that lean to the green tokens: re-sampled from a document, or made from n-grams.

Going through a document from the left, each token may give way to another. Candidates are the
tokens most often seen after the two before, after the one before, and before the one after. A
candidate is admitted when it fits its neighbours nearly as well as the token itself: when

    log p(c | left) + log p(right | .. c)  >=  the same of the document's own token - tolerance

under the n-gram model, with this occurrence taken out of its counts. Among those admitted one is
drawn: all that fit as well as the document's own token or better weigh alike, the others less by
what they lack, and a green one e^delta times as much. With delta 0 the same draws give the control.

Without a document (`made_texts`) the candidates are the followers of the two tokens before, of the
one before, and the commonest tokens, weighed by their probabilities.

The first tokens, which have no whole context, and tokens that are no whole characters stay.

    resampled(model, documents, keys, rule, delta=2.0, tolerance=1.0)  ->  marked documents

Price: about 40 microseconds a token (documents go side by side). No language model is asked, so
the text is plausible token by token only: it is for experiments, not for readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.base import TokenIds
from mixctl.injections.ngram_model import F64, NOTHING, NgramModel
from mixctl.shards.draws import I64, U64, bits
from mixctl.shards.green_list import GreenRule, is_green

_SIDE_BY_SIDE = 1024
_FREQUENT = 8


@dataclass(frozen=True)
class Resampler:
    """What decides which token stands where.

    Attributes:
        model: what fits.
        ordinary: for each token whether it may be put in or taken out.
        rule: what is green.
        delta: what a green token's logit gains.
        tolerance: by how many nats a token may fit worse than the document's own.
        own: whether the documents are those that the model was fitted on.
    """

    model: NgramModel
    ordinary: NDArray[np.bool_]
    rule: GreenRule
    delta: float
    tolerance: float
    own: bool

    @property
    def first(self) -> int:
        """Returns the first place that may change: it has a whole context."""
        return max(1, self.rule.context_width)


def resampled(sampler: Resampler, documents: Sequence[TokenIds], keys: U64) -> list[TokenIds]:
    """Returns each document re-sampled with the draws of its key."""
    found: list[TokenIds] = [np.array([], dtype=np.uint32)] * len(documents)
    order = np.argsort([-len(ids) for ids in documents], kind="stable")
    for begin in range(0, len(order), _SIDE_BY_SIDE):
        mine = order[begin : begin + _SIDE_BY_SIDE].tolist()
        texts = _side_by_side(sampler, [documents[i] for i in mine], keys[mine])
        for i, text in zip(mine, texts, strict=True):
            found[i] = text
    return found


def _side_by_side(sampler: Resampler, documents: list[TokenIds], keys: U64) -> list[TokenIds]:
    """Returns the documents, longest first, re-sampled place by place."""
    lengths = np.array([len(ids) for ids in documents])
    given = np.full((len(documents), lengths.max() + 1), NOTHING, dtype=np.int64)
    for row, ids in enumerate(documents):
        given[row, : len(ids)] = ids
    text = given.copy()
    for place in range(sampler.first, int(lengths.max())):
        n = int((lengths > place).sum())
        text[:n, place] = _drawn(sampler, text[:n], given[:n], place, keys[:n])
    return [text[row, :n].astype(np.uint32) for row, n in enumerate(lengths)]


def _drawn(sampler: Resampler, text: I64, given: I64, place: int, keys: U64) -> I64:
    """Returns the token of each document at this place."""
    model = sampler.model
    before, own, after = text[:, place - 1], given[:, place], given[:, place + 1]
    ahead = np.where((after == NOTHING)[:, None], NOTHING, model.predecessors[after])
    behind = [_after_two(model, text, place), model.followers[before]]
    candidates = np.concatenate([own[:, None], *behind, ahead], axis=1)
    fit = _fit(sampler, text, given, candidates, place)
    lack = np.minimum(fit - fit[:, :1], 0.0)
    admitted = _first_of_its_kind(candidates) & sampler.ordinary[candidates]
    admitted &= lack >= -sampler.tolerance
    admitted[:, 0] = True
    logits = np.where(admitted, lack, -np.inf)
    chosen = _choose(sampler, text, candidates, logits, place, keys)
    return np.where(sampler.ordinary[own], chosen, own)


def _fit(sampler: Resampler, text: I64, given: I64, candidates: I64, place: int) -> F64:
    """Returns the log-probability of each candidate and of what follows it."""
    model = sampler.model
    a, b = _two_before(text, place)
    own_a, own_b = _two_before(given, place)
    own, after = given[:, place : place + 1], given[:, place + 1 : place + 2]
    gone = (own_a, own_b, own) if sampler.own else None
    fit = model.log_p(a, b, candidates, gone)
    gone = (own_b, own, after) if sampler.own else None
    ahead = model.log_p(b, candidates, np.maximum(after, 0), gone)
    return fit + np.where(after == NOTHING, 0.0, ahead)


def _two_before(text: I64, place: int) -> tuple[I64, I64]:
    """Returns the two tokens before the place as columns; NOTHING before the front."""
    b = text[:, place - 1 : place]
    return (text[:, place - 2 : place - 1] if place > 1 else np.full_like(b, NOTHING)), b


def _after_two(model: NgramModel, text: I64, place: int) -> I64:
    """Returns what most often follows the two tokens before the place; NOTHING where nothing."""
    a, b = _two_before(text, place)
    pairs = model.pair(a, b)
    if not len(model.pair_followers):
        return np.full((len(text), 1), NOTHING, dtype=np.int64)
    return np.where(pairs == NOTHING, NOTHING, model.pair_followers[pairs[:, 0]])


def _first_of_its_kind(candidates: I64) -> NDArray[np.bool_]:
    """Returns for each candidate whether it is there and stands in no earlier column."""
    order = np.argsort(candidates, axis=1, kind="stable")
    ranked = np.take_along_axis(candidates, order, axis=1)
    new = np.ones(candidates.shape, dtype=np.bool_)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    found = np.empty_like(new)
    np.put_along_axis(found, order, new, axis=1)
    return np.asarray(found & (candidates != NOTHING), dtype=np.bool_)


def _choose(
    sampler: Resampler, text: I64, candidates: I64, logits: F64, place: int, keys: U64
) -> I64:
    """Returns a candidate of each row, drawn by its logit and its colour.

    A draw belongs to (document, place, token), so the control meets the same luck.
    """
    rule = sampler.rule
    contexts = text[:, None, place - rule.context_width : place]
    green = is_green(contexts, candidates, rule.key, rule.gamma)
    draws = bits(bits(keys, place)[:, None], candidates) >> np.uint64(11)
    uniform = (draws.astype(np.float64) + 0.5) / 2.0**53
    noisy = logits + sampler.delta * green - np.log(-np.log(uniform))
    best = np.argmax(noisy, axis=1)
    return np.asarray(candidates[np.arange(len(best)), best], dtype=np.int64)


def made_texts(
    sampler: Resampler, openings: Sequence[TokenIds], length: int, keys: U64
) -> list[TokenIds]:
    """Returns a text of `length` tokens after each opening of `sampler.first` tokens."""
    model = sampler.model
    frequent = np.argsort(-model.ones, kind="stable")[:_FREQUENT]
    text = np.full((len(openings), length), NOTHING, dtype=np.int64)
    text[:, : sampler.first] = np.stack(openings)[:, :length]
    for place in range(sampler.first, length):
        behind = [_after_two(model, text, place), model.followers[text[:, place - 1]]]
        common = np.broadcast_to(frequent, (len(text), len(frequent)))
        candidates = np.concatenate([*behind, common], axis=1)
        usable = _first_of_its_kind(candidates) & sampler.ordinary[candidates]
        fit = model.log_p(*_two_before(text, place), candidates)
        logits = np.where(usable, fit, -np.inf)
        text[:, place] = _choose(sampler, text, candidates, logits, place, keys)
    return list(text.astype(np.uint32))
