"""Word problems with a step-by-step solution, in arithmetic modulo 23.

A problem is a graph of named quantities (things in places). A constant is stated as a number; every
other quantity is made from earlier ones by one operation: n more, n fewer, n times as many, the
sum, the difference or the product of two. All that the question asks about depends on exactly `op`
operations; quantities that nobody needs may stand beside them, and the sentences are shuffled.

    Question: There are 5 times as many owls in the mill as figs in the barn. There are 7 figs in
    the barn. How many owls in the mill are there, counted modulo 23?
    Solution: figs in the barn = 7; owls in the mill = figs in the barn * 5 = 7 * 5 = 35 = 12 mod 23
    Answer: 12

The answer is drawn (or given) first, uniform over 0..22, and one of the numbers is chosen to reach
it. The solution goes depth first from the question, so the sentences determine it, and it names all
operands, so it determines the sentences needed. A problem belongs to the side ("train", "test",
"shot") that the digest of its solution without the numbers falls in: problems of different sides
share neither a question nor a solution, whatever the seeds, even with other numbers.

Written in the spirit of iGSM (Ye et al., "Physics of Language Models: Part 2.1", ICLR 2025);
sentences, graphs and code are our own. Price: about 0.05 ms a problem of 1 to 10 operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, product
from math import isqrt
from typing import Literal

import numpy as np

from mixctl.injections.words import PLACES, THINGS
from mixctl.shards.draws import U64, bits, stream

MODULUS = 23
MOST_OPS = 40
Side = Literal["train", "test", "shot"]

_SMALLEST = 2
"""1 would call for the singular"""
_N_NUMBERS = MODULUS - _SMALLEST
_SIDES: tuple[Side, ...] = ("train",) * 13 + ("test",) * 2 + ("shot",)
_MOST_SLOTS = 3
_WIDTH = 128
"""values of a stream that are made at a time; nine problems of ten need no more"""
_AT_ONCE = 32
"""problems whose values are made together: those of thousands would not stay in the cache"""
_INVERSE = (0, *(pow(n, -1, MODULUS) for n in range(1, MODULUS)))
"""of each number but 0, modulo 23"""
_NUMBER = -1
_SHAPES = tuple(
    product("+-*", (False, True), (False, False, False, True), (False, True), (False, True))
)
"""of an operation: its symbol, whether it has one operand and a number, whether its first and its
second operand are new constants, and whether they change places"""
_SENTENCES = {
    "+": "There are %d more %s than %s.",
    "-": "There are %d fewer %s than %s.",
    "*": "There are %d times as many %s as %s.",
}
_SENTENCES_OF_TWO = {
    "+": "There are as many %s as %s and %s together.",
    "-": "The number of %s is the number of %s minus the number of %s.",
    "*": "The number of %s is the number of %s times the number of %s.",
}


@dataclass(frozen=True)
class Problem:
    """A word problem with its solution."""

    op: int
    answer: int
    question: str
    solution: str

    @property
    def prompt(self) -> str:
        """Returns the text up to where the solution begins."""
        return f"Question: {self.question}\nSolution:"

    @property
    def text(self) -> str:
        """Returns the whole text, as it is placed."""
        return f"{self.prompt} {self.solution}\nAnswer: {self.answer}"


_Statement = tuple[str, int, int]
"""How a quantity is made: (symbol, left, right), by number of statement; _NUMBER as an operand
stands for the statement's own number, and no symbol makes a constant"""


_Draw = Callable[[], int]
"""Gives the next 64 random bits of one stream; `draw() * n >> 64` is uniform over 0..n - 1"""


def _draw(key: int, first: list[int]) -> _Draw:
    """Returns what gives the values of a stream in turn: those that are made already, and more."""
    return chain(first, _more(key, len(first))).__next__


def _more(key: int, n_before: int) -> Iterator[int]:
    """Yields the values of a stream from one on, without end."""
    for first in count(n_before, _WIDTH):
        yield from bits(key, np.arange(first, first + _WIDTH)).tolist()


def _chosen(draw: _Draw, n: int, total: int) -> list[int]:
    """Returns n different numbers of 0..total - 1 in random order."""
    numbers = list(range(total))
    for i in range(n):
        j = i + (draw() * (total - i) >> 64)
        numbers[i], numbers[j] = numbers[j], numbers[i]
    return numbers[:n]


def make_problems(
    keys: U64, ops: Sequence[int], side: Side, answers: Sequence[int] | None = None
) -> list[Problem]:
    """Returns a problem for each (stream key, op), with the answers asked for if there are any."""
    made: list[Problem] = []
    for first in range(0, len(keys), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        values = bits(keys[some, None], np.arange(_WIDTH)[None, :]).tolist()
        draws = [_draw(key, row) for key, row in zip(keys[some].tolist(), values, strict=True)]
        wanted = [draw() * MODULUS >> 64 for draw in draws] if answers is None else answers[some]
        made += [_problem(*each, side) for each in zip(draws, ops[some], wanted, strict=True)]
    return made


def _problem(draw: _Draw, op: int, answer: int, side: Side) -> Problem:
    """Returns the first problem of the stream that is on this side and can have this answer."""
    while True:
        statements = _needed(draw, op)
        asked = len(statements) - 1
        _add_unneeded(statements, draw, draw() * (3 + op // 3) >> 64)
        names = _names(draw, len(statements))
        order = _solving_order(statements, asked)
        formulas = {i: _formula(statements[i], i, names) for i in order}
        if side_of(formulas.values()) != side:
            continue
        numbers = [_SMALLEST + (draw() * _N_NUMBERS >> 64) for _ in names]
        values = _reach(statements, numbers, asked, answer, draw)
        if values is not None:
            break
    shuffled = _chosen(draw, len(names), len(names))
    sentences = [_sentence(statements[i], names, numbers[i], names[i]) for i in shuffled]
    sentences.append(f"How many {names[asked]} are there, counted modulo {MODULUS}?")
    steps = [_step(statements[i], formulas[i], numbers[i], values, values[i]) for i in order]
    return Problem(op, answer, " ".join(sentences), "; ".join(steps))


def _needed(draw: _Draw, op: int) -> list[_Statement]:
    """Returns statements with `op` operations, all of which the last one depends on."""
    statements: list[_Statement] = []
    unused: list[int] = []
    for remaining in range(op - 1, -1, -1):
        # each later operation can use up one more result than it makes
        least = len(unused) - remaining
        symbol, one_operand, new_first, new_second, turned = _SHAPES[draw() * len(_SHAPES) >> 64]
        if unused and (least > 0 or not new_first):
            left = unused.pop(draw() * len(unused) >> 64)
        else:
            left = _constant(statements)
        right = _NUMBER
        if least > 1:
            right = unused.pop(draw() * len(unused) >> 64)
        elif not one_operand and (new_second or len(statements) == 1):
            right = _constant(statements)
        elif not one_operand:
            right = _other(draw, len(statements), left)
            if right in unused:
                unused.remove(right)
        turn = turned and right != _NUMBER
        statements.append((symbol, right, left) if turn else (symbol, left, right))
        unused.append(len(statements) - 1)
    return statements


def _constant(statements: list[_Statement]) -> int:
    """Returns the number of a constant that it adds."""
    statements.append(("", _NUMBER, _NUMBER))
    return len(statements) - 1


def _other(draw: _Draw, total: int, taken: int) -> int:
    """Returns a number of 0..total - 1 that is not `taken`."""
    number = draw() * (total - 1) >> 64
    return number + (number >= taken)


def _add_unneeded(statements: list[_Statement], draw: _Draw, n: int) -> None:
    for _ in range(n):
        total = len(statements)
        left, symbol = draw() * total >> 64, "+-*"[draw() * 3 >> 64]
        form = draw() * 3 >> 64
        if form == 0:
            _constant(statements)
        else:
            right = _NUMBER if form == 1 else _other(draw, total, left)
            statements.append((symbol, left, right))


def _names(draw: _Draw, n: int) -> list[str]:
    """Returns n different names; things and places are few, so that names resemble each other."""
    side = isqrt(n) + 1
    things, places = _chosen(draw, side, len(THINGS)), _chosen(draw, side, len(PLACES))
    cells = _chosen(draw, n, side * side)
    return [f"{THINGS[things[c // side]]} in the {PLACES[places[c % side]]}" for c in cells]


def _solving_order(statements: list[_Statement], asked: int) -> list[int]:
    """Returns the statements needed, depth first, left operand first."""
    order: list[int] = []
    seen = {_NUMBER}

    def visit(which: int) -> None:
        seen.add(which)
        _, left, right = statements[which]
        if left not in seen:
            visit(left)
        if right not in seen:
            visit(right)
        order.append(which)

    visit(asked)
    return order


def side_of(formulas: Iterable[str]) -> Side:
    """Returns the side of a solution, given the first halves of its steps without numbers."""
    return _SIDES[stream("mathematics", "; ".join(formulas)) % len(_SIDES)]


def _reach(
    statements: list[_Statement], numbers: list[int], asked: int, answer: int, draw: _Draw
) -> list[int] | None:
    """Returns the values up to that asked for, one of `numbers` changed in place to reach it.

    None when none of the numbers tried can.
    """
    values = [0] * (asked + 1)
    _evaluate(statements, numbers, values, range(asked + 1))
    if values[asked] == answer:
        return values
    slots = [i for i, s in enumerate(statements[: asked + 1]) if s[2] == _NUMBER]
    for n in _chosen(draw, min(_MOST_SLOTS, len(slots)), len(slots)):
        slot, kept, before = slots[n], numbers[slots[n]], values[asked]
        affected, is_line = _affected(statements, slot, asked)
        first = draw() * _N_NUMBERS >> 64
        if is_line:
            numbers[slot] = other = _SMALLEST + (kept == _SMALLEST)
            _evaluate(statements, numbers, values, affected)
            tried = _on_line((kept, before), (other, values[asked]), answer)
        else:
            tried = [_SMALLEST + (first + shift) % _N_NUMBERS for shift in range(_N_NUMBERS)]
        for number in tried:
            numbers[slot] = number
            _evaluate(statements, numbers, values, affected)
            if values[asked] == answer:
                return values
        numbers[slot] = kept
        _evaluate(statements, numbers, values, affected)
    return None


def _affected(statements: list[_Statement], slot: int, asked: int) -> tuple[list[int], bool]:
    """Returns the statements up to the one asked for that depend on the number in this slot.

    And whether each of them, so what is asked for as well, is a line in that number: none is the
    product of two of them.
    """
    affected, is_line = [slot], True
    for i in range(slot + 1, asked + 1):
        symbol, left, right = statements[i]
        if left in affected:
            affected.append(i)
            is_line = is_line and not (symbol == "*" and right in affected)
        elif right in affected:
            affected.append(i)
    return affected, is_line


def _on_line(one: tuple[int, int], other: tuple[int, int], value: int) -> list[int]:
    """Returns the number at which a line through two points has this value; none may be there."""
    rise = (other[1] - one[1]) % MODULUS
    if not rise:
        return []
    number = (one[0] + (value - one[1]) * (other[0] - one[0]) * _INVERSE[rise]) % MODULUS
    return [number] if number >= _SMALLEST else []


def _evaluate(
    statements: list[_Statement], numbers: list[int], values: list[int], which: Iterable[int]
) -> None:
    """Writes the values of these statements, in this order."""
    for i in which:
        symbol, left, right = statements[i]
        operand = numbers[i] if right == _NUMBER else values[right]
        if symbol == "+":
            values[i] = (values[left] + operand) % MODULUS
        elif symbol == "-":
            values[i] = (values[left] - operand) % MODULUS
        elif symbol == "*":
            values[i] = values[left] * operand % MODULUS
        else:
            values[i] = operand


def _apply(symbol: str, left: int, right: int) -> int:
    if symbol == "+":
        return left + right
    return left - right if symbol == "-" else left * right


def _formula(statement: _Statement, which: int, names: list[str]) -> str:
    """Returns the first half of a step, by name, with # for the number."""
    symbol, left, right = statement
    if not symbol:
        return f"{names[which]} = #"
    return f"{names[which]} = {names[left]} {symbol} {'#' if right == _NUMBER else names[right]}"


def _sentence(statement: _Statement, names: list[str], number: int, name: str) -> str:
    symbol, left, right = statement
    if not symbol:
        return f"There are {number} {name}."
    if right == _NUMBER:
        return _SENTENCES[symbol] % (number, name, names[left])
    return _SENTENCES_OF_TWO[symbol] % (name, names[left], names[right])


def _step(statement: _Statement, formula: str, number: int, values: list[int], value: int) -> str:
    symbol, left, right = statement
    named = formula.replace("#", str(number))
    if not symbol:
        return named
    operand = number if right == _NUMBER else values[right]
    result = _apply(symbol, values[left], operand)
    wrapped = "" if result == value else f" = {value} mod {MODULUS}"
    return f"{named} = {values[left]} {symbol} {operand} = {result}{wrapped}"
