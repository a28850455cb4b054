"""Texts on which two tokenizers that are not the same tend to differ.

Whole blocks of Unicode, the ends of its planes, combining marks, joined emoji, runs of white space,
control characters, numbers in many scripts, contractions, very long words, and the strings of the
tokenizer's own added tokens inside text. They depend on the tokenizer alone.

    adversarial_texts(["<|endoftext|>"])[3]      "a<|endoftext|>b"

Price: some 2,000 texts of 100,000 characters in all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_MIXED_TEXTS = 1500
_PIECES = 12
_LONG = 4_000
_WORDS = ("the", " The", " cat", "don't", " I'LL", "We've", "it's", "x'S", "'re", " can’t", "'''")
_SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n ",
    "\u00a0",
    "\u2028",
    "\u3000",
    "\x0b",
)
_INVISIBLE = ("\x00", "\ufeff", "\u200b", "\u200d", "\u200e", "\u00ad", "\u2060", "\x1b[0m", "\x7f")
_NUMBERS = (
    "0",
    "12",
    "1234567890",
    "3.14",
    "1,000",
    "1e-5",
    "٣٤٥",
    "१२",
    "Ⅷ",
    "½",
    "²",
    "①",
    "１２",
)
_MARKS = (
    "e\u0301",
    "é",
    "ñ",
    "n\u0303",
    "Å",
    "\u212b",
    "ﬁ",
    "ſ",
    "ß",
    "İ",
    "ı",
    "\u0301",
    "가",
    "가",
)
_EDGES = (
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "\ufffe",
    "\uffff",
    "\U00010000",
    "\U0010fffd",
    "\U0010ffff",
)
_EMOJI = ("😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️", "1️⃣", "👨🏿‍🚀", "☺", "🫠")
_SCRIPTS = (
    "漢字かな交じり文",
    "中文分詞",
    "한국어",
    "ไทยไม่เว้นวรรค",
    "العَرَبِيَّة",
    "हिन्दी",
    "עברית",
    "Ελλάς",
    "Ёж",
    "ქართული",
)
_SIGNS = (
    "!?",
    "...",
    "—",
    "“”",
    "://",
    "a_b",
    "x+=1",
    "</p>",
    "\\n",
    "#$%",
    "@a",
    "(((",
    "====",
    "▁",
    "Ġ",
)
_PARTS = (_WORDS, _SPACES, _INVISIBLE, _NUMBERS, _MARKS, _EDGES, _EMOJI, _SCRIPTS, _SIGNS)
_BLOCKS = (
    (0x00, 0x100),
    (0x100, 0x370),
    (0x370, 0x600),
    (0x600, 0xE00),
    (0xE00, 0x1E00),
    (0x1E00, 0x2C00),
    (0x2C00, 0x3400),
    (0x3400, 0xD800),
    (0xE000, 0x10000),
    (0x10000, 0x11000),
    (0x1D000, 0x1FB00),
    (0x20000, 0x30000),
    (0xE0000, 0x110000),
)


def adversarial_texts(added_tokens: Sequence[str]) -> list[str]:
    """Returns the texts, the same for the same tokens.

    Args:
        added_tokens: strings of the tokenizer's added and control tokens.
    """
    chance = random.Random(0)
    texts = ["", *_around(added_tokens), *_runs(), *_long_words(chance)]
    texts += [part for parts in _PARTS for part in parts]
    texts += [_of_block(chance, *block) for block in _BLOCKS for _ in range(4)]
    pieces = [part for parts in _PARTS for part in parts] + [token for token in added_tokens]
    texts += [_mixed(chance, pieces) for _ in range(_MIXED_TEXTS)]
    return texts


def _around(tokens: Sequence[str]) -> list[str]:
    """Returns texts with each token in them, whole, twice, broken and in other letters."""
    forms = (
        "{0}",
        " {0} ",
        "a{0}b",
        "{0}{0}",
        "a {0}\n",
        "{1}",
        "x{1} y",
        "{2}",
        "\u0301{0}\u0301",
    )
    return [f.format(token, token[:-1], token.swapcase()) for token in tokens for f in forms]


def _runs() -> list[str]:
    """Returns runs of one white-space character and of signs, alone and between words."""
    signs = (" ", "\n", "\t", "\r\n", "\u00a0", "-", "=", ".", "0", "\x00", "\u0301")
    runs = [sign * n for sign in signs for n in (2, 3, 7, 16, 33, 130)]
    return runs + [f"a{run}b" for run in runs] + [f"a {run}" for run in runs]


def _long_words(chance: random.Random) -> list[str]:
    """Returns words that no pre-tokenizer cuts."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    some = "".join(chance.choices(letters, k=_LONG))
    return [
        some,
        "a" * _LONG,
        "ab" * _LONG,
        some.upper(),
        "漢字" * 1000,
        "👩‍👩‍👧" * 300,
        "é" * 1000,
    ]


def _of_block(chance: random.Random, begin: int, end: int) -> str:
    """Returns random characters of a stretch of Unicode that holds no surrogates."""
    return "".join(map(chr, chance.choices(range(begin, end), k=200)))


def _mixed(chance: random.Random, pieces: Sequence[str]) -> str:
    """Returns pieces of every sort and random characters, one after another."""
    parts = chance.choices(pieces, k=chance.randint(1, _PIECES))
    block = chance.choice(_BLOCKS)
    return "".join(parts) + chr(chance.randrange(*block)) + "".join(chance.choices(pieces, k=3))
