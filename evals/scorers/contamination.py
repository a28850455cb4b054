"""Multiple-choice questions: is the gold answer the likeliest one?

Each choice is scored after the context, cut at the longest common token prefix; its summed
log-probability is divided by nothing, its characters or its tokens, as the benchmark says. The
answer is right when the gold choice beats every other strictly.

- `accuracy` (primary): 1 or 0.
- `gold_logprob`: mean log-probability of a token of the gold choice in nats, minus its
  cross-entropy.
- `accuracy_<template>`, `gold_logprob_<template>`: the same for each form (cloze, completion, mcq)
  in which the question was not placed but is scored as well.

Price: the context once a form, and each choice (`mixctl.evals.prefixes`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import FloatArray, Item, ItemScore, Metric, request, total
from mixctl.shards.meta import ContaminationMeta, QuestionForm

_Form = ContaminationMeta | QuestionForm


class ContaminationScorer:
    """Scores multiple-choice questions by the ranked likelihood of their choices."""

    kind = "contamination"
    version = 2
    metrics = (
        Metric("accuracy", primary=True, share=True),
        Metric("gold_logprob"),
        Metric("accuracy_*", share=True),
        Metric("gold_logprob_*"),
    )
    membership: str | None = None

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns a request a choice, those of the other forms last."""
        meta = ContaminationMeta.model_validate_json(item.meta)
        asked = []
        for form in _forms(meta):
            _check(item, meta, form)
            asked += [request(item, prefix, c, form.context_tokens) for c in form.choice_tokens]
        return asked

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns accuracy and the gold choice's log-probability a token, for every form."""
        meta = ContaminationMeta.model_validate_json(item.meta)
        left = list(logprobs)
        values: dict[str, float] = {}
        for form in _forms(meta):
            own, left = left[: len(form.choice_tokens)], left[len(form.choice_tokens) :]
            ending = "" if form is meta else f"_{form.template}"
            sums = [total(found) for found in own]
            scores = [s / d for s, d in zip(sums, _divisors(meta, form), strict=True)]
            others = [score for choice, score in enumerate(scores) if choice != meta.gold]
            values[f"accuracy{ending}"] = float(scores[meta.gold] > max(others))
            values[f"gold_logprob{ending}"] = sums[meta.gold] / len(own[meta.gold])
        gold = logprobs[meta.gold]
        return ItemScore(len(gold), total(gold), values)


def _forms(meta: ContaminationMeta) -> list[_Form]:
    """Returns the form in which the question is placed, then the others that are scored."""
    return [meta, *meta.other_forms]


def _divisors(meta: ContaminationMeta, form: _Form) -> list[int]:
    if meta.normalisation == "characters":
        return form.choice_characters
    if meta.normalisation == "tokens":
        return [len(choice) for choice in form.choice_tokens]
    return [1] * len(form.choice_tokens)


def _check(item: Item, meta: ContaminationMeta, form: _Form) -> None:
    where = f"experiment {item.experiment}, item {item.name}"
    if len(form.choice_tokens) < 2 or not 0 <= meta.gold < len(form.choice_tokens):
        raise ValueError(f"{where}: gold is {meta.gold} of {len(form.choice_tokens)} choices")
    if len(form.choice_characters) != len(form.choice_tokens) or min(_divisors(meta, form)) < 1:
        raise ValueError(f"{where}: choice_characters do not fit the choices")
