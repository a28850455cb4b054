"""The check of the stock loader in a process of its own, while chunks are looked at.

Importing torch and litdata takes a second, and a loader waits a tenth of a second for its first
chunk. So they are imported by another process, which begins before `verify` itself has imported
what it needs; then it is told the build, and in it the loaders are read by some processes side by
side. Where litdata is there already nothing of this is done, and where the process ends without an
answer (it may not be allowed, or killed) the check is made again by the one that asked: what it
says, then, is what it would have said alone.

    verify                 imports - digests, chunks, placements --------- findings -> verified
    the other process      imports torch, litdata ----- loaders ----- findings /

Price: a tenth of a second of processor more; a second less by the clock.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it takes as long as a process takes to begin
    from mixctl.shards.record import BuildRecord

_LOADERS = 4
"""that are read side by side: they wait more than they work"""
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from mixctl.shards.loader_process import main; main()"
)


class LoaderProcess:
    """A process that can check the stock loader; to be closed: then its processes have ended."""

    _process: subprocess.Popen[bytes] | None = None

    def __init__(self) -> None:
        """Begins to import."""
        self._process = None if "litdata" in sys.modules else _begun()
        self._asked: tuple[Path, BuildRecord, bool] | None = None

    def ask(self, build: Path, record: BuildRecord, full: bool) -> None:
        """Tells it what `check_loader` is to look at; the files are known to be there."""
        self._asked = build, record, full
        if self._process and self._process.stdin:
            try:
                question = json.dumps([os.getcwd(), str(build), record.self_digest, full])
                self._process.stdin.write(f"{question}\n".encode())
            except OSError:  # it has ended, or this folder is gone: it cannot answer
                self.close()

    def result(self) -> tuple[list[str], int]:
        """Returns (findings, batches read), as `check_loader` does, and raises what it raises.

        Raises:
            ValueError: when nothing was asked.
        """
        if self._asked is None:
            raise ValueError("the check of the loader was not asked for")
        try:
            findings, n_batches = json.loads(self._answer(wanted=True))
        except (TypeError, ValueError):
            from mixctl.shards.verify_loader import check_loader

            return check_loader(*self._asked)
        return findings, n_batches

    def close(self) -> None:
        """Ends the process and those that it has begun, when they have not ended."""
        self._answer(wanted=False)

    def __del__(self) -> None:
        """Closes one that whoever began it has lost, as by Ctrl-C."""
        self.close()

    def _answer(self, wanted: bool) -> bytes:
        """Returns what the process says until it ends, or ends it; nothing is left of it."""
        process, self._process = self._process, None
        if process is None:
            return b""
        with process:  # its pipes are closed
            try:
                return process.stdout.read() if wanted and process.stdout else b""
            finally:  # the process that leads the group is not waited for yet: the number is its
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)


def _begun() -> subprocess.Popen[bytes] | None:
    """Returns the process, which imports what this one would; None when there cannot be one."""
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # what it cannot be told is not kept, and told again when its pipes close
            start_new_session=True,
        )
    except (OSError, TypeError):  # where Python is part of another program it has no name
        return None


def main() -> None:
    """Imports; reads which build is asked for; writes findings and batches, as JSON."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    gc.disable()  # it goes through all that is imported again and again, a fifth of the time
    import litdata  # noqa: F401  (the processes of the pool have it from here)

    import mixctl.shards.verify_loader  # noqa: F401

    gc.freeze()  # nor later, here or in a process of the pool, whose own copy all of it becomes
    gc.enable()
    folder, *question = json.loads(sys.stdin.buffer.readline())
    os.chdir(folder)  # to which a path of the build may be relative
    Thread(target=_end_with_the_other, daemon=True).start()
    result = _checked(answer, *question)
    with open(answer, "wb") as file:
        file.write(json.dumps(result).encode())
    os._exit(0)  # Python takes a quarter of a second to take torch apart


def _checked(answer: int, build: str, digest: str, full: bool) -> tuple[list[str], int]:
    """Returns findings and batches; the pool's processes have no hold of the answer's pipe."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from mixctl.shards.record import RECORD_NAME, parse_record
    from mixctl.shards.verify_loader import check_loader

    path = Path(build) / RECORD_NAME
    record = parse_record(path.read_bytes(), str(path))  # `read_record` would end an amendment
    if record.self_digest != digest:
        sys.exit(1)
    fork = get_context("fork")
    with ProcessPoolExecutor(_LOADERS, fork, initializer=os.close, initargs=(answer,)) as pool:
        return check_loader(Path(build), record, full, pool.map)


def _end_with_the_other() -> None:
    """Ends this process and those that it has begun when the one that asks has ended."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
