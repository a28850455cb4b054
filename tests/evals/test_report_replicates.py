"""The report where several baselines share a step: means say so, and rows say whose they are."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixctl.evals import charts_levels, report
from mixctl.evals.charts import plain
from mixctl.evals.formatting import number
from mixctl.evals.results import Results, read_results, write_results
from tests.evals.made_results import auc_of, made_results

SHIFT = 3.0
"""of the levels of the second twin"""


def _with(table, values):
    at = table.column_names.index("loglikelihood")
    return table.set_column(at, "loglikelihood", pa.array(values))


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    """Returns the made results with a second twin, and the mean scores of both twins."""
    out = made_results(tmp_path_factory.mktemp("replicated") / "results")
    found = read_results(out)
    run, twin = (pq.read_table(next((out / "samples").glob(f"{m}-*"))) for m in ("run", "twin"))
    scores = np.array(twin["loglikelihood"])
    noise = np.random.default_rng(5).normal(size=len(scores))
    second = _with(twin, scores + noise)
    mean = _with(twin, scores + noise / 2)
    pq.write_table(second, out / "samples" / "twin-00000300-def.parquet")
    rows = []
    for row in found.rows:
        if (row.experiment, row.metric, row.contrast) == ("canaries", "auc", "did"):
            row = replace(row, estimate=auc_of(run, minus=mean))
        rows.append(row)
        if (row.experiment, row.model) == ("canaries", "twin"):
            estimate = auc_of(second) if row.metric == "auc" else row.estimate + SHIFT
            rows.append(replace(row, checkpoint="out/twin-2", estimate=estimate))
    summary = {**found.summary, "baselines": found.summary["baselines"] * 2}
    kept = list((out / "samples").glob("*.parquet"))
    write_results(out, Results(rows, found.errors, found.notes, summary), kept)
    return out, mean


@pytest.fixture(scope="module")
def html(replicated):
    return report.write_report(replicated[0]).read_text(encoding="utf-8")


def test_levels_are_of_the_mean_of_the_twins(html):
    assert "Filled: run; hollow: mean of 2 twins." in html
    assert "dotted: the same items, mean of 2 twins." in html
    assert "in the run; dotted: mean of 2 twins." in html
    assert '<th scope="col">mean, mean of 2 twins' not in html  # one of the two words is enough
    line = re.search(r"<td>x16, mean of 2 twins(.*?)</tr>", html, re.DOTALL)
    assert line is not None
    assert re.findall(r"<td>([^<]+)", line[1]) == [number(-20.0 + SHIFT / 2)] * 3


def test_a_line_has_one_point_a_step(replicated, monkeypatch):
    drawn = []
    monkeypatch.setattr(charts_levels, "curves", lambda *given: drawn.append(given[2]) or "<svg/>")
    monkeypatch.setattr(
        charts_levels, "dose_response", lambda *given: drawn.append(given[2]) or "<svg/>"
    )
    report.write_report(replicated[0])
    assert any(row.model == "twin" for rows in drawn for row in rows)
    for rows in drawn:
        keys = [(row.model, row.arm, row.step) for row in rows]
        assert len(set(keys)) == len(keys)


def test_the_curve_of_the_twins_is_drawn_and_named(replicated, html):
    label = next(iter(re.findall(r'aria-label="(ROC of x16 [^"]*)"', html)), "")
    assert f"mean of 2 twins {plain(auc_of(replicated[1]))}" in label
    assert "The curve &#39;mean of 2 twins&#39; is of the items&#39; mean scores." in html


def test_every_twin_is_a_negative_control(html):
    control = re.search(r"Negative control: .*", html)
    assert control is not None and "in the 2 twins, which never saw them" in control[0]
    assert "+0.200" in control[0] and f"+{0.2 + SHIFT:.2f}" in control[0]


def test_rows_say_which_twin_they_are_of(html, tmp_path):
    assert html.count("<td>twin out/twin-2<td>") == html.count("<td>twin out/twin") / 2 > 3
    single = report.write_report(made_results(tmp_path / "results")).read_text(encoding="utf-8")
    assert "<td>twin<td>" in single and "<td>twin out" not in single


def test_baselines_are_counted_as_what_they_are(html, tmp_path):
    assert "against 6 checkpoints of its baselines, up to 2 at a step." in html
    single = report.write_report(made_results(tmp_path / "results")).read_text(encoding="utf-8")
    assert "against 3 checkpoints of its baselines." in single
