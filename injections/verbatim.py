"""verbatim: token strings that must occur nowhere in the run.

An absence experiment: every sequence of the base stream that holds one of the strings is replaced
by a spare one, payloads that hold one are refused, and the build proves that none is left. The
model that never saw them is prompted with the first `prefix_tokens` and asked for the rest; its
twin did see them.

    {"id": "s1", "tokens": [464, 2068, 7586, ...]}       length: 50      prefix_tokens: 25

Strings longer than `length` are cut to it. Give tokens, taken from the corpus: a string given as
text is purged in two tokenizations alone, at the beginning of a text and after a space, and in the
corpus the same words may be cut into other tokens. BOS is not added. The build says how many
strings occur nowhere in the base corpus.

A string has at least 8 tokens: shorter ones are idioms, which stand in every other sequence, and to
purge them would replace the corpus. All items are taken by one arm of dose 0, `purged`, unless arms
are given; a dose above 0 is an error.
Price: one tokenization of each text.
Source: Bordt & Pawelczyk, arXiv 2509.23383 (1,000 strings of 50 tokens, prompts of 25).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from mixctl.injections.base import Item, Kind, KindContext, TokenIds
from mixctl.injections.config import AbsentConfig, Arm, ExperimentConfig
from mixctl.injections.documents import DocumentRow, read_documents
from mixctl.injections.encode import Encoder
from mixctl.injections.sources import ItemFile, StandIn, stand_in_rows
from mixctl.shards.errors import InputError
from mixctl.shards.meta.verbatim import VerbatimMeta

SHORTEST = 8
"""tokens of the shortest string that can be purged"""
_MOST_PROBLEMS = 20
_PURGED = Arm(name="purged", items="rest", copies=0)


class VerbatimConfig(AbsentConfig):
    """The section of a `verbatim` experiment."""

    kind: Literal["verbatim"]
    """this kind"""
    items: ItemFile
    """documents: the token strings that must occur nowhere"""
    arms: list[Arm] = [_PURGED]
    """default: purged, copies 0"""
    length: Annotated[int, Field(ge=SHORTEST)] | None = None
    """tokens that are kept of each string"""
    prefix_tokens: Annotated[int, Field(ge=1)] = 25
    """tokens that the model is given"""

    @model_validator(mode="after")
    def _nothing_is_placed(self) -> VerbatimConfig:
        placed = [f"'{arm.name}'" for arm in self.arms if not arm.held_out]
        if placed:
            raise ValueError(
                f"arms {', '.join(placed)}: copies must be 0, the strings are absent from the run"
            )
        if self.length is not None and self.prefix_tokens >= self.length:
            raise ValueError(
                f"prefix_tokens is {self.prefix_tokens}: it must be below length, {self.length}"
            )
        return self


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(VerbatimConfig, config)
    if isinstance(config.items, StandIn):
        length = min(config.items.tokens, config.length or config.items.tokens)
        rows = stand_in_rows(config.items, config.name, context)
        strings = [(name, None, ids[:length]) for name, ids in rows]
        _check(config, [(name, None, ids) for name, ids in rows[:1]])
        return [_item(config, *string, context.encoder) for string in strings]
    read = read_documents(context.folder / config.items, context.encoder)
    found = [(name, row, _plain(row, ids, context.encoder)) for name, row, ids in read]
    _check(config, found)
    return [
        _item(config, name, row, ids[: config.length], context.encoder) for name, row, ids in found
    ]


def _plain(row: DocumentRow, ids: TokenIds, encoder: Encoder) -> TokenIds:
    """Returns the string of the row without the BOS token that begins documents."""
    return ids if row.text is None or encoder.bos_id is None else ids[1:]


def _check(
    config: VerbatimConfig, strings: Sequence[tuple[str, DocumentRow | None, TokenIds]]
) -> None:
    least = config.length or max(SHORTEST, config.prefix_tokens + 1)
    why = (
        "length"
        if config.length
        else "prefix_tokens + 1"
        if least > SHORTEST
        else "the least there is"
    )
    problems = []
    for name, row, ids in strings:
        place = f"experiment '{config.name}': item '{name}': "
        if len(ids) < least:
            problems.append(f"{place}{len(ids)} tokens; it must have at least {least} ({why})")
        if row is not None and row.dose:
            problems.append(f"{place}copies is {row.dose}; it must be 0, the string is absent")
    rest = len(problems) - _MOST_PROBLEMS
    if problems:
        more = [f"... and {rest} more problems"] if rest > 0 else []
        raise InputError([*problems[:_MOST_PROBLEMS], *more])


def _item(
    config: VerbatimConfig, name: str, row: DocumentRow | None, ids: TokenIds, encoder: Encoder
) -> Item:
    meta = VerbatimMeta(
        prefix_length=config.prefix_tokens, suffix_length=len(ids) - config.prefix_tokens
    )
    if row is None:
        return Item(name, (ids,), meta, compared=ids[:0])
    return Item(
        item=name,
        variants=(ids,),
        meta=meta,
        stratum=row.stratum,
        cluster=row.cluster_name,
        text=encoder.decode(ids),
        forms=_as_inside(row, config, encoder),
        arm=row.arm,
        copies=row.copies,
    )


def _as_inside(row: DocumentRow, config: VerbatimConfig, encoder: Encoder) -> tuple[TokenIds, ...]:
    """Returns the string as it stands inside a text, after a space, where it came as a text."""
    return () if row.text is None else (encoder.text(f" {row.text}")[: config.length],)


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    items = cast(VerbatimConfig, config).items
    return [] if isinstance(items, StandIn) else [folder / items]


KIND = Kind("verbatim", 1, VerbatimConfig, _make_items, _inputs, absent=True)
