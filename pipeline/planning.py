"""`mixctl plan`: the plan of a mix whose corpus may be only a number of tokens."""

from __future__ import annotations

from pathlib import Path

from mixctl.pipeline.mixfile import located, read_mix
from mixctl.pipeline.plan import Plan, make_plan
from mixctl.pipeline.purge import payload_problems
from mixctl.pipeline.summary import base_tokens_needed
from mixctl.shards.errors import InputError

SAMPLE = 2000
"""payloads that a generated kind makes for a plan; the others are sized after them"""


def plan_mix(mix_path: Path) -> Plan:
    """Returns the plan; reads item files and tokenizer, not the corpus.

    Raises:
        InputError: with every problem, a stated corpus size that is too small among them.
    """
    mix = read_mix(mix_path)
    try:
        plan = make_plan(mix, sample=SAMPLE)
        if problems := payload_problems(plan):
            raise InputError(problems)
    except InputError as error:
        raise InputError(located(error.problems, mix_path)) from None
    corpus = plan.mix.config.corpus
    needed = base_tokens_needed(plan)
    if isinstance(corpus.tokens, int) and corpus.tokens < needed and not corpus.repeat:
        raise InputError(
            f"{mix_path}: corpus: tokens: {corpus.tokens} are too few: the run and validation need "
            f"{needed}, "
            f"so {needed - corpus.tokens} are missing; or say corpus.repeat: true"
        )
    return plan
