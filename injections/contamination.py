r"""contamination: multiple-choice questions placed with their answers.

The payload is the gold answer in cloze form, `Question: ...\nAnswer: <gold>`, or, with
`template: completion`, question and answer as one plain text. Scored by ranked likelihood: every
choice is put in the same form, and the strings are cut where their tokens part, so that a tokenizer
that merges the last token of the question with the first of the answer is treated alike for all
choices.

    {"id": "q1", "benchmark": "arc", "question": "What is wet?", "choices": ["fire", "water"],
    "gold": 1} payload   Question: What is wet?\nAnswer: water

Arms are stratified by benchmark; questions whose payloads are the same tokens form one cluster.
Source: Bordt & Pawelczyk, arXiv 2509.23383 (benchmark contamination).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mixctl.injections.base import Item, Kind, KindContext
from mixctl.injections.config import ExperimentConfig, Strict
from mixctl.injections.rows import Row, read_rows
from mixctl.shards.meta import ContaminationMeta

Template = Literal["cloze", "completion"]
Normalisation = Literal["none", "characters", "tokens"]


class BenchmarkConfig(Strict):
    """How the questions of one benchmark are written and scored."""

    template: Template | None = None
    normalisation: Normalisation | None = None


class ContaminationConfig(ExperimentConfig):
    """The section of a `contamination` experiment."""

    kind: Literal["contamination"]
    items: str
    template: Template = "cloze"
    normalisation: Normalisation = "none"
    benchmarks: dict[str, BenchmarkConfig] = {}


class QuestionRow(Row):
    """A row of the question file."""

    benchmark: str = "questions"
    question: Annotated[str, Field(min_length=1)]
    choices: Annotated[list[str], Field(min_length=2)]
    gold: int
    context: str = ""

    @model_validator(mode="after")
    def _gold_is_a_choice(self) -> QuestionRow:
        if not 0 <= self.gold < len(self.choices):
            raise ValueError(
                f"gold is {self.gold}: it must be the index of a choice, 0 to "
                f"{len(self.choices) - 1}"
            )
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("two choices are the same text")
        if not all(self.choices):
            raise ValueError("a choice is empty")
        return self


def question_text(row: QuestionRow, choice: str, template: Template) -> str:
    """Returns the question with one choice as its answer, in the form that is placed and scored."""
    context = f"{row.context}\n" if row.context else ""
    if template == "completion":
        return f"{context}{row.question} {choice}"
    return f"{context}Question: {row.question}\nAnswer: {choice}"


def common_prefix(encoded: list[NDArray[np.uint32]]) -> int:
    """Returns how many tokens all share at the front, but never all of the shortest."""
    most = min(len(ids) for ids in encoded) - 1
    stacked = np.stack([ids[:most] for ids in encoded])
    apart = np.flatnonzero((stacked != stacked[0]).any(axis=0))
    return int(apart[0]) if apart.size else most


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(ContaminationConfig, config)
    rows = read_rows(context.folder / config.items, QuestionRow)
    texts = [_texts(row, config) for _, row in rows]
    encoded = iter(context.encoder.payloads([text for of_row in texts for text in of_row]))
    return [
        _item(name, row, of_row, [next(encoded) for _ in of_row], config)
        for (name, row), of_row in zip(rows, texts, strict=True)
    ]


def _texts(row: QuestionRow, config: ContaminationConfig) -> list[str]:
    """Returns the question with each of its choices."""
    template = config.benchmarks.get(row.benchmark, BenchmarkConfig()).template or config.template
    return [question_text(row, choice, template) for choice in row.choices]


def _item(
    name: str,
    row: QuestionRow,
    texts: list[str],
    encoded: list[NDArray[np.uint32]],
    config: ContaminationConfig,
) -> Item:
    benchmark = config.benchmarks.get(row.benchmark, BenchmarkConfig())
    cut = common_prefix(encoded)
    meta = ContaminationMeta(
        benchmark=row.benchmark,
        context_tokens=encoded[row.gold][:cut].tolist(),
        choice_tokens=[ids[cut:].tolist() for ids in encoded],
        choice_characters=[len(choice) for choice in row.choices],
        gold=row.gold,
        normalisation=benchmark.normalisation or config.normalisation,
    )
    return Item(
        item=name,
        variants=(encoded[row.gold],),
        meta=meta,
        stratum=row.benchmark,
        cluster=None if row.cluster is None else str(row.cluster),
        text=texts[row.gold],
    )


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return [folder / cast(ContaminationConfig, config).items]


KIND = Kind("contamination", 1, ContaminationConfig, _make_items, _inputs)
