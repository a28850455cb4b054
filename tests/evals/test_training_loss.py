"""The losses that LitGPT logged: hand-made files, and what an eval makes of them."""

from __future__ import annotations

import pytest

from mixctl.evals.run import Settings, evaluate
from tests.evals import tiny

METRIC = "training_loglikelihood_per_token"
HEADER = "epoch,iter,learning_rate,loss,step,val_loss\n"
PER_STEP = tiny.TOPOLOGY.accumulation


def log(out_dir, version, losses, end="\n"):
    """Writes a log as LitGPT does: `step` is the iteration before, a validation has no loss."""
    lines = [f"0,{n * PER_STEP},0.01,{loss},{n * PER_STEP - 1},\n" for n, loss in losses.items()]
    lines.insert(1, f",,,,{PER_STEP - 1},2.5\n")
    path = out_dir / "logs/csv" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(HEADER + "".join(lines).removesuffix("\n") + end, encoding="utf-8")


@pytest.fixture
def trained(tmp_path):
    """Returns the build, a run's checkpoint of step 10 and a twin's, each in its out_dir."""
    questions = tiny.questions({"holdout": (6, 0), "x2": (6, 2)})
    build = tiny.make_build(tmp_path / "build", {"leak": ("contamination", questions)})
    run = tiny.make_checkpoint(tmp_path / "run/step-10", tiny.tiny_model(0), build, 10)
    twin = tiny.make_checkpoint(
        tmp_path / "twin/step-10", tiny.tiny_model(1), build, 10, "control/train"
    )
    return build, run, twin


def rows_of(trained, out):
    build, run, twin = trained
    found = evaluate(Settings(build, (run,), out, (twin,)))
    rows = [row for row in found.rows if row.metric == METRIC]
    return {(row.model, row.contrast): row for row in rows}, found


def test_run_and_twin_are_compared_on_the_steps_that_both_logged(trained, tmp_path):
    log(tmp_path / "run", 0, {4: 9.0, 8: 5.0, 12: 1.0})  # 12 lies behind the checkpoint
    log(tmp_path / "run", 10, {10: 2.0})
    log(tmp_path / "run", 9, {8: 4.0, 10: 7.0})  # after 0 and before 10: by number, not by name
    log(tmp_path / "twin", 0, {8: 3.5, 10: 3.0})
    rows, _ = rows_of(trained, tmp_path / "out")
    assert set(rows) == {("run", "level"), ("twin", "level"), ("run", "twin")}
    assert rows["run", "level"].estimate == pytest.approx(-(9 + 4 + 2) / 3)
    assert rows["run", "level"].n == 3
    assert rows["twin", "level"].estimate == pytest.approx(-3.25)
    gap = rows["run", "twin"]
    assert (gap.estimate, gap.n) == (pytest.approx(((3.5 - 4) + (3 - 2)) / 2), 2)
    assert gap.p_value is None and gap.experiment == "(model)" and gap.arm == "training"
    assert "mean of 3 logged steps" in gap.note


def test_a_line_that_was_cut_off_is_left(trained, tmp_path):
    log(tmp_path / "run", 0, {4: 6.0, 8: 5.25}, end="")
    rows, _ = rows_of(trained, tmp_path / "out")
    assert rows["run", "level"].estimate == -6.0


def test_without_logs_the_row_says_so(trained, tmp_path):
    rows, found = rows_of(trained, tmp_path / "out")
    assert list(rows) == [("run", "level")] and not found.errors
    assert rows["run", "level"].estimate is None
    assert "no losses in logs/csv/version_*/metrics.csv" in rows["run", "level"].note


def test_a_log_that_holds_no_numbers_is_an_error_of_the_model(trained, tmp_path):
    log(tmp_path / "run", 0, {4: 6.0, 8: "many"})
    rows, found = rows_of(trained, tmp_path / "out")
    assert (
        not rows and f"iter '{8 * PER_STEP}', loss 'many': not numbers" in found.errors["(model)"]
    )
    assert "version_0/metrics.csv" in found.errors["(model)"]
