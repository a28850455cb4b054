"""Twenty builds or more, each killed at a random moment with all its processes, and continued.

`make test-kills` runs it; the ordinary tests have a few kills of one build (test_build.py).
"""

import os
import random
import signal
import time
from itertools import count

import pytest

from mixctl.pipeline.build import build
from tests.pipeline.test_build import assert_same, start_build

KILLS = 20


def reached(out):
    """Returns how far a killed build had come."""
    names = {path.name.partition("-")[0] for path in (out / ".work").glob("*-*")}
    for stage in ("mix", "tokens"):  # searched by the tasks that write them
        if stage in names:
            return stage
    return "nothing"


@pytest.mark.slow
def test_twenty_killed_builds_continue_to_the_same_bytes(shared, built, tmp_path):
    mix, chance = shared.mix(name="built.yaml"), random.Random(20)
    begin = time.monotonic()
    assert start_build(shared, tmp_path / "whole").wait() == 0
    seconds = time.monotonic() - begin
    assert_same(built, tmp_path / "whole")
    killed, stages = 0, set()
    for attempt in count():  # in a folder of its own: one that ended before the kill is finished
        out = tmp_path / f"out{attempt}"
        child = start_build(shared, out)
        time.sleep(chance.uniform(0.2, 1) * seconds)
        ended = child.poll() is not None
        if not ended:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if ended or (out / "mix.json").exists():
            seconds *= 0.95  # the machine has become faster: kill a little earlier
            continue
        killed += 1
        stages.add(reached(out))
        build(mix, out, control=True)
        assert_same(built, out)
        assert not (out / ".work").exists()
        if killed >= KILLS and {"mix", "tokens"} <= stages:
            break
        assert killed < 3 * KILLS, f"all kills hit {stages}"
