"""One writer at a time in a folder, and errors of its disk that name it.

    with only_writer(folder): ...        InputError when another process is in there
    with named(folder): ...              "No space left on device" says where

A lock is the kernel's: it goes with the process, however that ends.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mixctl.shards.errors import InputError

LOCK_NAME = ".lock"
_OF_WRITES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps every other writer out of a folder, which is made, and stays where it is filled.

    Raises:
        InputError: when another one is at work.
        OSError: when the folder cannot be written.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another mixctl is writing here: try again when it has ended"
        ) from None
    try:
        yield
    finally:
        (folder / LOCK_NAME).unlink(missing_ok=True)
        lock.release()
        for one in made:
            with suppress(OSError):
                one.rmdir()  # nothing came to lie in it


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Names the folder in an OSError of a write that names no file: the system tells none."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_WRITES and error.filename is None:
            error.filename = str(folder)
        raise
