"""Multiple-choice questions: is the gold answer the likeliest one?

Each choice is scored after the context, cut at the longest common token prefix; its summed
log-probability is divided by nothing, its characters or its tokens, as the benchmark says. The
answer is right when the gold choice beats every other strictly.

- `accuracy` (primary): 1 or 0.
- `gold_logprob`: mean log-probability of a token of the gold choice in nats, minus its
  cross-entropy.

Price: one sequence a choice; the context is computed again for each.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import FloatArray, Item, ItemScore, Metric, request, total
from mixctl.shards.meta import ContaminationMeta


class ContaminationScorer:
    """Scores multiple-choice questions by the ranked likelihood of their choices."""

    kind = "contamination"
    version = 1
    metrics = (Metric("accuracy", primary=True, share=True), Metric("gold_logprob"))
    membership: str | None = None

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns a request a choice."""
        meta = ContaminationMeta.model_validate_json(item.meta)
        _check(item, meta)
        return [request(item, prefix, c, meta.context_tokens) for c in meta.choice_tokens]

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns accuracy and the gold choice's log-probability a token."""
        meta = ContaminationMeta.model_validate_json(item.meta)
        sums = [total(values) for values in logprobs]
        scores = [s / d for s, d in zip(sums, _divisors(meta), strict=True)]
        others = [score for choice, score in enumerate(scores) if choice != meta.gold]
        right = scores[meta.gold] > max(others)
        n_tokens = len(logprobs[meta.gold])
        values = {"accuracy": float(right), "gold_logprob": sums[meta.gold] / n_tokens}
        return ItemScore(n_tokens, sums[meta.gold], values)


def _divisors(meta: ContaminationMeta) -> list[int]:
    if meta.normalisation == "characters":
        return meta.choice_characters
    if meta.normalisation == "tokens":
        return [len(choice) for choice in meta.choice_tokens]
    return [1] * len(meta.choice_tokens)


def _check(item: Item, meta: ContaminationMeta) -> None:
    where = f"experiment {item.experiment}, item {item.name}"
    if len(meta.choice_tokens) < 2 or not 0 <= meta.gold < len(meta.choice_tokens):
        raise ValueError(f"{where}: gold is {meta.gold} of {len(meta.choice_tokens)} choices")
    if len(meta.choice_characters) != len(meta.choice_tokens) or min(_divisors(meta)) < 1:
        raise ValueError(f"{where}: choice_characters do not fit the choices")
