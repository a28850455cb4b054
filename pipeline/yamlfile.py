"""Reads YAML with the safe loader, and turns what pydantic finds into sentences.

A key given twice is an error (YAML would keep the last one without a word). Every problem names the
file, the field, the value and what is valid; an unknown key comes with the nearest valid name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mixctl.shards.errors import InputError, nearest

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """The safe loader, refusing keys that stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain value", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # 4e-5 is a number to LitGPT's parser, a string to YAML 1.1
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file.

    Raises:
        InputError: when the file is missing, is not YAML, or holds no mapping.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a safe loader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must hold a mapping of keys to values")
    try:
        json.dumps(raw, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(str(error.object)[error.start])
        raise InputError(f"{path}: holds {found}, half a character: no text") from None
    return raw


def parse(model: type[ModelT], raw: Any, place: str) -> tuple[ModelT | None, list[str]]:
    """Returns (the model, []) or (None, problems), each beginning with place and field."""
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        return None, _distinct([_sentence(model, detail, place) for detail in error.errors()])


def _distinct(problems: list[str]) -> list[str]:
    return list(dict.fromkeys(problems))


def _sentence(model: type[BaseModel], detail: ErrorDetails, place: str) -> str:
    names, fields = _walk(model, detail["loc"])
    field = ".".join(names)
    if detail["type"] == "extra_forbidden":
        return f"{place}: unknown key '{field}'{nearest(names[-1], fields)}"
    if detail["type"] == "missing":
        return f"{place}: key '{field}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message.startswith("Input") else message
    value = "" if isinstance(detail["input"], dict) else f" (got {repr(detail['input'])[:80]})"
    return f"{place}: {field}: {message}{value}" if field else f"{place}: {message}"


def _walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Returns the path as the file spells it, and the keys valid at its end."""
    models, names, fields = [model], [], list(model.model_fields)
    for part in loc:
        if isinstance(part, int):
            names.append(str(part))
            continue
        tagged = [m for m in models if m.__name__ == part]
        known = [m for m in models if part in m.model_fields]
        if tagged and not known:
            models = tagged
        elif known or models:
            fields = [name for m in known or models for name in m.model_fields]
            models = [m for k in known for m in _models_in(k.model_fields[part].annotation)]
            names.append(part)
        elif not _is_tag(part):
            names.append(part)
    return names or [""], fields


def _is_tag(part: str) -> bool:
    return part in {"int", "str", "float", "bool"} or part.startswith(
        ("literal[", "list[", "constrained")
    )


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
