"""datatrove readers of JSONL, parquet and text that skip nothing without a word.

datatrove's own readers warn and go on when a line is not JSON or has no text; a corpus of which
half is missing would go unnoticed. Here each is an error that names file and row. Documents whose
text is empty hold no token; they are left out.

JSONL and parquet can be read in stretches: a line belongs to the stretch of bytes in which it
begins, so every line is in exactly one, wherever the cuts are. Rows are counted only for an error.

    {"a":1} {"a":2} {"a":3}     lines begin at 0, 8, 16; bytes 0-9 hold lines 1 and 2, 10-24 line 3

Price: of JSONL one parsed row at a time, a megabyte of file; of parquet the text column alone, a
row group.
"""

from __future__ import annotations

import csv
import lzma
import posixpath
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from datatrove.data import Document
from datatrove.pipeline.readers.base import BaseDiskReader

from mixctl.shards.errors import InputError, nearest

_READ_BYTES = 1 << 20
_BATCH_ROWS = 1024

Stretch = tuple[int, int]
"""begin and end in a file: bytes of JSONL, row groups of parquet"""


_DAMAGED = (
    *(OSError, EOFError, UnicodeError, ValueError, csv.Error),
    *(zlib.error, lzma.LZMAError, zstandard.ZstdError, pa.ArrowException),
)
"""what decompressors and pyarrow raise where a file is not what it should be"""


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Makes a sentence that names the file of what a reader raises over its content.

    An error of the system (no permission, a disk that fails) stays what it is.
    """
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{place}: damaged, or not what it is taken for ({why})") from None


class StretchReader(BaseDiskReader):
    """A reader of files that can be read in stretches."""

    @abstractmethod
    def stretches(self, filepath: str, n_bytes: int, at_most: int) -> list[tuple[int, Stretch]]:
        """Returns (bytes, stretch) of the parts of a file, in order, of about `at_most` bytes each.

        Empty where the file cannot be cut, or need not be.
        """

    @abstractmethod
    def read_stretch(self, filepath: str, stretch: Stretch | None) -> Iterator[Document]:
        """Yields the documents of a stretch, of the whole file for None.

        Raises:
            InputError: for a row without a text, by number.
        """

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yields the documents of a file."""
        return self.read_stretch(filepath, None)

    def place(self, filepath: str) -> str:
        """Returns the file as messages name it."""
        return posixpath.join(self.data_folder.path, filepath)


class StrictJsonlReader(StretchReader):
    """Reads JSONL, one object with a text a line; lines of white space alone are left out."""

    name = "Jsonl"

    def stretches(self, filepath: str, n_bytes: int, at_most: int) -> list[tuple[int, Stretch]]:
        """Returns equal ranges of bytes; a compressed file cannot be cut."""
        n_parts = 1 if fsspec.utils.infer_compression(filepath) else round(n_bytes / at_most)
        if n_parts <= 1:
            return []
        ends = [n_bytes * part // n_parts for part in range(n_parts + 1)]
        return [(end - begin, (begin, end)) for begin, end in zip(ends, ends[1:], strict=False)]

    def read_stretch(self, filepath: str, stretch: Stretch | None) -> Iterator[Document]:
        """Yields the documents of the lines that begin in the stretch."""
        place = self.place(filepath)
        with readable(place), self.data_folder.open(filepath, "rb", compression="infer") as file:
            first = _seek_line(file, stretch[0]) if stretch else 0
            left = stretch[1] - first if stretch else None
            prefix = f"{place}/{first}+" if first else f"{place}/"
            for number, line in enumerate(_lines(file, left)):
                try:
                    text = _text_of(line, self.text_key)
                except ValueError as error:
                    row = self._rows_before(filepath, first) + number + 1
                    raise InputError(f"{place}: row {row}: {error}") from None
                if text:
                    yield Document(text, f"{prefix}{number}")

    def _rows_before(self, filepath: str, n_bytes: int) -> int:
        """Returns how many lines end in the first bytes of a file."""
        n_lines = 0
        with self.data_folder.open(filepath, "rb", compression="infer") as file:
            while n_bytes > 0 and (data := file.read(min(n_bytes, _READ_BYTES))):
                n_lines += data.count(b"\n")
                n_bytes -= len(data)
        return n_lines


def _seek_line(file: IO[bytes], begin: int) -> int:
    """Returns where the first line from `begin` on begins; the file stands there."""
    if begin == 0:
        return 0
    at = begin - 1
    file.seek(at)
    while data := file.read(_READ_BYTES):
        found = data.find(b"\n")
        if found >= 0:
            file.seek(at + found + 1)
            return at + found + 1
        at += len(data)
    return at


def _lines(file: IO[bytes], n_bytes: int | None) -> Iterator[bytes]:
    """Yields the lines that begin in the next `n_bytes`, all of them for None.

    Not every decompressor can be iterated over.
    """
    rest = b""
    while (wanted := _READ_BYTES if n_bytes is None else min(_READ_BYTES, n_bytes)) > 0:
        if not (data := file.read(wanted)):
            break
        n_bytes = None if n_bytes is None else n_bytes - len(data)
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest + _rest_of_line(file)


def _rest_of_line(file: IO[bytes]) -> bytes:
    parts = []
    while data := file.read(_READ_BYTES):
        head, newline, _ = data.partition(b"\n")
        parts.append(head)
        if newline:
            break
    return b"".join(parts)


def _text_of(line: bytes, text_key: str) -> str:
    """Returns the text of a line, empty for a line of white space.

    Raises:
        ValueError: when it is no object with a text.
    """
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if not line.strip():
            return ""
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not a JSON object")
    return text_in(row, text_key)


def text_in(row: dict[str, Any], text_key: str) -> str:
    """Returns the text of a row.

    Raises:
        ValueError: when it has none, naming the nearest key.
    """
    text = row.get(text_key)
    if isinstance(text, str):
        return text
    if text_key not in row:
        raise ValueError(f"no key '{text_key}'{nearest(text_key, [str(key) for key in row])}")
    raise ValueError(f"'{text_key}' is a {type(text).__name__}, not a text")


class StrictParquetReader(StretchReader):
    """Reads the text column of parquet files."""

    name = "Parquet"
    _requires_dependencies = ["pyarrow"]

    def stretches(self, filepath: str, n_bytes: int, at_most: int) -> list[tuple[int, Stretch]]:
        """Returns runs of row groups; a small file is not looked at."""
        if n_bytes <= at_most:
            return []
        with self._opened(filepath) as table:
            sizes = [
                table.metadata.row_group(group).total_byte_size
                for group in range(table.metadata.num_row_groups)
            ]
        found: list[tuple[int, Stretch]] = []
        for group, size in enumerate(sizes):
            if found and found[-1][0] + size <= at_most:
                found[-1] = found[-1][0] + size, (found[-1][1][0], group + 1)
            else:
                found.append((size, (group, group + 1)))
        return found

    def read_stretch(self, filepath: str, stretch: Stretch | None) -> Iterator[Document]:
        """Yields the documents of the row groups."""
        place = self.place(filepath)
        with self._opened(filepath) as table:
            self._check_column(table.schema_arrow, place)
            begin, end = stretch or (0, table.metadata.num_row_groups)
            row = sum(table.metadata.row_group(group).num_rows for group in range(begin))
            batches = table.iter_batches(
                _BATCH_ROWS, row_groups=list(range(begin, end)), columns=[self.text_key]
            )
            for batch in batches:
                for text in batch.column(0).to_pylist():
                    row += 1
                    if text is None:
                        raise InputError(
                            f"{place}: row {row}: '{self.text_key}' is a NoneType, not a text"
                        )
                    if text:
                        yield Document(text, f"{place}/{row - 1}")

    @contextmanager
    def _opened(self, filepath: str) -> Iterator[pq.ParquetFile]:
        with readable(self.place(filepath)), self.data_folder.open(filepath, "rb") as file:
            try:
                table = pq.ParquetFile(file)
            except pa.ArrowInvalid as error:
                raise InputError(f"{self.place(filepath)}: not parquet ({error})") from None
            with table:
                yield table

    def _check_column(self, schema: pa.Schema, place: str) -> None:
        if self.text_key not in schema.names:
            raise InputError(
                f"{place}: row 1: no key '{self.text_key}'{nearest(self.text_key, schema.names)}"
            )
        kind = schema.field(self.text_key).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
            raise InputError(f"{place}: row 1: '{self.text_key}' is a {kind}, not a text")


class TextReader(BaseDiskReader):
    """Reads text files, one document each."""

    name = "Text"

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yields the one document of a file; raises InputError when it is not UTF-8."""
        place = posixpath.join(self.data_folder.path, filepath)
        with readable(place), self.data_folder.open(filepath, "rb", compression="infer") as file:
            try:
                text = file.read().decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{place}: not UTF-8 ({error})") from None
        if text:
            yield Document(text, f"{place}/0")


def strict_adapter(
    text_key: str,
) -> Callable[[Any, dict[str, Any], str, int | str], dict[str, Any]]:
    """Returns an adapter for datatrove's own readers that refuses a row without text."""

    def adapt(_: Any, data: dict[str, Any], path: str, id_in_file: int | str) -> dict[str, Any]:
        row = id_in_file + 1 if isinstance(id_in_file, int) else id_in_file
        try:
            text = text_in(data, text_key)
        except ValueError as error:
            raise InputError(f"{path}: row {row}: {error}") from None
        return {"text": text, "id": f"{path}/{id_in_file}", "metadata": {}}

    return adapt
