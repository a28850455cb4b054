"""Amendments killed at random moments: the old build or the new one, byte for byte.

`make test-kills` runs twenty; the ordinary tests have three, and every system call of a small
change in tests/shards/test_journal.py.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mixctl.pipeline.additions import Additions
from mixctl.pipeline.amend import amend
from mixctl.shards.record import read_record
from mixctl.shards.verify import verify
from tests.support.workspace import documents

AMENDS = """
import sys
from pathlib import Path
from mixctl.pipeline.additions import Additions
from mixctl.pipeline.amend import amend
print("ready", flush=True)
sys.stdin.readline()
additions = Additions(Path(sys.argv[2]), ({section},))
amend(Path(sys.argv[1]), additions, 100, time="2026-01-01T00:00:00+00:00")
"""
LATE = {
    **documents(),
    "name": "late",
    "arms": [{"name": "x300", "items": "rest", "copies": 60}],
    "items": "many.jsonl",
}


def tree(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def states(shared, built, tmp_path_factory):
    """Returns the build as it was, and amended, as {name: bytes}; and the time that took."""
    from tests.support.workspace import write_jsonl

    rows = [{"id": f"m{n}", "text": f"w{n} w{n + 1} w{n + 2}"} for n in range(20)]
    write_jsonl(shared.folder / "many.jsonl", rows)
    folder = tmp_path_factory.mktemp("kills") / "whole"
    shutil.copytree(built, folder)
    old, begin = tree(folder), time.monotonic()
    amend(folder, Additions(shared.folder, (LATE,)), 100, time="2026-01-01T00:00:00+00:00")
    return old, tree(folder), time.monotonic() - begin


def killed(folder, shared, seconds, counts):
    """Returns whether an amendment was killed after so many seconds, before it had ended.

    Where `counts` is true, the seconds begin when its journal counts.
    """
    code = AMENDS.replace("{section}", repr(LATE))
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(shared.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout.readline() == b"ready\n"
    child.stdin.write(b"\n")
    child.stdin.flush()
    while counts and child.poll() is None and not (folder / ".amend/ready.json").exists():
        time.sleep(0.0005)
    time.sleep(seconds)
    ended = child.poll() is not None
    if not ended:
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    return not ended


def kill_some(built, shared, states, folder, kills, chance):
    """Kills so many amendments; returns which of them turned out to be the new build."""
    old, new, whole = states
    seconds, outcomes = [whole, whole / 10], []  # of all of it, of what follows the journal
    while len(outcomes) < kills:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(built, folder)
        counts = len(outcomes) % 2
        if not killed(folder, shared, chance.uniform(0, seconds[counts]), counts):
            seconds[counts] *= 0.9
            continue
        read_record(folder)  # what any command does first
        found = tree(folder)
        assert found in (old, new)
        outcomes.append(found == new)
    return outcomes


def test_three_killed_amendments(built, shared, states, tmp_path):
    folder = tmp_path / "build"
    assert len(kill_some(built, shared, states, folder, 3, random.Random(3))) == 3
    if (folder / "mix.json").read_bytes() == states[0]["mix.json"]:
        amend(folder, Additions(shared.folder, (LATE,)), 100, time="2026-01-01T00:00:00+00:00")
    assert tree(folder) == states[1]
    assert verify(folder).findings == []


@pytest.mark.slow
def test_twenty_killed_amendments(built, shared, states, tmp_path):
    outcomes = kill_some(built, shared, states, tmp_path / "build", 20, random.Random(20))
    assert set(outcomes) == {False, True}, "all kills hit the same side"
