r"""Reads JSON files that hold one object, and refuses what is no text or has no end.

`json` takes more than JSON: `"\ud800"`, half a character, which no file can hold; brackets so
deep that Python gives up; numbers of more digits than it converts. Each becomes a sentence.

Price: the object is written once more, in memory: as long again as reading it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixctl.shards.errors import InputError


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
        raw = json.loads(data.decode("utf-8"))
        json.dumps(raw, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(str(error.object)[error.start])
        raise InputError(f"{place}: holds {found}, half a character: no text") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: cannot be read as JSON ({error})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{place}: must hold a JSON object, holds a {type(raw).__name__}")
    return raw
