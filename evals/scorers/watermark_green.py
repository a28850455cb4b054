"""Green-list watermarks: is a document likelier than its unmarked control, and is the model green?

By document:

- `preference` (primary): mean log-probability of a token of the marked document minus that of a
  token of its control (the same document by the same process without the mark), in nats.
- `loglikelihood_per_token`: of the marked document; primary where the documents came marked, so
  that there is no control.
- `green_fraction`: share of green tokens among the model's likeliest next tokens while it reads
  the marked document, over the contexts that no earlier place of the experiment has.
- `control_fraction`: the same predictions by a key that nothing was marked with.
- `green_tuples`: how many predictions that are.

Over the documents of an arm `radioactivity` is their green fraction, with the exact binomial tail
against gamma; `radioactivity_control` is that of the other key, which must look like chance.
`radioactivity_z` is the z of Kirchenbauer et al. (equation 3) of the same greens, to compare with
papers: (green - gamma n) / sqrt(n gamma (1 - gamma)). It has no p-value, the exact one stands.

    6 green of 10, gamma 1/4 -> share 0.6, exact p = 0.0197, z = 2.56

Why only new contexts count: a text that was marked tells colours of the contexts it has passed, and
any model that copies from what it reads would look radioactive. The colours after a context that
occurred nowhere before, in the order of items, are still coins with chance gamma, whatever the
model predicts. So the number of green ones is binomial, and no (context, token) tuple counts twice.
Without a context (`context_width: 0`) there is one list for all places, nothing is new after the
first, and none of this can be had.

Price: two forward passes a document and one for its control.
Sources: Kirchenbauer et al., "A watermark for large language models", arXiv 2301.10226; Sander et
al., "Watermarking makes language models radioactive", arXiv 2402.14904 (predictions while reading,
de-duplicated; there tuples, here contexts).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixctl.evals.forward import likeliest_tokens, token_logprobs
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
from mixctl.shards.green_list import is_green, null_keys, tuples_of
from mixctl.shards.meta import GreenListMeta

if TYPE_CHECKING:
    import torch

_SHARED = (Metric("green_fraction"), Metric("control_fraction"), Metric("green_tuples"))
_OWN = "loglikelihood_per_token"
_TEST = "colours independent of the model, so greens are Binomial(n, {gamma:g}): exact upper tail"
_Z_NOTE = "z of Kirchenbauer et al. 2023; no p-value of its own: that of radioactivity is exact"


@dataclass(frozen=True)
class _Greens:
    """Of one document: predictions after new contexts, and how many are green by either key."""

    n: int
    green: int
    control: int


class GreenListScorer:
    """Scores documents against their controls, and the model's predictions by their colour."""

    kind = "watermark"
    version = 1
    alone = "radioactivity"

    def __init__(self, gammas: Sequence[float], with_controls: bool) -> None:
        """Takes the share of green tokens of the items, and whether all of them have controls."""
        self.gammas = sorted(set(gammas))
        compared = (Metric("preference", primary=True),) if with_controls else ()
        self.metrics = (*compared, Metric(_OWN, primary=not with_controls), *_SHARED)
        self.membership: str | None = self.metrics[0].name

    def measure(
        self, model: torch.nn.Module, items: Sequence[Item], prefix: Sequence[int]
    ) -> list[ItemScore]:
        """Returns the score of each document; which contexts are new depends on their order."""
        metas = [GreenListMeta.model_validate_json(item.meta) for item in items]
        marked = [request(item, prefix, item.tokens.tolist()) for item in items]
        pairs = zip(items, metas, strict=True)
        clean = [request(i, prefix, m.clean_tokens) for i, m in pairs if m.clean_tokens is not None]
        found = iter(token_logprobs(model, [*marked, *clean]))
        own = [next(found) for _ in items]
        controls = [next(found) if m.clean_tokens is not None else None for m in metas]
        greens = _greens(items, metas, likeliest_tokens(model, marked))
        return [_score(*of_item) for of_item in zip(own, controls, greens, strict=True)]

    def pooled(self, values: Mapping[str, FloatArray]) -> list[Pooled]:
        """Returns the binomial tests over the documents' predictions, by either key."""
        if len(self.gammas) > 1:
            note = "the documents' gammas differ"
            return [Pooled("radioactivity", None, None, None, 0, note)]
        tuples = np.nan_to_num(values["green_tuples"])
        n = round(float(tuples.sum()))
        if not n:
            note = "no prediction after a context that is new (context_width 0 has none)"
            return [Pooled("radioactivity", None, None, None, 0, note)]
        tests = {
            "radioactivity": "green_fraction",
            "radioactivity_control": "control_fraction",
        }
        gamma = self.gammas[0]
        found = [
            _binomial(name, values[fraction], tuples, gamma) for name, fraction in tests.items()
        ]
        return [*found, _z(_n_green(values["green_fraction"], tuples), n, gamma)]


def green_scorer(items: Sequence[Item]) -> GreenListScorer:
    """Returns the scorer of the documents."""
    metas = [GreenListMeta.model_validate_json(item.meta) for item in items]
    with_controls = all(meta.clean_tokens is not None for meta in metas)
    return GreenListScorer([meta.gamma for meta in metas], with_controls)


def _binomial(name: str, fractions: FloatArray, tuples: FloatArray, gamma: float) -> Pooled:
    from scipy import stats

    n = round(float(tuples.sum()))
    green = _n_green(fractions, tuples)
    p_value = float(stats.binom.sf(green - 1, n, gamma))
    return Pooled(name, green / n, p_value, _TEST.format(gamma=gamma), n)


def _n_green(fractions: FloatArray, tuples: FloatArray) -> int:
    return round(float((np.nan_to_num(fractions) * tuples).sum()))


def _z(green: int, n: int, gamma: float) -> Pooled:
    z = (green - gamma * n) / math.sqrt(n * gamma * (1 - gamma))
    return Pooled("radioactivity_z", z, None, None, n, _Z_NOTE)


def _greens(
    items: Sequence[Item], metas: Sequence[GreenListMeta], predicted: Sequence[IntArray]
) -> Iterator[_Greens]:
    """Yields the colours of the predictions of each item after contexts that are new."""
    met: set[bytes] = set()
    for item, meta, likeliest in zip(items, metas, predicted, strict=True):
        contexts = tuples_of(item.tokens, meta.context_width)[:, :-1]
        tokens = likeliest[meta.context_width :]
        rows = _new(contexts, met) if meta.context_width else []
        n = len(rows)
        keys = [meta.key, null_keys(meta.key, 1)[0]]
        green, control = (
            int(is_green(contexts[rows], tokens[rows], key, meta.gamma).sum()) if n else 0
            for key in keys
        )
        yield _Greens(n, green, control)


def _new(contexts: IntArray, met: set[bytes]) -> list[int]:
    """Returns the rows whose context was not met before, and adds them to those met."""
    rows = []
    for row, context in enumerate(np.ascontiguousarray(contexts)):
        key = context.tobytes()
        if key not in met:
            met.add(key)
            rows.append(row)
    return rows


def _score(own: FloatArray, control: FloatArray | None, greens: _Greens) -> ItemScore:
    mean = math.fsum(own) / len(own)
    values = {_OWN: mean, "green_tuples": float(greens.n)}
    if control is not None:
        values["preference"] = mean - math.fsum(control) / len(control)
    if greens.n:
        values["green_fraction"] = greens.green / greens.n
        values["control_fraction"] = greens.control / greens.n
    return ItemScore(len(own), total(own), values)
