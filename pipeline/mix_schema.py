"""The JSON Schema of a mix file, for editors and for the reference pages.

What a key means stands below it in the source, as a text; here it becomes the description.

    shots: int = 3                     {"default": 3, "type": "integer",
    "solved problems before each"       "description": "solved problems before each"}

pydantic can do that when it makes a class (`use_attribute_docstrings`): every command would read
and parse the source of each section then, three milliseconds a kind, and only the schema needs it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from mixctl.injections.registry import find_kind, kind_names
from mixctl.pipeline.mixfile import MixConfig


def mix_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a mix file, every kind's section included."""
    schema = MixConfig.model_json_schema(schema_generator=_Described)
    sections = []
    for name in kind_names():
        section = find_kind(name).config.model_json_schema(
            ref_template="#/$defs/{model}", schema_generator=_Described
        )
        schema["$defs"].update(section.pop("$defs", {}))
        schema["$defs"][section["title"]] = section
        sections.append({"$ref": f"#/$defs/{section['title']}"})
    schema["$defs"].pop("ExperimentConfig", None)
    schema["properties"]["experiments"]["items"] = {"anyOf": sections}
    return schema


class _Described(GenerateJsonSchema):
    """Adds to each property the text below its field."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Returns the schema of one model."""
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        texts = field_texts(model)
        for name, field in model.model_fields.items():
            described = made["properties"][field.alias or name]
            if name in texts:
                described.setdefault("description", texts[name])
        return made


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Returns the text below each field, by the field's name, those of base classes included."""
    texts: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            texts |= _own_texts(one)
    return texts


def _own_texts(model: type[BaseModel]) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(model))
    except (OSError, TypeError):  # a class that was made while the program runs
        return {}
    (made,) = ast.parse(source).body
    body = made.body if isinstance(made, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
