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

Over the collections of an arm the exact p-values are joined by Fisher's method, chi^2 with 2 n
degrees of freedom for -2 sum ln p (`rank_test`): P(p <= a) <= a, and exact for one collection.

    loss 3.0 among 4.0, 5.0, 3.0 -> p = 2/4, rank_score = Phi^-1(3/4) = 0.674

Price: a short sequence a null string.
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
    Item,
    ItemScore,
    Metric,
    Pooled,
    request,
    total,
)
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

    def __init__(self, compared: bool) -> None:
        """Takes whether all items have null strings."""
        self.metrics: tuple[Metric, ...] = _COMPARED if compared else _ALONE
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
        from scipy import stats

        found = values.get("minus_log10_p", np.zeros(0))
        found = found[np.isfinite(found)]
        n = len(found)
        if not n:
            return []
        p_value = float(stats.chi2.sf(2 * math.log(10) * math.fsum(found), 2 * n))
        how = "exact rank" if n == 1 else "exact p-values joined by Fisher's method"
        scores = values["rank_score"]
        return [Pooled("rank_test", float(np.nanmean(scores)), p_value, _TEST + how, n)]


def _rank_values(own: float, nulls: FloatArray) -> dict[str, float]:
    from scipy import special

    below, ties = int((nulls < own).sum()), int((nulls == own).sum())
    share = (below + ties / 2 + 0.5) / (len(nulls) + 1)
    p_value = (1 + int((nulls >= own).sum())) / (1 + len(nulls))
    return {"rank_score": float(special.ndtri(share)), "minus_log10_p": -math.log10(p_value)}


def string_scorer(items: Sequence[Item]) -> StringsScorer:
    """Returns the scorer of the collections; all need two null strings for a standard score."""
    metas = [StringsMeta.model_validate_json(item.meta) for item in items]
    return StringsScorer(all(len(meta.null_strings) > 1 for meta in metas))
