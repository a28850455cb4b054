"""A fault at the n-th write below a folder, in a forked process that runs a command line.

Python tells every file that is opened, renamed, removed or made to its audit hooks, before it
happens; a hook that raises makes the call fail. So a fault strikes the product as it is, nothing in
it is replaced. `os.fsync` has no audit event: it is wrapped, and a fault there also cuts the file
in half, as a disk that lost its last blocks does; not one that is changed in place, whose blocks
the disk had before.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

Kind = Literal["full", "denied", "read-only", "broken-disk", "killed", "terminated", "clock"]
KINDS: tuple[Kind, ...] = (
    *("full", "denied", "read-only", "broken-disk", "killed", "terminated", "clock"),
)
_ERRORS = {
    "full": errno.ENOSPC,
    "denied": errno.EACCES,
    "read-only": errno.EROFS,
    "broken-disk": errno.EIO,
}
_LASTS = {"full", "read-only"}
"""faults that every later write meets too"""
_FREES = {"os.remove", "shutil.rmtree", "os.rmdir"}
"""what a full disk lets through"""
_YEARS = 3.0e8
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Fault:
    """A fault of a kind at the n-th write, from 1; 0: none, the writes are counted."""

    kind: Kind
    at: int


class _Striker:
    """Counts the writes below a folder, and strikes."""

    def __init__(self, fault: Fault, folder: Path) -> None:
        self.fault, self.folder = fault, str(folder)
        self.n_writes = 0
        self.busy = False
        self.in_place: set[str] = set()

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        """Is called by Python before the call that the event names."""
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes:
                if not flags & os.O_CREAT and isinstance(path, str | os.PathLike):
                    self.in_place.add(os.fspath(path))
                self.write(event, path)
        elif event in ("os.rename", "os.mkdir", *_FREES):
            self.write(event, arguments[0])

    def fsync(self, descriptor: int) -> None:
        """Stands for `os.fsync`."""
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if self.fault.kind != "clock" and self.fault.at == self.n_writes + 1:
            cut = path.startswith(self.folder) and path not in self.in_place
            if cut and os.path.isfile(path):
                os.truncate(f"/proc/self/fd/{descriptor}", os.path.getsize(path) // 2)
        self.write("os.fsync", path)

    def write(self, event: str, path: object) -> None:
        if self.busy or not isinstance(path, str | os.PathLike):
            return
        if not os.fspath(path).startswith(self.folder):
            return
        self.n_writes += 1
        since = self.fault.kind in _LASTS and self.n_writes > self.fault.at > 0
        if self.n_writes == self.fault.at or since and event not in _FREES:
            self.busy = True
            try:
                self._strike(os.fspath(path))
            finally:
                self.busy = False

    def _strike(self, path: str) -> None:
        kind = self.fault.kind
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        elif kind == "clock":
            real = time.time
            time.time = lambda: real() + (_YEARS if self.fault.at % 2 else -_YEARS)
        else:
            number = _ERRORS[kind]
            raise OSError(number, os.strerror(number), path)


@dataclass(frozen=True)
class Ended:
    """How a command line ended.

    Attributes:
        status: its exit code; of one that was killed, minus the signal.
        said: what it wrote to standard error.
        n_writes: how many writes there were; None where it was killed.
    """

    status: int
    said: str
    n_writes: int | None


def run(arguments: Sequence[str], folder: Path, fault: Fault, scratch: Path) -> Ended:
    """Returns how `mixctl ARGUMENTS` ended, a fault striking its writes below `folder`.

    Args:
        arguments: of the command line.
        folder: only writes below it count.
        fault: what strikes, and when.
        scratch: a folder elsewhere.
    """
    said, counted = scratch / "said", scratch / "counted"
    counted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_the_command(arguments, said, counted, _Striker(fault, folder))
    status = _waited(child)
    n_writes = int(counted.read_text()) if counted.exists() else None
    return Ended(status, said.read_text(errors="replace"), n_writes)


def _waited(child: int) -> int:
    last = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < last:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"the command hangs for more than {PATIENCE_SECONDS} s")


def _be_the_command(
    arguments: Sequence[str], said: Path, counted: Path, striker: _Striker
) -> NoReturn:
    """Never returns: this is the forked process."""
    from mixctl.pipeline.cli import main

    status = 70
    try:
        target = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["mixctl", *arguments]
        fsync: Callable[[int], None] = os.fsync

        def struck(descriptor: int) -> None:
            striker.fsync(descriptor)
            fsync(descriptor)

        os.fsync = struck
        sys.addaudithook(striker.audit)
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    finally:
        striker.busy = True
        counted.write_text(str(striker.n_writes))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
