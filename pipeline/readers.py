"""datatrove readers for the base corpus, with one difference: nothing is skipped without a word.

datatrove's own readers warn and go on when a line is not JSON or has no text; a corpus of which
half is missing would go unnoticed. Here each is an error that names file and line. Documents whose
text is empty hold no token; they are skipped and counted.

`format` is jsonl, parquet or text (a folder of files, one document each), or any datatrove reader
by
name: csv, ipc, warc, or its class (`CsvReader`). Compressed files (.gz, .zst, ...) are read by
suffix.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any

import fsspec
import orjson
from datatrove.data import Document
from datatrove.io import get_datafolder
from datatrove.pipeline import readers
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.readers.base import BaseDiskReader

from mixctl.shards.errors import InputError, nearest

_READ_BYTES = 1 << 20
_GLOBS = {"jsonl": "*.jsonl*", "parquet": "*.parquet", "text": "*.txt*"}


@dataclass(frozen=True)
class Corpus:
    """Where the base documents are.

    Attributes:
        folder: any fsspec address.
        files: paths in the folder, sorted.
    """

    folder: str
    files: tuple[str, ...]
    format: str
    text_key: str


def find_corpus(address: str, format_name: str, text_key: str, glob: str | None) -> Corpus:
    """Returns the files of a corpus: one file, or those of a folder that match.

    Raises:
        InputError: when there is no such file or folder, or nothing in it matches.
    """
    reader_class(format_name)
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        is_file, is_folder = filesystem.isfile(path), filesystem.isdir(path)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"corpus: path: {address}: cannot be opened ({error})") from None
    if is_file:
        folder, _, name = address.rpartition("/")
        return Corpus(folder or ".", (name,), format_name, text_key)
    if not is_folder:
        raise InputError(f"corpus: path: {address}: no such file or folder")
    pattern = glob or _GLOBS.get(format_name, "*")
    files = [
        name
        for name in get_datafolder(address).list_files(recursive=True)
        if _matches(name, pattern) and not posixpath.basename(name).startswith(".")
    ]
    if not files:
        raise InputError(f"corpus: path: {address}: no file in it matches '{pattern}'")
    return Corpus(address, tuple(sorted(files)), format_name, text_key)


def _matches(name: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(name if "/" in pattern else posixpath.basename(name), pattern)


def corpus_reader(corpus: Corpus) -> BaseDiskReader:
    """Returns the datatrove reader of the corpus; `read_file(name)` yields documents."""
    reader = reader_class(corpus.format)
    adapter = _adapter(corpus.text_key)
    return reader(get_datafolder(corpus.folder), adapter=adapter, text_key=corpus.text_key)


def reader_class(name: str) -> type[BaseDiskReader]:
    """Returns the reader class of a format name.

    Raises:
        InputError: when there is none, naming the nearest.
    """
    known: dict[str, type[BaseDiskReader]] = {
        "jsonl": StrictJsonlReader,
        "parquet": ParquetReader,
        "text": TextReader,
    }
    if name in known:
        return known[name]
    if "." in name:
        return _imported(name)
    for attribute in vars(readers):
        if name.lower() in {attribute.lower(), attribute.lower().removesuffix("reader")}:
            found = getattr(readers, attribute)
            if isinstance(found, type) and issubclass(found, BaseDiskReader):
                return found
    raise InputError(
        f"corpus: format: unknown format '{name}'{nearest(name, [*known, 'csv', 'ipc', 'warc'])}"
    )


def _imported(name: str) -> type[BaseDiskReader]:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"corpus: format: {name}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, BaseDiskReader)):
        raise InputError(f"corpus: format: {name} is no datatrove reader of files")
    return found


def _adapter(text_key: str) -> Callable[[Any, dict[str, Any], str, int | str], dict[str, Any]]:
    """Returns a datatrove adapter that refuses a row without text."""

    def adapt(_: Any, data: dict[str, Any], path: str, id_in_file: int | str) -> dict[str, Any]:
        if text_key not in data:
            keys = nearest(text_key, [str(key) for key in data])
            raise InputError(f"{path}: row {_row(id_in_file)}: no key '{text_key}'{keys}")
        text = data[text_key]
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(
                f"{path}: row {_row(id_in_file)}: '{text_key}' is a {kind}, not a text"
            )
        return {"text": text, "id": f"{path}/{id_in_file}", "metadata": {}}

    return adapt


def _row(id_in_file: int | str) -> str:
    return str(id_in_file + 1) if isinstance(id_in_file, int) else id_in_file


class StrictJsonlReader(JsonlReader):
    """datatrove's JsonlReader, with broken lines as errors."""

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yields the documents of a file; raises InputError for a line that is no object."""
        place = posixpath.join(self.data_folder.path, filepath)
        with self.data_folder.open(filepath, "rb", compression=self.compression) as lines:
            for number, line in enumerate(_lines(lines)):
                if not line.strip():
                    continue
                document = self.get_document_from_dict(
                    _json_row(line, place, number), place, number
                )
                if document:
                    yield document


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the lines of a file; not every decompressor can be iterated over."""
    rest = b""
    while data := file.read(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _json_row(line: bytes, place: str, number: int) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{place}: row {number + 1}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: row {number + 1}: a {type(row).__name__}, not a JSON object")
    return row


class TextReader(BaseDiskReader):
    """Reads text files, one document each."""

    name = "Text"

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yields the one document of a file; raises InputError when it is not UTF-8."""
        place = posixpath.join(self.data_folder.path, filepath)
        with self.data_folder.open(filepath, "rb", compression="infer") as file:
            try:
                text = file.read().decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{place}: not UTF-8 ({error})") from None
        document = self.get_document_from_dict({self.text_key: text}, place, 0)
        if document:
            yield document
