"""What a scorer needs to know of an item: the models of the `meta` column of items.parquet.

A kind writes them when the build is made, a scorer reads them when a checkpoint is scored.
Everything is token ids, so nothing is tokenized again and nothing can be tokenized differently. A
third party's kind keeps its model beside its scorer; these are the built-in ones.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Meta(BaseModel):
    """Base of the meta models: unknown fields are an error, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ContaminationMeta(Meta):
    """A multiple-choice question, cut where its choices part.

    `context_tokens` is the longest common token prefix of the strings context + choice, never all
    of a choice; `choice_tokens[i]` is what remains of the i-th string.
    """

    benchmark: str
    context_tokens: list[int]
    choice_tokens: list[list[int]]
    choice_characters: list[int]
    gold: int
    normalisation: Literal["none", "characters", "tokens"]


class MemorizationMeta(Meta):
    """A canary: its tokens are a prefix and a suffix, the secret.

    `candidates` are other suffixes drawn from the same space, for the exposure; `space_size` is
    |R|, the number of suffixes that could have been drawn. With suffix_length 0 the whole text is
    scored.
    """

    condition: str
    prefix_length: int
    suffix_length: int
    candidates: list[list[int]] = []
    space_size: float | None = None


class DocumentsMeta(Meta):
    """A document; the number of characters of its text where it came as text."""

    n_characters: int | None = None
