"""What the mathematics scorer needs."""

from __future__ import annotations

from mixctl.shards.meta.base import Meta


class MathematicsMeta(Meta):
    """A word problem of `op` operations, answer in 0..22.

    Test problems have `prompt_tokens` (BOS where the mix asks for it, solved examples, the
    question, "Solution:") and `solution_tokens`, which follow it, "Answer: k" included: both are
    cut from one string. Training problems have neither.
    """

    op: int
    answer: int
    prompt_tokens: list[int] = []
    solution_tokens: list[int] = []
