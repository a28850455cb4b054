"""How a program is called from here: by its name where the shell finds this one, else by path.

And how `mixctl` itself ends.
"""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

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


ENDS = """
import atexit, sys, threading
from mixctl.pipeline import cli

def command(**_):
    threading.Thread(target=threading.Event().wait).start()
    atexit.register(print, "at exit")
    print("said")
    {end}

cli.cli.main = command
cli.run()
print("never")
"""


@pytest.mark.parametrize(
    ("end", "exit_code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no licence')", 1, "error: no licence\n"),
        ("raise OSError(28, 'full')", 1, "error: No space left on device; what is done is kept: "),
    ],
)
def test_the_program_ends_at_once_and_with_the_exit_code(end, exit_code, said):
    """Without waiting for a thread that never ends; what it printed and what runs at exit count."""
    code = ENDS.format(end=end)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (exit_code, "said\nat exit\n")
    assert done.stderr.startswith(said) and bool(done.stderr) == bool(said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_output_that_cannot_be_written_is_no_success():
    code = "from mixctl.pipeline import cli; cli.cli.main = lambda **_: print('lost'); cli.run()"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: No space left on device")


def test_the_installed_program_is_that_one():
    (found,) = entry_points(group="console_scripts", name="mixctl")
    assert found.value == "mixctl.pipeline.cli:run"
