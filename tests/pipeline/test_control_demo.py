"""The closed loop for real: stock LitGPT on the demo's corpus, a tiny model, made-up facts.

`make test-control` runs it. What is promised (docs/changing-data.md): the facts are acquired, from
the first interval on in which the value had come near the set point it stays within `TOLERANCE` of
it, the dose falls where the value is above, switched off the value stays at the base level, and
five kills do not change what is trained on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mixctl.shards.control_trace import read_trace
from mixctl.shards.reading import read_sequences
from mixctl.shards.record import read_record
from tests.pipeline.test_control import DRIVER, alive, children_of
from tests.support.facts_demo import BATCH, STEPS, write_steered_mix
from tests.support.slow_mix import rows_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TOLERANCE = 2.0
"""value / set point stays between 1 / TOLERANCE and TOLERANCE once it has been there"""
QUIET = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "inputs"
    write_steered_mix(folder)
    return folder


def start(mix, out, off=False):
    """Starts a loop whose trainer's batches are written down."""
    out.mkdir(parents=True, exist_ok=True)
    tap = [sys.executable, "-m", "tests.support.tapped_start", str(out / "log"), "pretrain"]
    driver = DRIVER.replace("command=", f"off={off}, command=")
    with (out / "output").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-c", driver, str(mix), str(out), json.dumps(tap)],
            cwd=ROOT,
            env=os.environ | QUIET,
            stdout=output,
            stderr=output,
        )


def finish(mix, out, off=False):
    """Runs a loop to its end; returns its trace."""
    assert start(mix, out, off).wait() == 0, (out / "output").read_text()[-3000:]
    return read_trace(out / "build")


@pytest.fixture(scope="module")
def whole(inputs):
    """Returns the folder of a loop that ran without a stop, and its decisions on the facts."""
    out = inputs.parent / "whole"
    return out, finish(inputs / "steered.yaml", out).of("facts")


def test_the_facts_are_acquired_along_the_set_point(whole):
    _, decisions = whole
    ratio = np.array([d.value / d.set_point for d in decisions[1:]])
    near = np.flatnonzero((ratio > 1 / TOLERANCE) & (ratio < TOLERANCE))
    assert near.size and near[0] < len(ratio) / 2
    after = ratio[near[0] :]
    assert after.min() > 1 / TOLERANCE and after.max() < TOLERANCE, ratio


def test_the_dose_falls_where_the_value_is_above(whole):
    _, decisions = whole
    above = [
        (before.texts, now.texts)
        for before, now in zip(decisions[:-2], decisions[1:-1], strict=True)
        if now.value > 1.05 * now.set_point and before.texts > 1
    ]
    assert above and all(new < old for old, new in above)


def test_switched_off_it_stays_at_the_base_level(inputs, whole):
    mix = write_steered_mix(inputs.parent / "off-inputs", every=STEPS // 2)
    decisions = finish(mix, inputs.parent / "off", off=True).of("facts")
    values = [d.value for d in decisions if d.value is not None]
    assert max(values) < 0.1 * decisions[-1].set_point
    assert whole[1][-1].value > 10 * values[-1]
    assert rows_of(inputs.parent / "off/build", "placements") == []


def held(out):
    """Returns the inputs of every step as the build holds them: shape (steps, batch, length)."""
    geometry = read_record(out / "build").geometry
    rows = read_sequences(out / "build", geometry, np.arange(geometry.sequences))
    return rows[:, :-1].reshape(STEPS, BATCH, -1)


def trained(out):
    """Returns the inputs of every step that `final` rests on, from the recording, likewise.

    A start at a step forgets what had been trained on after it.
    """
    steps, rows = [], []
    for line in (out / "log").read_text().splitlines():
        if line.startswith("start "):
            steps, rows = steps[: int(line.split()[1])], []
        elif line == "step":
            steps.append(rows)
            rows = []
        else:
            rows += json.loads(line.removeprefix("batch "))
    return np.array(steps)


def test_what_was_trained_on_is_what_the_build_holds(whole):
    assert np.array_equal(trained(whole[0]), held(whole[0]))


def kill_somewhere(mix, out, chance, whom):
    """Kills a loop or its trainer at a random moment; returns whether it was at work."""
    loop = start(mix, out)
    time.sleep(chance.uniform(10, 70))
    trainers = children_of(loop.pid)
    if loop.poll() is not None:
        return False
    if whom == "trainer" and trainers:
        os.kill(trainers[0], signal.SIGKILL)
        time.sleep(chance.uniform(0, 5))
        trainers = children_of(loop.pid)
    loop.kill()
    loop.wait()
    until = time.monotonic() + 10
    while any(alive(pid) for pid in trainers):
        assert time.monotonic() < until, "the trainer outlives its loop"
        time.sleep(0.05)
    return True


def test_five_kills_do_not_change_what_is_trained_on(inputs, whole):
    mix, out, chance = inputs / "steered.yaml", inputs.parent / "killed", random.Random(1)
    n_killed = 0
    while n_killed < 5:
        whom = "trainer" if n_killed % 2 else "loop"
        n_killed += kill_somewhere(mix, out, chance, whom)
        if (out / "checkpoints/final").exists():
            shutil.rmtree(out)
    decisions = finish(mix, out).of("facts")
    assert [d.texts for d in decisions] == [d.texts for d in whole[1]]
    assert rows_of(out / "build", "placements") == rows_of(whole[0] / "build", "placements")
    assert np.array_equal(trained(out), trained(whole[0]))
