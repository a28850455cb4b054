"""The demo shows what it promises: a dose-response in the run, nothing in the twin."""

import json
import os
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from mixctl.pipeline.demo import run_demo
from mixctl.shards.errors import InputError

PRIMARY = {"canaries": "loglikelihood", "quiz": "accuracy"}


def mixctl_demo(out, *options):
    """Returns the results of a real `mixctl demo`, and what it printed."""
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "demo", "--out", str(out), *options]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return pq.read_table(out / "results/results.parquet").to_pylist(), done.stdout


def chosen(rows, **wanted):
    last = max(row["step"] for row in rows)
    return [
        row
        for row in rows
        if row["step"] == last
        and row["stratum"] is None
        and all(row[name] == value for name, value in wanted.items())
    ]


def top_dose(rows, experiment, model):
    """Returns the last checkpoint's row: top dose against the holdout, the primary metric."""
    wanted = {"experiment": experiment, "metric": PRIMARY[experiment], "contrast": "holdout"}
    (row,) = chosen(rows, arm="x64", model=model, **wanted)
    return row


def levels(rows, experiment, model):
    """Returns the estimates of the arms by dose."""
    wanted = {"experiment": experiment, "metric": PRIMARY[experiment], "contrast": "level"}
    found = chosen(rows, model=model, **wanted)
    return [
        row["estimate"]
        for row in sorted(found, key=lambda row: int(row["arm"].strip("holdutx") or 0))
    ]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "quick"
    return out, *mixctl_demo(out, "--quick")


def test_quick_shows_the_dose_response_in_the_run_alone(quick):
    _, rows, _ = quick
    run, twin = levels(rows, "canaries", "run"), levels(rows, "canaries", "twin")
    assert len(run) == 5
    assert run == sorted(run), "more copies, more likely"
    assert run[-1] - run[0] > 100
    assert max(twin) - min(twin) < 25
    assert top_dose(rows, "canaries", "run")["p_value"] < 1e-6
    assert top_dose(rows, "quiz", "run")["p_value"] < 1e-3
    for experiment in PRIMARY:
        assert top_dose(rows, experiment, "twin")["p_value"] > 1e-3


def test_quick_scores_every_checkpoint_and_writes_the_report(quick):
    out, rows, printed = quick
    assert sorted({row["step"] for row in rows}) == [50, 100, 150, 200]
    assert {row["model"] for row in rows} == {"run", "twin"}
    report = (out / "results/report.html").read_text(encoding="utf-8")
    assert "canaries" in report
    assert not re.search(r"""(src|href)=["']https?://""", report)
    for command in ("mixctl build", "mixctl verify", "litgpt pretrain", "mixctl eval"):
        assert f"{command} " in printed
    assert (out / "results/results.json").exists()
    assert json.loads((out / "build/mix.json").read_text())["control"] is True


def test_checkpoints_of_the_wrong_side_are_refused(quick, tmp_path):
    out, _, _ = quick
    command = [
        sys.executable,
        "-m",
        "mixctl.pipeline.cli",
        "eval",
        "build",
        "--out",
        str(tmp_path / "r"),
    ]
    for arguments in (["out/demo-control"], ["out/demo", "--baseline", "out/demo"]):
        done = subprocess.run(
            [*command, *arguments], cwd=out, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_whole_demo_resolves_the_top_dose(tmp_path):
    rows, _ = mixctl_demo(tmp_path / "demo")
    for experiment in PRIMARY:
        assert top_dose(rows, experiment, "run")["p_value"] < 1e-6
        assert top_dose(rows, experiment, "twin")["p_value"] > 1e-3


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no demo"):
        run_demo(tmp_path, quick=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
