r"""Reads JSON files that hold one object, and refuses what is no text or has no end.

`json` takes more than JSON: `"\ud800"`, half a character, which no file can hold; brackets so
deep that Python gives up; numbers of more digits than it converts. Each becomes a sentence.

orjson takes nothing of it and is four times as fast, so what it reads is read, unless it is nested
so deep that others would give up, or holds a number of more than 18 digits; then, and where it
refuses, `json` reads.

Price: a look at each list and object; where orjson refuses, the object is written once more.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from mixctl.shards.errors import InputError

_DEEPEST = 100
_LONG_NUMBER = re.compile(rb"[\[:,\s]-?[1-9][0-9]{18}")
"""orjson makes a fraction of a whole number that 64 bits do not hold"""
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_DIGITS = b"0" * 19


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        InputError: when the file is missing, cannot be read, or holds something else.
    """
    try:
        return parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def parse_json(data: bytes, place: str) -> dict[str, Any]:
    """Returns the object that the bytes hold.

    Raises:
        InputError: naming the place, when they hold none.
    """
    try:
        raw = _parsed(data)
    except UnicodeEncodeError as error:
        found = ascii(str(error.object)[error.start])
        raise InputError(f"{place}: holds {found}, half a character: no text") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: cannot be read as JSON ({error})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{place}: must hold a JSON object, holds a {type(raw).__name__}")
    return raw


def _parsed(data: bytes) -> Any:
    """Returns what the bytes hold."""
    if not _holds_long_number(data):
        with suppress(orjson.JSONDecodeError):
            raw = orjson.loads(data)
            if _depth_at_most(raw, _DEEPEST):
                return raw
    raw = json.loads(data.decode("utf-8"))
    json.dumps(raw, ensure_ascii=False).encode("utf-8")
    return raw


def _holds_long_number(data: bytes) -> bool:
    """Returns whether a number of more than 18 digits may be in it, or a string that looks so."""
    alike = data.translate(_DIGITS_ALIKE)
    at = alike.find(_LONG_DIGITS)
    while at >= 0:
        end = at + len(_LONG_DIGITS)
        if _LONG_NUMBER.search(data, max(at - 2, 0), end):
            return True
        at = alike.find(_LONG_DIGITS, end)
    return False


def _depth_at_most(raw: Any, most: int) -> bool:
    """Returns whether lists and objects are in each other no deeper than that."""
    level = [raw]
    for _ in range(most):
        inside: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inside += [value for value in one.values() if isinstance(value, dict | list)]
            elif isinstance(one, list):
                inside += [value for value in one if isinstance(value, dict | list)]
        if not inside:
            return True
        level = inside
    return False
