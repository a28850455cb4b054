"""Word problems: are problems that were never seen solved?

Test problems are asked: the model continues the prompt (solved examples, the question, "Solution:")
greedily, and the number in the first "Answer: k" that it writes is compared with the answer.

    accuracy                 1 where they are equal, else 0 (also where no answer is written);
                             primary. Test problems alone have it. Guessing is right in 1 of 23.
    loglikelihood_per_token  mean log-probability of a token of problem and solution in nats, for
                             test and training problems

The model may write half as much again as the solution has, and a few tokens more. Strata are the
numbers of operations. Nothing is randomised between training and test problems: accuracy is
compared with guessing and with the twin.

Price: a problem once, and a test problem's prompt and solution once more. Source of the score:
Bordt & Pawelczyk, arXiv 2509.23383.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mixctl.evals.forward import Request
from mixctl.evals.generation import Prompt
from mixctl.evals.scorers.base import (
    FloatArray,
    IntArray,
    Item,
    ItemScore,
    Metric,
    request,
    total,
)
from mixctl.shards.meta import MathematicsMeta

N_ANSWERS = 23
_ANSWER = re.compile(r"Answer:\s*(-?\d+)")


class MathematicsScorer:
    """Scores test problems by the answer that is written, all problems by their likelihood."""

    kind = "mathematics"
    version = 1
    metrics = (
        Metric("accuracy", primary=True, share=True, chance=1 / N_ANSWERS),
        Metric("loglikelihood_per_token"),
    )
    membership: str | None = None

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns one request, for the problem with its solution."""
        return [request(item, prefix, item.tokens.tolist())]

    def prompts(self, item: Item, prefix: Sequence[int]) -> list[Prompt]:
        """Returns the prompt of a test problem, nothing for a training problem."""
        meta = MathematicsMeta.model_validate_json(item.meta)
        if not meta.prompt_tokens:
            return []
        label = f"experiment {item.experiment}, item {item.name}"
        if not meta.solution_tokens:
            raise ValueError(f"{label}: a test problem without a solution")
        n_new = len(meta.solution_tokens) * 3 // 2 + 8
        tokens = np.array([*prefix, *meta.prompt_tokens], dtype=np.int64)
        return [Prompt(tokens, n_new, label=label)]

    def score_generated(
        self, item: Item, logprobs: Sequence[FloatArray], outputs: Sequence[Sequence[IntArray]]
    ) -> ItemScore:
        """Returns the problem's likelihood and, of a test problem, whether it was solved."""
        meta = MathematicsMeta.model_validate_json(item.meta)
        whole, n_tokens = total(logprobs[0]), len(logprobs[0])
        values = {"loglikelihood_per_token": whole / n_tokens}
        for samples in outputs:
            written = first_answer(item.text_of(samples[0].tolist()))
            values["accuracy"] = float(written == meta.answer)
        return ItemScore(n_tokens, whole, values)


def first_answer(text: str) -> int | None:
    """Returns the number in the first "Answer: k" of the text, or None."""
    found = _ANSWER.search(text)
    return None if found is None else int(found[1])
