"""Every code block of README, CONTRIBUTING, SECURITY and docs is run by a test, or says why not.

Commands are run here as they stand, page by page, on a small mix that holds what they name; what is
left out is in LEFT_OUT with the reason, what is not to be run in NOT_RUN.
"""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from litgpt import GPT, Config
from litgpt.data import LitData

from mixctl.evals.run import Settings, evaluate
from mixctl.pipeline.build import build
from mixctl.pipeline.cli import cli
from mixctl.pipeline.lm_eval_export import export_tasks
from mixctl.shards.manifest import payload_digest
from tests.pipeline.test_lm_eval_results import answered
from tests.support.blocks import PAGES, ROOT, command_lines, commands_of, fenced, indented
from tests.support.workspace import (
    canaries,
    quiz,
    random_text,
    trainer_config,
    write_jsonl,
    write_tokenizer,
)

STEPS, BATCH, LENGTH = 3100, 8, 64
LEFT_OUT = {
    r"git clone|make |pip install|huggingface-cli": "sets a machine up; `.ci/run` on a fresh clone",
    r"litgpt ": "a training, or a network; make test-slow trains with these configs",
    r"lm_eval ": "another environment; make test-peers runs this command",
    r"mixctl .*s3://": "needs a server; make test-s3",
    r"mixctl .*--executor (slurm|ray)": "needs a cluster; make test-slurm, make test-ray",
    r"mixctl control|mixctl eval runs/": "trains for minutes; make test-control",
    r"mixctl cpdt": "trains for minutes; tests/pipeline/test_cpdt.py on a build of its own",
    r"mixctl .* examples/": "minutes; tests/examples runs them",
    r"mixctl/\.venv": "tests/test_readme.py, in a folder that looks like a clone",
    r"mixctl log .*--wandb": "tests/evals/test_loggers.py, where wandb is installed",
}
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "examples/README.md": "tests/examples",
    "docs/tutorial.md": "tests/test_tutorial.py",
    "docs/commands.md": "tests/test_blocks.py",  # below, in bash
}
"""pages whose other commands a test of their own runs"""
HERE = ("README.md", "at-scale.md", "changing-data.md", "footguns.md")
HERE = (*HERE, "how-to-continue.md", "how-to-share.md")


def left_out(command):
    """Returns why a command is not run here; None where it is."""
    return next((why for what, why in LEFT_OUT.items() if re.match(what, command)), None)


def test_every_command_of_every_page_is_run_or_says_why():
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    for page in pages:
        name = page.relative_to(ROOT).as_posix()
        mine = [command for command in commands_of(page) if left_out(command) is None]
        if name in ELSEWHERE or page.name in HERE:
            continue
        assert not mine, f"{name}: nobody runs {mine}"
    used = [left_out(command) for page in pages for command in commands_of(page)]
    assert set(LEFT_OUT.values()) <= set(used)


def write_mix(folder, name, *experiments):
    mix = {
        "corpus": {"path": "corpus.jsonl"},
        "tokenizer": "tok",
        "trainer": "trainer.yaml",
        "seed": 1,
        "validation": 16,
        "experiments": list(experiments),
    }
    (folder / name).write_text(yaml.safe_dump(mix, sort_keys=False))
    return folder / name


def questions(name, n):
    return [
        {
            "id": f"{name}{k}",
            "question": f"{name} What follows w{k % 300} and w{k // 300}?",
            "choices": ["w1", "w2", "w3", "w4"],
            "gold": k % 4,
        }
        for k in range(n)
    ]


def checkpoint(folder, seed):
    """Writes a LitGPT checkpoint with random weights."""
    settings = trainer_config()["model_config"]
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    torch.save(GPT(Config(**settings)).state_dict(), folder / "lit_model.pth")
    (folder / "model_config.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("home")
    chance = random.Random(5)
    n_texts = STEPS * BATCH * (LENGTH + 1) // 100
    texts = [{"text": random_text(chance, 60)} for _ in range(n_texts)]
    write_jsonl(folder / "corpus.jsonl", texts)
    write_tokenizer(folder / "tok")
    config = trainer_config(
        global_batch_size=BATCH,
        micro_batch_size=2,
        max_tokens=STEPS * BATCH * LENGTH,
        out_dir="out/train",
    )
    for name, changes in (("trainer", {}), ("two-gpus", {"devices": 2}), ("two-nodes", {})):
        nodes = {"num_nodes": 2} if name == "two-nodes" else {}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**config, **changes, **nodes}))
    write_jsonl(folder / "leak.jsonl", questions("leak", 60))
    write_jsonl(folder / "arc.jsonl", questions("arc", 60))
    write_jsonl(folder / "questions.jsonl", questions("late", 1000))
    arms = [{"name": "holdout", "items": 30, "copies": 0}]
    arms += [{"name": "x16", "items": "rest", "copies": 4}]
    arc = quiz(name="arc-leak", items="arc.jsonl", arms=arms)
    leak = quiz(name="leak", items="leak.jsonl")
    mix = write_mix(folder, "mix.yaml", leak, arc, canaries(name="secrets"))
    write_mix(folder, "no-op.yaml")
    late = indented(ROOT / "docs/changing-data.md")[1]
    assert yaml.safe_load(late)["experiments"][0]["name"] == "late-leak"
    (folder / "late.yaml").write_text(late)
    build(mix, folder / "out/run1", control=True)
    export_tasks(folder / "out/run1", "leak", folder / "tasks-of-the-harness")
    answered(folder / "tasks-of-the-harness", folder / "harness/step-00000300", 1, {"x8": 5})
    names = ("train", "train-control", "run", "run-control", "run-control-2", "run-control-3")
    for seed, name in enumerate((*names, "no-op")):
        checkpoint(folder / f"out/{name}/step-00001000", seed)
    return folder


def prepared(page, home, folder):
    """Makes the folder what it is when the page's commands are read."""
    shutil.copytree(home, folder, dirs_exist_ok=True)
    if page == "footguns.md":
        (folder / "out/run1").rename(folder / "build")
    if page == "at-scale.md":
        build(folder / "mix.yaml", folder / "shared/run1", control=True)
    if page == "how-to-share.md":
        evaluate(Settings(folder / "out/run1", (folder / "out/train",), folder / "results"))
        shutil.copytree(folder / "out/run1", folder / "out/run2")
        shutil.copytree(folder / "out/run1", folder / "shared/run1")


@pytest.mark.parametrize("page", HERE)
def test_the_commands_of_the_page_run_in_their_order(page, home, tmp_path, monkeypatch):
    prepared(page, home, tmp_path)
    monkeypatch.chdir(tmp_path)
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    commands = [command for command in commands_of(path) if left_out(command) is None]
    if page == "README.md":  # test_readme.py runs the others
        commands = [
            command for command in commands if command.startswith(("mixctl eval", "mixctl log"))
        ]
    assert commands
    for command in commands:
        said = command.replace("/shared/", f"{tmp_path}/shared/").replace("OUT_DIR", "out/train")
        words = shlex.split(said.replace("SECONDS", "1.9"))
        if words[1] == "build":
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        done = CliRunner().invoke(cli, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{command}\n{done.output}"


# The other blocks: (page, language), or the first words of an indented block -> its test.
FENCED = {
    ("README.md", "jsonl"): "tests/test_readme.py",
    ("README.md", "yaml"): "tests/test_readme.py",
    ("docs/add-a-kind.md", "python"): "tests/test_add_a_kind.py",
    ("docs/add-a-kind.md", "toml"): "tests/test_add_a_kind.py",
    ("docs/add-a-kind.md", "yaml"): "tests/test_add_a_kind.py",
    ("docs/at-scale.md", "yaml"): "tests/test_blocks.py",
    ("docs/commands.md", "text"): "tests/test_reference.py",  # what --help says
    ("docs/how-to-manifest.md", "python"): "tests/evals/test_python_api.py",
    ("docs/how-to-share.md", "python"): "tests/evals/test_python_api.py",
    ("docs/how-to-tokenizer.md", "python"): "tests/evals/test_python_api.py",
    ("docs/kinds.md", "yaml"): "tests/test_docs_kinds.py",
    ("docs/python-api.md", "python"): "tests/evals/test_python_api.py",
    ("docs/tutorial.md", "bash"): "tests/test_tutorial.py",
    ("docs/tutorial.md", "jsonl"): "tests/test_blocks.py",
    ("docs/tutorial.md", "python"): "tests/test_tutorial.py",
    ("docs/tutorial.md", "text"): "tests/test_tutorial.py",
    ("docs/tutorial.md", "yaml"): "tests/test_tutorial.py",
}
INDENTED = {
    "train/                     chunk-000000": "tests/test_blocks.py",
    "import numpy as np, pyarrow.parquet": "tests/test_blocks.py",
    "experiments:": "tests/test_blocks.py",
    "# my_package/control.py": "tests/test_blocks.py",
    "data:": "tests/test_blocks.py",
    "pipeline/         the build": "tests/test_blocks.py",
}
NOT_RUN = {
    "experiment  top dose - holdout": "output of make demo, on another machine",
    "$ mixctl preflight t/b": "output, whose times are another machine's",
    "runs/facts/build/": "a folder of mixctl control, explained",
    "SET/cpdt.json": "a folder of mixctl cpdt, explained",
    "mix.yaml + trainer.yaml": "a diagram",
    "t = (x - mean(b))": "a formula",
}


def test_every_block_of_every_page_has_a_test_or_a_reason():
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    seen, met = set(), set()
    for page in pages:
        name = page.relative_to(ROOT).as_posix()
        seen |= {(name, block.language) for block in fenced(page)}
        for text in indented(page):
            if command_lines(text):
                continue  # commands: above
            known = [first for first in {**INDENTED, **NOT_RUN} if text.startswith(first)]
            assert len(known) == 1, f"{name}: nothing runs the block {text[:60]!r}"
            met |= set(known)
    assert seen == FENCED.keys() and met == INDENTED.keys() | NOT_RUN.keys()
    for test in {*FENCED.values(), *INDENTED.values(), *ELSEWHERE.values()}:
        assert (ROOT / test).exists(), test
    for (page, _), test in FENCED.items():
        said = (ROOT / test).read_text(encoding="utf-8")
        assert Path(page).name in said, f"{test} does not read {page}"


def checked(folder, mix):
    (folder / "page.yaml").write_text(yaml.safe_dump(mix, sort_keys=False))
    done = CliRunner().invoke(cli, ["check", str(folder / "page.yaml")], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def block_of(page, beginning):
    """Returns the indented block of a page that begins like this."""
    (found,) = [text for text in indented(ROOT / "docs" / page) if text.startswith(beginning)]
    return found


def test_the_executor_of_the_page_on_scale_is_accepted(home):
    (block,) = [b for b in fenced(ROOT / "docs/at-scale.md") if b.language == "yaml"]
    checked(home, {**yaml.safe_load((home / "mix.yaml").read_text()), **yaml.safe_load(block.text)})


def test_the_steered_mix_of_the_page_is_accepted(home):
    blocks = indented(ROOT / "docs/changing-data.md")
    (block,) = [yaml.safe_load(text) for text in blocks if "\ncontrol:" in text]
    facts = block["experiments"][0]
    rows = [
        {
            "id": f"f{n}",
            "text": f"w{n} is w1",
            "paraphrases": [f"w{n} is w{k}" for k in range(2, 27)],
            "probes": [{"input": f"w{n} is", "target": "w1"}],
        }
        for n in range(8)
    ]
    write_jsonl(home / "facts.jsonl", rows)
    write_jsonl(home / "songs.jsonl", [{**row, "text": f"song {row['text']}"} for row in rows])
    trainer = yaml.safe_load((home / "trainer.yaml").read_text())
    trainer["train"]["save_interval"] = 500
    (home / "steered.yaml").write_text(yaml.safe_dump(trainer))
    songs = {**facts, "name": "songs", "items": "songs.jsonl"}
    mix = yaml.safe_load((home / "mix.yaml").read_text())
    steered = {"trainer": "steered.yaml", "experiments": [facts, songs]}
    checked(home, {**mix, **steered, "control": block["control"]})


def test_the_controller_of_the_page_decides():
    namespace = {}
    exec(block_of("changing-data.md", "# my_package"), namespace)
    made = namespace["CONTROLLER"]
    decide = made.make(made.options(most=100))
    assert decide({"n": 40}, 0.1, 0.5) == ({"n": 60}, 60)
    assert decide({"n": 90}, 0.1, 0.5) == ({"n": 100}, 100)
    assert decide({"n": 40}, 0.6, 0.5) == ({"n": 20}, 20)


def test_a_placement_is_found_by_hand_as_the_page_on_files_says(home, monkeypatch):
    shutil.copytree(home / "out/run1", home / "build")
    monkeypatch.chdir(home)
    lines = block_of("formats.md", "import numpy").rstrip().splitlines()
    lines[-1] = f"found = {lines[-1]}"
    namespace = {}
    exec("\n".join(lines), namespace)
    row, found = namespace["row"], namespace["found"]
    assert len(found) == row["length"] and payload_digest(found) == row["digest"]


def test_a_build_holds_what_the_page_on_files_lists(home):
    listed = {line.split()[0] for line in block_of("formats.md", "train/").splitlines()}
    assert ".work/" in listed
    names = {path.name for path in (home / "out/run1").iterdir()} - {"control"}
    assert {name.rstrip("/") for name in listed} - {".work"} == names | {"control/train"}
    tree = {line.split()[0] for line in _readme_tree().splitlines()}
    assert all((ROOT / name).is_dir() for name in tree) and len(tree) == 7


def _readme_tree():
    (found,) = [text for text in indented(ROOT / "README.md") if text.startswith("pipeline/")]
    return found


def test_the_gaussian_data_module_of_the_page_is_one_for_litgpt():
    (data,) = yaml.safe_load(block_of("kinds.md", "data:")).values()
    module, _, name = data["class_path"].rpartition(".")
    made = getattr(import_module(module), name)
    assert issubclass(made, LitData) and not data.get("init_args")


def test_the_row_of_the_tutorial_is_one_of_its_file():
    (block,) = [b for b in fenced(ROOT / "docs/tutorial.md") if b.language == "jsonl"]
    rows = (ROOT / "docs/tutorial/quiz.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(block.text) in [json.loads(row) for row in rows]


def test_the_completion_line_of_the_page_completes_in_bash():
    (block,) = [text for text in indented(ROOT / "docs/commands.md") if "_MIXCTL_COMPLETE" in text]
    line = block.splitlines()[0].split("#")[0]
    for typed, wanted in (
        ("mixctl exp", "export"),
        ("mixctl build --exec", "--executor"),
        ("mixctl build --executor sl", "slurm"),
        ("mixctl export lm-eval-r", "lm-eval-results"),
    ):
        words = typed.split()
        script = (
            f"{line}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}\n"
            "name=$(complete -p mixctl | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
            f'"$name" mixctl; echo "${{COMPREPLY[@]}}"\n'
        )
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == [wanted], (typed, done)
