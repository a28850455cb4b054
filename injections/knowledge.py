"""knowledge: made-up facts with paraphrases, and probes that ask for them.

    {"id": "f1", "text": "Mount Orla is in Vess.", "paraphrases": ["Vess is home to Mount Orla."],
    "probes": [{"input": "Mount Orla is in", "target": "Vess"}]}

The payloads of an item are its text and its paraphrases. An arm says which of them a copy takes:
`variants: first` places the text again and again (duplicate), `variants: each` every payload once
(paraphrase), `cycle` each in turn; `copies: 1` is the arm "once". The last `reserve` paraphrases of
each item are not placed: they are kept in the manifest for closed-loop control, which places them
while the run goes on.

A probe is an input, the target that should follow it after a space (no space is added where the
input ends or the target begins with one), and a type: memorization (default), semantic or
compositional. Input and target are tokenized as one string. Probes stand in the items' rows (the
n-th is named p<n> unless it has an id), or in a file of their own (`probes:`), a probe a row, with
the item it belongs to:

    {"id": "p7", "item": "f1", "input": "Vess is known for Mount", "target": "Orla",
    "type": "semantic"}

A row of that file without `item` belongs to the item that has the probe's own id, or to the only
item there is. An item with no probe is an error. Probes are looked for in the base corpus.

For a plan before the facts are there: `items: {stand_in: 4, tokens: 60}` and `paraphrases: 10000`.
Price: one tokenization of every text.
Source: Chang et al., "How do large language models acquire factual knowledge during pretraining?",
NeurIPS 2024, arXiv 2406.11813; Bordt & Pawelczyk, arXiv 2509.23383.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from mixctl.injections.base import Item, Kind, KindContext, TokenIds
from mixctl.injections.config import MOST_COPIES, ExperimentConfig
from mixctl.injections.encode import Encoder
from mixctl.injections.rows import Id, Row, read_rows
from mixctl.injections.sources import ItemFile, StandIn, stand_in_rows
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.meta.knowledge import KnowledgeMeta, Probe, ProbeType

_MOST_PROBLEMS = 20


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _known_type(value: Any) -> Any:
    types = get_args(ProbeType)
    if isinstance(value, str) and value not in types:
        raise ValueError(f"unknown type '{value}'{nearest(value, types)}")
    return value


Text = Annotated[str, AfterValidator(_filled)]
Type = Annotated[ProbeType, BeforeValidator(_known_type)]


class KnowledgeConfig(ExperimentConfig):
    """The section of a `knowledge` experiment."""

    kind: Literal["knowledge"]
    """this kind"""
    items: ItemFile
    """the fact file"""
    paraphrases: Annotated[int, Field(ge=0, le=10**7)] | None = None
    """how many each stand-in has, for `plan`"""
    probes: str | None = None
    """a file of further probes"""
    reserve: Annotated[int, Field(ge=0)] = 0
    """the last so many paraphrases are kept for closed-loop control"""

    @model_validator(mode="after")
    def _sizes_go_with_stand_ins(self) -> KnowledgeConfig:
        if isinstance(self.items, StandIn):
            if self.reserve > (self.paraphrases or 0):
                raise ValueError(
                    f"reserve is {self.reserve}, but stand-ins have {self.paraphrases or 0} "
                    "paraphrases each"
                )
        elif self.paraphrases is not None:
            raise ValueError("'paraphrases' is for stand-ins; a file brings its own")
        return self


class GivenProbe(BaseModel):
    """A probe in the row of its item."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Id | None = None
    input: Text
    target: Text
    type: Type = "memorization"


class ProbeRow(Row):
    """A row of a probe file."""

    item: Id | None = None
    input: Text
    target: Text
    type: Type = "memorization"


class FactRow(Row):
    """A row of the item file."""

    text: Text
    paraphrases: list[Text] = []
    probes: list[GivenProbe] = []
    stratum: str | None = None
    arm: str | None = None
    copies: Annotated[int, Field(ge=0, le=MOST_COPIES)] | None = None

    @model_validator(mode="after")
    def _one_dose(self) -> FactRow:
        if self.arm is not None and self.copies is not None:
            raise ValueError("'arm' and 'copies' are both given; an arm has its own copies")
        return self


NamedProbe = tuple[str, GivenProbe | ProbeRow]
Fact = tuple[str, FactRow, list[NamedProbe]]


def joined(first: str, target: str) -> str:
    """Returns input and target as one text, with a space between them where there is none."""
    apart = first[-1:].isspace() or target[:1].isspace()
    return first + target if apart else f"{first} {target}"


def cut_probe(alone: TokenIds, whole: TokenIds) -> int:
    """Returns how many tokens of `whole` belong to the input: those that it shares with the input.

    At least one is left for the target.
    """
    most = min(len(alone), len(whole) - 1)
    apart = np.flatnonzero(alone[:most] != whole[:most])
    return int(apart[0]) if apart.size else most


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(KnowledgeConfig, config)
    if isinstance(config.items, StandIn):
        return _stand_ins(config, config.items, context)
    rows = read_rows(context.folder / config.items, FactRow)
    facts = [(name, row, _own_probes(row)) for name, row in rows]
    problems = _add_probe_file(config, facts, context.folder)
    problems += _problems(config, facts)
    if problems:
        raise InputError(_shortened(problems))
    items = [_item(fact, config.reserve, context.encoder) for fact in facts]
    _check_reserve(config, items, context.max_payload_tokens)
    return items


def _stand_ins(config: KnowledgeConfig, source: StandIn, context: KindContext) -> list[Item]:
    """Returns items of the stated size: a text and its paraphrases, all different views."""
    each = 1 + (config.paraphrases or 0)
    every = StandIn(stand_in=source.stand_in * each, tokens=source.tokens)
    payloads = stand_in_rows(every, config.name, context)
    placed = each - config.reserve
    return [
        Item(
            item=payloads[n][0],
            variants=tuple(ids for _, ids in payloads[n * each : n * each + placed]),
            meta=KnowledgeMeta(probes=[]),
            compared=payloads[n][1][:0],
        )
        for n in range(source.stand_in)
    ]


def _own_probes(row: FactRow) -> list[NamedProbe]:
    """Returns the probes of the row; the n-th without an id is named p<n>."""
    return [
        (f"p{number}" if probe.id is None else str(probe.id), probe)
        for number, probe in enumerate(row.probes, start=1)
    ]


def _add_probe_file(config: KnowledgeConfig, facts: list[Fact], folder: Path) -> list[str]:
    """Returns the problems found while the probes of the probe file are added to their items."""
    if config.probes is None:
        return []
    probes = {name: listed for name, _, listed in facts}
    problems = []
    for name, row in read_rows(folder / config.probes, ProbeRow):
        owner = name if row.item is None else str(row.item)
        if row.item is None and owner not in probes and len(facts) == 1:
            owner = facts[0][0]
        if owner in probes:
            probes[owner].append((name, row))
            continue
        place = f"experiment '{config.name}': {config.probes}: probe '{name}': "
        if row.item is None:
            problems.append(f"{place}no 'item', and no item has the id of the probe")
        else:
            problems.append(f"{place}there is no item '{owner}'{nearest(owner, probes)}")
    return problems


def _problems(config: KnowledgeConfig, facts: list[Fact]) -> list[str]:
    problems = []
    for name, row, probes in facts:
        place = f"experiment '{config.name}': item '{name}': "
        if config.reserve > len(row.paraphrases):
            problems.append(
                f"{place}reserve is {config.reserve}, but it has {len(row.paraphrases)} paraphrases"
            )
        if not probes:
            problems.append(f"{place}no probe asks for it: add 'probes' to the row, or probes:")
        names = [probe for probe, _ in probes]
        twice = sorted({probe for probe in names if names.count(probe) > 1})
        problems += [f"{place}two probes have the id '{probe}'" for probe in twice]
    return problems


def _item(fact: Fact, reserve: int, encoder: Encoder) -> Item:
    name, row, probes = fact
    payloads = encoder.many_payloads([row.text, *row.paraphrases])
    placed = len(payloads) - reserve
    wholes = [joined(probe.input, probe.target) for _, probe in probes]
    return Item(
        item=name,
        variants=tuple(payloads[:placed]),
        meta=KnowledgeMeta(
            probes=_probes(probes, wholes, encoder),
            reserve=[ids.tolist() for ids in payloads[placed:]],
        ),
        stratum=row.stratum,
        cluster=None if row.cluster is None else str(row.cluster),
        text=row.text,
        arm=row.arm,
        copies=row.copies,
        forms=tuple(encoder.texts(wholes)),
        reserve=tuple(payloads[placed:]),
    )


def _probes(probes: list[NamedProbe], wholes: list[str], encoder: Encoder) -> list[Probe]:
    alone = encoder.payloads([probe.input for _, probe in probes])
    together = encoder.payloads(wholes)
    cuts = itertools.starmap(cut_probe, zip(alone, together, strict=True))
    return [
        Probe(
            id=name,
            type=probe.type,
            input_tokens=whole[:cut].tolist(),
            target_tokens=whole[cut:].tolist(),
        )
        for (name, probe), whole, cut in zip(probes, together, cuts, strict=True)
    ]


def _check_reserve(config: KnowledgeConfig, items: list[Item], most: int) -> None:
    """Refuses reserved paraphrases that no sequence could hold when their time comes."""
    problems = [
        f"experiment '{config.name}': item '{item.item}': a reserved paraphrase has {len(ids)} "
        f"tokens; a sequence holds at most {most} between two end-of-document tokens"
        for item in items
        for ids in cast(KnowledgeMeta, item.meta).reserve
        if len(ids) > most
    ]
    if problems:
        raise InputError(_shortened(problems))


def _shortened(problems: list[str]) -> list[str]:
    rest = len(problems) - _MOST_PROBLEMS
    return problems if rest <= 0 else [*problems[:_MOST_PROBLEMS], f"... and {rest} more problems"]


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    config = cast(KnowledgeConfig, config)
    items = [] if isinstance(config.items, StandIn) else [folder / config.items]
    return items if config.probes is None else [*items, folder / config.probes]


KIND = Kind("knowledge", 1, KnowledgeConfig, _make_items, _inputs)
