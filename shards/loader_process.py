"""The check of the stock loader in a process of its own, while chunks are looked at.

Importing torch and litdata takes over a second, and a loader waits a tenth of a second for its
first chunk. So they are imported by another process, which begins when `verify` does, and in it
the loaders are read by some processes side by side. Where litdata is there already nothing of
this is done, and where the process ends without an answer (it may not be allowed, or killed) the
check is made again by the one that asked: what it says, then, is what it would have said alone.

    verify                 digests, chunks, placements ---------- findings -> verified
    the other process      imports ------ loaders ------ findings /

Price: a tenth of a second of processor more; a second less by the clock.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

from mixctl.shards.record import RECORD_NAME, BuildRecord, parse_record
from mixctl.shards.verify_loader import check_loader

_LOADERS = 4
"""that are read side by side: they wait more than they work"""
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[4:]; from mixctl.shards.loader_process import main; main()"
)


class LoaderCheck:
    """The check of the stock loader, begun; to be closed: then its processes have ended."""

    def __init__(self, build: Path, record: BuildRecord, full: bool) -> None:
        """Begins; the files of the build are known to be there."""
        self._build, self._record, self._full = build, record, full
        self._process = None if "litdata" in sys.modules else _begun(build, record, full)

    def close(self) -> None:
        """Ends the process and those that it has begun, when they have not ended."""
        self._answer(wanted=False)

    def result(self) -> tuple[list[str], int]:
        """Returns (findings, batches read), as `check_loader` does, and raises what it raises."""
        try:
            findings, n_batches = json.loads(self._answer(wanted=True))
        except (TypeError, ValueError):
            return check_loader(self._build, self._record, self._full)
        return findings, n_batches

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


def _begun(build: Path, record: BuildRecord, full: bool) -> subprocess.Popen[bytes] | None:
    """Returns the process, which imports what this one would; None when there cannot be one."""
    how = "full" if full else "sample"
    command = [sys.executable, "-c", _PROGRAM, str(build), how, record.self_digest, *sys.path]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, TypeError):  # where Python is part of another program it has no name
        return None


def main() -> None:
    """Writes findings and batches of the build that the arguments name, as JSON."""
    Thread(target=_end_with_the_other, daemon=True).start()
    answer = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    build, full = Path(sys.argv[1]), sys.argv[2] == "full"
    path = build / RECORD_NAME  # not `read_record`, which would end an amendment that was halted
    record = parse_record(path.read_bytes(), str(path))
    if record.self_digest != sys.argv[3]:
        sys.exit(1)
    import litdata  # noqa: F401  (the processes of the pool have it from here)

    fork = get_context("fork")
    with ProcessPoolExecutor(_LOADERS, fork, initializer=os.close, initargs=(answer,)) as pool:
        result = check_loader(build, record, full, pool.map)
    with open(answer, "wb") as file:
        file.write(json.dumps(result).encode())
    os._exit(0)  # Python takes a quarter of a second to take torch apart


def _end_with_the_other() -> None:
    """Ends this process and those that it has begun when the one that asks has ended."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
