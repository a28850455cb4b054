"""The whole model: how well it predicts held-out text, and how large its weights are.

    validation_loglikelihood_per_token  mean log-probability of a token of a held-out sequence in
                                        nats: minus the loss that LitGPT would report; larger is
                                        better
    weight_norm                         L2 norm of all parameters; no direction is better
    weight_norm_embedding, _attention, _mlp, _norms, _head
                                        the same of a part: their squares add up to weight_norm's

A sequence is scored as LitGPT validates: its first token is no target, and no end-of-document token
stands in front. A head that shares the embedding's numbers is the embedding, and counts once.

Price: a forward pass of the sequences; sums over the weights in double precision, piece by piece.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import FloatArray, Item, ItemScore, Metric, total

if TYPE_CHECKING:
    import torch

VALIDATION_METRIC = "validation_loglikelihood_per_token"
_PIECE = 2**24


class WholeModelScorer:
    """Scores held-out sequences; of the item without tokens, the norms of the weights."""

    kind = "model"
    version = 1
    metrics = (Metric(VALIDATION_METRIC), Metric("weight_norm"), Metric("weight_norm_*"))
    membership: str | None = None

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns the request for a sequence, none for the weights."""
        label = f"experiment {item.experiment}, item {item.name}"
        return [Request(item.tokens, 1, label)] if len(item.tokens) else []

    def inspect(
        self, model: torch.nn.Module, item: Item, logprobs: Sequence[FloatArray]
    ) -> ItemScore:
        """Returns the mean log-probability of a sequence, or the norms of the weights."""
        if not logprobs:
            return ItemScore(0, 0.0, weight_norms(model))
        whole, n_tokens = total(logprobs[0]), len(logprobs[0])
        said = json.loads(item.meta).get("estimator")
        estimators = {VALIDATION_METRIC: said} if said else {}
        return ItemScore(n_tokens, whole, {VALIDATION_METRIC: whole / n_tokens}, estimators)


def weight_norms(model: torch.nn.Module) -> dict[str, float]:
    """Returns the L2 norm of all parameters of a `litgpt.GPT`, and of each part that it has."""
    squares: dict[str, list[float]] = {}
    for name, tensor in _parameters(model):
        squares.setdefault(_part(name), []).append(_square(tensor))
    norms = {f"weight_norm_{part}": math.sqrt(math.fsum(of)) for part, of in squares.items()}
    return {"weight_norm": math.sqrt(math.fsum(sum(squares.values(), []))), **norms}


def _parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the parameters by name; a tied head is left out."""
    import torch

    named = dict(model.named_parameters())
    head, embedding = named.get("lm_head.weight"), named.get("transformer.wte.weight")
    tied = head is not None and embedding is not None and torch.equal(head, embedding)
    for name, tensor in named.items():
        if not (tied and name == "lm_head.weight"):
            yield name, tensor


def _part(name: str) -> str:
    """Returns the part of the model that a parameter of LitGPT belongs to."""
    words = name.split(".")
    if any("norm" in word or word == "ln_f" for word in words):
        return "norms"
    parts = {"wte": "embedding", "lm_head": "head", "attn": "attention", "mlp": "mlp"}
    return next((parts[word] for word in words if word in parts), "other")


def _square(tensor: torch.Tensor) -> float:
    flat = tensor.detach().reshape(-1)
    pieces = (flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE))
    return math.fsum(float(piece.double().square().sum()) for piece in pieces)
