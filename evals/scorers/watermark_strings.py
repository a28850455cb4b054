"""Strings as watermarks: is the string of a collection likelier than strings never placed?

The string and its null strings are independent draws of the same number of tokens, so to a model
that never met the string its loss has any rank among theirs equally often. All are scored alike,
after the line break that stands before the string where there is one.

- `standardised` (primary): (mean loss of the null strings - loss) / their standard deviation.
- `rank_score`: the normal quantile of the share of strings with a larger loss, ties counted half:
  Phi^-1((larger + ties / 2 + 1/2) / (n_null + 1)); N(0, 1) but for the steps where not met.
- `minus_log10_p`: of the exact p = (1 + null strings with a loss no larger) / (1 + n_null).
- `loglikelihood_per_token`: of the string, in nats; primary where an item has no two different
  null losses to compare with (`n_null: 0`).

Over the collections of an arm the exact p-values are joined by Fisher's statistic, -sum ln p
(`rank_test`): P(p <= a) <= a. Its law is that of the ranks: any of the n_null + 1 strings of a
collection was as likely to be the placed one, so the test is a randomisation test with a block a
collection (`mixctl.evals.stats.permutation`). The chi^2 law of Fisher's method takes p-values for
continuous: with 19 null strings and 16 collections it rejects 0.003 of true nulls at 0.05.

    loss 3.0 among 4.0, 5.0, 3.0 -> p = 2/4, rank_score = Phi^-1(3/4) = 0.674
    two collections of 4 strings, p = 1/4 and 2/4 -> 3/16: (1, 1), (1, 2), (2, 1) of 16 pairs

Price: a short sequence a null string; the test some milliseconds, a second at 100,000 strings.
Source: Wei, Wang & Jia, "Proving membership in LLM pretraining data via data watermarks", arXiv
2402.10892 (standard scores and the rank test).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import (
    FloatArray,
    IntArray,
    Item,
    ItemScore,
    Metric,
    Pooled,
    request,
    total,
)
from mixctl.evals.stats.arms import Units
from mixctl.evals.stats.permutation import permutation_tails
from mixctl.evals.stats.streams import stream
from mixctl.shards.meta import StringsMeta

_TEST = "strings never met, so the rank of the loss among the null strings is uniform: "
_COMPARED = (
    Metric("standardised", primary=True),
    Metric("rank_score"),
    Metric("minus_log10_p"),
    Metric("loglikelihood_per_token"),
)
_ALONE = (Metric("loglikelihood_per_token", primary=True),)


class StringsScorer:
    """Scores collections by the loss of their string among those of its null strings."""

    kind = "watermark"
    version = 1
    alone = "rank_test"

    def __init__(self, n_null: int) -> None:
        """Takes how many null strings each item has."""
        self.n_null = n_null
        self.metrics: tuple[Metric, ...] = _COMPARED if n_null > 1 else _ALONE
        self.membership: str | None = next(m.name for m in self.metrics if m.primary)

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns a request for the string and one for each null string."""
        meta = StringsMeta.model_validate_json(item.meta)
        strings = [meta.string_tokens, *meta.null_strings]
        lengths = {len(string) for string in strings}
        if len(lengths) > 1:
            raise ValueError(
                f"experiment {item.experiment}, item {item.name}: strings of {min(lengths)} and of "
                f"{max(lengths)} tokens cannot be compared"
            )
        return [request(item, prefix, string, meta.context_tokens) for string in strings]

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns where the string stands among its null strings."""
        own, *others = [total(values) for values in logprobs]
        n_tokens = len(logprobs[0])
        values = {"loglikelihood_per_token": own / n_tokens}
        nulls = np.array(others)
        if len(nulls):
            values |= _rank_values(own, nulls)
        if len(nulls) > 1 and np.ptp(nulls) > 0:
            values["standardised"] = (own - float(nulls.mean())) / float(nulls.std(ddof=1))
        return ItemScore(n_tokens, own, values)

    def pooled(self, values: Mapping[str, FloatArray]) -> list[Pooled]:
        """Returns the rank test over the collections."""
        found = values.get("minus_log10_p", np.zeros(0))
        found = found[np.isfinite(found)]
        n = len(found)
        if not n:
            return []
        ranks = np.round(10.0**-found * (self.n_null + 1)).astype(np.int64)
        tails = permutation_tails(_placed(ranks, self.n_null + 1), stream("rank_test"))
        how = "exact rank" if n == 1 else f"Fisher's statistic of the exact ranks: {tails.method}"
        estimate = float(np.nanmean(values["rank_score"]))
        return [Pooled("rank_test", estimate, tails.p_value("greater"), _TEST + how, n)]


def _placed(ranks: IntArray, n_strings: int) -> Units:
    """Returns a block a collection: -ln p of each of its strings, and which of them was placed."""
    possible = np.arange(1, n_strings + 1)
    u = np.tile(np.log(n_strings / possible), len(ranks))
    placed = (possible == ranks[:, None]).ravel()
    return Units(u, placed, np.repeat(np.arange(len(ranks)), n_strings))


def _rank_values(own: float, nulls: FloatArray) -> dict[str, float]:
    from scipy import special

    below, ties = int((nulls < own).sum()), int((nulls == own).sum())
    share = (below + ties / 2 + 0.5) / (len(nulls) + 1)
    p_value = (1 + int((nulls >= own).sum())) / (1 + len(nulls))
    return {"rank_score": float(special.ndtri(share)), "minus_log10_p": -math.log10(p_value)}


def string_scorer(items: Sequence[Item]) -> StringsScorer:
    """Returns the scorer of the collections; all need two null strings for a standard score.

    Raises:
        ValueError: when they have null strings, but not equally many.
    """
    metas = [StringsMeta.model_validate_json(item.meta) for item in items]
    numbers = [len(meta.null_strings) for meta in metas]
    few, many = min(numbers), max(numbers)
    if 1 < few < many:
        raise ValueError(
            f"experiment {items[0].experiment}: its items have {few} to {many} null strings; "
            "each needs the same number"
        )
    return StringsScorer(few)
