r"""mathematics: generated word problems with step-by-step solutions, and others to test with.

    {name: sums, kind: mathematics, tokens: 180M, ops: [1, 10], test: {count: 1200, ops: [1, 12]}}
    payload   Question: There are ... modulo 23?\nSolution: ... = 35 = 12 mod 23\nAnswer: 12

Training problems are made until there are `count` of them, or as many as `tokens` holds (payload
tokens of one copy each, the last problem not over it), with the numbers of operations of `ops` in
turn. They are randomised to the arms like any items. Test problems go to the arm `test`, which is
never placed: the numbers of operations in turn, the answers as equally often as possible within
each, and no question or solution is shared with a training problem of any mix. Their prompt is
`shots` solved problems, always the same and of neither sort, then the question and "Solution:".

An item's draws depend on (seed, experiment, item) alone. Price: about 0.05 ms and 4 KB of memory a
problem, and 0.01 ms to tokenize it in a build. Sources: Ye et al., "Physics of Language Models:
Part 2.1", ICLR 2025 (the kind of problem); Bordt & Pawelczyk, arXiv 2509.23383 (sizes, 3 shots).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
from pydantic import AfterValidator, Field, field_validator, model_validator

from mixctl.injections.base import Item, Kind, KindContext, TokenIds
from mixctl.injections.config import Arm, ExperimentConfig, Strict
from mixctl.injections.encode import Encoder
from mixctl.injections.quantities import parse_tokens
from mixctl.injections.sources import stand_ins
from mixctl.injections.word_problem_check import check_problem
from mixctl.injections.word_problems import MODULUS, MOST_OPS, Problem, make_problems
from mixctl.shards.draws import I64, streams
from mixctl.shards.errors import InputError
from mixctl.shards.meta.mathematics import MathematicsMeta

TEST_ARM = "test"
_NO_TOKENS = np.empty(0, dtype=np.uint32)
_FIRST_BATCH, _BATCH = 64, 4096
_TEST_SAMPLE = 100
_GOLDEN = 14
"""the golden section of the 23 answers: where an op begins its round of them, times its place"""


def _in_order(value: list[int]) -> list[int]:
    if value[0] > value[1]:
        raise ValueError(f"from {value[0]} to {value[1]}: the first must not exceed the second")
    return value


Ops = Annotated[
    list[Annotated[int, Field(ge=1, le=MOST_OPS)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_in_order),
]
"""The least and the greatest number of operations."""


class HeldOutProblems(Strict):
    """The problems that are asked and never placed."""

    count: Annotated[int, Field(ge=1, le=10**6)] = 1200
    """how many"""
    ops: Ops = [1, 12]
    """fewest and most operations"""


def _default_arms() -> list[Arm]:
    return [Arm(name="train", items="rest", copies=1), Arm(name=TEST_ARM, copies=0)]


class MathematicsConfig(ExperimentConfig):
    """The section of a `mathematics` experiment."""

    kind: Literal["mathematics"]
    """this kind"""
    count: Annotated[int, Field(ge=1, le=10**8)] | None = None
    """how many problems are made"""
    tokens: int | str | None = None
    """instead of count: as many problems as so many tokens hold"""
    ops: Ops = [1, 10]
    """fewest and most operations of a problem"""
    test: HeldOutProblems = HeldOutProblems()
    """problems that are asked and never placed"""
    shots: Annotated[int, Field(ge=0, le=20)] = 3
    """solved problems before each question"""
    arms: list[Arm] = Field(default_factory=_default_arms)
    """default: train and test"""

    @field_validator("tokens")
    @classmethod
    def _tokens_are_a_number(cls, value: int | str | None) -> int | None:
        tokens = None if value is None else parse_tokens(value)
        if tokens is not None and tokens < 1:
            raise ValueError("must be at least 1 token")
        return tokens

    @field_validator("arms")
    @classmethod
    def _test_problems_are_held_out(cls, arms: list[Arm]) -> list[Arm]:
        """Returns the arms, with the test arm where it was left out."""
        named = [arm for arm in arms if arm.name == TEST_ARM]
        if any(arm.copies != 0 or arm.items is not None for arm in named):
            raise ValueError(
                f"arm '{TEST_ARM}' holds the test problems: it has copies: 0 and no items:"
            )
        return arms if named else [*arms, Arm(name=TEST_ARM, copies=0)]

    @model_validator(mode="after")
    def _one_size(self) -> MathematicsConfig:
        if (self.count is None) == (self.tokens is None):
            raise ValueError(
                "exactly one of 'count' (problems) and 'tokens' (as many as it holds) must be given"
            )
        return self

    @property
    def budget(self) -> int | None:
        """Returns the tokens that training problems may take, if that is how they are counted."""
        return None if self.tokens is None else int(self.tokens)


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(MathematicsConfig, config)
    tests = _test_items(config, context)
    _check_test_lengths(config, tests, context.sequence_tokens - 1)
    return _training_items(config, context) + tests


def _training_items(config: MathematicsConfig, context: KindContext) -> list[Item]:
    """Returns all training problems, or for a plan a sample of them and stand-ins."""
    budget = config.budget
    most = config.count or budget or 0
    n_made = _n_made(most, config.ops, context.sample)
    made: list[Item] = []
    spent = 0
    while len(made) < n_made and (budget is None or spent <= budget):
        stop = min(len(made) + _n_next(len(made), spent, budget), n_made)
        batch = _training_batch(config, context, range(len(made), stop))
        spent += int(_lengths(batch).sum())
        made += batch
    kept = made if budget is None else made[: _n_within(_lengths(made), budget)]
    if not kept:
        raise InputError(
            f"experiment '{config.name}': tokens: {budget} holds no problem: the first has "
            f"{len(made[0].variants[0])} tokens"
        )
    if len(kept) < len(made) or len(made) == most:
        return kept
    return _with_stand_ins(made, _more_lengths(made, config), "train-{:07d}", config, context)


def _n_next(n_made: int, spent: int, budget: int | None) -> int:
    """Returns how many problems to make next: a few more than the budget of tokens has room for."""
    if budget is None:
        return _BATCH
    if n_made == 0:
        return _FIRST_BATCH
    return min(_BATCH, int(1.02 * (budget - spent) * n_made / spent) + 4)


def _n_made(count: int, ops: list[int], sample: int | None) -> int:
    """Returns how many of `count` problems to make: for a plan, as many of each op."""
    if sample is None:
        return count
    n_ops = ops[1] - ops[0] + 1
    return min(count, max(-(-sample // n_ops), 1) * n_ops)


def _training_batch(config: MathematicsConfig, context: KindContext, which: range) -> list[Item]:
    problems = _training_problems(config, context.seed, which)
    names = [_training_name(n) for n in which]
    return [
        Item(
            item=name,
            variants=(ids,),
            meta=_training_meta(problem.op, problem.answer),
            stratum=f"op{problem.op}",
            text=problem.text,
            compared=_NO_TOKENS,
        )
        for name, problem, ids in zip(
            names, problems, context.encoder.many_payloads([p.text for p in problems]), strict=True
        )
    ]


@lru_cache(maxsize=MODULUS * MOST_OPS)
def _training_meta(op: int, answer: int) -> MathematicsMeta:
    """Returns the one meta of all training problems that have these numbers; it never changes."""
    return MathematicsMeta(op=op, answer=answer)


def _training_problems(config: MathematicsConfig, seed: int, which: range) -> list[Problem]:
    keys = streams([_training_name(n) for n in which], seed, "mathematics", config.name)
    return make_problems(keys, [_op(n, config.ops) for n in which], "train")


def _training_name(number: int) -> str:
    return f"train-{number + 1:07d}"


def _test_problems(config: MathematicsConfig, seed: int, which: range) -> list[Problem]:
    ops = config.test.ops
    keys = streams([_test_name(n) for n in which], seed, "mathematics", config.name)
    answers = [_test_answer(n, ops) for n in which]
    problems = make_problems(keys, [_op(n, ops) for n in which], "test", answers)
    _check_solutions(problems)
    return problems


def _test_name(number: int) -> str:
    return f"test-{number + 1:05d}"


def _op(number: int, ops: list[int]) -> int:
    """Returns the operations of the problem of this number, from 0: all of `ops` in turn."""
    return ops[0] + number % (ops[1] - ops[0] + 1)


def _test_answer(number: int, ops: list[int]) -> int:
    """Returns the answer: within an op all 23 in turn, begun at another place for each op."""
    turn, place = divmod(number, ops[1] - ops[0] + 1)
    return (turn + _GOLDEN * place) % MODULUS


def shot_problems(n: int) -> list[Problem]:
    """Returns the solved problems of the prompt: the same in every mix, 1, 2, ... 5 operations."""
    keys = streams([f"shot-{i}" for i in range(n)], "mathematics")
    return make_problems(keys, [1 + i % 5 for i in range(n)], "shot")


def _test_items(config: MathematicsConfig, context: KindContext) -> list[Item]:
    count, ops = config.test.count, config.test.ops
    sample = None if context.sample is None else min(context.sample, _TEST_SAMPLE)
    which = range(_n_made(count, ops, sample))
    problems = _test_problems(config, context.seed, which)
    made = _asked([_test_name(n) for n in which], problems, config.shots, context.encoder)
    if len(made) == count:
        return made
    lengths = _lengths(made)[np.arange(len(made), count) % len(made)]
    return _with_stand_ins(made, lengths, "test-{:05d}", config, context)


def _check_solutions(problems: list[Problem]) -> None:
    """Solves each problem again from its sentences: a wrong one is an error of this program."""
    for problem in problems:
        checked = check_problem(problem.text)
        if checked.problems or (checked.op, checked.answer) != (problem.op, problem.answer):
            raise RuntimeError(f"a wrong word problem was made: {checked}\n{problem.text}")


def _asked(names: list[str], problems: list[Problem], n_shots: int, encoder: Encoder) -> list[Item]:
    """Returns the test items; prompt and solution are cut from one string where they part."""
    shots = "".join(f"{shot.text}\n\n" for shot in shot_problems(n_shots))
    asked = [(p.text, shots + p.prompt, shots + p.text) for p in problems]
    encoded = iter(encoder.many_payloads([text for texts in asked for text in texts]))
    items = []
    for name, problem in zip(names, problems, strict=True):
        ids, prompt, whole = next(encoded), next(encoded), next(encoded)
        cut = shared_prefix(prompt, whole)
        meta = MathematicsMeta(
            op=problem.op,
            answer=problem.answer,
            prompt_tokens=whole[:cut].tolist(),
            solution_tokens=whole[cut:].tolist(),
        )
        items.append(
            Item(
                item=name,
                variants=(ids,),
                meta=meta,
                stratum=f"op{problem.op}",
                text=problem.text,
                arm=TEST_ARM,
                compared=_NO_TOKENS,
            )
        )
    return items


def shared_prefix(a: TokenIds, b: TokenIds) -> int:
    """Returns how many tokens both begin with; all of the shorter one count."""
    most = min(len(a), len(b))
    apart = np.flatnonzero(a[:most] != b[:most])
    return int(apart[0]) if apart.size else most


def _check_test_lengths(config: MathematicsConfig, tests: list[Item], most: int) -> None:
    """Refuses prompts that no checkpoint could be asked: longer than what it was trained on."""
    metas = [(item.item, cast(MathematicsMeta, item.meta)) for item in tests]
    needed = {name: len(meta.prompt_tokens) + len(meta.solution_tokens) for name, meta in metas}
    over = [name for name, n in needed.items() if n > most > 0]
    if over:
        longest = max(over, key=lambda name: needed[name])
        raise InputError(
            f"experiment '{config.name}': {len(over)} test problems are longer with their "
            f"{config.shots} shots than max_seq_length {most}: item '{longest}' has "
            f"{needed[longest]} tokens; lower 'shots' or 'test: ops'"
        )


def _lengths(items: Sequence[Item]) -> I64:
    return np.array([len(item.variants[0]) for item in items], dtype=np.int64)


def _n_within(lengths: I64, budget: int) -> int:
    """Returns how many of the first lengths stay within the budget together."""
    return int(np.searchsorted(np.cumsum(lengths), budget, side="right"))


def _more_lengths(made: list[Item], config: MathematicsConfig) -> I64:
    """Returns the lengths of the problems not made: those made, again and again."""
    known = _lengths(made)
    if config.count is not None:
        return known[np.arange(len(made), config.count) % len(made)]
    left = (config.budget or 0) - int(known.sum())
    again = np.arange(len(made) * (left // int(known.sum()) + 1)) % len(made)
    return known[again][: _n_within(known[again], left)]


def _with_stand_ins(
    made: list[Item], lengths: I64, name: str, config: MathematicsConfig, context: KindContext
) -> list[Item]:
    """Returns the items made, and one for each further length, like those made in turn."""
    if not len(lengths):
        return made
    payloads = stand_ins(lengths, f"{config.name} {name}", context)
    extra = []
    for n, ids in enumerate(payloads, start=len(made)):
        like = made[n % len(made)]
        extra.append(
            Item(
                item=name.format(n + 1),
                variants=(ids,),
                meta=like.meta,
                stratum=like.stratum,
                arm=like.arm,
                compared=_NO_TOKENS,
            )
        )
    return made + extra


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return []


KIND = Kind("mathematics", 1, MathematicsConfig, _make_items, _inputs)
