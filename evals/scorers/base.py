"""What a scorer is: requests out of an item, values out of their log-probabilities.

A scorer sees one item at a time: its tokens and its meta, never its arm, its dose or a tokenizer.
So it cannot treat arms differently, and all statistics are shared (`mixctl.evals.estimation`).

    class Length:                                   # a scorer in full
        kind, version = "length", 1
        metrics = (Metric("loglikelihood", primary=True),)
        membership = None
        def requests(self, item, prefix): return [request(item, prefix, item.tokens)]
        def score(self, item, logprobs): return of_text(logprobs[0], {"loglikelihood": ...})

A third party registers one under the entry-point group `mixctl.scorers`, by the name of its kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mixctl.evals.forward import Request

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """An item as a scorer sees it.

    Attributes:
        experiment: its experiment, for error messages.
        name: the item's name.
        tokens: int64 (n,), the payload without separators.
        meta: JSON, as the kind wrote it.
    """

    experiment: str
    name: str
    tokens: npt.NDArray[np.int64]
    meta: str


@dataclass(frozen=True)
class Metric:
    """A number per item, larger when the payload is better known.

    Attributes:
        name: as it stands in results.parquet.
        primary: whether it enters the family of primary tests; one metric of a kind does.
        share: whether its values are 0 or 1, so that means are shares.
    """

    name: str
    primary: bool = False
    share: bool = False


@dataclass(frozen=True)
class ItemScore:
    """What a scorer found for one item.

    Attributes:
        n_tokens: scored tokens of the item itself.
        loglikelihood: their summed log-probability in nats.
        values: metric -> value; a metric that the item does not have is left out.
        estimators: metric -> how its values were had, where there is more than one way.
    """

    n_tokens: int
    loglikelihood: float
    values: Mapping[str, float]
    estimators: Mapping[str, str] = field(default_factory=dict)


class Scorer(Protocol):
    """A scorer of one experiment kind.

    Attributes:
        kind: the kind it scores.
        version: raise it when values change, so that stored samples are not reused.
        metrics: what `score` returns.
        membership: the metric on which AUC and TPR at 1% FPR are computed, or None.
    """

    kind: str
    version: int
    metrics: tuple[Metric, ...]
    membership: str | None

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns what the model must score for an item; `prefix` stands before every text."""
        ...

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns the item's values from the log-probabilities of its requests, in their order."""
        ...


def request(
    item: Item, prefix: Sequence[int], scored: Sequence[int], context: Sequence[int] = ()
) -> Request:
    """Returns the request to score `scored` after the prefix and the context.

    Raises:
        ValueError: when there is nothing to score.
    """
    if not len(scored):
        raise ValueError(f"experiment {item.experiment}, item {item.name}: nothing to score")
    tokens = np.array([*prefix, *context, *scored], dtype=np.int64)
    label = f"experiment {item.experiment}, item {item.name}"
    return Request(tokens, len(prefix) + len(context), label)


def total(logprobs: FloatArray) -> float:
    """Returns the summed log-probability in nats, exactly rounded."""
    return math.fsum(logprobs.tolist())
