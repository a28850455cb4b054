"""A parser in a process of its own, of limited memory, which may die or never come back."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from tests.fuzz import PARSERS
from tests.fuzz.loop import HANG_SECONDS, Counts, Finding, fuzz

MEMORY_BYTES = 6 << 30
PATIENCE_SECONDS = 2 * HANG_SECONDS


def fuzz_apart(name: str, seed: int, numbers: range) -> Counts:
    """Returns how the inputs of a parser ended; after a death it goes on with the next number."""
    context = multiprocessing.get_context("spawn")
    counts = Counts()
    while numbers:
        at: Synchronized[int] = context.Value("q", numbers.start)
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_fuzz, args=(name, seed, numbers, at, there))
        child.start()
        there.close()
        found = _result(child, here, at)
        if isinstance(found, Counts):
            counts.add(found)
            return counts
        number = at.value
        counts.add(Counts(died=number - numbers.start))  # how they ended went with the process
        counts.findings.append(Finding(name, seed, number, found))
        numbers = range(number + 1, numbers.stop)
    return counts


def _result(child: BaseProcess, here: Connection, at: Synchronized[int]) -> Counts | str:
    """Returns the counts, or why there are none."""
    last, since = -1, time.monotonic()
    while not here.poll(1.0):
        if at.value != last:
            last, since = at.value, time.monotonic()
        if time.monotonic() - since > PATIENCE_SECONDS:
            child.kill()
            child.join()
            return f"no answer for {PATIENCE_SECONDS} s, inside compiled code"
    try:
        counts: Counts = here.recv()
        child.join()
        return counts
    except EOFError:
        child.join()
        return f"the process died, exit code {child.exitcode}"


def _fuzz(name: str, seed: int, numbers: range, at: Synchronized[int], there: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))

    def started(number: int) -> None:
        at.value = number

    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory("-fuzz", dir=memory if memory.is_dir() else None) as folder:
        parser = PARSERS[name](Path(folder))
        there.send(fuzz(parser, Path(folder), seed, numbers, started))
