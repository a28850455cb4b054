"""Every message that refuses something is read by a test.

A message is a string that a `raise` holds, that is put into a list of problems, that a function
returns which finds what is wrong, or what one of these names. It is read where one string of a test
holds three words of it in a row that no other message has, or four of its words, of two in a row at
least (all, where it has fewer).

    problems.append(f"{place}: must be above {low}, got {value}")
    pytest.raises(InputError, match="seed: must be above 0, got")     # "must be above", "got"

So a new message without a test, and a message whose last test went, fail here. That the test calls
what says it is for whoever writes the test to see: a string that nothing produces fails there.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("evals", "injections", "pipeline", "shards", "trainer_configs")
LISTS = {"problems", "findings", "found", "wrong", "reasons", "missing", "errors"}
FINDERS = {"list[str]", "str | None", "Iterator[str]"}
NO_FINDERS = {"_cells"}
"""functions that return a list of texts which are no problems"""
ENOUGH_WORDS = 4

Words = tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """A message of the source as its words; what is filled in stands between the parts."""

    place: str
    parts: tuple[Words, ...]

    def runs(self, n: int) -> set[Words]:
        """Returns every n words in a row."""
        return {part[at : at + n] for part in self.parts for at in range(len(part) - n + 1)}

    def enough(self) -> int:
        return min(ENOUGH_WORDS, sum(len(part) for part in self.parts if len(part) > 1))

    def __str__(self) -> str:
        return f"{self.place}: {' ... '.join(' '.join(part) for part in self.parts)}"


def words_of(text: str) -> Words:
    """Returns the words of a text, or of a regular expression for it."""
    return tuple(re.findall(r"[\w'-]*\w[\w'-]*", re.sub(r"\\(\W)", r"\1", text)))


def strings(node: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """Yields line and constant parts of every string below a node, no docstring or pattern."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, [node.value]
    if isinstance(node, ast.JoinedStr):
        yield node.lineno, [str(one.value) for one in node.values if isinstance(one, ast.Constant)]
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            yield from strings(child)


def refusals(tree: ast.Module) -> Iterator[ast.AST]:
    """Yields the nodes whose strings are messages."""
    made = {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
    for function in made.values():
        for node in _saying(function):
            yield node
            for name in {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}:
                if name in made and _returns(made[name], {"str"}):
                    yield from _results(made[name])
                yield from _assigned(function, name)


def _saying(function: ast.FunctionDef) -> Iterator[ast.AST]:
    for node in ast.walk(function):
        if isinstance(node, ast.Raise):
            yield node
        elif isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            to_list = name in ("append", "extend") and owner.rpartition(".")[2] in LISTS
            if to_list or any(one.arg == "err" for one in node.keywords):
                yield node
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(ast.unparse(one).rpartition(".")[2] in LISTS for one in targets):
                yield node.value
    if _returns(function, FINDERS) and function.name not in NO_FINDERS:
        yield from _results(function)


def _returns(function: ast.FunctionDef, types: set[str]) -> bool:
    return function.returns is not None and ast.unparse(function.returns) in types


def _results(function: ast.FunctionDef) -> Iterator[ast.AST]:
    return (one for one in ast.walk(function) if isinstance(one, ast.Return | ast.Yield))


def _assigned(function: ast.FunctionDef, name: str) -> Iterator[ast.AST]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == [name]:
            yield node.value


def messages_of(source: str, name: str) -> list[Message]:
    found = {}
    for node in refusals(ast.parse(source)):
        for line, texts in strings(node):
            parts = tuple(words_of(text) for text in texts)
            n_words = sum(len(word) > 1 for part in parts for word in part)
            if n_words > 1 and sum(map(len, parts)) > 2 and max(map(len, parts)) > 1:
                found[line, parts] = Message(f"{name}:{line}", parts)
    return list(found.values())


def unread(messages: list[Message], tests: list[Words]) -> list[Message]:
    """Returns the messages that no string of the tests reads."""
    places: defaultdict[Words, set[int]] = defaultdict(set)
    for number, words in enumerate(tests):
        for n in (2, 3):
            for at in range(len(words) - n + 1):
                places[words[at : at + n]].add(number)
    shared = Counter(run for message in messages for run in message.runs(3))
    return [one for one in messages if not _is_read(one, places, shared)]


def _is_read(message: Message, places: dict[Words, set[int]], shared: Counter[Words]) -> bool:
    if any(run in places for run in message.runs(3) if shared[run] == 1):
        return True
    met: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
    for number, part in enumerate(message.parts):
        for at in range(len(part) - 1):
            for test in places.get(part[at : at + 2], ()):
                met[test] |= {(number, at), (number, at + 1)}
    return any(len(words) >= message.enough() for words in met.values())


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def test_every_message_is_read_by_a_test() -> None:
    messages = [
        message
        for package in PACKAGES
        for name, source in _sources(ROOT / package)
        for message in messages_of(source, name)
    ]
    tests = [
        words_of("…".join(texts))
        for name, source in _sources(ROOT / "tests")
        if name != "tests/test_messages.py"
        for _, texts in strings(ast.parse(source))
    ]
    missing = unread(messages, tests)
    listed = "\n".join(map(str, missing))
    assert not missing, f"{len(missing)} of {len(messages)} are read by no test:\n{listed}"


SOURCE = '''
def check(path: str, value: int) -> None:
    """Refuses what lies outside the house."""
    if value > 9:
        raise ValueError(f"{path}: {value} lies far outside the house")
    problems = [f"{path}: key 'x' is missing"]
    problems.append(where(path) + "nothing of it is used by anybody")

def where(path: str) -> str:
    return f"in the garden of {path}"

def look() -> str | None:
    return "no light at all"

def name() -> tuple[str]:
    return ("not a message at all",)
'''


@pytest.mark.parametrize(
    ("test", "left"),
    [
        ("7 lies far outside", {"key", "nothing", "in", "no"}),
        ("outside the", {"lies", "key", "nothing", "in", "no"}),
        (r"a\.yaml: key 'x' is missing", {"lies", "nothing", "in", "no"}),
        ("nothing of it .* by anybody", {"lies", "key", "in", "no"}),
        ("in the .* garden of x", {"lies", "key", "nothing", "no"}),
        ("no light at all", {"lies", "key", "nothing", "in"}),
    ],
)
def test_what_is_not_read_is_seen(test: str, left: set[str]) -> None:
    found = unread(messages_of(SOURCE, "made.py"), [words_of(test)])
    first = {next(part for part in one.parts if part)[0] for one in found}
    assert first == left
