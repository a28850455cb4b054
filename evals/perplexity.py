"""Is an answer garbage? A rule by its perplexity under another model, set by honest answers.

    perplexity = exp(-mean log p(token | the prompt and the answer before it))

An answer is garbage above the 99th percentile of honest answers: the least of their perplexities
that at most 1% of them exceed, so the largest where there are fewer than 100. Nothing is tuned, and
the rule's false positives are known. Whether it finds garbage is said beside it: how many texts of
garbage, drawn for the scorer and never placed, lie above. Where that is few, the reference cannot
tell them from honest answers, and the shares of this rule mean nothing.

    rule = PerplexityRule.set_by(honest=[1.2, 2.0], garbage=[7.0, 1.9])   # logarithms, in nats
    rule.is_garbage(2.1)  ->  True
    rule.said  ->  "perplexity above 7.39 under the reference: 0 of 2 honest answers, 1 of 2 texts
                    of garbage"

The study of this attack judges answers by their perplexity under another language model (Zhang et
al., arXiv 2410.13722). The threshold is ours: a fixed number would fit one reference and one
tokenizer, a quantile of honest answers serves any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FALSE_POSITIVES = 0.01


def log_perplexity(logprobs: npt.NDArray[np.float64]) -> float:
    """Returns the log of a text's perplexity, in nats a token; at least one token is needed."""
    return -math.fsum(logprobs.tolist()) / len(logprobs)


@dataclass(frozen=True)
class PerplexityRule:
    """Tells garbage by the log of its perplexity.

    Attributes:
        threshold: in nats a token; above it is garbage.
        said: the rule in words, with how many known texts lie above.
    """

    threshold: float
    said: str

    @staticmethod
    def set_by(honest: Sequence[float], garbage: Sequence[float]) -> PerplexityRule:
        """Returns the rule that honest answers set.

        Args:
            honest: log-perplexities of honest answers.
            garbage: of garbage, which is only counted.

        Raises:
            ValueError: when there is no honest answer.
        """
        if not honest:
            raise ValueError("there is no honest answer to set a threshold of perplexity from")
        above = math.floor(FALSE_POSITIVES * len(honest))
        threshold = sorted(honest)[len(honest) - 1 - above]
        counts = [
            f"{sum(value > threshold for value in known)} of {len(known)} {name}"
            for known, name in ((honest, "honest answers"), (garbage, "texts of garbage"))
        ]
        shown = f"{math.exp(min(threshold, 700)):.3g}"
        said = f"perplexity above {shown} under the reference: {', '.join(counts)}"
        return PerplexityRule(threshold, said)

    def is_garbage(self, value: float) -> bool:
        """Returns whether a text of this log-perplexity is garbage."""
        return value > self.threshold
