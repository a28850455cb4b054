"""report.html: self-contained, escaped, repeatable."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from mixctl.evals import cli, report, run
from mixctl.evals.formatting import number, probability
from mixctl.shards.errors import InputError
from tests.evals import tiny

NASTY = "<script>alert(1)</script>"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]


@pytest.fixture(scope="module")
def results(evaluated):
    return evaluated[1]


def _page(out):
    return report.write_report(out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(results):
    return _page(results)


def test_self_contained(page):
    assert not re.search(r'(src|href)="(https?:)?//', page) and "@import" not in page
    tags = _Tags()
    tags.feed(page)
    assert "script" not in tags.seen and "svg" in tags.seen
    assert len(tags.ids) == len(set(tags.ids))


def test_shows_every_experiment_its_primary_row_and_its_pictures(page):
    for name in ("facts", "leak", "secrets"):
        assert f">{name}</a>" in page
    assert page.count("<svg") == 3 * 1 + 2 * (3 + 2 + 2)  # timelines; dose and curves per metric
    assert "accuracy by dose at step 10" in page and "prefers-color-scheme: dark" in page
    assert "#0a0b0" not in page and "#01020" not in page  # stand-in colours are replaced
    assert "The same arm against the holdout in the twin" in page


def test_markup_in_names_stays_text(tmp_path):
    items = tiny.documents({f"holdout{NASTY}": (4, 0), f"x2{NASTY}": (4, 2)})
    build = tiny.make_build(tmp_path / "build", {f"e{NASTY}": ("documents", items)})
    made = tiny.make_checkpoint(tmp_path / "c", tiny.tiny_model(), build, 10)
    run.evaluate(run.Settings(build, (made,), tmp_path / "out"))
    page = _page(tmp_path / "out")
    tags = _Tags()
    tags.feed(page)
    assert "script" not in tags.seen and NASTY not in page
    assert "&lt;script&gt;" in page


def test_missing_and_broken_results(results, tmp_path):
    with pytest.raises(InputError, match="holds no finished eval"):
        report.write_report(tmp_path)
    for name in ("results.json", "results.parquet"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    (tmp_path / "results.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="broken"):
        report.write_report(tmp_path)


def test_the_command_writes_the_same_page_again(results, page):
    done = CliRunner().invoke(cli.report_command, [str(results)])
    assert done.exit_code == 0 and done.output.strip() == str(results / "report.html")
    assert (results / "report.html").read_text(encoding="utf-8") == page


def test_numbers():
    assert [number(x) for x in (None, 0.0, 0.1234, -1.5, 12.34, 1234.5, 1e-5)] == [
        "–", "0.000", "0.123", "−1.50", "12.3", "1234", "1.00e-05",
    ]  # fmt: skip
    assert number(2.0, signed=True) == "+2.00"
    assert [probability(x) for x in (None, 0.04321, 3.1e-14)] == ["–", "0.043", "3.1e-14"]
