r"""Question files out of other people's data: lm-evaluation-harness tasks, saved data sets.

    import_task(Path("arc.yaml"), rows)     the task's own templates give question, choices, gold
    import_fields(rows, Fields(question="question", choices="choices.text", gold="answerKey",
                               labels="choices.label"))

A task's text already holds all that stands before the answer, "Question: ...\nAnswer:" say, and
the harness puts one space behind it. So does the template `completion` of a mix file: written so,
the payload is letter by letter what the harness scores.

Templates of a task are data of others: they run in jinja2's immutable sandbox, which reaches no
attribute of Python, and a task that names Python functions (`!function`) is refused. Price: a
template or three a row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from mixctl.injections.config import check_name
from mixctl.injections.contamination import QuestionRow
from mixctl.pipeline.local_rows import Rows
from mixctl.shards.errors import InputError, nearest

_MOST_PROBLEMS = 20
_MOST_INCLUDED = 8
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BAD_ROW = (TemplateError, ValueError, TypeError, SyntaxError, KeyError, RecursionError)
"""what a template or a field of a row that does not fit ends in"""
Question = dict[str, Any]


@dataclass(frozen=True)
class Fields:
    """Where a row holds its parts, by dotted name: `choices.text` is `text` in `choices`.

    Attributes:
        question, choices, gold: the question; a list of texts; the right one: its number from 0, a
            letter, its text, or one of the labels.
        labels: a list beside the choices that `gold` names one of.
        benchmark: the field that names the benchmark, or None.
        id: the field that names the row, or None.
    """

    question: str
    choices: str
    gold: str
    labels: str | None = None
    benchmark: str | None = None
    id: str | None = None


def import_fields(rows: Rows, fields: Fields, benchmark: str) -> list[Question]:
    """Returns the rows of a question file.

    Args:
        rows: the data.
        fields: where its parts are.
        benchmark: the name of those that name none.

    Raises:
        InputError: with up to 20 problems, by row.
    """

    def one(row: dict[str, Any]) -> Question:
        choices = _list_of(_at(row, fields.choices), fields.choices)
        labels = None if fields.labels is None else _list_of(_at(row, fields.labels), fields.labels)
        named = benchmark if fields.benchmark is None else str(_at(row, fields.benchmark))
        gold = _gold(_at(row, fields.gold), choices, labels)
        question = str(_at(row, fields.question))
        made = {"benchmark": named, "question": question, "choices": choices, "gold": gold}
        return made if fields.id is None else {"id": _name(_at(row, fields.id)), **made}

    return _all(rows, one)


def import_task(path: Path, rows: Rows) -> list[Question]:
    """Returns the rows of a question file, made by the templates of an lm-eval task.

    Raises:
        InputError: when the task is none that can be imported, or with up to 20 problems, by row.
    """
    task = read_task(path)
    _check_task(task, path)
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["regex_replace"] = _regex_replace
    name = re.sub(r"[^A-Za-z0-9._-]", "-", str(task.get("task", path.stem)))

    def rendered(template: str, row: dict[str, Any]) -> str:
        return environment.from_string(template).render(**row)

    def one(row: dict[str, Any]) -> Question:
        text = _value(task["doc_to_text"], row, rendered)
        choices = _choices(task["doc_to_choice"], row, rendered)
        target = task["doc_to_target"]
        gold = target if isinstance(target, int) else _value(target, row, rendered)
        question, found = str(text), _gold(gold, choices, None)
        return {"benchmark": name, "question": question, "choices": choices, "gold": found}

    return _all(rows, one)


class _TaskLoader(yaml.SafeLoader):
    """The safe loader; `!function` becomes a name that is refused later."""


_TaskLoader.add_constructor(
    "!function", lambda loader, node: _Function(str(getattr(node, "value", "")))
)


@dataclass(frozen=True)
class _Function:
    name: str


def read_task(path: Path, depth: int = 0) -> dict[str, Any]:
    """Returns a task's YAML with what it includes: paths from the file that names them.

    Raises:
        InputError: when a file is missing or no YAML, or files include one another.
    """
    if depth > _MOST_INCLUDED:
        raise InputError(f"{path}: include: more than {_MOST_INCLUDED} files deep")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)  # noqa: S506 (safe)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not a task ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: not a task (no mapping)")
    included = raw.pop("include", None)
    base = read_task(path.parent / str(included), depth + 1) if included else {}
    return {**base, **raw}


def _check_task(task: dict[str, Any], path: Path) -> None:
    """Refuses what cannot be imported as it is."""
    problems = [
        f"{path}: {key}: is the Python function '{value.name}'; what a task runs is not imported"
        for key, value in sorted(task.items())
        if isinstance(value, _Function)
    ]
    problems += [
        f"{path}: key '{key}' is missing"
        for key in ("doc_to_text", "doc_to_choice", "doc_to_target")
        if task.get(key) in (None, "")
    ]
    if task.get("output_type") != "multiple_choice":
        problems.append(
            f"{path}: output_type: is {task.get('output_type')!r}; multiple_choice is imported"
        )
    if task.get("target_delimiter", " ") != " ":
        problems.append(
            f"{path}: target_delimiter: is {task['target_delimiter']!r}; a payload has one space "
            "between question and answer"
        )
    if task.get("description"):
        problems.append(
            f"{path}: description: stands before every question; put it into doc_to_text"
        )
    if problems:
        raise InputError(problems)


Render = Callable[[str, dict[str, Any]], str]


def _value(template: Any, row: dict[str, Any], rendered: Render) -> Any:
    """Returns what a key of a task gives for a row: a field, or a filled template."""
    if not isinstance(template, str):
        raise ValueError(f"{template!r} is neither a field nor a template")
    return row[template] if template in row else rendered(template, row)


def _choices(template: Any, row: dict[str, Any], rendered: Render) -> list[str]:
    if isinstance(template, dict):
        return [str(choice) for choice in template.values()]
    if isinstance(template, list):
        return [str(choice) for choice in template]
    found = _value(template, row, rendered)
    if isinstance(found, str):
        found = ast.literal_eval(found)
    return _list_of(found, "doc_to_choice")


def _list_of(value: Any, name: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"'{name}' must be a list, is {repr(value)[:60]}")
    return [str(one) for one in value]


def _gold(value: Any, choices: Sequence[str], labels: Sequence[str] | None) -> int:
    """Returns the place of the right choice, from 0."""
    if labels is not None:
        if str(value) not in labels:
            raise ValueError(f"gold {value!r} is none of the labels {', '.join(labels)}")
        return list(labels).index(str(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value)
    if text in choices:
        return list(choices).index(text)
    if text.strip().isdigit():
        return int(text)
    if len(text.strip()) == 1 and text.strip() in _LETTERS:
        return _LETTERS.index(text.strip())
    raise ValueError(f"gold {text[:60]!r} is no number, no letter and no choice")


def _at(row: Any, name: str) -> Any:
    """Returns what stands at a dotted name."""
    for part in name.split("."):
        if not isinstance(row, dict) or part not in row:
            known = row if isinstance(row, dict) else ()
            raise ValueError(f"there is no field '{name}'{nearest(part, known)}")
        row = row[part]
    return row


def _name(value: Any) -> str:
    """Returns an id that a mix may carry, of any text."""
    return check_name(re.sub(r"[^A-Za-z0-9._-]", "-", str(value)).lstrip("._-") or "item")


def _regex_replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
    return re.sub(pattern, repl, string, count=count)


def _all(rows: Rows, one: Callable[[dict[str, Any]], Question]) -> list[Question]:
    """Returns every row as a question that the kind takes.

    Raises:
        InputError: with up to 20 problems.
    """
    made: list[Question] = []
    problems: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            made.append(one(row))
            QuestionRow.model_validate(made[-1])
        except ValidationError as error:
            messages = [detail["msg"].removeprefix("Value error, ") for detail in error.errors()]
            problems.append(f"row {number}: {'; '.join(messages)}")
        except (
            TemplateError,
            ValueError,
            TypeError,
            SyntaxError,
            KeyError,
            RecursionError,
        ) as error:
            problems.append(f"row {number}: {' '.join(str(error).split())[:300]}")
    if problems:
        rest = len(problems) - _MOST_PROBLEMS
        more = [f"... and {rest} more problems"] if rest > 0 else []
        raise InputError([*problems[:_MOST_PROBLEMS], *more])
    return made
