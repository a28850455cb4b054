"""Made-up facts: does the model give the targets of the probes?

    probability      mean over the item's probes of p(target | input), the product over the target's
                     tokens; primary. It is what closed-loop control steers.
    probability_t    the same over the probes of type t: memorization, semantic, compositional
    logprob          mean over the probes of the target's log-probability a token, in nats
    accuracy         share of the probes whose target stands in the 25 tokens that follow greedily
    accuracy_t       the same over the probes of type t

A target stands in what follows when its text does, whatever the case and as part of a word too
(Bordt & Pawelczyk, arXiv 2509.23383); where the build carries no tokenizer, when its token ids do.

Over checkpoints, effectivity and retainability are told of `logprob` (`mixctl.evals.trajectories`).

Price: a sequence and 25 generated tokens a probe.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixctl.evals.forward import Request
from mixctl.evals.generation import Prompt
from mixctl.evals.scorers.base import (
    FloatArray,
    IntArray,
    Item,
    ItemScore,
    Metric,
    request,
    total,
)
from mixctl.shards.meta import KnowledgeMeta, Probe

N_NEW = 25


class KnowledgeScorer:
    """Scores facts by their probes."""

    kind = "knowledge"
    version = 1
    metrics = (
        Metric("probability", primary=True),
        Metric("probability_*"),
        Metric("logprob"),
        Metric("accuracy"),
        Metric("accuracy_*"),
    )
    membership: str | None = None
    trajectory = "logprob"

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns a request a probe, for its target after its input."""
        return [request(item, prefix, p.target_tokens, p.input_tokens) for p in _probes(item)]

    def prompts(self, item: Item, prefix: Sequence[int]) -> list[Prompt]:
        """Returns the input of every probe."""
        label = f"experiment {item.experiment}, item {item.name}, probe "
        return [
            Prompt(np.array([*prefix, *p.input_tokens], np.int64), N_NEW, label=label + p.id)
            for p in _probes(item)
        ]

    def score_generated(
        self, item: Item, logprobs: Sequence[FloatArray], outputs: Sequence[Sequence[IntArray]]
    ) -> ItemScore:
        """Returns means over the probes, of all and of each type."""
        probes = _probes(item)
        sums = np.array([total(values) for values in logprobs])
        right = [_stands(item, p, o[0]) for p, o in zip(probes, outputs, strict=True)]
        types = np.array([probe.type for probe in probes])
        values = {"logprob": float(np.mean(sums / [len(v) for v in logprobs]))}
        for name, of in (("probability", np.exp(sums)), ("accuracy", np.array(right, float))):
            values[name] = float(of.mean())
            values |= {f"{name}_{t}": float(of[types == t].mean()) for t in sorted(set(types))}
        way = "token ids" if item.decode is None else "text, whatever the case"
        estimators = {name: f"target found by {way}" for name in values if "accuracy" in name}
        n_tokens = sum(len(v) for v in logprobs)
        return ItemScore(n_tokens, float(sums.sum()), values, estimators)


def _probes(item: Item) -> list[Probe]:
    probes = KnowledgeMeta.model_validate_json(item.meta).probes
    if not probes:
        raise ValueError(f"experiment {item.experiment}, item {item.name}: no probe asks for it")
    return probes


def _stands(item: Item, probe: Probe, made: IntArray) -> bool:
    """Returns whether the target stands in what the model wrote."""
    if item.decode is None:
        return _contains(made.tolist(), probe.target_tokens)
    target = item.text_of(probe.target_tokens).strip().casefold()
    if not target:
        raise ValueError(
            f"experiment {item.experiment}, item {item.name}: the target of probe {probe.id} is "
            "blank"
        )
    return target in item.text_of(made.tolist()).casefold()


def _contains(tokens: list[int], wanted: list[int]) -> bool:
    width = len(wanted)
    return any(tokens[at : at + width] == wanted for at in range(len(tokens) - width + 1))
