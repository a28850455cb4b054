"""Canaries: how well is the suffix known after its prefix?

- `loglikelihood` (primary): summed log-probability of the suffix in nats, of the whole text where
  there is no suffix; its difference to the twin is the membership score of the reference study.
- `exposure`: log2((m + 1) / rank) of the suffix among m candidates drawn from the same space,
  ranked by their summed log-probability; exact where candidates and secret are all of the space.

AUC and TPR at 1% FPR against the holdout are computed on loglikelihood.

Price: one sequence a candidate, besides the item's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import FloatArray, Item, ItemScore, Metric, request, total
from mixctl.evals.stats.membership import exposure, exposure_estimator
from mixctl.shards.meta import MemorizationMeta


class MemorizationScorer:
    """Scores canaries by the likelihood of their suffix and its rank among candidates."""

    kind = "memorization"
    version = 2
    metrics = (Metric("loglikelihood", primary=True), Metric("exposure"))
    membership: str | None = "loglikelihood"

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns a request for the suffix and one for every candidate."""
        meta = MemorizationMeta.model_validate_json(item.meta)
        tokens = item.tokens.tolist()
        if meta.suffix_length == 0:
            return [request(item, prefix, tokens)]
        end = meta.prefix_length + meta.suffix_length
        context, suffix = tokens[: meta.prefix_length], tokens[meta.prefix_length : end]
        if len(tokens) != end + meta.tail_length:
            raise ValueError(
                f"experiment {item.experiment}, item {item.name}: {len(tokens)} tokens are not "
                f"prefix {meta.prefix_length} + suffix {meta.suffix_length} + tail "
                f"{meta.tail_length}"
            )
        secrets = [suffix, *_candidates(meta, suffix)]
        return [request(item, prefix, secret, context) for secret in secrets]

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns the suffix's log-likelihood and, where there are candidates, its exposure."""
        meta = MemorizationMeta.model_validate_json(item.meta)
        sums = [total(values) for values in logprobs]
        values, estimators = {"loglikelihood": sums[0]}, {}
        if len(sums) > 1:
            values["exposure"] = exposure(sums[0], np.array(sums[1:]))
            estimators["exposure"] = exposure_estimator(len(sums) - 1, meta.space_size)
        return ItemScore(len(logprobs[0]), sums[0], values, estimators)


def _candidates(meta: MemorizationMeta, suffix: list[int]) -> list[list[int]]:
    """Returns the distinct candidates that are not the secret itself."""
    distinct = dict.fromkeys(tuple(candidate) for candidate in meta.candidates)
    distinct.pop(tuple(suffix), None)
    return [list(candidate) for candidate in distinct]
