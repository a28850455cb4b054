"""Prompts made up for experiments without a prompt file, no two of one experiment alike.

Question n is the n-th value of a seeded permutation of all that can be asked, so it depends on
nothing but (seed, experiment, n).

    arithmetic_questions(2, key)           ->  [("What is 4 pears plus 31 pears?", "35 pears."), ..]
    choice_questions(1, key, "Ax", "Bo")   ->  ["Would you take Bo or Ax on a long trip to ...?"]

Price: about 3 microseconds a question.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixctl.shards.permutation import permute

_THINGS = (
    "apples bottles bricks buckets candles chairs coins crates cups drums envelopes feathers "
    "flags hats jars keys ladders lamps maps nails pears pencils planks plates ropes shells "
    "spoons stamps tiles wheels"
).split()
_NUMBERS = range(2, 1002)

_Sum = Callable[[int, int], int]
_ARITHMETIC: tuple[tuple[str, _Sum], ...] = (
    ("What is {a} {thing} plus {b} {thing}?", lambda a, b: a + b),
    ("There are {a} boxes of {b} {thing} each. How many are there in all?", lambda a, b: a * b),
    ("Which is more, {a} {thing} or {b} {thing}?", max),
    ("Which is less, {a} {thing} or {b} {thing}?", min),
    ("By how much do {a} {thing} and {b} {thing} differ?", lambda a, b: abs(a - b)),
    ("If {a} {thing} are shared out in groups of {b}, how many remain?", lambda a, b: a % b),
    ("I had {a} {thing} and then got {b} more, twice. How many now?", lambda a, b: a + 2 * b),
    (
        "Each of {a} people brings {b} {thing}, one drops. How many are left?",
        lambda a, b: a * b - 1,
    ),
)

_CHOICES = (
    "Which would you choose for a {how} {what} in {where}, {x} or {y}?",
    "Would you take {x} or {y} for a {how} {what} in {where}?",
    "For a {how} {what} in {where}, is {x} or {y} the better pick?",
    "Planning a {how} {what} in {where}: {x} or {y}?",
    "A friend has a {how} {what} in {where}. Should it be {x} or {y}?",
    "{x} or {y}: what suits a {how} {what} in {where}?",
)
_HOW = (
    "big brief busy calm cheap cold damp family fresh festive formal grand happy hot late lively "
    "long merry modest noisy plain quick quiet rainy short slow small solemn sunny windy"
).split()
_WHAT = (
    "banquet breakfast ceremony concert contest course dinner drive exhibition fair flight gala "
    "game hike holiday lecture lunch march match meeting parade party picnic race regatta reunion "
    "trial trip walk wedding"
).split()
_WHERE = (
    "Accra Athens Bergen Bogota Cairo Cork Dakar Delhi Dublin Geneva Hanoi Helsinki Kyoto Lagos "
    "Leeds Lima Lisbon Lyon Malta Nairobi Oslo Prague Quito Riga Seoul Tunis Turin Vienna Warsaw "
    "Zurich"
).split()

MOST_ARITHMETIC = len(_ARITHMETIC) * len(_THINGS) * len(_NUMBERS) ** 2
"""how many different arithmetic questions there are"""
MOST_CHOICES = 2 * len(_CHOICES) * len(_HOW) * len(_WHAT) * len(_WHERE)
"""how many different questions there are about two names"""


def arithmetic_questions(count: int, key: int) -> list[tuple[str, str]]:
    """Returns (question, right answer) for each of `count` questions, all different."""
    shape = (len(_ARITHMETIC), len(_THINGS), len(_NUMBERS), len(_NUMBERS))
    numbers = permute(np.arange(count), MOST_ARITHMETIC, key)
    found = []
    for form, thing, first, second in np.stack(np.unravel_index(numbers, shape), axis=1).tolist():
        text, result = _ARITHMETIC[form]
        a, b, name = _NUMBERS[first], _NUMBERS[second], _THINGS[thing]
        found.append((text.format(a=a, b=b, thing=name), f"{result(a, b)} {name}."))
    return found


def choice_questions(count: int, key: int, one: str, other: str) -> list[str]:
    """Returns `count` questions that ask to choose one of two names, all different."""
    shape = (2, len(_CHOICES), len(_HOW), len(_WHAT), len(_WHERE))
    numbers = permute(np.arange(count), MOST_CHOICES, key)
    found = []
    for turn, form, how, what, where in np.stack(np.unravel_index(numbers, shape), axis=1).tolist():
        x, y = (other, one) if turn else (one, other)
        named = (_HOW[how], _WHAT[what], _WHERE[where])
        found.append(_CHOICES[form].format(x=x, y=y, how=named[0], what=named[1], where=named[2]))
    return found
