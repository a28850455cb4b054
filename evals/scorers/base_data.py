"""Base data that is placed: whole training sequences (iid) and whole batches (forgetting).

    loglikelihood_per_token  mean log-probability of a training target in nats, over all sequences
                             of the item: minus the loss that LitGPT would report; primary

A sequence is scored as it is trained on: token t after the tokens before it in the sequence, the
first one not at all, and no end-of-document token in front. A fresh batch is compared with the same
batch under the twin, which never saw it: with replicated twins that is the primary test of
forgetting, since nobody randomised which batches are held out. For iid, AUC and TPR at 1% FPR
against sequences that were never placed are computed on it.

Price: a forward pass of the item's sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import FloatArray, Item, ItemScore, Metric, total


class _BaseDataScorer:
    """Scores items that are whole training sequences."""

    version = 1
    metrics = (Metric("loglikelihood_per_token", primary=True),)

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns a request a sequence; the prefix does not stand before them in training."""
        tokens, width = item.tokens, item.sequence_tokens
        label = f"experiment {item.experiment}, item {item.name}"
        if width < 2 or not len(tokens) or len(tokens) % width:
            raise ValueError(
                f"{label}: {len(tokens)} tokens are not whole sequences of {width} tokens"
            )
        return [Request(sequence, 1, label) for sequence in tokens.reshape(-1, width)]

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns the mean log-probability of all training targets."""
        whole = math.fsum(total(values) for values in logprobs)
        n_tokens = sum(len(values) for values in logprobs)
        return ItemScore(n_tokens, whole, {"loglikelihood_per_token": whole / n_tokens})


class ForgettingScorer(_BaseDataScorer):
    """Scores whole batches, to see how they are forgotten over checkpoints."""

    kind = "forgetting"
    membership: str | None = None
    run_level: Literal["placed", "held out"] = "placed"


class IidScorer(_BaseDataScorer):
    """Scores single sequences, by how often and how long ago they were placed."""

    kind = "iid"
    membership: str | None = "loglikelihood_per_token"
