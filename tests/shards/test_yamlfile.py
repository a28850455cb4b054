"""YAML and JSON as users write them, and as nobody should."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixctl.shards.errors import InputError
from mixctl.shards.jsonfile import read_json
from mixctl.shards.yamlfile import MOST_VALUES, read_yaml

DOUBLED = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


def test_aliases_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\nrate: 4e-5\n")
    assert read_yaml(path) == {
        "a": {"x": 1},
        "b": {"x": 1, "y": [{"x": 1}, {"x": 1}]},
        "rate": 4e-5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DOUBLED, f"more than {MOST_VALUES:,} values"),
        ("x: &x [*x]\n", "holds itself"),
        ("x: &x {y: *x}\n", "holds itself"),
        ("x: " + "[" * 5000, "not valid YAML"),
        ("x: " + "9" * 19, "at most 18 digits"),
        ("x: 0x" + "f" * 5000, "at most 18 digits"),
        ("x: " + "9" * 5000, "not valid YAML"),
        ("2020-01-01: x\n", "a key must be a plain value, a text or a number"),
        ("!!binary aGk=: x\n", "a key must be a plain value, a text or a number"),
        ('x: "a\\0b"\n', "the zero character or half a character"),
        ('x: "\\ud800"\n', "the zero character or half a character"),
        ("x: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
        ("x: !!python/name:os.system\n", "could not determine a constructor"),
        ("- 1\n", "must hold a mapping"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml(path)
    (problem,) = error.value.problems
    assert message in problem and str(path) in problem


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": "\\ud800"}', "half a character: no text"),
        (b'{"a": ["\\udfff"]}', "half a character: no text"),
        (b'{"a": ' * 100_000, "cannot be read as JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b'{"a": "\xff"}', "cannot be read as JSON"),
        (b"[1]", "must hold a JSON object, holds a list"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for read in (read_yaml, read_json):
        with pytest.raises(InputError, match="x: no such file"):
            read(tmp_path / "x")
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path)


def test_messages_are_fit_to_be_printed() -> None:
    (problem,) = InputError("a\x1b[31mred\ud800" + "x" * 9000).problems
    assert problem.startswith("a\\x1b[31mred\\ud800xxx") and len(problem) < 2100
    problem.encode()
