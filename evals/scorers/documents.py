"""Documents: how well is a text known?

    loglikelihood_per_token  mean log-probability of a token of the text in nats, primary

AUC and TPR at 1% FPR against the holdout (membership inference by loss) are computed on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import FloatArray, Item, ItemScore, Metric, request, total


class DocumentsScorer:
    """Scores documents by their length-normalised log-likelihood."""

    kind = "documents"
    version = 1
    metrics = (Metric("loglikelihood_per_token", primary=True),)
    membership: str | None = "loglikelihood_per_token"

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns one request, for the whole text."""
        return [request(item, prefix, item.tokens.tolist())]

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns the log-likelihood a token."""
        whole, n_tokens = total(logprobs[0]), len(logprobs[0])
        return ItemScore(n_tokens, whole, {"loglikelihood_per_token": whole / n_tokens})
