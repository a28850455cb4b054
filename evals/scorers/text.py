"""How well a whole text is known, shared by the kinds that place texts; n its tokens.

    loglikelihood_per_token  mean of log p(x_t), in nats: minus the loss (Yeom et al. 2018)
    min_k                    mean of the lowest 20% of log p(x_t): Min-K% (Shi et al. 2024,
                             arXiv 2310.16789)
    min_k_plus_plus          the same of (log p(x_t) - mean) / sd, mean and sd of log p(z) for z
                             drawn from the model's p at t: Min-K%++ (Zhang et al. 2025,
                             arXiv 2404.02936)
    zlib_ratio               loglikelihood_per_token over the bytes of the text compressed by zlib
                             (Carlini et al. 2021, arXiv 2012.07805); left out where the build
                             carries no tokenizer to make the text of

20% is floor(0.2 n) tokens, at least one. All are larger for a text that is better known.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import FloatArray, Item, Metric, request, total

METRICS = (
    Metric("loglikelihood_per_token", primary=True),
    Metric("min_k", membership=True),
    Metric("min_k_plus_plus", membership=True),
    Metric("zlib_ratio", membership=True),
)
LOWEST_PERCENT = 20
_LEAST_SPREAD = 1e-6


def text_request(item: Item, prefix: Sequence[int]) -> Request:
    """Returns the request for the whole text, with the moments that Min-K%++ needs."""
    return request(item, prefix, item.tokens.tolist(), moments=True)


def text_values(item: Item, found: FloatArray) -> dict[str, float]:
    """Returns the values of a text from what was found for it: float64 (3, n)."""
    logprobs, mean, spread = found
    per_token = total(logprobs) / len(logprobs)
    values = {
        "loglikelihood_per_token": per_token,
        "min_k": lowest_mean(logprobs),
        "min_k_plus_plus": lowest_mean((logprobs - mean) / np.maximum(spread, _LEAST_SPREAD)),
    }
    if item.decode is not None:
        text = item.text_of(item.tokens.tolist())
        values["zlib_ratio"] = per_token / len(zlib.compress(text.encode("utf-8")))
    return values


def lowest_mean(values: FloatArray) -> float:
    """Returns the mean of the lowest 20% of the values, of one at least."""
    n_lowest = max(1, len(values) * LOWEST_PERCENT // 100)
    return float(np.sort(values)[:n_lowest].mean())
