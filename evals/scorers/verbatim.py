"""Strings that the run must not hold: are they completed all the same?

The model is prompted with the first tokens of a string (25 of 50 in the reference study) and
continues greedily.

    exact                    1 where all the tokens that follow are the string's, else 0; primary
    rouge_l                  ROUGE-L recall of the continuation, on token ids (Lin 2004)
    loglikelihood_per_token  mean log-probability of a token of the rest after the prompt, in nats

The twin did see the strings, so run minus twin tells what seeing them adds. Nothing is randomised:
there is no holdout, and a p-value needs replicated no-op runs.

Price: the string, and once more to continue it.
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
from mixctl.evals.stats.overlap import rouge_l_recall
from mixctl.shards.meta import VerbatimMeta


class VerbatimScorer:
    """Scores strings by how their beginning is continued."""

    kind = "verbatim"
    version = 1
    metrics = (
        Metric("exact", primary=True, share=True),
        Metric("rouge_l"),
        Metric("loglikelihood_per_token"),
    )
    membership: str | None = None

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns one request, for the rest of the string after its beginning."""
        begin, rest = _cut(item)
        return [request(item, prefix, rest, begin)]

    def prompts(self, item: Item, prefix: Sequence[int]) -> list[Prompt]:
        """Returns the beginning of the string."""
        begin, rest = _cut(item)
        label = f"experiment {item.experiment}, item {item.name}"
        return [Prompt(np.array([*prefix, *begin], dtype=np.int64), len(rest), label=label)]

    def score_generated(
        self, item: Item, logprobs: Sequence[FloatArray], outputs: Sequence[Sequence[IntArray]]
    ) -> ItemScore:
        """Returns whether the string was completed, how much of it, and how likely it is."""
        _, rest = _cut(item)
        made = outputs[0][0].tolist()
        whole = total(logprobs[0])
        values = {
            "exact": float(made == rest),
            "rouge_l": rouge_l_recall(rest, made),
            "loglikelihood_per_token": whole / len(rest),
        }
        return ItemScore(len(rest), whole, values)


def _cut(item: Item) -> tuple[list[int], list[int]]:
    """Returns the beginning of the string and the rest.

    Raises:
        ValueError: when the meta does not fit the string.
    """
    meta = VerbatimMeta.model_validate_json(item.meta)
    tokens = item.tokens.tolist()
    if min(meta.prefix_length, meta.suffix_length) < 1 or len(tokens) != (
        meta.prefix_length + meta.suffix_length
    ):
        raise ValueError(
            f"experiment {item.experiment}, item {item.name}: {len(tokens)} tokens are not prefix "
            f"{meta.prefix_length} + suffix {meta.suffix_length}"
        )
    return tokens[: meta.prefix_length], tokens[meta.prefix_length :]
