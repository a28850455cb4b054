"""The command line as a user meets it: exit codes, no traceback, output a script can read."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mixctl.pipeline.cli import cli, main
from mixctl.pipeline.programs import program
from mixctl.pipeline.text import train_command
from mixctl.shards.record import read_record
from tests.support.workspace import canaries, quiz


def mixctl(*arguments, **options):
    """Returns the finished process of a real call."""
    command = [sys.executable, "-c", "from mixctl.pipeline.cli import run; run()"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


def test_wrong_input_is_exit_code_2_with_one_line_each(workspace):
    mix = workspace.mix(quiz(itms=1), seed=-1)
    done = mixctl("build", mix, "--out", workspace.folder / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: {mix}: ") for line in lines)


def test_wrong_usage_is_exit_code_2():
    for arguments in (["biuld"], ["build"], ["build", "x.yaml", "--out", "o", "--wrokers", "2"]):
        done = mixctl(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert "did you mean 'build'?" in mixctl("biuld").stderr


def test_a_broken_build_is_exit_code_1(workspace):
    out = workspace.folder / "out"
    assert run("build", workspace.mix(quiz()), "--out", out).exit_code == 0
    path = out / "train" / "chunk-000000.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    done = mixctl("verify", out, "--full")
    assert done.returncode == 1
    assert "chunk-000000.bin: its content does not match the digest" in done.stderr
    assert "Traceback" not in done.stderr
    (out / "mix.json").unlink()
    done = mixctl("verify", out)
    assert done.returncode == 1
    assert "mix.json: missing" in done.stderr


def test_build_over_a_damaged_build_does_not_call_it_done(workspace):
    mix, out = workspace.mix(quiz()), workspace.folder / "out"
    run("build", mix, "--out", out)
    (out / "train" / "chunk-000001.bin").unlink()
    done = mixctl("build", mix, "--out", out)
    assert done.returncode == 1
    assert "chunk-000001.bin: missing" in done.stderr


def test_a_defect_has_an_exit_code_of_its_own(monkeypatch, capsys):
    def broken(**_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli, "main", broken)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 70
    assert "this is a defect of mixctl" in capsys.readouterr().err


def test_verify_of_nothing_is_exit_code_2(tmp_path):
    done = mixctl("verify", tmp_path / "no")
    assert done.returncode == 2
    assert "is not a finished build" in done.stderr


def test_build_prints_the_exact_commands(built, shared):
    result = run("build", shared.mix(name="built.yaml"), "--out", built, "--control")
    for name in ("litgpt.yaml", "litgpt-control.yaml"):
        command = f"{program('litgpt')} pretrain --config {built.resolve() / name}"
        variables = "LITDATA_DISABLE_VERSION_CHECK=1 TORCHDYNAMO_DISABLE=1"  # the model is tiny
        assert f"{variables} {command}" in result.output
    assert f"{program('mixctl')} verify {built}" in result.output


def test_only_small_models_are_trained_without_torch_compile():
    for width, small in ((128, True), (512, False), (None, False)):
        model = {"n_layer": 4, "n_embd": width, "padded_vocab_size": 4096}
        command = train_command(Path("litgpt.yaml"), {"model_config": model})
        assert ("TORCHDYNAMO_DISABLE=1" in command) == small
    for trainer in (None, {}, {"model_config": "pythia-160m"}):
        assert "TORCHDYNAMO" not in train_command(Path("litgpt.yaml"), trainer)


def test_plan_json_is_what_the_build_holds(built, shared):
    mix = shared.mix(name="built.yaml")
    plan = json.loads(run("plan", mix, "--json").output)
    totals = read_record(built).totals
    for experiment in plan["experiments"]:
        total = totals[experiment["name"]]
        assert experiment["placements"] == total.placements
        assert experiment["tokens"] == total.tokens
        assert experiment["share"] == total.share
        assert sum(arm["placements"] for arm in experiment["arms"]) == total.placements
    assert plan["total"]["tokens"] == sum(t.tokens for t in totals.values())
    assert mix.with_suffix(".plan.png").read_bytes().startswith(b"\x89PNG")


def test_plan_of_a_corpus_of_which_only_the_size_is_known(shared):
    big = shared.mix(canaries(), name="size.yaml", corpus={"tokens": "2M"})
    assert run("plan", big, "--picture", shared.folder / "size.svg").exit_code == 0
    assert (shared.folder / "size.svg").read_text().startswith("<?xml")
    small = shared.mix(canaries(), name="small.yaml", corpus={"tokens": "100K"})
    done = mixctl("plan", small)
    assert done.returncode == 2
    assert "tokens: 100000 are too few: the run and validation need 106080" in done.stderr


def test_check_writes_nothing(workspace):
    mix = workspace.mix()
    before = sorted(p for p in workspace.folder.rglob("*"))
    assert "nothing wrong" in run("check", mix).output
    assert sorted(p for p in workspace.folder.rglob("*")) == before


def test_show_marks_the_payload(built):
    output = run("show", built, "--experiment", "docs", "--item", "d2", "--limit", "2").output
    assert "docs / d2 copy 0 (x4): step" in output
    assert "⟦hello <|endoftext|> w" in output.replace("\n", "")
    assert "2 of 4 placements" in output


def test_show_json_and_filters(built):
    lines = run(
        "show", built, "--experiment", "quiz", "--limit", "1000", "--json"
    ).output.splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["experiment"] for row in rows} == {"quiz"}
    for row in rows:
        assert row["payload"].startswith("Question: What is w")
        assert row["before"].endswith("<|endoftext|>")
        assert row["after"].startswith("<|endoftext|>")
    step = rows[0]["step"]
    at_step = run("show", built, "--step", step, "--json", "--limit", "1000").output.splitlines()
    assert {json.loads(line)["step"] for line in at_step} == {step}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment", "quizz"], "no experiment 'quizz' (did you mean 'quiz'?)"),
        (["--step", "201"], "201 is outside the run's steps 1 to 200"),
        (["--item", "nobody"], "no placement of an item 'nobody'"),
    ],
)
def test_show_of_what_is_not_there(built, arguments, message):
    done = mixctl("show", built, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_schema_accepts_the_mix_and_names_every_kind(shared):
    import yaml

    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(run("schema").output)
    mix = yaml.safe_load(shared.mix(name="schema.yaml").read_text())
    jsonschema.Draft202012Validator(schema).validate(mix)
    mix["experiments"][0]["itms"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(mix)


def commands(group, name, parent=None):
    """Yields (name, command, context) of every command below a group, and of the group."""
    context = click.Context(group, info_name=name.rpartition(" ")[2], parent=parent)
    for inner in group.list_commands(context):
        command = group.get_command(context, inner)
        yield f"{name} {inner}", command, click.Context(command, info_name=inner, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {inner}", context)


def test_every_command_has_help_with_examples_that_parse():
    found = list(commands(cli, "mixctl"))
    assert {"mixctl init", "mixctl diff", "mixctl import lm-eval"} <= {name for name, _, _ in found}
    known = {name: command for name, command, _ in found}
    for name, command, context in found:
        text = re.sub(r"\\\n *", "", command.get_help(context))
        assert f"mixctl {name.removeprefix('mixctl ')}" in text.split("Examples:")[1], name
        for line in re.findall(r"^ *(mixctl .*)$", text.split("Examples:")[1], re.MULTILINE):
            words = shlex.split(re.split(r" {4,}| && | # | > ", line)[0])
            used = 3 if " ".join(words[:3]) in known and len(words) > 2 else 2
            called = known[" ".join(words[:used])]
            if not isinstance(called, click.Group):
                called.make_context(words[used - 1], words[used:], resilient_parsing=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell):
    script = Path(sys.executable).with_name("mixctl")
    asked = {"_MIXCTL_COMPLETE": f"{shell}_complete", "COMP_WORDS": "mixctl re"}
    asked["COMP_CWORD"] = "re" if shell == "fish" else "1"
    environment = {**os.environ, **asked}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert {"relayout", "report"} <= set(re.findall(r"[a-z]+", done.stdout)), done
    assert "demo" not in re.findall(r"[a-z]+", done.stdout)
