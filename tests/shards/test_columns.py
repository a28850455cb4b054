"""Columns are those that `pa.array` makes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.shards import columns
from mixctl.shards.columns import arrow_column, whole_numbers

pa.array([])  # imports pandas, which takes longer than hypothesis gives an example
_WHOLE = [pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.uint32()]
_TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9))


@given(_TEXTS)
def test_texts_are_those_of_arrow(texts: list[str | None]) -> None:
    found = arrow_column(texts, pa.string())
    found.validate(full=True)
    assert found.equals(pa.array(texts, pa.string()))
    assert found.null_count == texts.count(None)


@given(st.data(), st.sampled_from(_WHOLE))
def test_numbers_are_those_of_arrow(data: st.DataObject, kind: pa.DataType) -> None:
    limits = np.iinfo(str(kind))
    number = st.integers(int(limits.min), int(limits.max))
    rows = data.draw(st.lists(st.tuples(number, st.booleans())))
    values = np.array([value for value, _ in rows], dtype=np.int64)
    missing = np.array([gone for _, gone in rows], dtype=np.bool_)
    found = arrow_column(values, kind, missing)
    found.validate(full=True)
    assert found.equals(pa.array(values, kind, mask=missing))
    assert arrow_column(values, kind).equals(pa.array(values, kind))


@given(st.data(), st.sampled_from(_WHOLE), st.integers(-9, 9))
def test_whole_numbers_are_those_of_arrow(data: st.DataObject, kind: pa.DataType, missing) -> None:
    """Of an array and of a column in pieces, cut anywhere, with and without missing ones."""
    limits = np.iinfo(str(kind))
    rows = st.lists(st.none() | st.integers(int(limits.min), int(limits.max)))
    pieces = [pa.array(values, kind) for values in data.draw(st.lists(rows))]
    column = pa.chunked_array(pieces, kind)
    column = column.slice(data.draw(st.integers(0, len(column))))
    for values in (column, *pieces):
        expected = [missing if one is None else one for one in values.to_pylist()]
        found = whole_numbers(values, missing)
        assert (found.dtype, found.tolist()) == (np.dtype(np.int64), expected)


@given(st.lists(st.booleans()))
def test_flags_are_those_of_arrow(flags: list[bool]) -> None:
    expected = pa.array(flags, pa.bool_())
    assert arrow_column(flags, pa.bool_()).equals(expected)
    assert arrow_column(np.array(flags, dtype=np.bool_), pa.bool_()).equals(expected)


def test_strided_numbers_and_texts_of_numpy() -> None:
    every_third = np.arange(12, dtype=np.int64)[::3]
    assert arrow_column(every_third, pa.int32()).to_pylist() == [0, 3, 6, 9]
    names = np.array(["ü", "bc"], dtype=object)[np.array([1, 0, 1])]
    assert arrow_column(names, pa.string()).to_pylist() == ["bc", "ü", "bc"]


@pytest.mark.parametrize(("value", "kind"), [(2**31, pa.int32()), (-1, pa.uint32())])
def test_a_number_that_does_not_fit_is_refused(value: int, kind: pa.DataType) -> None:
    with pytest.raises(OverflowError, match=f"^{value} is no {kind}$"):
        arrow_column(np.array([0, value]), kind)


def test_a_number_that_is_not_whole_is_refused() -> None:
    with pytest.raises(OverflowError, match=r"^1\.5 is no int32$"):
        arrow_column(np.array([1.0, 1.5]), pa.int32())


def test_too_much_text_for_one_array_is_left_to_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_MOST_TEXT_BYTES", 3)
    made: list[list[str | None]] = []
    real = pa.array

    def array(values: list[str | None], kind: pa.DataType) -> pa.Array:
        made.append(values)
        return real(values, kind)

    monkeypatch.setattr(columns.pa, "array", array)
    assert arrow_column(["ab", "c"], pa.string()).to_pylist() == ["ab", "c"]
    assert made == []
    assert arrow_column(["ab", "cd"], pa.string()).to_pylist() == ["ab", "cd"]
    assert made == [["ab", "cd"]]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="sequence item 1: expected str instance, int found"):
        arrow_column(["a", 3], pa.string())
