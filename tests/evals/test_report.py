"""report.html without a browser: what it says, that it is whole, escaped and repeatable."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mixctl.evals import cli, findings, glossary, report, report_rows, run
from mixctl.evals.formatting import number, probability
from mixctl.evals.metric_words import described
from mixctl.evals.primary import NEVER_PLACED, NO_HOLDOUT, RUN_LEVEL
from mixctl.evals.results import read_results
from mixctl.evals.rows import Row
from mixctl.shards.errors import InputError
from tests.evals import tiny
from tests.evals.made_results import NASTY, made_results

VOID = {"meta", "link", "br"}
UNCLOSED = {"td", "th"}
"""elements whose end tag the template leaves out where HTML allows it"""


class _Page(HTMLParser):
    """A page's tags, ids, links within it, headings, rows by id, and what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.levels = [], [], [], []
        self.rows, self.open, self.row = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.levels += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        if tag == "tr":
            self.row = self.rows.setdefault(given.get("id"), [])
        if tag in UNCLOSED and self.row is not None:
            self.row.append("")
        if tag not in VOID | UNCLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in UNCLOSED:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.row:
            self.row[-1] += data


@pytest.fixture(scope="module")
def results(evaluated):
    return evaluated[1]


def _html(out):
    return report.write_report(out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(results):
    return _html(results)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_results(tmp_path_factory.mktemp("made") / "results")


@pytest.mark.parametrize("which", ["results", "made"])
def test_one_file_without_script_whose_links_all_lead_somewhere(which, request):
    text = _html(request.getfixturevalue(which))
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text) and "@import" not in text
    page = _Page(text)
    assert page.open == [] and "svg" in page.tags
    assert not {"script", "img", "iframe", "object", "link", "form"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert page.levels[0] == 1 and page.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.levels, page.levels[1:]))  # noqa: B905


def test_every_experiment_has_its_pictures_with_words_for_them(html):
    for name in ("facts", "leak", "secrets"):
        assert f">{name}</a>" in html
    drawn = re.findall(r'<svg role="img" aria-label="([^"]+)"', html)
    kinds = ["Dose-response", "Trajectories", "Histograms", "Placement", "ROC"]
    assert [sum(label.startswith(kind) for label in drawn) for kind in kinds] == [6, 6, 3, 3, 2]
    assert len(drawn) == html.count("<figure>") == 20
    assert "Histograms of exposure (bits) by arm: holdout, x2, x8" in drawn
    assert any(label.startswith("ROC of x8 against holdout by log-likelihood;") for label in drawn)
    assert "accuracy by dose at step 10" in html and "prefers-color-scheme: dark" in html
    assert "#0a0b0" not in html and "#01020" not in html  # stand-in colours are replaced
    assert "Negative control: in the twin" in html


def test_the_rows_on_the_page_are_those_of_the_table_and_name_their_test(results, monkeypatch):
    monkeypatch.setattr(report_rows, "MAX_OTHERS", 10_000)
    page, rows = _Page(_html(results)), read_results(results).rows
    shown = {int(key[1:]): cells for key, cells in page.rows.items() if re.match(r"r\d", key or "")}
    assert set(shown) == set(range(len(rows)))
    for place, cells in shown.items():
        row = rows[place]
        assert cells[:2] == [str(place), row.metric] and cells[5] == row.contrast
        assert cells[6] == number(row.estimate) and cells[8] == probability(row.p_value)
        assert cells[9] == (probability(row.q_value) if row.primary else "expl.")
        assert cells[12] == glossary.method_of(row)


def test_quoted_rows_are_shown_however_many_rows_there_are(results, monkeypatch):
    monkeypatch.setattr(report_rows, "MAX_OTHERS", 0)
    text = _html(results)
    page = _Page(text)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert re.search(r"\d more rows, of earlier checkpoints and single strata, are in", text)


def test_every_verdict_in_words(made):
    text = _html(made)
    cells = re.findall(r'<td role="cell" class="(?:what|remark)".*', text)
    words = " | ".join(re.sub("<[^>]+>", "", cell) for cell in cells)
    nats, accuracy = "nats log-likelihood, x16", "accuracy, x16"
    for said in (
        "it fell over",
        f"+9.50 {nats} vs holdout, beyond twin | the design finds 1.90 nats or more",
        f"+0.0200 {accuracy} vs holdout, beyond twin | not detectable at this size: the design "
        "finds 0.210 or more",
        "smallest detectable effect unknown: too few holdout items, or they have no spread",
        "−0.100 share continued verbatim, x16, run vs twin | the items were never placed",
    ):
        assert said in words
    order = re.findall(r'class="chip ([a-z-]+)" href', text)
    assert order == ["not-scored", "found", "not-found", "no-test"]
    assert "ROC at low false-positive rates" in text


def test_what_the_correction_takes_away_is_not_called_undetectable():
    row = Row("e", "kind", "x8", 8.0, None, "loglikelihood", "run", "c", 1, "did", primary=True)
    row = replace(row, estimate=7.6, mde=2.85, p_value=0.029, q_value=0.13)
    assert findings.remark_of(row) == (
        "p 0.029 does not survive the correction for many tests; "
        "in a single one the design finds 2.85 nats or more"
    )
    row = replace(row, p_value=0.06)
    assert findings.remark_of(row) == "not found, although the design should find 2.85 nats or more"
    row = replace(row, estimate=-2.8)
    assert findings.remark_of(row).startswith("not detectable at this size: the design finds 2.85")


@pytest.mark.parametrize("why", [RUN_LEVEL, NEVER_PLACED, NO_HOLDOUT])
@pytest.mark.parametrize("q_value", [0.01, 0.5])
def test_a_difference_to_the_baselines_says_what_it_rests_on(why, q_value):
    row = Row("e", "poison", "x8", 8.0, None, "effect", "run", "c", 1, "twin", primary=True)
    row = replace(row, estimate=7.6, mde=2.85, p_value=q_value, q_value=q_value)
    plain = findings.remark_of(replace(row, note="against the mean of 3 baselines"))
    assert why not in plain
    told = replace(row, note=f"against the mean of 3 baselines; {why}; not found, although")
    assert findings.remark_of(told) == f"{plain}; {why}"


def test_the_model_as_a_whole_is_no_finding(made):
    text = _html(made)
    before, _, after = text.partition("The model as a whole</h2>")
    section = after.partition("</section>")[0]
    assert "log-likelihood a held-out token (nats)" in section and "held-out" not in before
    assert "−0.010" in section and "no p-value: one pair of runs" in section
    assert "−3.20" not in section and "−3.60" in after  # levels are in the rows alone
    assert "(model)" not in before


def test_without_samples_it_says_what_is_left_out(tmp_path):
    text = _html(made_results(tmp_path / "results", samples=False))
    assert "no ROC curves, no histograms of scores" in text
    assert 'aria-label="ROC' not in text and 'aria-label="Dose-response' in text


def test_a_roc_curve_that_is_not_the_rows_is_not_drawn(tmp_path):
    """Scores that do not give the AUC of the row belong to another eval."""
    out = made_results(tmp_path / "results")
    (run,), (twin,) = ((out / "samples").glob(f"{model}-*") for model in ("run", "twin"))
    run.write_bytes(twin.read_bytes())
    assert 'aria-label="ROC' not in _html(out)


def test_samples_whose_text_is_none_are_left_out(tmp_path):
    """The bytes of a name that are no UTF-8: parquet does not look, the report would fall over."""
    out = made_results(tmp_path / "out")
    (run_samples, twin_samples) = sorted((out / "samples").glob("*.parquet"))
    for path in (run_samples, twin_samples):
        table = pq.read_table(path)
        names = pa.array([b"\xff\xfe"] * len(table), pa.binary()).view(pa.string())
        pq.write_table(table.set_column(table.column_names.index("item"), "item", names), path)
    assert "no ROC curves" in _html(out)


def test_samples_that_an_interrupted_eval_left_are_not_read(tmp_path):
    out = made_results(tmp_path / "results")
    text = _html(out)
    (twin,) = (out / "samples").glob("twin-*")
    for model in ("run", "twin"):
        (out / "samples" / f"{model}-00000300-aaa.parquet").write_bytes(twin.read_bytes())
    assert 'aria-label="ROC' in text and _html(out) == text


def test_an_eval_names_the_samples_that_its_rows_were_made_of(results):
    named = json.loads((results / "results.json").read_text(encoding="utf-8"))["samples"]
    assert len(named) > 1
    assert named == sorted(path.name for path in (results / "samples").glob("*.parquet"))


def test_trajectory_metrics_in_words():
    assert described("effectivity").axis == "rise of the log-probability at an exposure (nats)"
    assert described("retainability").unit == ""
    kept = "share of the gain that is kept 3000 steps after its peak"
    assert described("retainability_3000").axis == kept


def test_markup_in_names_stays_text(tmp_path, made):
    items = tiny.documents({f"holdout{NASTY}": (4, 0), f"x2{NASTY}": (4, 2)})
    build = tiny.make_build(tmp_path / "build", {f"e{NASTY}": ("documents", items)})
    checkpoint = tiny.make_checkpoint(tmp_path / "c", tiny.tiny_model(), build, 10)
    run.evaluate(run.Settings(build, (checkpoint,), tmp_path / "out"))
    for out in (tmp_path / "out", made):
        text = _html(out)
        assert "script" not in _Page(text).tags and NASTY not in text
        assert "&lt;script&gt;" in text


def test_missing_and_broken_results(results, tmp_path):
    with pytest.raises(InputError, match="holds no finished eval"):
        report.write_report(tmp_path)
    for name in ("results.json", "results.parquet"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    (tmp_path / "results.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="results.parquet: the results are broken .*arquet"):
        report.write_report(tmp_path)


def _changed_summary(change):
    def changed(out):
        path = out / "results.json"
        plain = json.loads(path.read_text())
        change(plain)
        path.write_text(json.dumps(plain))

    return changed


def _changed_rows(**values):
    def changed(out):
        path = out / "results.parquet"
        rows = pq.read_table(path)
        first = rows.slice(0, 1).to_pylist()[0] | values
        made = pa.Table.from_pylist([first, *rows.slice(1).to_pylist()], rows.schema)
        pq.write_table(made, path)

    return changed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _changed_summary(lambda s: s.update(results_format=99)),
            "results_format is 99, this mixctl",
        ),
        (
            _changed_summary(lambda s: s["samples"].append("../x.parquet")),
            "samples: '../x.parquet' is no file name",
        ),
        (
            _changed_summary(lambda s: s["experiments"]["canaries"]["timeline"].update(x=[1])),
            "experiments.canaries: timeline of arm 'x', which is none",
        ),
        (
            _changed_summary(
                lambda s: s["experiments"]["canaries"].update(
                    timeline={
                        arm: [1] * n for n, arm in enumerate(s["experiments"]["canaries"]["arms"])
                    }
                )
            ),
            "experiments.canaries: timelines of different lengths",
        ),
        (_changed_rows(contrast="odds"), "row 0: contrast is 'odds' .valid: level, holdout"),
        (_changed_rows(experiment="nobody"), "row 0: no experiment 'nobody'"),
        (_changed_rows(arm="x99"), "row 0: experiment '.*' has no arm 'x99'"),
    ],
)
def test_results_that_contradict_themselves(tmp_path, change, sentence):
    out = made_results(tmp_path / "out")
    change(out)
    with pytest.raises(InputError, match=sentence):
        report.write_report(out)


def test_the_command_writes_the_same_page_again(results, html):
    done = CliRunner().invoke(cli.report_command, [str(results)])
    assert done.exit_code == 0 and done.output.strip() == str(results / "report.html")
    assert (results / "report.html").read_text(encoding="utf-8") == html


def test_the_command_prints_json(made):
    done = CliRunner().invoke(cli.report_command, [str(made), "--json"])
    plain = json.loads(done.output)
    assert done.exit_code == 0 and plain["report"] == str(made / "report.html")
    found = {finding["experiment"]: finding for finding in plain["findings"]}
    assert list(found)[:2] == ["broken", "canaries"]
    assert found["broken"]["verdict"] == "not scored" and found["broken"]["result"] is None
    assert found["canaries"]["row"] == 0 and found["canaries"]["result"]["estimate"] == 9.5
    assert found["quiet"]["verdict"] == "not found" and found["never"]["verdict"] == "no test"
    assert "(model)" not in found


def test_numbers():
    assert [number(x) for x in (None, 0.0, 0.1234, -1.5, 12.34, 1234.5, -1e-5)] == [
        "–", "0.000", "0.123", "−1.50", "12.3", "1234", "−1.00e-05",
    ]  # fmt: skip
    assert number(2.0, signed=True) == "+2.00"
    assert [number(x) for x in (0.00149, -0.02, 0.0999999, 9.996, 0.00099999, 99_999.7)] == [
        "0.00149", "−0.0200", "0.100", "10.0", "0.00100", "1.00e+05",
    ]  # fmt: skip
    assert [probability(x) for x in (None, 0.04321, 3.1e-14)] == ["–", "0.043", "3.1e-14"]
