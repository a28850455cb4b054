"""Digests, and writes that leave either the old file or the new one.

A file is written beside its place under a temporary name, flushed to disk, and renamed; whoever
looks sees the old content or the new, never a part. Digests are blake2b with 16 bytes (files) or 8
(blocks and payloads), in hex.

Price: one fsync a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

_READ_BYTES = 1 << 20
_SYNC_BYTES = 8 << 20
FILE_DIGEST_BYTES = 16
BLOCK_DIGEST_BYTES = 8


def digest_bytes(data: bytes | memoryview, n_bytes: int = FILE_DIGEST_BYTES) -> str:
    """Returns the hex blake2b digest of the data, `n_bytes` long."""
    return hashlib.blake2b(data, digest_size=n_bytes).hexdigest()


def digest_file(path: Path) -> str:
    """Returns the hex blake2b-16 digest of a file's content, read a megabyte at a time."""
    digest = hashlib.blake2b(digest_size=FILE_DIGEST_BYTES)
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it there on success, removes it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


class EarlySync:
    """Lets the disk write a file while more of it is computed, so that the last sync is short.

    Price: a thread a file.
    """

    def __init__(self, file: BufferedWriter) -> None:
        """Takes a file that is being written."""
        self._file = file
        self._waiting_bytes = 0
        self._thread = ThreadPoolExecutor(1)
        self._syncs: list[Future[None]] = []

    def wrote(self, n_bytes: int) -> None:
        """Counts what was written to the file since; has it flushed to disk now and then."""
        self._waiting_bytes += n_bytes
        if self._waiting_bytes >= _SYNC_BYTES and all(sync.done() for sync in self._syncs):
            self._file.flush()
            self._syncs.append(self._thread.submit(os.fsync, self._file.fileno()))
            self._waiting_bytes = 0

    def __enter__(self) -> EarlySync:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the disk; raises the error of a write that failed."""
        self._thread.shutdown()
        for sync in self._syncs:
            sync.result()


def remove_partials(folder: Path) -> None:
    """Removes what writes that were killed left behind; only while nobody else writes there."""
    for partial in folder.rglob(".*.partial"):
        partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writes left, also while others write: only of processes that are gone."""
    for partial in folder.rglob(".*.partial"):
        number = partial.name.split(".")[-2]
        if number.isdigit() and not _is_alive(int(number)):
            partial.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Writes the text as UTF-8, all or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes the bytes, all or nothing."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def sync(path: Path) -> None:
    """Flushes a file's content, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
