"""The loop: input n of a parser is a function of (parser, seed, n), so a finding can be met again.

An input must be taken, or refused with messages: no other exception, no more than 10 s of processor
(the machine may be shared; one that sleeps is found out by its parent), and what is on disk after a
refusal is what was there before.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mixctl.shards.errors import InputError, VerificationError

HANG_SECONDS = 10
Parse = Callable[[], object]


class Parser(Protocol):
    """Something that reads what users write."""

    name: str

    def __init__(self, folder: Path) -> None:
        """Makes the sound input below the folder."""

    def broken(self, chance: random.Random) -> Parse:
        """Returns what parses one broken input, after writing that input."""
        ...


class Hang(BaseException):
    """An input that was parsed for too long; not an Exception, so that nothing swallows it."""


@dataclass(frozen=True)
class Finding:
    """An input that was neither taken nor refused."""

    parser: str
    seed: int
    number: int
    what: str

    def __str__(self) -> str:
        again = f"python -m tests.fuzz {self.parser} --seed {self.seed} --first {self.number}"
        return f"{again} --count 1\n{self.what}"


@dataclass
class Counts:
    """How the inputs of a parser ended."""

    taken: int = 0
    refused: int = 0
    died: int = 0
    findings: list[Finding] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, more: Counts) -> None:
        self.taken += more.taken
        self.refused += more.refused
        self.died += more.died
        self.findings += more.findings
        self.slowest = max(self.slowest, more.slowest)

    def __str__(self) -> str:
        total = self.taken + self.refused + self.died + len(self.findings)
        lost = f", {self.died:,} before a process died" if self.died else ""
        return (
            f"{total:6,} inputs: {self.taken:,} taken, {self.refused:,} refused{lost}, "
            f"{len(self.findings)} findings; slowest {self.slowest:.1f} s"
        )


def fuzz(
    parser: Parser,
    folder: Path,
    seed: int,
    numbers: Iterable[int],
    started: Callable[[int], None] = lambda number: None,
) -> Counts:
    """Returns how the inputs of these numbers ended; `folder` is the parser's."""
    counts, outcomes = Counts(), Counter[str]()
    for number in numbers:
        started(number)
        begin = time.monotonic()
        parse = parser.broken(random.Random(f"{parser.name}/{seed}/{number}"))
        before = _files(folder)
        what = _outcome(parse)
        if what == "refused" and _files(folder) != before:
            what = f"refused, and left {sorted(_files(folder) ^ before)[:5]}"
        outcomes[what] += 1
        if what not in ("taken", "refused"):
            counts.findings.append(Finding(parser.name, seed, number, what))
        counts.slowest = max(counts.slowest, time.monotonic() - begin)
    counts.taken, counts.refused = outcomes["taken"], outcomes["refused"]
    return counts


def _outcome(parse: Parse) -> str:
    try:
        with _at_most(HANG_SECONDS):
            parse()
        return "taken"
    except InputError as error:
        return _bad_message(error.problems) or "refused"
    except VerificationError as error:
        return _bad_message(error.findings) or "refused"
    except Hang:
        return f"hangs for more than {HANG_SECONDS} s\n{traceback.format_exc()}"
    except KeyboardInterrupt:
        raise
    except BaseException:  # a panic of Rust code is no Exception
        return traceback.format_exc()


def _bad_message(problems: list[str]) -> str | None:
    """Returns what is wrong with the messages of a refusal."""
    if not problems:
        return "refused without a message"
    for problem in problems:
        if len(problem) < 10 or len(problem) > 5000:
            return f"a message of {len(problem)} characters: {problem[:200]!r}"
    return None


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _files(folder: Path) -> set[str]:
    found: set[str] = set()
    for above, folders, names in os.walk(folder):
        found.update(os.path.join(above, name) for name in (*folders, *names))
    return found
