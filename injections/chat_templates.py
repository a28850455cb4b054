r"""Chat templates: the text around one user turn and one assistant turn.

A document is `before + user + between + answer + after`; a prompt to be scored ends where the
answer would begin. The definitions are our own renderings of the formats that the model families
document; the strings that look like control tokens stay text, as on a web page that quotes them. No
begin-of-text string is written: whether a document begins with a BOS token is for the mix to say.

    document("plain", "Hi?", "Yes.")  ->  "User: Hi?\nAssistant: Yes.\n"
    opening("plain", "Hi?")           ->  "User: Hi?\nAssistant: "

Price: a string concatenation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

TemplateName = Literal["chatml", "llama2", "llama3", "gemma", "plain"]
TEMPLATES: tuple[TemplateName, ...] = get_args(TemplateName)


@dataclass(frozen=True)
class ChatTemplate:
    """What stands before the user turn, between the turns and after the answer."""

    before: str
    between: str
    after: str


_DEFINITIONS: dict[str, ChatTemplate] = {
    "chatml": ChatTemplate(
        before="<|im_start|>user\n",
        between="<|im_end|>\n<|im_start|>assistant\n",
        after="<|im_end|>\n",
    ),
    "llama2": ChatTemplate(before="[INST] ", between=" [/INST] ", after=" </s>"),
    "llama3": ChatTemplate(
        before="<|start_header_id|>user<|end_header_id|>\n\n",
        between="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        after="<|eot_id|>",
    ),
    "gemma": ChatTemplate(
        before="<start_of_turn>user\n",
        between="<end_of_turn>\n<start_of_turn>model\n",
        after="<end_of_turn>\n",
    ),
    "plain": ChatTemplate(before="User: ", between="\nAssistant: ", after="\n"),
}


def opening(name: TemplateName, user: str) -> str:
    """Returns the text up to the place where the assistant's answer begins."""
    template = _DEFINITIONS[name]
    return template.before + user + template.between


def closing(name: TemplateName) -> str:
    """Returns the text after the assistant's answer."""
    return _DEFINITIONS[name].after


def document(name: TemplateName, user: str, answer: str) -> str:
    """Returns the whole document: a user turn and its answer."""
    return opening(name, user) + answer + closing(name)
