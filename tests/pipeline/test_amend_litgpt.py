"""A stock `litgpt pretrain` before and after an amendment: what it trains on, and what it scores.

Two loader workers, so that batches are fetched ahead when the checkpoint is written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixctl.pipeline.additions import Additions
from mixctl.pipeline.amend import amend
from mixctl.pipeline.build import build
from mixctl.shards.errors import InputError
from tests.support.slow_mix import rows_of, run_blocks
from tests.support.workspace import Workspace, documents, quiz

ROOT = Path(__file__).parents[2]
S, STEPS, BATCH = 5, 12, 8
QUIET = {"TORCHDYNAMO_DISABLE": "1", "LITDATA_DISABLE_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}


def pretrain(folder, log, *options):
    """Starts `litgpt pretrain` on the build in the folder, its batches written to a log."""
    command = [sys.executable, "-m", "tests.support.litgpt_tap", str(log), "pretrain"]
    command += ["--config", str(folder / "build/litgpt.yaml"), *map(str, options)]
    with (folder / "output").open("a") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | QUIET, stdout=output, stderr=output
        )


def trained_on(log):
    """Returns the rows of every step that was completed: shape (steps, batch, length)."""
    steps = [[]]
    for line in log.read_text().splitlines():
        if line == "step":
            steps.append([])
        else:
            steps[-1] += json.loads(line.removeprefix("batch "))
    return np.array(steps[:-1])


def wait_for(condition, child):
    end = time.monotonic() + 300
    while not condition():
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns a folder with a build that was trained on, amended after S, and trained on again.

    The first training goes on to the end, so that it passes the steps that are amended.
    """
    workspace = Workspace(tmp_path_factory.mktemp("litgpt") / "work")
    folder = workspace.folder
    workspace.trainer(max_tokens=BATCH * 64 * STEPS, save_interval=S, workers=2)
    build(workspace.mix(quiz(arms=[{"name": "x1", "items": 9, "copies": 1}])), folder / "build")
    np.save(folder / "before.npy", run_blocks(folder / "build"))
    late = Additions(folder, ({**documents(), "name": "late"},))
    child = pretrain(folder, folder / "first.log", "--out_dir", folder / "first")
    refused = []
    for _ in range(2):  # as it starts, and as it trains
        with pytest.raises(InputError) as error:
            amend(folder / "build", late, S)
        refused.append(str(error.value))
        wait_for(lambda: (folder / "first.log").is_file() and "step" in log_of(folder), child)
    (folder / "refused").write_text("\n".join(refused))
    assert child.wait() == 0, (folder / "output").read_text()[-3000:]
    checkpoint = folder / f"first/step-{S:08d}"
    with pytest.raises(InputError, match="has consumed the steps up to 5"):
        amend(folder / "build", late, S - 1, checkpoint)
    amend(folder / "build", late, S, checkpoint)
    options = ("--resume", checkpoint / "lit_model.pth", "--out_dir", folder / "second")
    assert pretrain(folder, folder / "second.log", *options).wait() == 0
    return folder


def log_of(folder):
    return (folder / "first.log").read_text()


def test_a_trainer_at_work_is_noticed_before_and_after_it_opens_its_data(run):
    said = (run / "refused").read_text().splitlines()
    assert len(said) == 2
    for line in said:
        assert "its data is being read: stop the trainer first" in line
        assert "pretrain --config" in line


def test_steps_up_to_s_are_those_before_and_later_ones_the_amended(run):
    before, after = np.load(run / "before.npy"), run_blocks(run / "build")
    first, second = trained_on(run / "first.log"), trained_on(run / "second.log")
    assert (len(first), len(second)) == (STEPS, STEPS - S)
    inputs = before[: STEPS * BATCH, :-1].reshape(STEPS, BATCH, -1)
    assert np.array_equal(first, inputs)
    inputs = after[S * BATCH : STEPS * BATCH, :-1].reshape(STEPS - S, BATCH, -1)
    assert np.array_equal(second, inputs)
    changed = np.flatnonzero((before != after).any(axis=1))
    placed = {r["sequence"] for r in rows_of(run / "build", "placements") if r["step"] > S}
    late = [r for r in rows_of(run / "build", "placements") if r["experiment"] == "late"]
    assert set(changed.tolist()) == {r["sequence"] for r in late} <= placed and len(late) == 31


def test_eval_knows_who_met_the_amendment(run):
    def evaluate(*checkpoints, code=0):
        code_line = "from mixctl.pipeline.cli import run; run()"
        command = [sys.executable, "-c", code_line, "eval", "build", *checkpoints, "--out", "found"]
        done = subprocess.run(command, cwd=run, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr

    said = evaluate("first/step-00000010", code=2)
    assert "step-00000010: saved" in said and "before amendment 1" in said
    evaluate("first/step-00000005", "second/step-00000010", "second/final")
    rows = pq.read_table(run / "found/results.parquet").to_pylist()
    doses = {
        (r["step"], r["dose"])
        for r in rows
        if (r["experiment"], r["arm"], r["contrast"]) == ("late", "x4", "level")
    }
    late = [r for r in rows_of(run / "build", "placements") if r["experiment"] == "late"]
    whole = [r for r in late if r["arm"] == "x4"]
    ten = sum(r["step"] <= 10 for r in whole) / 6
    assert doses == {(5, 0.0), (10, ten), (12, 4.0)}
