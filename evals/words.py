r"""How many of a text's words another text repeats in order: ROUGE-L recall on words.

Words are runs of letters and digits in lower case, so punctuation and the tokenizer's borders do
not matter; on ASCII these are the words of the `rouge-score` package without its stemmer. A text
without any word is compared character by character.

    "What is a fjord?" in "[[what is the fjord]]" -> 3 / 4
"""

from __future__ import annotations

import re

from mixctl.evals.stats.overlap import rouge_l_recall

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Returns the words of a text, in lower case."""
    return _WORD.findall(text.lower())


def word_recall(reference: str, candidate: str) -> float:
    """Returns the ROUGE-L recall of the reference's words in the candidate.

    Raises:
        ValueError: when the reference is empty.
    """
    wanted, made = words(reference), words(candidate)
    if not wanted:
        wanted, made = list(reference), list(candidate)
    code = {word: n for n, word in enumerate(dict.fromkeys([*wanted, *made]))}
    return rouge_l_recall([code[word] for word in wanted], [code[word] for word in made])
