"""A small slice of `make faults`: a report and an eval."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.inject import Fault, run
from tests.faults.scenes import Eval, Report, Scene
from tests.faults.strike import places, strike


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    return Report(tmp_path_factory.mktemp("report") / "root")


@pytest.mark.parametrize("kind", ["full", "read-only", "killed", "clock"])
def test_a_report_is_the_old_one_or_the_new_one(report: Scene, kind) -> None:
    assert strike(report, Fault(kind, places(report, 3)[1])) is None


@pytest.mark.parametrize("kind", ["full", "killed", "terminated", "clock"])
def test_an_eval_goes_on_where_it_was(tmp_path: Path, kind) -> None:
    scene = Eval(tmp_path / "root")
    assert strike(scene, Fault(kind, places(scene, 3)[1])) is None


def test_one_message_for_a_full_disk(report: Scene) -> None:
    report.begin()
    ended = run(report.arguments, report.out, Fault("full", 1), report.scratch)
    assert ended.status == 1
    assert ended.said.count("error: ") == 1 and str(report.out) in ended.said
    assert "No space left on device; what is done is kept" in ended.said


def test_what_is_lost_is_noticed(report: Scene, monkeypatch) -> None:
    """The check itself: with writes in place, a cut file is taken for finished."""
    from mixctl.evals import report as module

    monkeypatch.setattr(module, "write_text", lambda path, text: path.write_text(text[:100]))
    problem = strike(report, Fault("clock", 1))
    assert problem is not None and "neither the old one nor the new one" in problem
