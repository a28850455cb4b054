r"""contamination: multiple-choice questions placed with their answers.

    {"id": "q1", "benchmark": "arc", "question": "What is wet?", "choices": ["fire", "water"],
    "gold": 1}

The payload is the question with its gold answer in the form that `template` says:

    cloze        Question: What is wet?\nAnswer: water
    mcq          Question: What is wet?\nA. fire\nB. water\nAnswer: B
    completion   What is wet? water

Scored by ranked likelihood: every choice (in `mcq` every letter) is put in the same place, and the
strings are cut where their tokens part, so that a tokenizer that merges the last token of the
question with the first of the answer is treated alike for all choices. The form that is placed is
always scored; `score_templates` names others. Items placed in one form and tested in another can
get worse (Hubble), and that is measured this way. All forms that are scored, and the question
alone, are looked for in the base corpus.

Arms are stratified by benchmark; near-duplicate questions form one cluster (`near_duplicates:`).
Price: one tokenization of each choice in each form that is scored, about 4,000 strings of 50 words
a second and core: 54,000 questions of four choices in one form are 54 core seconds.
Sources: Bordt & Pawelczyk, arXiv 2509.23383 (benchmark contamination); Hubble, arXiv 2510.19811.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from mixctl.injections.base import Item, Kind, KindContext, TokenIds
from mixctl.injections.config import ExperimentConfig, Strict
from mixctl.injections.rows import Row, read_rows
from mixctl.injections.sources import ItemFile, StandIn, stand_in_rows
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.meta.contamination import ContaminationMeta, Form, QuestionForm

_FORMS: tuple[Form, ...] = get_args(Form)
_LETTERS = string.ascii_uppercase
_BATCH = 4096
_MOST_PROBLEMS = 20


def _known(value: Any) -> Any:
    if isinstance(value, str) and value not in _FORMS:
        hint = nearest(value, _FORMS)
        raise ValueError(f"unknown template '{value}'{hint}")
    return value


Template = Annotated[Form, BeforeValidator(_known)]
Normalisation = Literal["none", "characters", "tokens"]


class BenchmarkConfig(Strict):
    """How the questions of one benchmark are written and scored; None: as the experiment says."""

    template: Template | None = None
    """the form that is placed"""
    score_templates: list[Template] | None = None
    """forms that are scored as well"""
    normalisation: Normalisation | None = None
    """of the choices' log-likelihoods"""


class ContaminationConfig(ExperimentConfig):
    """The section of a `contamination` experiment."""

    kind: Literal["contamination"]
    """this kind"""
    items: ItemFile
    """the question file"""
    template: Template = "cloze"
    """the form that is placed: cloze, mcq or completion"""
    score_templates: list[Template] = []
    """other forms that are scored as well"""
    normalisation: Normalisation = "none"
    """what the log-likelihoods of choices are divided by"""
    benchmarks: dict[str, BenchmarkConfig] = {}
    """what differs for single benchmarks, by name"""

    def forms(self, benchmark: str) -> list[Form]:
        """Returns the forms in which the benchmark is scored, the one that is placed first."""
        own = self.benchmarks.get(benchmark, BenchmarkConfig())
        others = self.score_templates if own.score_templates is None else own.score_templates
        return list(dict.fromkeys([own.template or self.template, *others]))

    def normalisation_of(self, benchmark: str) -> Normalisation:
        """Returns how the log-likelihoods of the benchmark's choices are normalised."""
        own = self.benchmarks.get(benchmark, BenchmarkConfig())
        return own.normalisation or self.normalisation


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


def question_text(row: QuestionRow, choice: int, form: Form) -> str:
    """Returns the question with one of its choices as the answer, as it is placed and scored."""
    context = f"{row.context}\n" if row.context else ""
    if form == "completion":
        return f"{context}{row.question} {row.choices[choice]}"
    if form == "cloze":
        return f"{context}Question: {row.question}\nAnswer: {row.choices[choice]}"
    options = "".join(f"{_LETTERS[n]}. {text}\n" for n, text in enumerate(row.choices))
    return f"{context}Question: {row.question}\n{options}Answer: {_LETTERS[choice]}"


def common_prefix(encoded: list[NDArray[np.uint32]]) -> int:
    """Returns how many tokens all share at the front, but never all of the shortest."""
    most = min(len(ids) for ids in encoded) - 1
    stacked = np.stack([ids[:most] for ids in encoded])
    apart = np.flatnonzero((stacked != stacked[0]).any(axis=0))
    return int(apart[0]) if apart.size else most


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(ContaminationConfig, config)
    if isinstance(config.items, StandIn):
        return _stand_ins(config.items, config.name, context)
    rows = read_rows(context.folder / config.items, QuestionRow)
    _check(config, rows)
    items = []
    for start in range(0, len(rows), _BATCH):
        items += _items(config, rows[start : start + _BATCH], context)
    return items


def _stand_ins(source: StandIn, name: str, context: KindContext) -> list[Item]:
    """Returns questions of the stated size, with nothing to score."""
    nothing = ContaminationMeta(
        benchmark="questions",
        context_tokens=[],
        choice_tokens=[],
        choice_characters=[],
        gold=0,
        normalisation="none",
    )
    rows = stand_in_rows(source, name, context)
    return [Item(n, (ids,), nothing, stratum="questions", compared=ids[:0]) for n, ids in rows]


def _check(config: ContaminationConfig, rows: list[tuple[str, QuestionRow]]) -> None:
    """Refuses benchmarks that no question is from, and more choices than there are letters."""
    found = {row.benchmark for _, row in rows}
    problems = [
        f"experiment '{config.name}': benchmarks: no question of {config.items} is from "
        f"'{name}'{nearest(name, found)}"
        for name in sorted(set(config.benchmarks) - found)
    ]
    problems += [
        f"experiment '{config.name}': item '{name}': {len(row.choices)} choices, but the template "
        f"mcq has letters for at most {len(_LETTERS)}"
        for name, row in rows
        if len(row.choices) > len(_LETTERS) and "mcq" in config.forms(row.benchmark)
    ]
    if problems:
        raise InputError(problems[:_MOST_PROBLEMS])


def _items(
    config: ContaminationConfig, rows: list[tuple[str, QuestionRow]], context: KindContext
) -> list[Item]:
    """Returns the items of some rows, all their strings tokenized in one go."""
    texts: list[str] = []
    for _, row in rows:
        for form in config.forms(row.benchmark):
            texts += [question_text(row, n, form) for n in range(len(row.choices))]
    encoded = iter(context.encoder.many_payloads(texts))
    alone = context.encoder.many_texts([row.question for _, row in rows])
    items = []
    for (name, row), question in zip(rows, alone, strict=True):
        forms = config.forms(row.benchmark)
        strings = [[next(encoded) for _ in row.choices] for _ in forms]
        items.append(_item(name, row, question, forms, strings, config))
    return items


def _item(
    name: str,
    row: QuestionRow,
    question: TokenIds,
    forms: list[Form],
    strings: list[list[TokenIds]],
    config: ContaminationConfig,
) -> Item:
    """Returns the item; strings[f][c] is the question with choice c in form f."""
    cut = [_cut(row, form, encoded) for form, encoded in zip(forms, strings, strict=True)]
    meta = ContaminationMeta(
        benchmark=row.benchmark,
        context_tokens=cut[0].context_tokens,
        choice_tokens=cut[0].choice_tokens,
        choice_characters=cut[0].choice_characters,
        gold=row.gold,
        normalisation=config.normalisation_of(row.benchmark),
        template=forms[0],
        other_forms=cut[1:],
    )
    return Item(
        item=name,
        variants=(strings[0][row.gold],),
        meta=meta,
        stratum=row.benchmark,
        cluster=None if row.cluster is None else str(row.cluster),
        text=question_text(row, row.gold, forms[0]),
        compared=question,
        forms=(*(encoded[row.gold] for encoded in strings[1:]), question),
    )


def _cut(row: QuestionRow, form: Form, encoded: list[TokenIds]) -> QuestionForm:
    """Returns the question in one form, cut where the tokens of its choices part."""
    cut = common_prefix(encoded)
    return QuestionForm(
        template=form,
        context_tokens=encoded[row.gold][:cut].tolist(),
        choice_tokens=[ids[cut:].tolist() for ids in encoded],
        choice_characters=[1 if form == "mcq" else len(choice) for choice in row.choices],
    )


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    items = cast(ContaminationConfig, config).items
    return [] if isinstance(items, StandIn) else [folder / items]


KIND = Kind("contamination", 1, ContaminationConfig, _make_items, _inputs)
