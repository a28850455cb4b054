"""The Python API of docs/python-api.md: documented where it stands, and typed.

That mypy --strict takes the page's code against the installed wheel is tested in test_wheel.py.
"""

import ast
import dataclasses
import inspect
import re
from importlib import import_module

import pytest
from pydantic import BaseModel

from tests.support.blocks import ROOT, fenced

PAGE = ROOT / "docs/python-api.md"
VERBS = re.compile(r"(Returns|Yields|Writes|Refuses|Raises|Checks) ")


def named():
    """Returns the public names of the page: MODULE.NAME."""
    found = set(re.findall(r"`(mixctl(?:\.\w+)+)`", PAGE.read_text(encoding="utf-8")))
    for block in fenced(PAGE):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mixctl"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return sorted(found)


def resolved(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def members(kind):
    """Yields the public functions, methods and properties that a class defines itself."""
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if inspect.isfunction(value):
            yield f"{kind.__name__}.{name}", value


def functions(name):
    value = resolved(name)
    return list(members(value)) if inspect.isclass(value) else [(name, value)]


def test_the_page_names_what_it_should():
    assert len(named()) > 20
    assert {"mixctl.pipeline.build.build", "mixctl.evals.run.evaluate"} <= set(named())


@pytest.mark.parametrize("name", named())
def test_every_public_name_says_what_it_returns_and_is_annotated(name):
    value = resolved(name)
    assert inspect.getdoc(value), f"{name} has no docstring"
    assert value.__doc__ is not None and value.__module__.startswith("mixctl.")
    for place, function in functions(name):
        first = (inspect.getdoc(function) or "").splitlines()[:1]
        assert first and VERBS.match(first[0]) and first[0].endswith((".", ":")), (place, first)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, place
        bare = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.annotation is inspect.Parameter.empty and parameter.name != "self"
        ]
        assert not bare or bare == ["cls"], (place, bare)


@pytest.mark.parametrize("name", [n for n in named() if inspect.isclass(resolved(n))])
def test_every_field_of_a_public_class_is_described(name):
    kind = resolved(name)
    if issubclass(kind, BaseModel):
        fields = list(kind.model_fields)
    elif dataclasses.is_dataclass(kind):
        fields = [field.name for field in dataclasses.fields(kind)]
    else:
        return
    described = inspect.getsource(kind)
    for field in (one for one in fields if not one.startswith("_")):
        said = re.search(rf'^ +{field}: .*\n +"""|^ {{8}}{field}: \w', described, re.MULTILINE)
        assert said, f"{name}.{field} has no description"
