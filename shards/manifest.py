"""The tables of the manifest: what was placed, where, and what every block holds.

Four parquet files, sorted by experiment, item, copy, part, in row groups of at most 65,536 rows, so
that one item's exposures are found by reading one or two row groups. No time stamp, path or machine
enters them: the same mix gives the same bytes. What each column means is in docs/formats.md.

    read_placements(build) -> a pyarrow.Table, a row a contiguous payload
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.files import replacing

ROW_GROUP_ROWS = 65_536
PAYLOAD_GROUP_ROWS = 8192
"""of a table whose rows hold payloads, some kilobytes each, of which a group is held in memory"""
PAYLOAD_DIGEST_BYTES = 8
_KEPT_GROUPS = 2

ITEMS = pa.schema(
    [
        ("experiment", pa.string()),
        ("kind", pa.string()),
        ("item", pa.string()),
        ("arm", pa.string()),
        ("stratum", pa.string()),
        ("cluster", pa.string()),
        ("copies", pa.int32()),
        ("tokens", pa.list_(pa.uint32())),
        ("text", pa.string()),
        ("meta", pa.string()),
    ]
)
PLACEMENTS = pa.schema(
    [
        ("experiment", pa.string()),
        ("item", pa.string()),
        ("arm", pa.string()),
        ("copy", pa.int32()),
        ("part", pa.int32()),
        ("variant", pa.int32()),
        ("step", pa.int64()),
        ("sequence", pa.int64()),
        ("chunk", pa.string()),
        ("block", pa.int32()),
        ("offset", pa.int32()),
        ("length", pa.int32()),
        ("byte", pa.int64()),
        ("loss_tokens", pa.int32()),
        ("changed_offset", pa.int32()),
        ("changed_length", pa.int32()),
        ("digest", pa.string()),
        ("mode", pa.string()),
        ("source_sequence", pa.int64()),
    ]
)
REPLACEMENTS = pa.schema(
    [
        ("sequence", pa.int64()),
        ("reason", pa.string()),
        ("source", pa.int64()),
        ("digest", pa.string()),
    ]
)
BLOCKS = pa.schema([("chunk", pa.string()), ("block", pa.int32()), ("digest", pa.string())])

BEFORE = pa.schema([("sequence", pa.int64()), ("tokens", pa.list_(pa.uint32()))])
"""what sequences held until an amendment changed them: before-0001.parquet, ..."""

_MAY_BE_NULL = {"stratum", "cluster", "text", "meta", "source_sequence"}
"""columns whose values may be missing; those of `tokens`, but not the tokens in one"""

TABLES = {
    "manifest/items.parquet": ITEMS,
    "manifest/placements.parquet": PLACEMENTS,
    "manifest/replacements.parquet": REPLACEMENTS,
    "manifest/blocks.parquet": BLOCKS,
}


def payload_digest(tokens: np.ndarray) -> str:
    """Returns the hex blake2b-8 digest of token ids taken as little-endian uint32."""
    ids = np.ascontiguousarray(tokens, dtype="<u4")
    return hashlib.blake2b(ids.data, digest_size=PAYLOAD_DIGEST_BYTES).hexdigest()


def payload_digests(tokens: np.ndarray, length: I64) -> list[str]:
    """Returns what `payload_digest` does of each of some payloads that follow one another.

    Args:
        tokens: of all of them.
        length: int64, of each.
    """
    data = np.ascontiguousarray(tokens, dtype="<u4").data.cast("B")
    end = (np.cumsum(length) * 4).tolist()
    return [
        hashlib.blake2b(data[low:high], digest_size=PAYLOAD_DIGEST_BYTES).hexdigest()
        for low, high in zip([0, *end], end, strict=False)
    ]


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a manifest table, all or nothing; the bytes depend on the rows alone."""
    write_tables(table.schema, [table], path)


def write_tables(schema: pa.Schema, tables: Iterable[pa.Table], path: Path) -> None:
    """Writes tables, one after another, as `write_table` writes them together.

    Memory is that of a row group and of the largest table.
    """
    plain = schema.remove_metadata()
    with replacing(path) as partial:
        with pq.ParquetWriter(partial, plain, compression="zstd", store_schema=False) as writer:
            n_rows = PAYLOAD_GROUP_ROWS if "tokens" in plain.names else ROW_GROUP_ROWS
            for group in _row_groups(tables, n_rows):
                writer.write_table(group.replace_schema_metadata(None))


def _row_groups(tables: Iterable[pa.Table], group_rows: int) -> Iterator[pa.Table]:
    """Yields the rows in tables of one chunk and `group_rows` rows; the last one has the rest."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        n_rows = sum(one.num_rows for one in waiting)
        if n_rows < group_rows:
            continue
        joined, whole = pa.concat_tables(waiting), n_rows - n_rows % group_rows
        for at in range(0, whole, group_rows):
            yield joined.slice(at, group_rows).combine_chunks()  # pages end where chunks do
        waiting = [joined.slice(whole).combine_chunks()]
    if sum(one.num_rows for one in waiting):
        yield pa.concat_tables(waiting).combine_chunks()


def read_items(build: Path) -> pa.Table:
    """Returns items.parquet of a build: a row an item, holdouts included."""
    return read_table(build, "manifest/items.parquet")


def read_placements(
    build: Path, experiment: str | None = None, item: str | None = None
) -> pa.Table:
    """Returns placements.parquet of a build: a row a contiguous payload.

    Args:
        build: the build folder.
        experiment: only this one's; row groups that cannot hold it are not read.
        item: only this one's, of any experiment; likewise.
    """
    wanted = {"experiment": experiment, "item": item}
    filters = [(name, "==", value) for name, value in wanted.items() if value is not None]
    return read_table(build, "manifest/placements.parquet", filters or None)


def read_replacements(build: Path) -> pa.Table:
    """Returns replacements.parquet of a build: a row a purged base sequence."""
    return read_table(build, "manifest/replacements.parquet")


def read_blocks(build: Path) -> pa.Table:
    """Returns blocks.parquet of a build: a row a block of train/, sorted by chunk and block."""
    return read_table(build, "manifest/blocks.parquet")


def count_blocks(build: Path) -> int:
    """Returns the number of rows of blocks.parquet; raises InputError when it is no such table."""
    with _opened_blocks(build) as table:
        return int(table.metadata.num_rows)


class BlockDigests:
    """The digests of blocks.parquet, a few row groups at a time; threads may share it."""

    def __init__(self, build: Path) -> None:
        """Takes the build folder.

        Raises:
            InputError: when the file is missing, is no parquet, or lacks a column.
        """
        self._build, self._lock = build, Lock()
        self._groups: dict[int, pa.ChunkedArray] = {}
        with _opened_blocks(build) as table:
            groups = range(table.metadata.num_row_groups)
            sizes = [table.metadata.row_group(group).num_rows for group in groups]
        self._ends = np.cumsum(sizes)

    def of(self, first: int, count: int) -> list[str]:
        """Returns the digests of some blocks of train/, as they lie one after another in chunks.

        Only the row groups that hold them are read. Fewer come back where the table ends before.

        Raises:
            InputError: when the file has become unreadable.
        """
        low, high = np.searchsorted(self._ends, [first, first + count - 1], side="right").tolist()
        some = range(low, min(high + 1, len(self._ends)))
        if not some:
            return []
        begin = first - (int(self._ends[low - 1]) if low else 0)
        column = pa.chunked_array([one for group in some for one in self._group(group).chunks])
        digests: list[str] = column.slice(begin, count).to_pylist()
        return digests

    def _group(self, group: int) -> pa.ChunkedArray:
        """Returns the digests of a row group; the last few are kept."""
        with self._lock:
            if group not in self._groups:
                with _opened_blocks(self._build) as table:
                    read = table.read_row_group(group, columns=["digest"])["digest"]
                self._groups = {**dict([*self._groups.items()][-_KEPT_GROUPS:]), group: read}
            return self._groups[group]


@contextmanager
def _opened_blocks(build: Path) -> Iterator[pq.ParquetFile]:
    path = build / "manifest/blocks.parquet"
    try:
        with pq.ParquetFile(path) as table:
            missing = set(BLOCKS.names) - set(table.schema_arrow.names)
            if missing:
                raise KeyError(f"missing columns: {', '.join(sorted(missing))}")
            yield table
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {build} is not a finished build") from None
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a manifest table ({error})") from error


def before_name(number: int) -> str:
    """Returns the name of the table of what an amendment changed: manifest/before-0001.parquet."""
    return f"manifest/before-{number:04d}.parquet"


def read_before(build: Path, number: int) -> pa.Table:
    """Returns what the sequences that an amendment changed held until then, where it is kept."""
    return read_table(build, before_name(number))


def read_table(
    build: Path, name: str, filters: list[tuple[str, str, str]] | None = None
) -> pa.Table:
    """Returns one table of the manifest, cast to its schema (extra columns kept).

    Args:
        build: the build folder.
        name: of the file, below it.
        filters: which rows, as `pyarrow.parquet.read_table` takes them; None for all.

    Raises:
        InputError: when the file is missing, is no parquet, or lacks a column.
    """
    path = build / name
    try:
        table = pq.read_table(path, filters=filters) if filters else _read_whole(path)
        return _cast(table, TABLES.get(name, BEFORE))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {build} is not a finished build") from None
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a manifest table ({error})") from error


def _read_whole(path: Path) -> pa.Table:
    """Returns all rows; `pq.read_table` would import pandas first, a quarter of a second."""
    with pq.ParquetFile(path) as file:
        return file.read()


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise KeyError(f"missing columns: {', '.join(missing)}")
    extra = [name for name in table.column_names if name not in schema.names]
    columns = [table[field.name].cast(field.type) for field in schema]
    pairs = zip(schema.names, columns, strict=True)
    if empty := [name for name, column in pairs if name not in _MAY_BE_NULL and _has_null(column)]:
        raise ValueError(f"rows without a value in {', '.join(empty)}")
    if "chunk" in schema.names and _has_path(columns[schema.names.index("chunk")]):
        raise ValueError("a chunk's name is a path: chunks lie in the build's own folder")
    return pa.table(
        columns + [table[name] for name in extra],
        names=schema.names + extra,
    )


def _has_null(column: pa.ChunkedArray) -> bool:
    """Returns whether a value is missing, of a list column one inside a list."""
    inside = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return bool(inside.null_count)


def _has_path(names: pa.ChunkedArray) -> bool:
    """Returns whether a file name leads to another folder."""
    return any("/" in name or "\\" in name for name in names.unique().to_pylist() if name)
