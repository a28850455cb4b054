"""JSON that orjson reads against what `json` makes of it, and what is left to `json`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.shards import jsonfile
from mixctl.shards.jsonfile import parse_json

NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**18])
    | st.floats(allow_nan=False)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab0123456789"), inner),
)


def same(one: Any, other: Any) -> bool:
    """Returns whether both are the same JSON, whole numbers and fractions told apart."""
    return json.dumps(one) == json.dumps(other)


@given(value=st.dictionaries(st.text("ab"), VALUES), spaced=st.booleans())
def test_what_is_read_is_what_json_reads(value: dict[str, Any], spaced: bool) -> None:
    data = json.dumps(
        value, indent=1 if spaced else None, separators=None if spaced else (",", ":")
    )
    assert same(parse_json(data.encode(), "x"), json.loads(data))


@pytest.mark.parametrize("depth", [1, 50, 99, 100, 101, 500, 900])
def test_nested_objects_are_read(depth: int) -> None:
    data = b'{"a": ' * depth + b"1" + b"}" * depth
    assert parse_json(data, "x") == json.loads(data)


def test_what_only_json_takes_is_read_all_the_same() -> None:
    assert parse_json(b'{"a": Infinity, "b": 1E999, "a": 2}', "x") == {"a": 2, "b": float("inf")}


PIECES = st.sampled_from(
    ["1" * 19, "0" * 25, "9" * 18, "12", "-", ",", ":", "[", " ", "\n", '"', "."]
)


@given(pieces=st.lists(PIECES, max_size=12))
def test_runs_of_digits_are_told_from_long_numbers(pieces: list[str]) -> None:
    data = "".join(pieces).encode()
    assert jsonfile._holds_long_number(data) == bool(jsonfile._LONG_NUMBER.search(data))
