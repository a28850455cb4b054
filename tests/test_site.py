"""The documentation as a site: every page is in its menu, and its links hold (`make docs`)."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def pages(entry):
    """Yields the files that a part of the menu names."""
    if isinstance(entry, str):
        yield entry
    for inner in entry if isinstance(entry, list) else []:
        yield from pages(inner)
    for inner in entry.values() if isinstance(entry, dict) else []:
        yield from pages(inner)


def test_every_page_is_in_the_menu():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = list(pages(menu))
    assert len(named) == len(set(named))
    assert set(named) == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "tutorial.html").exists()
    assert (tmp_path / "files/examples/own_pipeline.py.txt").exists()
