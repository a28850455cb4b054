"""An experiment that was steered: its decisions are in results.json and drawn in the report."""

import json

import pytest

from mixctl.evals.report import write_report
from mixctl.evals.run import Settings, evaluate
from mixctl.shards.control_trace import ControlTrace, Decision, read_trace, write_trace
from mixctl.shards.errors import InputError
from tests.evals import tiny


@pytest.fixture
def build(tmp_path):
    experiments = {"secrets": ("memorization", tiny.canaries({"holdout": (4, 0), "told": (4, 2)}))}
    return tiny.make_build(tmp_path / "build", experiments)


def decision(step, value, texts):
    return Decision(
        experiment="secrets",
        after_step=step,
        until_step=min(step + 5, 10),
        value=value,
        set_point=0.008 * step,
        texts=texts,
        state={"n": texts},
    )


def evaluated(build, tmp_path):
    checkpoint = tiny.make_checkpoint(tmp_path / "step-00000010", tiny.tiny_model(), build, 10)
    evaluate(Settings(build, (checkpoint,), tmp_path / "results"))
    return tmp_path / "results"


def test_the_trace_is_in_the_results_and_in_the_report(build, tmp_path):
    trace = ControlTrace(every=5, steps=10, off=False, experiments={})
    made = trace.plus([decision(0, None, 3), decision(5, 0.0125, 1234), decision(10, 0.31, 0)])
    write_trace(build, made)
    assert read_trace(build) == made
    out = evaluated(build, tmp_path)
    about = json.loads((out / "results.json").read_text())["experiments"]["secrets"]
    assert [d["texts"] for d in about["control"]] == [3, 1234, 0]
    page = write_report(out).read_text()
    assert "Value and set point of the closed loop" in page
    assert "1,237 texts in all, decided on 2 times" in page
    assert ">0.0125<" in page and ">1,234<" in page and ">0.31<" in page


def test_without_a_loop_there_is_no_picture_of_one(build, tmp_path):
    out = evaluated(build, tmp_path)
    about = json.loads((out / "results.json").read_text())["experiments"]
    assert all("control" not in one for one in about.values())
    assert "closed loop" not in write_report(out).read_text()


def test_a_broken_trace_is_said(build):
    (build / "control-trace.json").write_text("{")
    with pytest.raises(InputError, match="control-trace.json: no trace of mixctl control"):
        read_trace(build)
