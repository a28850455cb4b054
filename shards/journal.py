"""A finished build is changed in place; killed at any moment, it is the old build or the new one.

    DIR/.amend/chunk-000042.npz   blocks of that chunk of train/, with their new tokens
    DIR/.amend/files/...          new manifest tables and mix.json, whole
    DIR/.amend/ready.json         written when all that is on disk: now the new build counts

Until ready.json is there, no byte of the build is touched, and what is in the journal is thrown
away. From then on everything is written to its place, mix.json last, as often as it takes: whoever
opens the build next (`record.read_record`) goes on where the writing stopped, and says so.

While chunks are written, train/index.json stands in the journal, so that a trainer that is started
on half a change finds no data set and stops. One writer at a time: DIR/.work/lock, which builds and
relayouts take too. A chunk file with other names (hard links) is copied first: they keep the old
content.

Price: the changed blocks are written twice, tables and mix.json once more.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mixctl.shards.chunks import HEADER_BYTES, INDEX_NAME, Tokens, chunk_name
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.files import replacing, sync, write_text
from mixctl.shards.locks import named

WORK = ".work"
JOURNAL, _DONE = ".amend", ".amended"
TRAIN = "train"
_READY = "ready.json"
_INDEX = f"{TRAIN}/{INDEX_NAME}"


@contextmanager
def writer_lock(build: Path) -> Iterator[None]:
    """Keeps every other writer out of a finished build.

    Raises:
        InputError: when another one is at work, or the folder cannot be written.
    """
    folder = build / WORK
    try:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        lock.acquire()
    except (Timeout, FileNotFoundError):
        raise InputError(
            f"{build}: another mixctl is writing to this build: try again when it has ended"
        ) from None
    except OSError as error:
        raise InputError(f"{build}: cannot be written ({error.strerror})") from None
    try:
        with named(build):
            yield
    finally:
        (folder / "lock").unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # not where a stage is kept
        lock.release()


class Journal:
    """A change of the build that is being written down; `commit` makes it count."""

    def __init__(self, build: Path) -> None:
        """Begins an empty journal; only under the writer's lock."""
        self._build, self._chunks = build, list[int]()
        self.folder = build / JOURNAL
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def file(self, name: str) -> Path:
        """Returns where the new version of a file of the build is to be written."""
        return self.folder / "files" / name

    def add_blocks(self, chunk: int, block: I64, tokens: Tokens) -> None:
        """Writes down the new tokens, shape (n, sequence_tokens), of blocks of a chunk of train/.

        They must have the type that the chunk file stores.
        """
        with replacing(_blocks(self.folder, chunk)) as partial, partial.open("wb") as file:
            np.savez(file, block=block, tokens=tokens)
        self._chunks.append(chunk)

    def forget(self) -> None:
        """Throws the journal away; not once `commit` was called."""
        shutil.rmtree(self.folder)

    def commit(self, what: str) -> None:
        """Makes the change count and carries it out.

        Args:
            what: its name in messages: "the amendment after step 100".
        """
        chunks = sorted(self._chunks)
        write_text(self.folder / _READY, json.dumps({"what": what, "chunks": chunks}))
        _carry_out(self._build, chunks)


def settle(build: Path) -> None:
    """Completes or throws away a change of the build that was interrupted; says which.

    Raises:
        InputError: when the change is being written right now, or the build cannot be written.
    """
    if any((build / name).exists() for name in (JOURNAL, _DONE)):
        with writer_lock(build):
            recover(build)


def recover(build: Path) -> None:
    """Does what `settle` does, for whoever holds the writer's lock already."""
    folder = build / JOURNAL
    if (build / _DONE).exists():
        shutil.rmtree(build / _DONE)
    if not folder.exists():
        return
    ready = folder / _READY
    if not ready.exists():
        shutil.rmtree(folder)
        _say(build, "a change that was interrupted before it was ready has been thrown away")
        return
    found = json.loads(ready.read_text(encoding="utf-8"))
    _carry_out(build, found["chunks"])
    _say(build, f"{found['what']}, which was interrupted, has been completed")


def _say(build: Path, sentence: str) -> None:
    print(f"{build}: {sentence}", file=sys.stderr)


def _carry_out(build: Path, chunks: list[int]) -> None:
    """Writes everything in the journal to its place; again from the start when called again."""
    folder = build / JOURNAL
    _move(build / _INDEX, folder / INDEX_NAME)
    for chunk in chunks:
        _write_blocks(build / TRAIN / chunk_name(chunk), _blocks(folder, chunk))
    below = folder / "files"
    names = sorted(p.relative_to(below).as_posix() for p in below.rglob("*") if p.is_file())
    for name in [n for n in names if "/" in n] + [n for n in names if "/" not in n]:
        _move(below / name, build / name)
    _move(folder / INDEX_NAME, build / _INDEX)
    os.replace(folder, build / _DONE)
    sync(build)
    shutil.rmtree(build / _DONE)


def _blocks(folder: Path, chunk: int) -> Path:
    return folder / f"{Path(chunk_name(chunk)).stem}.npz"


def _move(old: Path, new: Path) -> None:
    """Moves a file that is still there; both folders know it afterwards."""
    if old.exists():
        new.parent.mkdir(parents=True, exist_ok=True)
        os.replace(old, new)
        sync(new.parent)
        sync(old.parent)


def _write_blocks(path: Path, changes: Path) -> None:
    """Writes blocks over those of a chunk file."""
    if path.stat().st_nlink > 1:
        with replacing(path) as partial:
            shutil.copyfile(path, partial)
    with np.load(changes) as saved:
        block, tokens = saved["block"], saved["tokens"]
    with path.open("r+b") as file:
        for number, row in zip(block.tolist(), tokens, strict=True):
            file.seek(HEADER_BYTES + number * row.nbytes)
            file.write(row.tobytes())
        file.flush()
        os.fsync(file.fileno())
