"""Turns what pydantic finds in a YAML file into sentences.

Every problem names the file, the field, the value and what is valid; an unknown key comes with the
nearest valid name. The file itself is read by `mixctl.shards.yamlfile`.
"""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mixctl.shards.errors import nearest
from mixctl.shards.yamlfile import read_yaml as read_yaml

ModelT = TypeVar("ModelT", bound=BaseModel)
_SHOWN = 80
"""characters of a key or a value in a message"""


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
    field = ".".join(name[:_SHOWN] for name in names)
    if detail["type"] == "extra_forbidden":
        return f"{place}: unknown key '{field}'{nearest(names[-1], fields)}"
    if detail["type"] == "missing":
        return f"{place}: key '{field}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message.startswith("Input") else message
    value = "" if isinstance(detail["input"], dict) else f" (got {repr(detail['input'])[:_SHOWN]})"
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
