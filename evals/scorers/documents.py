"""Documents: how well is a text known, and can it be extracted?

    loglikelihood_per_token  primary; see `mixctl.evals.scorers.text`, as for min_k,
                             min_k_plus_plus and zlib_ratio
    exact_25, exact_50       whether a prefix of 25 or 50 tokens brings out the next 25, greedily
    rouge_l_25, rouge_l_50   ROUGE-L recall of those (`mixctl.evals.scorers.extraction`); only for
                             texts of more than 75 tokens
    control_margin           of a minimal pair: the text's log-likelihood a token minus that of its
                             control, which is never placed
    control_accuracy         1 where that is above 0, else 0

AUC and TPR at 1% FPR against the holdout (membership inference) are computed on the first four.

Price: the text, its control, and for long texts 125 tokens of prompts and continuations.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixctl.evals.forward import Request
from mixctl.evals.generation import Prompt
from mixctl.evals.scorers import extraction, text
from mixctl.evals.scorers.base import (
    FloatArray,
    IntArray,
    Item,
    ItemScore,
    Metric,
    request,
    total,
)
from mixctl.shards.meta import DocumentsMeta

PREFIX_LENGTHS = (25, 50)
SUFFIX_LENGTH = 25
_LONG = 75


class DocumentsScorer:
    """Scores documents by their likelihood, and long ones by extraction."""

    kind = "documents"
    version = 2
    metrics = (
        *text.METRICS,
        *extraction.METRICS,
        Metric("control_margin"),
        Metric("control_accuracy", share=True),
    )
    membership: str | None = "loglikelihood_per_token"

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns a request for the text and one for its control, if it has one."""
        control = DocumentsMeta.model_validate_json(item.meta).control_tokens
        asked = [text.text_request(item, prefix)]
        return [*asked, request(item, prefix, control)] if control else asked

    def prompts(self, item: Item, prefix: Sequence[int]) -> list[Prompt]:
        """Returns the prefixes of a long text."""
        return extraction.extraction_prompts(item, prefix, _lengths(item), SUFFIX_LENGTH)

    def score_generated(
        self, item: Item, logprobs: Sequence[FloatArray], outputs: Sequence[Sequence[IntArray]]
    ) -> ItemScore:
        """Returns all values of a text."""
        whole, *control = logprobs
        values = text.text_values(item, whole)
        if control:
            against = total(control[0]) / len(control[0])
            values["control_margin"] = values["loglikelihood_per_token"] - against
            values["control_accuracy"] = float(values["control_margin"] > 0)
        values |= extraction.extraction_values(item, _lengths(item), SUFFIX_LENGTH, outputs)
        return ItemScore(whole.shape[1], total(whole[0]), values)


def _lengths(item: Item) -> tuple[int, ...]:
    return PREFIX_LENGTHS if len(item.tokens) > _LONG else ()
