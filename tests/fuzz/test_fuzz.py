"""A small slice of `make fuzz`, always the same inputs; and the loop itself, which must find.

What the 10,000 inputs a parser once found is in tests of its own beside the parser.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from mixctl.shards.errors import InputError
from tests.fuzz import PARSERS
from tests.fuzz.loop import Parse, fuzz

N_INPUTS = {"records": 8, "mixes": 20, "trainers": 20, "results": 20}
MOST_USUAL = 60


@pytest.mark.parametrize("name", PARSERS)
def test_broken_input_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    counts = fuzz(PARSERS[name](tmp_path), tmp_path, 1, range(N_INPUTS.get(name, MOST_USUAL)))
    assert counts.findings == [], "\n".join(map(str, counts.findings))
    assert counts.refused > 0


class _Wrong:
    """A parser with a fault of every sort, one an input."""

    name = "wrong"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def broken(self, chance: random.Random) -> Parse:
        raise NotImplementedError

    def raises(self) -> None:
        raise KeyError("x")

    def panics(self) -> None:
        raise BaseException("a panic of Rust code")

    def leaves(self) -> None:
        (self.folder / "half").touch()
        raise InputError("wrong, and half of it is there")

    def says_nothing(self) -> None:
        raise InputError([])

    def hangs(self) -> None:
        signal.raise_signal(signal.SIGPROF)  # as the clock does after 10 s


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", "KeyError"),
        ("panics", "BaseException"),
        ("leaves", "refused, and left"),
        ("says_nothing", "refused without a message"),
        ("hangs", "hangs for more than 10 s"),
    ],
)
def test_the_loop_finds(fault: str, words: str, tmp_path: Path, monkeypatch) -> None:
    parser = _Wrong(tmp_path)
    monkeypatch.setattr(parser, "broken", lambda chance: getattr(parser, fault))
    (finding,) = fuzz(parser, tmp_path, 0, range(1)).findings
    assert words in finding.what
    assert "python -m tests.fuzz wrong --seed 0 --first 0 --count 1" in str(finding)
