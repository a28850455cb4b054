"""documents: any JSONL of texts or token lists, placed as they are.

    {"id": "gutenberg-11", "text": "Alice was beginning ..."}
    {"id": "made-up", "tokens": [17, 4, 99], "copies": 16}

A row may name its arm (`arm`) or its dose (`copies`); the others are randomised to the arms that
say how many items they take. A dose without an arm of its own makes the arm `x<dose>` (`holdout`
for 0). Source of the doses and windows in the examples: Hubble, arXiv 2510.19811.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
from pydantic import Field, model_validator

from mixctl.injections.base import Item, Kind, KindContext
from mixctl.injections.config import MOST_COPIES, ExperimentConfig
from mixctl.injections.encode import Encoder
from mixctl.injections.rows import Row, read_rows
from mixctl.shards.errors import InputError
from mixctl.shards.meta import DocumentsMeta

TokenId = Annotated[int, Field(ge=0, lt=2**32)]


class DocumentsConfig(ExperimentConfig):
    """The section of a `documents` experiment."""

    kind: Literal["documents"]
    items: str


class DocumentRow(Row):
    """A row of a document file: text or tokens."""

    text: Annotated[str, Field(min_length=1)] | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] | None = (
        None
    )
    stratum: str | None = None
    arm: str | None = None
    copies: Annotated[int, Field(ge=0, le=MOST_COPIES)] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> DocumentRow:
        if (self.text is None) == (self.tokens is None):
            raise ValueError("exactly one of 'text' and 'tokens' must be given")
        if self.arm is not None and self.copies is not None:
            raise ValueError("'arm' and 'copies' are both given; an arm has its own copies")
        return self


def read_documents(path: Path, encoder: Encoder) -> list[tuple[str, DocumentRow, np.ndarray]]:
    """Returns (id, row, payload) for each row; token lists are taken as they are.

    Raises:
        InputError: when a row is broken, or a token is outside the vocabulary or ends a document.
    """
    rows = read_rows(path, DocumentRow)
    texts = iter(encoder.payloads([row.text for _, row in rows if row.text is not None]))
    problems, found = [], []
    for name, row in rows:
        ids = next(texts) if row.tokens is None else np.array(row.tokens, dtype=np.int64)
        if ids.max(initial=0) >= encoder.vocab_size:
            problems.append(
                f"{path}: item '{name}': token {ids.max()} is outside the vocabulary of "
                f"{encoder.vocab_size}"
            )
        elif encoder.eod_id in ids:
            problems.append(
                f"{path}: item '{name}': holds the end-of-document token {encoder.eod_id}"
            )
        found.append((name, row, ids.astype(np.uint32)))
    if problems:
        raise InputError(problems)
    return found


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(DocumentsConfig, config)
    return [
        Item(
            item=name,
            variants=(ids,),
            meta=DocumentsMeta(n_characters=None if row.text is None else len(row.text)),
            stratum=row.stratum,
            cluster=None if row.cluster is None else str(row.cluster),
            text=row.text,
            arm=row.arm,
            copies=row.copies,
        )
        for name, row, ids in read_documents(context.folder / config.items, context.encoder)
    ]


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return [folder / cast(DocumentsConfig, config).items]


KIND = Kind("documents", 1, DocumentsConfig, _make_items, _inputs)
