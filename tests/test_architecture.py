"""docs/architecture.md and its picture: drawn from the code, and true of a real build and eval."""

import re
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from mixctl.evals import run
from mixctl.evals.report import write_report
from mixctl.pipeline import build as building
from tests.evals import tiny
from tests.support.workspace import Workspace
from tests.test_imports import ALLOWED

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "docs"))
import make_architecture as drawing  # noqa: E402

sys.path.pop(0)


def test_the_picture_is_up_to_date(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs/make_architecture.py", tmp_path], check=True)
    drawn = (tmp_path / "architecture.svg").read_text(encoding="utf-8")
    stale = "docs/architecture.svg is out of date: python docs/make_architecture.py"
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == drawn, stale


def test_a_step_that_the_code_does_not_take_is_no_step():
    steps = {**drawing.BUILD, "pipeline.relayout.relayout": drawing.TRAIN}
    with pytest.raises(LookupError, match=r"does not call pipeline\.relayout\.relayout"):
        drawing.lane("pipeline.build", "build", steps)
    order = [name for name, _ in drawing.lane("pipeline.build", "build", drawing.BUILD)]
    assert order[0].endswith("prepare") and order[-1].endswith("seal")


def patterns(files):
    """Returns the names in the lines of files of a step."""
    return [name.rstrip("/") for line in files for name in line.split(", ")]


def inside(folder):
    """Returns what a folder and its working folder hold, locks of running work left out."""
    names = [path for path in folder.iterdir() if path.name != ".work"] if folder.exists() else []
    work = (folder / ".work").iterdir() if (folder / ".work").exists() else []
    found = {path.name for path in names} | {f".work/{path.name}" for path in work}
    return found - {".work/lock", ".lock"}


@contextmanager
def watched(monkeypatch, steps, folder, home):
    """Yields (step, what is new in the folder after it), for each step as it is taken."""
    taken, seen = [], set()

    def wrapped(name, function):
        def call(*arguments, **options):
            try:
                return function(*arguments, **options)
            finally:
                now = inside(folder)
                taken.append((name, now - seen))
                seen.update(now)

        return call

    for name in steps:
        module, _, function = name.rpartition(".")
        original = getattr(import_module(f"mixctl.{module}"), function)
        for place in (home, import_module(f"mixctl.{module}")):
            if getattr(place, function, None) is original:
                monkeypatch.setattr(place, function, wrapped(name, original))
    yield taken


def check(taken, steps):
    """Holds the steps that were taken, and what each left behind, to the picture."""
    order = list(dict.fromkeys(name for name, _ in taken))
    assert order == list(steps)
    for name, step in steps.items():
        wanted = patterns(step.writes)
        new = {file for taken_name, files in taken for file in files if taken_name == name}
        shapes = {re.sub(r"^(\.work/\w+)-.*", r"\1-*", file) for file in new}
        assert shapes == set(wanted), name


def test_a_build_takes_these_steps_and_writes_these_files(tmp_path, monkeypatch):
    workspace, out = Workspace(tmp_path / "work"), tmp_path / "out"
    with watched(monkeypatch, drawing.BUILD, out, building) as taken:
        building.build(workspace.mix(), out, control=True)
    check(taken, drawing.BUILD)


def test_an_eval_takes_these_steps_and_writes_these_files(tmp_path, monkeypatch):
    items = tiny.documents({"holdout": (4, 0), "x2": (4, 2)})
    build = tiny.make_build(tmp_path / "build", {"facts": ("documents", items)})
    model = tmp_path / "run/step-00000010"
    tiny.make_checkpoint(model, tiny.tiny_model(), build, 10)
    out = tmp_path / "results"
    with watched(monkeypatch, drawing.EVAL, out, run) as taken:
        run.evaluate(run.Settings(build, (model,), out))
    check(taken, drawing.EVAL)
    before = inside(out)
    write_report(out)
    (report,) = drawing.REPORT.values()
    assert inside(out) - before == set(patterns(report.writes))


def test_what_the_page_names_is_there():
    for name in re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", PAGE):
        assert (ROOT / name).exists() or name in ("train/", "manifest/", "tokenizer/"), name
    classes = ("Prepared", "Searched", "Resolved", "Sealed", "Work", "Samples", "Scored", "Row")
    code = "".join(path.read_text("utf-8") for path in ROOT.glob("[ep]*/*.py"))
    for name in classes:
        assert f"`{name}`" in PAGE and re.search(rf"^class {name}\b", code, re.MULTILINE), name


def test_the_table_of_packages_is_what_the_tests_allow():
    rows = dict(re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    assert rows.keys() == {*ALLOWED, "trainer_configs"}
    for package, allowed in ALLOWED.items():
        others = allowed - {package}
        if package == "pipeline":
            assert rows[package] == "all"
        elif others:
            assert rows[package] == ", ".join(f"`{name}/`" for name in sorted(others))
        else:
            assert rows[package] == "nothing of mixctl"
