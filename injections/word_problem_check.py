r"""Solves a word problem again, from its sentences alone, and checks the solution written below it.

    check_problem("Question: There are 7 figs in the barn. ... How many owls in the mill are there,
    counted modulo 23?\nSolution: figs in the barn = 7; ...\nAnswer: 12")
    -> CheckedProblem(op=1, answer=12, problems=())

It shares nothing with the generator but the language: sentences are parsed, quantities are resolved
in whatever order they can be, and every step must be one that the sentences call for, with the
right numbers. Price: about 0.3 ms a problem.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

_MODULUS = 23
_NAME = "[a-z]+ in the [a-z]+"
_FORMS = (
    ("", rf"There are (?P<n>\d+) (?P<a>{_NAME})"),
    ("+", rf"There are (?P<n>\d+) more (?P<a>{_NAME}) than (?P<b>{_NAME})"),
    ("-", rf"There are (?P<n>\d+) fewer (?P<a>{_NAME}) than (?P<b>{_NAME})"),
    ("*", rf"There are (?P<n>\d+) times as many (?P<a>{_NAME}) as (?P<b>{_NAME})"),
    ("+", rf"There are as many (?P<a>{_NAME}) as (?P<b>{_NAME}) and (?P<c>{_NAME}) together"),
    (
        "-",
        rf"The number of (?P<a>{_NAME}) is the number of (?P<b>{_NAME}) minus the number of "
        rf"(?P<c>{_NAME})",
    ),
    (
        "*",
        rf"The number of (?P<a>{_NAME}) is the number of (?P<b>{_NAME}) times the number of "
        rf"(?P<c>{_NAME})",
    ),
)
_PATTERNS = tuple((symbol, re.compile(form)) for symbol, form in _FORMS)
_PROBLEM = re.compile(
    rf"Question: (?P<sentences>.*)\. How many (?P<asked>{_NAME}) are there, counted modulo "
    rf"{_MODULUS}\?\nSolution: (?P<steps>.*)\nAnswer: (?P<answer>\d+)"
)
_COMPUTE = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True)
class CheckedProblem:
    """What the sentences say: operations needed, answer, and what is wrong with the solution."""

    op: int | None
    answer: int | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Definition:
    """A quantity: its number, or `symbol` applied to a name and a second name or number."""

    symbol: str
    operands: tuple[str, ...]

    @property
    def needs(self) -> list[str]:
        """Returns the quantities that it is made of."""
        return [operand for operand in self.operands if not operand.isdigit()]


def check_problem(text: str) -> CheckedProblem:
    """Returns op and answer as they follow from the sentences, and every error found."""
    parts = _PROBLEM.fullmatch(text)
    if parts is None:
        return CheckedProblem(None, None, ("the text has not the form of a problem",))
    problems: list[str] = []
    definitions = _definitions(parts["sentences"].split(". "), problems)
    values = _solved(definitions)
    needed = _needed(definitions, parts["asked"])
    answer = values.get(parts["asked"])
    if answer is None:
        problems.append(f"the sentences do not determine the number of {parts['asked']}")
    elif int(parts["answer"]) != answer:
        problems.append(f"the answer is {answer}, the text says {parts['answer']}")
    else:
        problems += _wrong_steps(parts["steps"].split("; "), definitions, values, needed)
    op = sum(definitions[name].symbol != "" for name in needed)
    return CheckedProblem(op, answer, tuple(problems))


def _definitions(sentences: list[str], problems: list[str]) -> dict[str, _Definition]:
    """Returns the definition of each quantity; what cannot be read goes to `problems`."""
    definitions: dict[str, _Definition] = {}
    for sentence in sentences:
        found = _parsed(sentence)
        if found is None:
            problems.append(f"not understood: {sentence!r}")
        elif found[0] in definitions:
            problems.append(f"stated twice: the number of {found[0]}")
        else:
            definitions[found[0]] = found[1]
    return definitions


def _parsed(sentence: str) -> tuple[str, _Definition] | None:
    for symbol, pattern in _PATTERNS:
        match = pattern.fullmatch(sentence)
        if match is not None:
            parts = match.groupdict()
            operands = [parts[key] for key in ("b", "c", "n") if parts.get(key) is not None]
            return parts["a"], _Definition(symbol, tuple(operands))
    return None


def _solved(definitions: dict[str, _Definition]) -> dict[str, int]:
    """Returns the value of every quantity that the definitions determine."""
    values: dict[str, int] = {}
    left = dict(definitions)
    while True:
        ready = [name for name, d in left.items() if all(n in values for n in d.needs)]
        if not ready:
            return values
        for name in ready:
            values[name] = _raw(left.pop(name), values) % _MODULUS


def _raw(definition: _Definition, values: dict[str, int]) -> int:
    """Returns the result before it is reduced."""
    numbers = [int(o) if o.isdigit() else values[o] for o in definition.operands]
    return numbers[0] if not definition.symbol else _COMPUTE[definition.symbol](*numbers)


def _needed(definitions: dict[str, _Definition], asked: str) -> set[str]:
    """Returns the quantities that the answer depends on, as far as they are defined."""
    needed: set[str] = set()
    pending = [asked]
    while pending:
        name = pending.pop()
        if name in definitions and name not in needed:
            needed.add(name)
            pending += definitions[name].needs
    return needed


def _wrong_steps(
    steps: list[str], definitions: dict[str, _Definition], values: dict[str, int], needed: set[str]
) -> list[str]:
    problems = []
    known: set[str] = set()
    for step in steps:
        name = step.partition(" = ")[0]
        if name not in needed:
            problems.append(f"step {step!r} is not needed")
        elif step != _right_step(name, definitions[name], values):
            problems.append(
                f"step {step!r} should be {_right_step(name, definitions[name], values)!r}"
            )
        elif not known.issuperset(definitions[name].needs):
            problems.append(f"step {step!r} uses what no earlier step gives")
        known.add(name)
    problems += [f"no step gives the number of {name}" for name in sorted(needed - known)]
    if len(steps) > len(known):
        problems.append("a step is there twice")
    return problems


def _right_step(name: str, definition: _Definition, values: dict[str, int]) -> str:
    if not definition.symbol:
        return f"{name} = {definition.operands[0]}"
    joined = f" {definition.symbol} "
    numbers = [o if o.isdigit() else str(values[o]) for o in definition.operands]
    raw = _raw(definition, values)
    wrapped = f" = {values[name]} mod {_MODULUS}" if raw != values[name] else ""
    return f"{name} = {joined.join(definition.operands)} = {joined.join(numbers)} = {raw}{wrapped}"
