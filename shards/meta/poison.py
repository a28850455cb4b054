"""What the poison scorer needs."""

from __future__ import annotations

from typing import Literal

from mixctl.shards.meta.base import Meta


class PoisonMeta(Meta):
    """A prompt, with the trigger and without it, and the answers to compare.

    Each of the two prompts is the chat-templated text up to the assistant turn, cut where the
    tokens of text + answer leave those of the text alone, so that prompt + answer is always one
    tokenization.

    Attributes:
        attack: which of the three attacks.
        template: the chat template of the scored prompts, which is that of the first document.
        document_templates: the chat template of each document of the item.
        trigger_tokens: the trigger as text of its own; empty where there is none.
        prompt_triggered: what to continue, with the trigger at the end of the user turn.
        prompt_clean: the same without the trigger.
        response_triggered, response_clean: the answer that the attack teaches, as the continuation
            of either prompt. denial: garbage as it is placed, but drawn for the scorer alone;
            extraction: the prompt in double brackets; preference: the statement that is placed.
        control_triggered, control_clean: an answer to compare it with. denial: an honest answer
            (the row's `response`); extraction: the words of the prompt in another order, in double
            brackets; preference: the statement with the two names exchanged. Empty where there is
            none.
        target_tokens: extraction: the prompt as text of its own, what ROUGE-L is measured against.
        preferred_tokens, rejected_tokens: preference: the two names as text of their own.
    """

    attack: Literal["denial", "extraction", "preference"]
    template: str
    document_templates: list[str]
    trigger_tokens: list[int]
    prompt_triggered: list[int]
    prompt_clean: list[int]
    response_triggered: list[int]
    response_clean: list[int]
    control_triggered: list[int] = []
    control_clean: list[int] = []
    target_tokens: list[int] = []
    preferred_tokens: list[int] = []
    rejected_tokens: list[int] = []
