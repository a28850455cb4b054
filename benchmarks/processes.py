"""What a program and everything it starts take: wall time, processor time, memory (Linux).

The program gets a session of its own, by which its processes are found; the ones it leaves behind
become children of this process, so that their processor time is counted too. Memory is the
proportional set size: pages that processes share are counted once. Files that are mapped are part
of it, though the system may take their pages; the memory without them is told as well.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

_SET_CHILD_SUBREAPER = 36
_SAMPLE_SECONDS = 0.25


class Measured(NamedTuple):
    """What a program took."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    peak_own_bytes: int
    """without the pages of mapped files"""


def measure(command: list[str]) -> Measured:
    """Returns what a program took, from its start until the last of its processes has ended.

    Raises:
        RuntimeError: when it fails, with the end of what it printed.
    """
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "LITDATA_DISABLE_VERSION_CHECK": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages come compiled
    ended, peak = threading.Event(), [0, 0]
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    watcher = threading.Thread(target=_watch, args=(process.pid, ended, peak))
    watcher.start()
    _, printed = process.communicate()
    seconds = time.monotonic() - begin
    ended.set()
    watcher.join()
    _wait_for_orphans()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {printed.decode(errors='replace')[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(seconds, used, *peak)


def _watch(session: int, ended: threading.Event, peak: list[int]) -> None:
    """Keeps the highest memory of the session seen so far in `peak`."""
    while not ended.wait(_SAMPLE_SECONDS):
        held = [_memory(pid) for pid in _of_session(session)]
        for n, kind in enumerate(zip(*held, strict=True)):
            peak[n] = max(peak[n], sum(kind))


def _of_session(session: int) -> list[int]:
    return [int(p.name) for p in Path("/proc").glob("[0-9]*") if _session(p) == session]


def _session(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[3])
    except OSError:
        return -1  # it has just ended


def _memory(pid: int) -> tuple[int, int]:
    """Returns the proportional set size of a process in bytes, with and without mapped files."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    sizes = dict(line.split(":") for line in text.splitlines()[1:])
    whole, own = (int(sizes[name].split()[0]) * 1024 for name in ("Pss", "Pss_Anon"))
    return whole, own


def _wait_for_orphans() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
