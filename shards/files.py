"""Digests, and writes that leave either the old file or the new one.

A file is written beside its place under a temporary name, flushed to disk, and renamed; whoever
looks sees the old content or the new, never a part. Digests of contents are BLAKE3, cut to the
first 16 bytes, in hex.

Price: one fsync a file; a fifth of a nanosecond a byte digested.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from blake3 import blake3

_READ_BYTES = 1 << 18
_SYNC_BYTES = 8 << 20
FILE_DIGEST_BYTES = 16


def digest_bytes(data: bytes | memoryview, n_bytes: int = FILE_DIGEST_BYTES) -> str:
    """Returns the hex BLAKE3 digest of the data, cut to `n_bytes`."""
    return blake3(data).hexdigest(length=n_bytes)


class FileDigest:
    """The digest of a file whose content comes in pieces."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self._hasher = blake3()

    def update(self, data: bytes | memoryview) -> None:
        """Takes the next piece, of items of any type; other threads work meanwhile."""
        self._hasher.update(memoryview(data).cast("B"))

    def hexdigest(self) -> str:
        """Returns the hex BLAKE3-16 digest of all pieces so far."""
        return self._hasher.hexdigest(length=FILE_DIGEST_BYTES)

    def digest(self) -> bytes:
        """Returns the same as bytes."""
        return self._hasher.digest(length=FILE_DIGEST_BYTES)


def digest_file(path: Path) -> str:
    """Returns the hex BLAKE3-16 digest of a file's content, read through one small buffer."""
    digest, buffer = FileDigest(), memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while n_bytes := file.readinto(buffer):
            digest.update(buffer[:n_bytes])
    return digest.hexdigest()


def digest_mapped(path: Path) -> str:
    """Returns what `digest_file` does, of a file that nobody makes shorter meanwhile.

    It is mapped: a fifth less to do than reading it, and one call, so that threads which do this
    never wait for each other. (A mapped file that becomes shorter ends the process.)
    """
    hasher = blake3()
    hasher.update_mmap(path)
    return hasher.hexdigest(length=FILE_DIGEST_BYTES)


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
