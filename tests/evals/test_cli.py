"""The commands as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mixctl.evals import cli
from mixctl.shards.errors import InputError


@pytest.mark.parametrize("command", [cli.eval_command, cli.report_command])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_examples(command, option):
    done = CliRunner().invoke(command, [option])
    assert done.exit_code == 0 and "Examples:" in done.output
    assert f"mixctl {command.name} " in done.output


def test_importing_the_commands_loads_nothing_heavy():
    code = (
        "import sys, mixctl.evals.cli; "
        "heavy = ('torch', 'litgpt', 'scipy', 'matplotlib', 'pyarrow', 'datatrove'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_eval_prints_json_alone_on_stdout(study, tmp_path):
    out = tmp_path / "out"
    arguments = [str(study.build), str(study.run), "--out", str(out), "--json"]
    done = CliRunner().invoke(cli.eval_command, arguments)
    assert done.exit_code == 0, done.output
    assert (out / "report.html").is_file()
    found = json.loads(done.stdout)
    assert [row["experiment"] for row in found["primary"]] == ["facts", "leak", "secrets"]
    assert [c["step"] for c in found["checkpoints"]] == [5, 10] and found["errors"] == {}


def test_usage_errors(study, tmp_path):
    assert CliRunner().invoke(cli.eval_command, [str(study.build)]).exit_code == 2
    arguments = [str(study.build), str(study.run), "--out", str(tmp_path / "o"), "--device", "warp"]
    done = CliRunner().invoke(cli.eval_command, arguments)
    assert isinstance(done.exception, InputError) and "--device warp" in str(done.exception)
