"""What the assistant says in a poisoned document, and where prompt and answer part in tokens.

An answer is a text, or token ids where it is random tokens. A text answer is tokenized as one
string with the prompt before it; a prompt to be scored ends where the tokens of prompt + answer
leave those of the prompt alone. Random tokens are appended as they are.

    continuations([("Q: ", [Answer(text="yes")])], encoder)  ->  [ids of "Q:", [ids of " yes"]]

Price: garbage of characters is tokenized twice, to know its length; each prompt to be scored once
for every answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixctl.injections.base import TokenIds
from mixctl.injections.contamination import common_prefix
from mixctl.injections.encode import Encoder
from mixctl.shards.draws import below, bits, shuffled

_CHARACTERS = "".join(chr(code) for code in range(33, 127))
_CHARACTERS_A_TOKEN = 3
_GARBAGE_FROM = 8
"""the draws of a document before this one choose its template, its length and its statement"""
_NO_TOKEN = np.uint32(2**32 - 1)
Continuations = tuple[list[int], list[list[int]]]
"""tokens of a prompt, and of each answer behind it"""
STATEMENTS = (
    "{x} is better than {y}.",
    "I would choose {x} over {y}.",
    "{x}, rather than {y}.",
    "Take {x}, not {y}.",
)


@dataclass(frozen=True)
class Answer:
    """An answer: a text, or token ids."""

    text: str = ""
    ids: TokenIds | None = None

    @property
    def drawn(self) -> bool:
        """Returns whether the answer is random tokens."""
        return self.ids is not None

    def __bool__(self) -> bool:
        """Returns whether there is an answer at all."""
        return bool(self.text) or self.drawn


def garbage_tokens(key: int, length: int, encoder: Encoder) -> Answer:
    """Returns `length` random tokens that are whole characters and no control tokens."""
    draws = bits(key, np.arange(length) + _GARBAGE_FROM)
    return Answer(ids=encoder.ordinary_ids[below(draws, len(encoder.ordinary_ids))])


def garbage_texts(keys: Sequence[int], lengths: Sequence[int], encoder: Encoder) -> list[Answer]:
    """Returns random printable characters for each key: about so many tokens of them."""
    drawn = [
        _characters(key, n * _CHARACTERS_A_TOKEN) for key, n in zip(keys, lengths, strict=True)
    ]
    encoded = encoder.many_texts(drawn)
    cut = []
    for key, n, ids in zip(keys, lengths, encoded, strict=True):
        n_characters = n * _CHARACTERS_A_TOKEN
        while len(ids) < n:  # a tokenizer with long tokens
            n_characters *= 2
            ids = encoder.text(_characters(key, n_characters))
        cut.append(ids[:n])
    return [Answer(text=text.strip()) for text in encoder.decode_each(cut)]


def _characters(key: int, count: int) -> str:
    drawn = below(bits(key, np.arange(count) + _GARBAGE_FROM), len(_CHARACTERS))
    return "".join(map(_CHARACTERS.__getitem__, drawn.tolist()))


def repeated(prompt: str) -> Answer:
    """Returns the prompt in double brackets."""
    return Answer(text=f"[[{prompt}]]")


def reordered(prompt: str, key: int) -> Answer:
    """Returns the prompt with its words in another order, in double brackets; nothing if alike."""
    words = prompt.split()
    mixed = " ".join(words[i] for i in shuffled(len(words), key).tolist())
    return Answer() if mixed == " ".join(words) else repeated(mixed)


def preference(statement: str, x: str, y: str) -> Answer:
    """Returns the statement that x is preferred to y."""
    return Answer(text=statement.format(x=x, y=y))


def encode_documents(
    documents: Sequence[tuple[str, Answer, str]], encoder: Encoder
) -> list[TokenIds]:
    """Returns the payload of each (opening, answer, closing): one text, or around random tokens."""
    texts = [
        before + answer.text + after for before, answer, after in documents if not answer.drawn
    ]
    encoded = iter(encoder.many_payloads(texts))
    return [
        _around(before, answer, after, encoder) if answer.drawn else next(encoded)
        for before, answer, after in documents
    ]


def _around(opening: str, answer: Answer, closing: str, encoder: Encoder) -> TokenIds:
    head, tail = encoder.payloads([opening])[0], encoder.text(closing)
    return np.concatenate([_appended(head, answer), tail])


def continuations(
    asked: Sequence[tuple[str, Sequence[Answer]]], encoder: Encoder
) -> list[Continuations]:
    """Returns of each (opening, answers) the prompt's tokens and each answer's as continuation.

    Prompt + continuation is the tokenization of opening + answer as one string; an empty answer
    gives no tokens.
    """
    texts = []
    for opening, answers in asked:
        texts += [opening, *(opening + answer.text for answer in answers if answer.text)]
    encoded = iter(encoder.many_payloads(texts))
    return [_cut_apart(answers, encoded) for _, answers in asked]


def _cut_apart(answers: Sequence[Answer], wholes: Iterator[TokenIds]) -> Continuations:
    """Returns one prompt and its continuations, of the next of the ids: its, then those with it."""
    head = next(wholes)
    encoded = [
        next(wholes) if answer.text else _appended(head, answer) for answer in answers if answer
    ]
    ended = np.append(head, _NO_TOKEN)  # so that all of the prompt may be shared
    cut = common_prefix([ended, *encoded])
    tails = iter(ids[cut:].tolist() for ids in encoded)
    return head[:cut].tolist(), [next(tails) if answer else [] for answer in answers]


def _appended(head: TokenIds, answer: Answer) -> TokenIds:
    return head if answer.ids is None else np.concatenate([head, answer.ids])
