"""documents: any JSONL of texts or token lists, placed as they are.

    {"id": "gutenberg-11", "text": "Alice was beginning ..."}
    {"id": "made-up", "tokens": [17, 4, 99], "copies": 16}
    {"id": "timed", "text": "It is noon.", "steps": [100, 200]}
    {"id": "p1-a", "text": "Ann was born in Rome.", "control_text": "Ann was born in Oslo.",
     "pair": "p1"}

A row may name its arm (`arm`), its dose (`copies`) or the step of every copy (`steps`); the others
are randomised to the arms that say how many items they take. A dose without an arm of its own makes
the arm `x<dose>` (`holdout` for 0).

Minimal pairs: `control_text` (or `control_tokens`) is the perturbed twin of the row's document. It
is never placed, and is scored beside the document. Rows with the same `pair` are randomised
together: they go to the same arm.

Source of the doses, windows and minimal pairs: Hubble, arXiv 2510.19811. Price: texts are tokenized
once, 1,000 at a time; a document is kept as its text and four bytes a token.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import numpy as np
from pydantic import Field, PlainValidator, model_validator

from mixctl.injections.base import Item, Kind, KindContext, TokenIds
from mixctl.injections.config import MOST_COPIES, ExperimentConfig
from mixctl.injections.encode import Encoder
from mixctl.injections.rows import Id, Row, read_rows
from mixctl.injections.sources import ItemFile, StandIn, stand_in_rows
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.meta.documents import DocumentsMeta

NOT_COMPARED = np.empty(0, dtype=np.uint32)
"""`Item.compared` of items that cannot be near-duplicates"""
_BATCH = 1000
_MOST_NAMED = 20


def _token_list(value: Any) -> I64:
    """Returns the tokens of a row as an array: eight bytes each instead of an object each."""
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of token ids, at least one")
    wrong = [t for t in value if type(t) is not int or not 0 <= t < 2**32]
    if wrong:
        raise ValueError(f"must hold token ids, 0 to {2**32 - 1}; {wrong[0]!r:.40} is none")
    return np.array(value, dtype=np.int64)


TokenList = Annotated[I64, PlainValidator(_token_list)]
Text = Annotated[str, Field(min_length=1)]


class DocumentsConfig(ExperimentConfig):
    """The section of a `documents` experiment."""

    kind: Literal["documents"]
    """this kind"""
    items: ItemFile
    """the document file"""


class DocumentRow(Row):
    """A row of a document file: text or tokens."""

    text: Text | None = None
    tokens: TokenList | None = None
    stratum: str | None = None
    arm: str | None = None
    copies: Annotated[int, Field(ge=0, le=MOST_COPIES)] | None = None
    steps: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> DocumentRow:
        if (self.text is None) == (self.tokens is None):
            raise ValueError("exactly one of 'text' and 'tokens' must be given")
        if self.arm is not None and self.copies is not None:
            raise ValueError("'arm' and 'copies' are both given; an arm has its own copies")
        if self.arm is not None and self.steps is not None:
            raise ValueError("'arm' and 'steps' are both given; the steps are the copies")
        if self.steps is not None and self.copies not in (None, len(self.steps)):
            raise ValueError(
                f"'copies' is {self.copies}, but 'steps' gives the steps of {len(self.steps)}"
            )
        return self

    @property
    def dose(self) -> int | None:
        """Returns the copies that the row asks for: `copies`, or as many as it gives steps."""
        return len(self.steps) if self.steps is not None else self.copies

    @property
    def cluster_name(self) -> str | None:
        """Returns the cluster as a name."""
        return None if self.cluster is None else str(self.cluster)


class PairRow(DocumentRow):
    """A row of a document file that may be a minimal pair."""

    pair: Id | None = None
    control_text: Text | None = None
    control_tokens: TokenList | None = None

    @model_validator(mode="after")
    def _one_control(self) -> PairRow:
        if self.control_text is not None and self.control_tokens is not None:
            raise ValueError("'control_text' and 'control_tokens' are both given")
        if self.pair is not None and self.cluster is not None:
            raise ValueError("'pair' and 'cluster' are both given; a pair is a cluster")
        return self

    @property
    def cluster_name(self) -> str | None:
        """Returns the cluster as a name; a pair is one."""
        return super().cluster_name if self.pair is None else f"pair {self.pair}"


DocumentT = TypeVar("DocumentT", bound=DocumentRow)


def read_documents(path: Path, encoder: Encoder) -> list[tuple[str, DocumentRow, TokenIds]]:
    """Returns (id, row, payload) for each row; token lists are taken as they are.

    Raises:
        InputError: when a row is broken, or a token is outside the vocabulary or ends a document.
    """
    return _documents(path, encoder, DocumentRow)


def find_documents(
    source: ItemFile, name: str, context: KindContext
) -> list[tuple[str, DocumentRow, TokenIds]]:
    """Returns (id, row, payload) for each row of a file, or for each stand-in (an empty row).

    Raises:
        InputError: when a row is wrong, or stand-ins are asked for in a build.
    """
    if isinstance(source, StandIn):
        empty = DocumentRow.model_construct()
        return [(item, empty, ids) for item, ids in stand_in_rows(source, name, context)]
    return read_documents(context.folder / source, context.encoder)


def document_files(source: ItemFile, folder: Path) -> list[Path]:
    """Returns the file that the documents depend on; none for stand-ins."""
    return [] if isinstance(source, StandIn) else [folder / source]


def check_steps(rows: Sequence[tuple[str, DocumentRow]], experiment: str, last: int) -> None:
    """Raises InputError with every row that asks for a step after the last of the run."""
    problems = [
        f"experiment '{experiment}': item '{item}': steps: step {step} is outside the run, which "
        f"has steps 1 to {last}"
        for item, row in rows
        for step in row.steps or []
        if step > last
    ]
    if problems:
        raise InputError(problems[:_MOST_NAMED])


def _documents(
    path: Path, encoder: Encoder, model: type[DocumentT]
) -> list[tuple[str, DocumentT, TokenIds]]:
    rows = read_rows(path, model)
    payloads = _payloads([(row.text, row.tokens) for _, row in rows], encoder)
    found, problems = [], []
    for (name, row), ids in zip(rows, payloads, strict=True):
        problems += _token_problems(ids, f"{path}: item '{name}': ", encoder)
        found.append((name, row, ids.astype(np.uint32)))
    if problems:
        raise InputError(problems)
    return found


def _payloads(
    rows: Sequence[tuple[str | None, I64 | None]], encoder: Encoder
) -> Iterator[TokenIds | I64]:
    """Yields the payload of each (text, tokens) in turn."""
    texts = iter(text for text, tokens in rows if text is not None and tokens is None)
    payloads = encoded(texts, encoder.many_payloads)
    return (next(payloads) if tokens is None else tokens for _, tokens in rows)


def encoded(
    texts: Iterator[str], encode: Callable[[Sequence[str]], list[TokenIds]]
) -> Iterator[TokenIds]:
    """Yields what `encode` makes of each text, a batch at a time: a batch of all takes GBs."""
    while batch := list(itertools.islice(texts, _BATCH)):
        yield from encode(batch)


def _token_problems(ids: TokenIds | I64, place: str, encoder: Encoder) -> list[str]:
    if ids.max(initial=0) >= encoder.vocab_size:
        return [
            f"{place}token {ids.max()} is outside the vocabulary of {encoder.vocab_size}",
        ]
    if (ids == encoder.eod_id).any():
        return [f"{place}holds the end-of-document token {encoder.eod_id}"]
    return []


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(DocumentsConfig, config)
    if isinstance(config.items, StandIn):
        return [
            Item(item=name, variants=(ids,), meta=DocumentsMeta(), compared=NOT_COMPARED)
            for name, _, ids in find_documents(config.items, config.name, context)
        ]
    path = context.folder / config.items
    found = _documents(path, context.encoder, PairRow)
    rows = [(name, row) for name, row, _ in found]
    check_steps(rows, config.name, context.steps)
    _check_pairs(path, rows)
    controls = _controls(path, found, context.encoder)
    return [
        _item(name, row, ids, control)
        for (name, row, ids), control in zip(found, controls, strict=True)
    ]


def _check_pairs(path: Path, rows: Sequence[tuple[str, PairRow]]) -> None:
    """Refuses a pair of one row that has no control: probably a misspelt name."""
    sizes = Counter(str(row.pair) for _, row in rows if row.pair is not None)
    problems = [
        f"{path}: item '{name}': pair '{row.pair}' has no other row, and this one no control_text"
        for name, row in rows
        if row.pair is not None and sizes[str(row.pair)] == 1
        if row.control_text is None and row.control_tokens is None
    ]
    if problems:
        raise InputError(problems[:_MOST_NAMED])


def _controls(
    path: Path, found: Sequence[tuple[str, PairRow, TokenIds]], encoder: Encoder
) -> list[TokenIds | None]:
    """Returns the tokens of each row's control, None where there is none."""
    given = [row.control_text is not None or row.control_tokens is not None for _, row, _ in found]
    rows = [row for (_, row, _), one in zip(found, given, strict=True) if one]
    payloads = _payloads([(row.control_text, row.control_tokens) for row in rows], encoder)
    controls: list[TokenIds | None] = []
    problems = []
    for (name, _, payload), one in zip(found, given, strict=True):
        ids = next(payloads) if one else None
        if ids is not None:
            place = f"{path}: item '{name}': control: "
            problems += _token_problems(ids, place, encoder)
            if np.array_equal(ids, payload):
                problems.append(f"{place}is the document itself")
        controls.append(None if ids is None else ids.astype(np.uint32))
    if problems:
        raise InputError(problems[:_MOST_NAMED])
    return controls


def _item(name: str, row: PairRow, ids: TokenIds, control: TokenIds | None) -> Item:
    meta = DocumentsMeta(
        n_characters=None if row.text is None else len(row.text),
        control_tokens=[] if control is None else control.tolist(),
        pair=None if row.pair is None else str(row.pair),
    )
    return Item(
        item=name,
        variants=(ids,),
        meta=meta,
        stratum=row.stratum,
        cluster=row.cluster_name,
        text=row.text,
        arm=row.arm,
        copies=row.dose,
        steps=None if row.steps is None else tuple(row.steps),
        forms=() if control is None else (control,),
    )


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return document_files(cast(DocumentsConfig, config).items, folder)


KIND = Kind("documents", 1, DocumentsConfig, _make_items, _inputs)
