"""How a program is called from here: by its name where the shell finds this one, else by path."""

import sys
from pathlib import Path

from mixctl.pipeline.programs import program, shown


def test_by_name_where_the_shell_finds_it_and_by_path_where_not(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "my env/bin", tmp_path / "other/bin"
    for folder in (here, elsewhere):
        folder.mkdir(parents=True)
        (folder / "litgpt").write_text("#!/bin/sh\n")
        (folder / "litgpt").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(here))
    assert program("litgpt") == "litgpt"
    for path in (elsewhere, tmp_path):
        monkeypatch.setenv("PATH", str(path))
        assert program("litgpt") == "'my env/bin/litgpt'"
    assert program("no-such") == "no-such"


def test_paths_are_shown_short_below_the_working_folder_only(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert shown(Path("b/c")) == "b/c"
    assert shown(tmp_path / "a/b") == "b"
    assert shown(tmp_path / "d") == str(tmp_path / "d")
