"""Items of two tables by number, as sets of their names."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mixctl.shards.verify_manifest import numbered_items

_NAMES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "a", "ü", "bc"])))


def table(pieces: list[list[tuple[str, str]]]) -> pa.Table:
    """Returns a table in pieces, as row groups are read."""
    schema = pa.schema([("experiment", pa.string()), ("item", pa.string())])
    rows = [[dict(zip(schema.names, row, strict=True)) for row in piece] for piece in pieces]
    batches = [pa.RecordBatch.from_pylist(piece, schema) for piece in rows]
    return pa.Table.from_batches(batches, schema)


@given(st.lists(_NAMES), st.lists(_NAMES))
def test_rows_have_the_same_number_when_they_name_the_same_item(items, rows) -> None:
    own, others, n_items = numbered_items(table(items), table(rows))
    names = [name for piece in [*items, *rows] for name in piece]
    numbers = [*own.tolist(), *others.tolist()]
    assert len(own) == sum(map(len, items))
    assert len(set(numbers)) == len(set(names)) == len(set(zip(numbers, names, strict=True)))
    assert sorted(set(numbers)) == list(range(n_items))
