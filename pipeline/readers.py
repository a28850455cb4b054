"""The base corpus: where it is, and the datatrove reader that reads it.

Nothing is left out without a word, whatever the reader (strict_readers.py).

`format` is jsonl, parquet or text (a folder of files, one document each), or any datatrove reader
by
name: csv, ipc, warc, or its class (`CsvReader`). Compressed files (.gz, .zst, ...) are read by
suffix.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from importlib import import_module

import fsspec
from datatrove.io import get_datafolder
from datatrove.pipeline import readers
from datatrove.pipeline.readers.base import BaseDiskReader

from mixctl.pipeline.strict_readers import (
    StrictJsonlReader,
    StrictParquetReader,
    TextReader,
    strict_adapter,
)
from mixctl.shards.errors import InputError, nearest

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
    adapter = strict_adapter(corpus.text_key)
    return reader(get_datafolder(corpus.folder), adapter=adapter, text_key=corpus.text_key)


def reader_class(name: str) -> type[BaseDiskReader]:
    """Returns the reader class of a format name.

    Raises:
        InputError: when there is none, naming the nearest.
    """
    known: dict[str, type[BaseDiskReader]] = {
        "jsonl": StrictJsonlReader,
        "parquet": StrictParquetReader,
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
