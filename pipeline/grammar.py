"""Made-up texts out of a grammar: symbols, and the lines that each may become.

The words of `mixctl init` and of examples/small are in grammar.yaml beside this file.

    greeting: ["Good {time}, {given:a}!", "{given:a}, it is {time}."]
    time: [morning, evening]

    {symbol}      one of the symbol's lines, one that the text does not have yet while there are any
    {symbol:x}    drawn once a text, then kept: two {given:a} are the same person
    {^symbol}     begins with a capital letter
    {2-9}         a whole number from 2 to 9
    {he:x} {his:x} {him:x}    the pronoun that fits {given:x}

Price: some 2 MB of text a second. `random.Random` with a text as its seed gives the same draws in
every Python from 3.2 on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from random import Random
from typing import Any

import yaml

_SLOT = re.compile(r"\{(\^?)([a-z_]+|\d+-\d+)(?::([a-z]))?\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_PRONOUNS = {"he": ("she", "he"), "his": ("her", "his"), "him": ("her", "him")}


class Grammar:
    """Symbols and their lines, those of grammar.yaml."""

    def __init__(self) -> None:
        text = (resources.files("mixctl.pipeline") / "grammar.yaml").read_text("utf-8")
        self.lines: dict[str, list[str]] = yaml.safe_load(text)
        self._women = frozenset(self.lines["women"])

    def text(self, line: str, chance: Random) -> str:
        """Returns the line with every slot filled."""
        return self.texts([line], chance)[0]

    def texts(self, lines: list[str], chance: Random) -> list[str]:
        """Returns the lines with every slot filled; what is kept is kept for all of them."""
        text = _Text(self.lines, self._women, chance)
        return [_ARTICLE.sub(r"\1n ", text.fill(line)) for line in lines]

    def questions(self, count: int, chance: Callable[..., Random]) -> list[dict[str, Any]]:
        """Returns `count` questions of each benchmark, `home` and `trade`, with four choices.

        They are about people and towns that no other text knows; every place is gold equally often.

        Args:
            count: of each benchmark.
            chance: gives the random stream of some names and numbers.
        """
        rows = []
        for benchmark, answers in (("home", "far_town"), ("trade", "trade")):
            for n, (given, family) in enumerate(self._people(benchmark, count, chance)):
                draw = chance("question", benchmark, n)
                line = draw.choice(self.lines[f"questions_{benchmark}"])
                line = line.replace("{far_given:a}", given).replace("{far_family:a}", family)
                choices = draw.sample(self.lines[answers], 4)
                row = {"id": f"{benchmark}-{n:03d}", "benchmark": benchmark}
                question = self.text(line, draw)
                rows.append({**row, "question": question, "choices": choices, "gold": n % 4})
        return rows

    def _people(
        self, what: str, count: int, chance: Callable[..., Random]
    ) -> list[tuple[str, str]]:
        """Returns different people."""
        given, family = self.lines["far_given"], self.lines["far_family"]
        everyone = [(one, other) for one in given for other in family]
        return chance("people", what).sample(everyone, count)


class _Text:
    """A text at work: what is kept, and the lines of each symbol that are left."""

    def __init__(self, lines: dict[str, list[str]], women: frozenset[str], chance: Random) -> None:
        self._lines, self._women, self._chance = lines, women, chance
        self._kept: dict[str, str] = {}
        self._left: dict[str, list[str]] = {}

    def fill(self, line: str) -> str:
        """Returns the line with every slot filled."""
        return _SLOT.sub(self._slot, line)

    def _slot(self, slot: re.Match[str]) -> str:
        capital, symbol, label = slot.groups()
        found = self._value(symbol, label)
        return found[0].upper() + found[1:] if capital else found

    def _value(self, symbol: str, label: str | None) -> str:
        if "-" in symbol:
            low, _, high = symbol.partition("-")
            return str(self._chance.randint(int(low), int(high)))
        if symbol in _PRONOUNS:
            woman, man = _PRONOUNS[symbol]
            return woman if self._kept[f"given:{label}"] in self._women else man
        if label is None:
            return self.fill(self._draw(symbol))
        name = f"{symbol}:{label}"
        if name not in self._kept:
            self._kept[name] = self.fill(self._draw(symbol))
        return self._kept[name]

    def _draw(self, symbol: str) -> str:
        left = self._left.get(symbol) or list(self._lines[symbol])
        self._left[symbol] = left
        return left.pop(self._chance.randrange(len(left)))
