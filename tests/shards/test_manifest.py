"""The manifest's tables: schemas, same bytes for same rows, one message for a broken file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixctl.shards import manifest
from mixctl.shards.draws import bits
from mixctl.shards.errors import InputError

NAMES = list(manifest.TABLES)
READERS = {
    "manifest/items.parquet": manifest.read_items,
    "manifest/placements.parquet": manifest.read_placements,
    "manifest/replacements.parquet": manifest.read_replacements,
    "manifest/blocks.parquet": manifest.read_blocks,
}


MAY_BE_NULL = {"stratum", "cluster", "tokens", "text", "meta", "source_sequence"}


def _table(schema: pa.Schema, n_rows: int, with_nulls: bool = True) -> pa.Table:
    """Returns rows of every column's type; every seventh value that may be null is, when wished."""
    columns = []
    for field in schema:
        if pa.types.is_list(field.type):
            values = [[row, row + 1] for row in range(n_rows)]
        elif pa.types.is_string(field.type):
            values = [f"{field.name}-{row}" for row in range(n_rows)]
        else:
            values = list(range(n_rows))
        if with_nulls and field.name in MAY_BE_NULL:
            values = [None if row % 7 == 3 else value for row, value in enumerate(values)]
        columns.append(pa.array(values, type=field.type))
    return pa.table(columns, schema=schema)


@pytest.mark.parametrize("n_rows", [0, 1, 50])
@pytest.mark.parametrize("name", NAMES)
def test_written_table_is_read_back(tmp_path: Path, name: str, n_rows: int) -> None:
    table = _table(manifest.TABLES[name], n_rows)
    manifest.write_table(table, tmp_path / name)
    found = READERS[name](tmp_path)
    assert found.schema.equals(manifest.TABLES[name])
    assert found.equals(table)
    assert [path.name for path in (tmp_path / "manifest").iterdir()] == [Path(name).name]


@pytest.mark.parametrize(
    ("name", "n_rows"), [*((name, 5000) for name in NAMES), (NAMES[3], 140_000)]
)
def test_same_rows_same_bytes_however_they_came_together(
    tmp_path: Path, name: str, n_rows: int
) -> None:
    """As one table, as the pieces that several workers hand over, or cut out of a longer one."""
    whole = _table(manifest.TABLES[name], n_rows, with_nulls=n_rows < 10_000)
    if "digest" in whole.column_names:
        digests = [f"{value:016x}" for value in bits(3, np.arange(n_rows)).tolist()]
        place = whole.column_names.index("digest")
        whole = whole.set_column(place, whole.schema.field("digest"), [digests])
    pieces = pa.concat_tables([whole.slice(begin, 777) for begin in range(0, n_rows, 777)])
    tagged = whole.replace_schema_metadata({"made": "today"})
    longer = pa.concat_tables([whole, whole]).slice(0, n_rows)
    for number, table in enumerate((whole, whole, pieces, tagged, longer)):
        assert table.equals(whole)
        manifest.write_table(table, tmp_path / f"{number}.parquet")
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 5
    assert [n for n, data in sorted(contents.items()) if data != contents["0.parquet"]] == []


def test_row_groups_hold_at_most_65536_rows(tmp_path: Path) -> None:
    rows = 2 * 65_536 + 10
    table = pa.table(
        [pa.array(["c"] * rows), pa.array(np.arange(rows), pa.int32()), pa.array(["d"] * rows)],
        schema=manifest.BLOCKS,
    )
    manifest.write_table(table, tmp_path / "blocks.parquet")
    groups = pq.ParquetFile(tmp_path / "blocks.parquet").metadata
    sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert sizes == [65_536, 65_536, 10]


def test_digests_of_some_blocks_are_those_of_the_table(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(manifest, "ROW_GROUP_ROWS", 7)
    digests = [f"d{n}" for n in range(40)]
    columns = [["c"] * 40, pa.array(range(40), pa.int32()), digests]
    path = tmp_path / "manifest/blocks.parquet"
    manifest.write_table(pa.table(columns, schema=manifest.BLOCKS), path)
    assert pq.ParquetFile(path).metadata.num_row_groups == 6
    assert manifest.count_blocks(tmp_path) == 40
    for first in range(43):
        for count in (1, 6, 7, 8, 20, 60):
            found = manifest.BlockDigests(tmp_path).of(first, count)
            assert found == digests[first : first + count], (first, count)


@pytest.mark.parametrize("data", [None, b"", b"PAR1", b"PAR1PAR1"])
def test_a_damaged_table_of_blocks_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "manifest/blocks.parquet"
    if data is not None:
        path.parent.mkdir()
        path.write_bytes(data)
    for read in (manifest.count_blocks, manifest.BlockDigests):
        with pytest.raises(InputError, match=r"blocks\.parquet"):
            read(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_missing_table_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: missing"):
        READERS[name](tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_missing_column_is_named(tmp_path: Path, name: str) -> None:
    schema = manifest.TABLES[name]
    manifest.write_table(_table(schema, 3).drop_columns([schema.names[0]]), tmp_path / name)
    with pytest.raises(InputError, match=f"{name}.*missing columns: {schema.names[0]}"):
        READERS[name](tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0, 3, 60, -9, -1])
def test_truncated_table_is_named(tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    manifest.write_table(_table(manifest.TABLES[name], 40), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=name):
        READERS[name](tmp_path)


def test_folder_in_place_of_a_table_and_wrong_type_are_named(tmp_path: Path) -> None:
    (tmp_path / "manifest" / "items.parquet").mkdir(parents=True)
    with pytest.raises(InputError, match=r"items\.parquet"):
        manifest.read_items(tmp_path)
    wrong = pa.table({"chunk": ["a"], "block": ["not a number"], "digest": ["d"]})
    manifest.write_table(wrong, tmp_path / "manifest" / "blocks.parquet")
    with pytest.raises(InputError, match=r"blocks\.parquet"):
        manifest.read_blocks(tmp_path)


def test_narrow_columns_are_widened_and_more_columns_kept(tmp_path: Path) -> None:
    narrow = pa.table(
        {"more": [1], "digest": ["d"], "block": pa.array([5], pa.int8()), "chunk": ["a"]}
    )
    manifest.write_table(narrow, tmp_path / "manifest" / "blocks.parquet")
    found = manifest.read_blocks(tmp_path)
    assert found.schema.names == ["chunk", "block", "digest", "more"]
    assert found.schema.field("block").type == pa.int32()


def test_payload_digest_is_of_little_endian_uint32() -> None:
    import hashlib

    expected = hashlib.blake2b(bytes([1, 0, 0, 0, 0x70, 0x11, 1, 0]), digest_size=8).hexdigest()
    assert manifest.payload_digest(np.array([1, 70_000])) == expected
    assert manifest.payload_digest(np.array([1, 70_000], dtype=np.uint32)) == expected


def test_columns_are_those_of_the_format() -> None:
    """Written out once more, so that a renamed or retyped column is a decision."""
    assert manifest.ITEMS.names == (
        "experiment kind item arm stratum cluster copies tokens text meta".split()
    )
    assert manifest.PLACEMENTS.names == (
        "experiment item arm copy part variant step sequence chunk block offset length byte "
        "loss_tokens changed_offset changed_length digest mode source_sequence".split()
    )
    assert manifest.REPLACEMENTS.names == "sequence reason source digest".split()
    wide = {"step", "sequence", "byte", "source_sequence"}
    text = {"experiment", "item", "arm", "chunk", "digest", "mode"}
    for field in manifest.PLACEMENTS:
        expected = pa.int64() if field.name in wide else pa.int32()
        assert field.type == (pa.string() if field.name in text else expected), field.name


def test_tables_written_in_pieces_are_the_table(tmp_path, monkeypatch):
    """However the rows come, the bytes are the same; row groups are full but for the last."""
    monkeypatch.setattr(manifest, "ROW_GROUP_ROWS", 7)
    table = pa.table({"chunk": ["a", "b"] * 20, "block": range(40), "digest": ["x"] * 40})
    table = table.cast(manifest.BLOCKS)
    manifest.write_table(table, tmp_path / "whole.parquet")
    for cuts in ([], [3], [7, 14], [1, 2, 3, 30], [0, 40]):
        bounds = [0, *cuts, 40]
        pieces = [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
        manifest.write_tables(manifest.BLOCKS, pieces, tmp_path / "pieces.parquet")
        found = (tmp_path / "pieces.parquet").read_bytes()
        assert found == (tmp_path / "whole.parquet").read_bytes()
    groups = pq.ParquetFile(tmp_path / "whole.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [7] * 5 + [5]
    assert pq.read_table(tmp_path / "whole.parquet").equals(table)
    manifest.write_tables(manifest.BLOCKS, [], tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.parametrize("column", ["experiment", "copies", "tokens"])
def test_a_missing_value_is_named(tmp_path: Path, column: str) -> None:
    rows = _table(manifest.ITEMS, 3).to_pylist()
    rows[1][column] = [1, None] if column == "tokens" else None
    path = tmp_path / "manifest/items.parquet"
    manifest.write_table(pa.Table.from_pylist(rows, schema=manifest.ITEMS), path)
    with pytest.raises(InputError, match=rf"items\.parquet: .* without a value in {column}"):
        manifest.read_items(tmp_path)


def test_a_table_of_payloads_has_smaller_row_groups(tmp_path, monkeypatch):
    """A group is held in memory while it is written, and an item is a thousand times a block."""
    monkeypatch.setattr(manifest, "ROW_GROUP_ROWS", 7)
    monkeypatch.setattr(manifest, "PAYLOAD_GROUP_ROWS", 3)
    rows = [{"item": f"i{n}", "copies": n, "tokens": [n] * n} for n in range(8)]
    table = pa.Table.from_pylist(rows, schema=manifest.ITEMS)
    manifest.write_table(table, tmp_path / "items.parquet")
    groups = pq.ParquetFile(tmp_path / "items.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [3, 3, 2]
    assert pq.read_table(tmp_path / "items.parquet").equals(table)
