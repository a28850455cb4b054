"""Rows of data on disk, whatever holds them: JSON lines, JSON, parquet, arrow, a saved data set.

    data.jsonl   data.json   data.parquet   data.arrow       one file
    FOLDER                                                   what `Dataset.save_to_disk` wrote
    FOLDER with --split test                                 what `DatasetDict.save_to_disk` wrote

Arrow files are read with pyarrow alone, memory-mapped; no code of the data set is run. Price: all
rows in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixctl.shards.errors import InputError, nearest

Rows = list[dict[str, Any]]


def read_local_rows(path: Path, split: str | None = None) -> Rows:
    """Returns the rows of a file or of a saved data set.

    Args:
        path: the file or folder.
        split: of a data set with several; None where there is one.

    Raises:
        InputError: when there is nothing, or nothing that can be read.
    """
    if path.is_dir():
        rows = _folder(path, split)
    elif split is not None:
        raise InputError(f"--split: {path} is a file, which has no splits")
    else:
        rows = _file(path)
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def _folder(path: Path, split: str | None) -> Rows:
    splits = sorted(one.name for one in path.iterdir() if one.is_dir() and _arrow_files(one))
    files = _arrow_files(path) or sorted(path.glob("*.parquet"))
    if files and split is None:
        return [row for file in files for row in _file(file)]
    if split is None and len(splits) == 1:
        split = splits[0]
    if split in splits:
        return [row for file in _arrow_files(path / split) for row in _file(file)]
    if splits:
        asked = "--split: choose one" if split is None else f"--split: no '{split}'"
        raise InputError(f"{asked}: {path} has {', '.join(splits)}{nearest(split or '', splits)}")
    raise InputError(f"{path}: holds no saved data set (*.arrow) and no parquet files")


def _arrow_files(path: Path) -> list[Path]:
    """Returns the data files, in order; those that `map` and `filter` cached are none."""
    return sorted(one for one in path.glob("*.arrow") if not one.name.startswith("cache-"))


def _file(path: Path) -> Rows:
    readers: dict[str, Callable[[Path], Rows]] = {
        ".jsonl": _jsonl,
        ".json": _json,
        ".parquet": lambda one: _plain(pq.read_table(one)),
        ".arrow": _arrow,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: must end in one of {', '.join(readers)}, or be a folder")
    try:
        return reader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def _jsonl(path: Path) -> Rows:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_object(json.loads(line)) for line in lines if line.strip()]


def _json(path: Path) -> Rows:
    raw = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(raw, list):
        raise ValueError("must hold a list of objects")
    return [_object(row) for row in raw]


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a JSON object, this is a {type(row).__name__}")
    return row


def _arrow(path: Path) -> Rows:
    """Reads the stream format, which `save_to_disk` writes, or else the file format."""
    with pa.memory_map(str(path)) as source:
        try:
            return _plain(pa.ipc.open_stream(source).read_all())
        except pa.ArrowInvalid:
            source.seek(0)
            return _plain(pa.ipc.open_file(source).read_all())


def _plain(table: pa.Table) -> Rows:
    rows: Rows = table.to_pylist()
    return rows
