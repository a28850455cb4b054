"""Canaries as items: a prefix, a secret, a tail, and what the scorer must know of them.

A plan makes a sample of them, and others that are only as long: `sized_items`. Price: a payload
is kept once, 4 bytes a token; candidates are shared where they are the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import cycle

import numpy as np

from mixctl.injections.base import Item, KindContext, TokenIds
from mixctl.injections.canaries import MOST_ENUMERATED, SecretSpace
from mixctl.injections.documents import NOT_COMPARED, DocumentRow
from mixctl.injections.memorization_config import SECRET, MemorizationConfig
from mixctl.injections.reference_model import ReferenceModel, reference_model
from mixctl.injections.sources import StandIn, stand_ins
from mixctl.shards.errors import InputError
from mixctl.shards.meta.memorization import MemorizationMeta

NO_TOKENS = np.empty(0, dtype=np.uint32)
_MOST_WRITTEN = 10_000_000
"""candidates that all items of an experiment write together"""


@dataclass(frozen=True)
class Prefix:
    """What stands before the secret, and the row it came from (an empty one of a template)."""

    item: str
    ids: TokenIds
    text: str | None
    row: DocumentRow


@dataclass(frozen=True)
class Secret:
    """A secret of an item.

    Attributes:
        suffix: its tokens.
        candidates: others from the same space.
        space: |R|, None where it is not known.
    """

    suffix: TokenIds
    candidates: list[list[int]]
    space: float | None


@dataclass(frozen=True)
class Work:
    """The experiment at hand; the reference model is made when it is asked for."""

    config: MemorizationConfig
    context: KindContext
    prefixes: list[Prefix]

    @property
    def written(self) -> bool:
        """Returns whether the prefixes are documents, which may have near-duplicates."""
        return isinstance(self.config.items, str)

    @property
    def n_made(self) -> int:
        """Returns how many items are made; the others are only as long as they would be."""
        if isinstance(self.config.items, StandIn):
            return 0
        return len(self.prefixes) if self.context.sample is None else self.context.sample

    @property
    def tail(self) -> str:
        """Returns what the template says after the secret."""
        return self.config.template.partition(SECRET)[2]

    @cached_property
    def tail_ids(self) -> TokenIds:
        """Returns the tokens of the tail alone."""
        return self.context.encoder.text(self.tail)

    @cached_property
    def model(self) -> ReferenceModel:
        """Returns the reference model of all documents, as they are placed."""
        encoder = self.context.encoder
        return reference_model(
            [p.ids for p in self.prefixes], encoder.ordinary_ids, encoder.vocab_size
        )

    def space(self, symbols: int, length: int) -> SecretSpace:
        """Returns the space of secrets of so many symbols."""
        return SecretSpace(self.config.name, self.context.seed, symbols, length)


def make_item(
    work: Work,
    prefix: Prefix,
    head: TokenIds,
    secret: Secret,
    condition: str,
    text: str | None,
    tail: TokenIds = NO_TOKENS,
) -> Item:
    """Returns the item of head, secret and tail."""
    payload = np.concatenate([head, secret.suffix, tail])
    meta = MemorizationMeta.model_construct(  # unlike the constructor, it does not copy candidates
        condition=condition,
        prefix_length=len(head),
        suffix_length=len(secret.suffix),
        tail_length=len(tail),
        candidates=secret.candidates,
        space_size=secret.space,
    )
    row = prefix.row
    return Item(
        item=prefix.item,
        variants=(payload,),
        meta=meta,
        stratum=_stratum(work, row, condition),
        cluster=row.cluster_name,
        text=text,
        arm=row.arm,
        copies=row.dose,
        steps=None if row.steps is None else tuple(row.steps),
        compared=payload[: len(head)] if work.written else NOT_COMPARED,
    )


def _stratum(work: Work, row: DocumentRow, condition: str) -> str | None:
    """Returns the stratum: in a grid the condition, within the stratum that the row names."""
    if work.config.grid is None:
        return row.stratum
    return condition if row.stratum is None else f"{row.stratum}/{condition}"


def sized_items(work: Work, prefixes: list[Prefix], lengths: list[int], name: str) -> list[Item]:
    """Returns items whose secret is random tokens, of these lengths in turn: for a plan alone."""
    if not prefixes:
        return []
    sizes = [n for _, n in zip(prefixes, cycle(lengths), strict=False)]
    secrets = stand_ins(sizes, f"{work.config.name} {name}", work.context)
    return [
        make_item(work, prefix, prefix.ids, Secret(ids, [], None), name, None)
        for prefix, ids in zip(prefixes, secrets, strict=True)
    ]


def check_enumerable(space: SecretSpace, n_items: int) -> None:
    """Refuses `candidates: all` where that would write too much."""
    place = f"experiment '{space.experiment}': candidates: all: "
    shown = f"{space.symbols}^{space.length} secrets"
    if space.size > MOST_ENUMERATED:
        raise InputError(
            f"{place}there are {shown}, at most {MOST_ENUMERATED} can be written out; use a "
            "shorter secret or a number of candidates"
        )
    if space.size * n_items > _MOST_WRITTEN:
        raise InputError(
            f"{place}{n_items} items with {shown} each would write {space.size * n_items} of them, "
            f"more than {_MOST_WRITTEN}; use fewer items or a number of candidates"
        )
    space.check_room(n_items, 0)
