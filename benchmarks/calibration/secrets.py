"""Secrets drawn anew: tests of an arm alone, where the arms do not matter but the secret does.

    guessing        answers guessed anew, uniform over the 23
    rank_test       which of a collection's strings is the placed one, drawn anew: they are
                    exchangeable, so nothing is scored again
    radioactivity   a new key for the same documents and predictions; and documents marked anew with
                    a new key, read by an untrained model, which may copy what it reads
    noise_test      new noise against the same gradients

Every test is the scorer's own (`pooled`, `estimate`); only what the build drew at random is
replaced. Price: seconds each, but for documents marked anew: some 0.1 s a draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from benchmarks.calibration.attainable import largest
from benchmarks.calibration.cases import Case, Model, Say
from benchmarks.calibration.table import LEVELS, NullLine, null_line
from mixctl.evals.checkpoint import load_model
from mixctl.evals.estimation import Wanted, estimate
from mixctl.evals.forward import likeliest_tokens, token_logprobs
from mixctl.evals.scorers import watermark_gaussian as gaussian
from mixctl.evals.scorers import watermark_green as green
from mixctl.evals.scorers.base import FloatArray, Item, ItemScore, Pooled, request
from mixctl.evals.scorers.mathematics import N_ANSWERS, MathematicsScorer
from mixctl.evals.scorers.watermark_strings import StringsScorer
from mixctl.injections.green_text import Resampler, resampled
from mixctl.injections.ngram_model import fit
from mixctl.shards.draws import streams
from mixctl.shards.green_list import GreenRule
from mixctl.shards.meta import GaussianMeta, GreenListMeta, MathematicsMeta

SOURCE = "secrets drawn anew"
MARKED_DOCUMENTS = 8
_CONTINUOUS = ("noise_test",)
"""tests that could have any size; of the others it is the largest p-value seen, the law is fixed"""

Draw = Callable[[np.random.Generator], list[Pooled]]


def redrawn(
    cases: Sequence[Case], model: Model, prefix: Sequence[int], n_draws: int, say: Say
) -> Iterator[NullLine]:
    """Yields a line for each test of an arm alone, with the model's scores.

    Args:
        cases: of the build that the model fits.
        model: whose scores.
        prefix: what stands before every text.
        n_draws: secrets drawn for each test.
        say: is told what is drawn.
    """
    network = load_model(model.checkpoint, "cpu")
    for case in cases:
        say(f"{SOURCE}: {case.experiment.name}, {model.name}")
        for name, draw in _draws(case, network, prefix).items():
            yield from _lines(case, model.name, name, draw, n_draws)


def marked_anew(case: Case, model: Model, prefix: Sequence[int], n_draws: int) -> list[NullLine]:
    """Returns the lines of radioactivity where documents are marked with a new key each draw."""
    network = load_model(model.checkpoint, "cpu")
    documents = [item.tokens.astype(np.uint32) for item in case.experiment.items]
    documents = documents[:MARKED_DOCUMENTS]
    metas = _metas(case.experiment.items[: len(documents)], GreenListMeta)
    vocabulary = int(cast(Any, network).config.vocab_size)
    ordinary = np.zeros(vocabulary, dtype=np.bool_)
    ordinary[np.unique(np.concatenate(documents))] = True
    counts = fit(documents, vocabulary)
    names = [item.name for item in case.experiment.items[: len(documents)]]
    scorer = cast(green.GreenListScorer, case.scorer)

    def draw(rng: np.random.Generator) -> list[Pooled]:
        key = int(rng.integers(2**63))
        rule = GreenRule(key, metas[0].gamma, metas[0].context_width)
        sampler = Resampler(counts, ordinary, rule, metas[0].delta or 2.0, 1.0, True)
        marked = resampled(sampler, documents, streams(names, key))
        items = [
            replace(item, tokens=ids.astype(np.int64), meta=_with(meta, key=key, clean_tokens=None))
            for item, ids, meta in zip(case.experiment.items, marked, metas, strict=False)
        ]
        return scorer.pooled(_columns(scorer.measure(network, items, prefix)))

    return list(_lines(case, model.name, "marked anew", draw, n_draws))


def _draws(case: Case, network: torch.nn.Module, prefix: Sequence[int]) -> dict[str, Draw]:
    scorer = case.scorer
    if case.experiment.kind == "mathematics":
        return {"guesses": _guesses(case)}
    if isinstance(scorer, StringsScorer):
        strings = (("all", 16), ("one", 1))
        return {name: _strings(case, network, prefix, count) for name, count in strings}
    if isinstance(scorer, green.GreenListScorer):
        return {"new key": _keys(case, network, prefix)}
    if isinstance(scorer, gaussian.GaussianScorer):
        return {"new noise": _noise(case, network)}
    return {}


def _lines(case: Case, models: str, name: str, draw: Draw, n_draws: int) -> Iterator[NullLine]:
    found: dict[str, list[float]] = {}
    methods: dict[str, str] = {}
    for number in range(n_draws):
        for row in draw(np.random.default_rng([number, len(name)])):
            if row.p_value is not None:
                found.setdefault(row.metric, []).append(row.p_value)
                methods[row.metric] = (row.test or "").rpartition(": ")[2]
    kind, experiment = case.experiment.kind, case.experiment.name
    for metric, p_values in found.items():
        title, seen = f"{experiment} {metric} ({name})", np.array(p_values)
        sizes = LEVELS if metric in _CONTINUOUS else largest(seen)
        yield null_line(SOURCE, kind, title, "level", models, methods[metric], seen, sizes)


class _Guessing:
    """Says of itself what the scorer of mathematics says of its accuracy."""

    kind, version = "mathematics", 1
    metrics = tuple(one for one in MathematicsScorer.metrics if one.name == "accuracy")
    membership: str | None = None


def _guesses(case: Case) -> Draw:
    """Returns the test against chance with answers that are guessed."""
    metas = _metas(case.experiment.items, MathematicsMeta)
    answers = np.array([meta.answer for meta in metas])
    asked = np.array([bool(meta.prompt_tokens) for meta in metas])
    scored = case.runs[0]

    def draw(rng: np.random.Generator) -> list[Pooled]:
        right = (rng.integers(N_ANSWERS, size=len(answers)) == answers).astype(np.float64)
        values = {"accuracy": np.where(asked, right, np.nan)}
        runs = [replace(scored, values=values)]
        rows = estimate(case.experiment, _Guessing(), runs, [], Wanted(("level",)))
        whole = [row for row in rows if row.stratum is None and row.p_value is not None]
        return [Pooled("guessing", row.estimate, row.p_value, row.test, row.n) for row in whole]

    return draw


def _strings(case: Case, network: torch.nn.Module, prefix: Sequence[int], count: int) -> Draw:
    """Returns the rank test with the placed string drawn among the strings of its collection."""
    scorer = cast(StringsScorer, case.scorer)
    items = case.experiment.items[:count]
    asked = [scorer.requests(item, prefix) for item in items]
    found = iter(token_logprobs(network, [one for of_item in asked for one in of_item]))
    logprobs = [[next(found) for _ in of_item] for of_item in asked]

    def draw(rng: np.random.Generator) -> list[Pooled]:
        scores = []
        for item, of_item in zip(items, logprobs, strict=True):
            placed = int(rng.integers(len(of_item)))
            order = [of_item[placed], *of_item[:placed], *of_item[placed + 1 :]]
            scores.append(scorer.score(item, order))
        return scorer.pooled(_columns(scores))

    return draw


def _keys(case: Case, network: torch.nn.Module, prefix: Sequence[int]) -> Draw:
    """Returns the test of radioactivity by a new key for the same documents."""
    scorer, items = cast(green.GreenListScorer, case.scorer), case.experiment.items
    metas = _metas(items, GreenListMeta)
    read = [request(item, prefix, item.tokens.tolist()) for item in items]
    predicted = likeliest_tokens(network, read)

    def draw(rng: np.random.Generator) -> list[Pooled]:
        key = int(rng.integers(2**63))
        keyed = [meta.model_copy(update={"key": key}) for meta in metas]
        counts = list(green._greens(items, keyed, predicted))
        n = np.array([one.n for one in counts], dtype=np.float64)
        values = {
            "green_tuples": n,
            "green_fraction": np.array([one.green for one in counts]) / n,
            "control_fraction": np.array([one.control for one in counts]) / n,
        }
        return scorer.pooled(values)

    return draw


def _noise(case: Case, network: torch.nn.Module) -> Draw:
    """Returns the z-test with new noise, against the gradients of the marks that were placed."""
    scorer = cast(gaussian.GaussianScorer, case.scorer)
    gradients = []
    for item in case.experiment.items:
        if len(item.tokens):
            meta = GaussianMeta.model_validate_json(item.meta)
            longest = int(cast(Any, network).max_seq_length)
            gradients.append(
                list(gaussian._gradients(network, gaussian._sequences(item, meta, longest)))
            )

    def draw(rng: np.random.Generator) -> list[Pooled]:
        x = []
        for of_mark in gradients:
            seed = int(rng.integers(2**63))
            along = [gaussian._along(one.slope, seed, row) for row, one in enumerate(of_mark)]
            x.append(sum(along) / math.sqrt(sum(one.square for one in of_mark)))
        return scorer.pooled({"noise_alignment": np.array(x)})

    return draw


def _columns(scores: Sequence[ItemScore]) -> Mapping[str, FloatArray]:
    names = {name for score in scores for name in score.values}
    return {name: np.array([score.values.get(name, np.nan) for score in scores]) for name in names}


def _metas(items: Sequence[Item], model: Any) -> list[Any]:
    return [model.model_validate_json(item.meta) for item in items]


def _with(meta: GreenListMeta, **changes: Any) -> str:
    return meta.model_copy(update=changes).model_dump_json()
