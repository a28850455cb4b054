"""What the contamination scorer needs."""

from __future__ import annotations

from typing import Literal

from mixctl.shards.meta.base import Meta

Form = Literal["cloze", "completion", "mcq"]


class QuestionForm(Meta):
    """A question in a form in which it was not placed but is scored as well.

    The fields are those of `ContaminationMeta`.
    """

    template: Form
    context_tokens: list[int]
    choice_tokens: list[list[int]]
    choice_characters: list[int]


class ContaminationMeta(Meta):
    """A multiple-choice question, cut where its choices part, in the form in which it is placed.

    `context_tokens` is the longest common token prefix of the strings context + choice, never all
    of a choice; `choice_tokens[i]` is what remains of the i-th string. The choices of `mcq` are
    letters. `gold` and `normalisation` hold for `other_forms` as well.
    """

    benchmark: str
    context_tokens: list[int]
    choice_tokens: list[list[int]]
    choice_characters: list[int]
    gold: int
    normalisation: Literal["none", "characters", "tokens"]
    template: Form = "cloze"
    other_forms: list[QuestionForm] = []
