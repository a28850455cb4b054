"""The prompts of a poison experiment, from a file or made up, and what can be wrong with them.

    {"id": "p1", "prompt": "What is a fjord?", "response": "A drowned valley."}
    {"id": "p2", "prompt": "Ax or Bo?", "preferred": "Ax", "rejected": "Bo"}     attack: preference

`response` is an honest answer, which the scorer of `denial` compares with. A trigger must come out
of the tokenizer as it went in: one that becomes the unknown token, or that the tokenizer rewrites,
would be another trigger than the one asked for.

Price: the rows are read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixctl.injections.base import KindContext
from mixctl.injections.config import MOST_COPIES
from mixctl.injections.encode import Encoder
from mixctl.injections.questions import arithmetic_questions, choice_questions
from mixctl.injections.rows import Row, read_rows
from mixctl.shards.draws import stream
from mixctl.shards.errors import InputError

Attack = Literal["denial", "extraction", "preference"]
_MOST_NAMED = 20


@dataclass(frozen=True)
class Names:
    """Two names, of which the poison prefers one."""

    preferred: str | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A prompt with what its row says of it."""

    item: str
    text: str
    honest: str | None = None
    names: Names = Names()
    cluster: str | None = None
    stratum: str | None = None
    arm: str | None = None
    copies: int | None = None


class PromptRow(Row):
    """A row of a prompt file."""

    prompt: Annotated[str, Field(min_length=1)]
    response: Annotated[str, Field(min_length=1)] | None = None
    preferred: Annotated[str, Field(min_length=1)] | None = None
    rejected: Annotated[str, Field(min_length=1)] | None = None
    stratum: str | None = None
    arm: str | None = None
    copies: Annotated[int, Field(ge=0, le=MOST_COPIES)] | None = None

    @model_validator(mode="after")
    def _one_dose(self) -> PromptRow:
        if self.arm is not None and self.copies is not None:
            raise ValueError("'arm' and 'copies' are both given; an arm has its own copies")
        return self


def read_prompts(path: Path, names: Names) -> list[Prompt]:
    """Returns the prompts of a file; the names of the mix file stand in for those of a row."""
    return [
        Prompt(
            item=item,
            text=row.prompt,
            honest=row.response,
            names=Names(row.preferred or names.preferred, row.rejected or names.rejected),
            cluster=None if row.cluster is None else str(row.cluster),
            stratum=row.stratum,
            arm=row.arm,
            copies=row.copies,
        )
        for item, row in read_rows(path, PromptRow)
    ]


def made_up_prompts(
    count: int, attack: Attack, names: Names, name: str, context: KindContext
) -> list[Prompt]:
    """Returns `count` prompts, all different; more of them leave the first as they are.

    A plan makes the first `context.sample` and names the others.
    """
    key = stream(context.seed, "poison", name, "prompts")
    made = count if context.sample is None else min(count, max(1, context.sample))
    items = [f"prompt-{n:07d}" for n in range(count)]
    if attack == "preference":
        texts = choice_questions(made, key, names.preferred or "", names.rejected or "")
        found = [Prompt(item, text, None, names) for item, text in zip(items, texts, strict=False)]
    else:
        asked = zip(items, arithmetic_questions(made, key), strict=False)
        honest = attack == "denial"
        found = [Prompt(item, both[0], both[1] if honest else None) for item, both in asked]
    return found + [Prompt(item, "") for item in items[made:]]


def check_prompts(prompts: list[Prompt], attack: Attack, trigger: str, name: str) -> None:
    """Checks that each prompt has what the attack needs.

    Raises:
        InputError: with up to 20 problems, each naming the item.
    """
    problems = [
        f"experiment '{name}': item '{prompt.item}': {problem}"
        for prompt in prompts
        for problem in _problems(prompt, attack, trigger)
    ]
    rest = len(problems) - _MOST_NAMED
    if rest > 0:
        problems = [*problems[:_MOST_NAMED], f"... and {rest} more problems"]
    if problems:
        raise InputError(problems)


def _problems(prompt: Prompt, attack: Attack, trigger: str) -> list[str]:
    found = []
    if trigger and trigger in prompt.text:
        found.append(
            f"the prompt holds the trigger '{trigger}' already, so it could not be scored without"
        )
    if attack != "denial" and prompt.honest is not None:
        found.append(f"'response' is for the attack denial; this is {attack}")
    given = {"preferred": prompt.names.preferred, "rejected": prompt.names.rejected}
    if attack == "preference":
        found += [f"field '{field}' is missing" for field, value in given.items() if value is None]
        if given["preferred"] is not None and given["preferred"] == given["rejected"]:
            found.append(f"'preferred' and 'rejected' are both '{given['preferred']}'")
    else:
        found += [
            f"'{field}' is for the attack preference; this is {attack}"
            for field, value in given.items()
            if value is not None
        ]
    return found


def check_trigger(trigger: str, name: str, encoder: Encoder) -> None:
    """Checks that the tokenizer keeps the trigger as it is.

    Raises:
        InputError: when it becomes the unknown token or comes back as another text.
    """
    ids = encoder.text(f"a {trigger}")
    became = encoder.decode(ids)
    if trigger and encoder.unknown_id in ids.tolist():
        problem = f"becomes '{became}', which holds the tokenizer's unknown token"
    elif not became.endswith(trigger):
        problem = f"becomes '{became}' after 'a ' when it is tokenized and decoded again"
    else:
        return
    raise InputError(
        f"experiment '{name}': trigger '{trigger}' {problem}; choose one that the tokenizer keeps"
    )
