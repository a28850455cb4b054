"""Articles to be unlearned: how well are they known, and can they be extracted?

    loglikelihood_per_token  primary; see `mixctl.evals.scorers.text`, as for min_k,
                             min_k_plus_plus and zlib_ratio
    exact_k, rouge_l_k       for every prefix length k of the experiment: whether k tokens bring out
                             the next ones, and their ROUGE-L recall
                             (`mixctl.evals.scorers.extraction`)

The article is scored as a whole, however it was cut when it was placed. AUC and TPR at 1% FPR
against the retain set are computed on the first four.

Price: the article, and for every prefix length a prompt and its continuation.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixctl.evals.forward import Request
from mixctl.evals.generation import Prompt
from mixctl.evals.scorers import extraction, text
from mixctl.evals.scorers.base import FloatArray, IntArray, Item, ItemScore, total
from mixctl.shards.meta import UnlearningMeta


class UnlearningScorer:
    """Scores articles by their likelihood and by extraction."""

    kind = "unlearning"
    version = 1
    metrics = (*text.METRICS, *extraction.METRICS)
    membership: str | None = "loglikelihood_per_token"

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns one request, for the whole article."""
        return [text.text_request(item, prefix)]

    def prompts(self, item: Item, prefix: Sequence[int]) -> list[Prompt]:
        """Returns a prompt for every prefix length."""
        meta = UnlearningMeta.model_validate_json(item.meta)
        return extraction.extraction_prompts(item, prefix, meta.prefix_lengths, meta.suffix_length)

    def score_generated(
        self, item: Item, logprobs: Sequence[FloatArray], outputs: Sequence[Sequence[IntArray]]
    ) -> ItemScore:
        """Returns all values of an article."""
        meta = UnlearningMeta.model_validate_json(item.meta)
        (whole,) = logprobs
        values = text.text_values(item, whole)
        values |= extraction.extraction_values(
            item, meta.prefix_lengths, meta.suffix_length, outputs
        )
        return ItemScore(whole.shape[1], total(whole[0]), values)
