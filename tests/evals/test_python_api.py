"""docs/python-api.md and the how-to pages: every block of Python runs, in order, as it stands."""

import os
import random

import pytest

from tests.support.blocks import ROOT, fenced
from tests.support.workspace import random_text


def run(name, folder, monkeypatch):
    """Runs the Python blocks of a page in a folder; returns what they leave behind."""
    monkeypatch.chdir(folder)
    namespace = {"__name__": "page"}
    blocks = [block for block in fenced(ROOT / "docs" / name) if block.language == "python"]
    assert blocks
    for number, block in enumerate(blocks):
        exec(compile(block.text, f"{name}, block {number}", "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


def test_the_api_page(folder, study, monkeypatch, capsys):
    (folder / "out").mkdir()
    for link, target in (
        ("build", study.build),
        ("out/run", study.run),
        ("out/run-control", study.twin),
    ):
        os.symlink(target, folder / link)
    left = run("python-api.md", folder, monkeypatch)
    said = capsys.readouterr().out
    assert "first/mix.yaml" in said and "placements read back; 600 steps" in said
    assert "unknown key 'sede' (did you mean 'seed'?)" in said and "results/report.html" in said
    assert "4 0" in said  # the micro-batch of the relayout, and tokens that differ: none
    assert len(left["found"].primary) == 3 and left["seen"].num_rows > 0
    assert (folder / "plan.html").exists() and (folder / "show.html").exists()


def test_the_manifest_page(folder, monkeypatch, capsys):
    for name in ("pandas", "duckdb", "polars"):
        pytest.importorskip(name)
    place = folder / "manifest"
    place.mkdir()
    os.symlink(folder / "first/build", place / "build")
    left = run("how-to-manifest.md", place, monkeypatch)
    said = capsys.readouterr().out
    assert "holdout" in said and "x64" in said and "first" in said
    seen, placements = left["seen"], left["placements"]
    assert 0 < len(seen) < len(placements) and (seen.step <= 300).all()
    by_arm = left["exposure"].groupby(["experiment", "arm"]).seen.mean()
    assert by_arm["leak", "holdout"] == 0 and 16 < by_arm["leak", "x64"] < 48


def test_the_tokenizer_page(tmp_path, monkeypatch, capsys):
    chance = random.Random(1)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text(random_text(chance, 500), encoding="utf-8")
    run("how-to-tokenizer.md", tmp_path, monkeypatch)
    assert "4" in capsys.readouterr().out


def test_the_page_on_sharing(folder, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (folder / "share/out").mkdir(parents=True)
    os.symlink(folder / "first/build", folder / "share/out/run1")
    assert (
        "step" in run("how-to-share.md", folder / "share", monkeypatch)["placements"].column_names
    )
