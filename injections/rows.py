"""Reads item files: JSONL, a row a line, every problem reported with file, line and field.

A missing id is the line number (from 1); a duplicate id is an error. Blank lines are skipped.

Price: the file is read once, rows are kept in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from mixctl.injections.config import check_name
from mixctl.shards.errors import InputError, nearest

_MOST_PROBLEMS = 20


def _check_id(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        raise ValueError("must be a text or a whole number")
    return value


Id = Annotated[str | int, BeforeValidator(_check_id)]


class Row(BaseModel):
    """What every row of an item file may carry."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Id | None = None
    cluster: Id | None = None


RowT = TypeVar("RowT", bound=Row)


def read_rows(path: Path, model: type[RowT]) -> list[tuple[str, RowT]]:
    """Returns (id, row) for each row of the file, in file order.

    Raises:
        InputError: with up to 20 problems, each naming file, line and field.
    """
    rows: list[tuple[str, RowT]] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = _row(line, model)
            name = check_name(str(number if row.id is None else row.id))
        except ValueError as error:
            place = f"{path}:{number}: {_who(line)}"
            problems += [f"{place}{reason}" for reason in _reasons(error, model)]
            continue
        if name.lower() in seen:
            problems.append(f"{path}:{number}: id '{name}' was used in line {seen[name.lower()]}")
        seen[name.lower()] = number
        rows.append((name, row))
    if problems:
        raise InputError(_shortened(problems))
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _row(line: bytes, model: type[RowT]) -> RowT:
    raw: Any = orjson.loads(line)
    if not isinstance(raw, dict):
        raise ValueError(f"a row must be a JSON object, this is a {type(raw).__name__}")
    return model.model_validate(raw)


def _who(line: bytes) -> str:
    """Returns the id that a broken row gives, for its message; nothing when there is none."""
    try:
        raw: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return ""
    found = raw.get("id") if isinstance(raw, dict) else None
    return f"item '{found}': " if isinstance(found, (str, int)) else ""


def _reasons(error: ValueError, model: type[Row]) -> list[str]:
    if isinstance(error, orjson.JSONDecodeError):
        return [f"not JSON ({error})"]
    if not isinstance(error, ValidationError):
        return [str(error)]
    reasons = []
    for detail in error.errors():
        field = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            reasons.append(f"unknown field '{field}'{nearest(field, model.model_fields)}")
        elif detail["type"] == "missing":
            reasons.append(f"field '{field}' is missing")
        else:
            shown = repr(detail["input"])[:80]
            place = f"field '{field}': " if field else ""
            message = detail["msg"].removeprefix("Value error, ")
            reasons.append(f"{place}{message}" + ("" if not field else f" (got {shown})"))
    return reasons


def _shortened(problems: list[str]) -> list[str]:
    rest = len(problems) - _MOST_PROBLEMS
    return problems if rest <= 0 else [*problems[:_MOST_PROBLEMS], f"... and {rest} more problems"]
