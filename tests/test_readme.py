"""The README's mix file and commands, run as they stand on a made-up corpus."""

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.blocks import fenced
from tests.support.workspace import random_text, trainer_config, write_jsonl, write_tokenizer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text):
    """Returns the indented command lines of the README that begin with mixctl."""
    lines = re.findall(r"^    (mixctl .*)$", text, flags=re.MULTILINE)
    return [line.split("#")[0].strip() for line in lines]


def prepare(folder):
    """Writes what the README's mix file names."""
    chance = random.Random(3)
    (folder / "data/base").mkdir(parents=True)
    texts = [random_text(chance, chance.randint(50, 400)) for _ in range(5500)]
    for part in range(3):
        rows = [{"text": text} for text in texts[part::3]]
        write_jsonl(folder / f"data/base/{part}.jsonl", rows)
    write_tokenizer(folder / "checkpoints/tok")
    questions = [
        {
            "id": f"q{n}",
            "benchmark": "arc",
            "question": f"What follows w{n % 300} and w{n // 300}?",
            "choices": ["w1", "w2", "w3", "w4"],
            "gold": n % 4,
        }
        for n in range(1600)
    ]
    write_jsonl(folder / "questions.jsonl", questions)
    config = trainer_config(global_batch_size=16, max_seq_length=128, max_tokens=16 * 128 * 1000)
    config["model_config"]["block_size"] = 128
    (folder / "litgpt.yaml").write_text(yaml.safe_dump(config))
    (folder / "two-gpus.yaml").write_text(yaml.safe_dump({**config, "devices": 2}))
    late = {"name": "late", "kind": "documents", "items": "late.jsonl"}
    (folder / "late.yaml").write_text(yaml.safe_dump({"experiments": [late]}))
    write_jsonl(folder / "late.jsonl", [{"id": "d", "text": "w1 w2 w3", "copies": 4}])
    (folder / "mix.yaml").write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])


def test_the_examples_that_are_named_are_there():
    named = [line.split()[2] for line in blocks(README) if " examples/" in line]
    assert named == ["examples/train-once-answer-all.yaml", "examples/all-small.yaml"]
    for name in named:  # tests/examples runs both commands
        assert (ROOT / name).is_file()


def test_the_mix_and_the_commands_work_as_they_stand(tmp_path):
    prepare(tmp_path)
    commands = [line for line in blocks(README) if not re.search(" eval | log | examples/", line)]
    assert [line.split()[1] for line in commands] == [
        "check",
        "plan",
        "build",
        "verify",
        "show",
        "diff",
        "relayout",
        "amend",
    ]
    for line in commands:
        command = [sys.executable, "-m", "mixctl.pipeline.cli", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "mix.plan.png").exists()
    assert (tmp_path / "out/run1/litgpt-control.yaml").exists()
    assert (tmp_path / "out/run2/mix.json").exists()


def test_ones_own_text_and_questions_as_they_stand(tmp_path):
    """The commands of the section, but for the clone, the set-up, the training and its eval."""
    section = README.split("## On your own text")[1].split("\n## ")[0]
    lines = [line for line in re.findall(r"^    (\S.*)$", section, re.MULTILINE)]
    assert [re.search(r"clone|setup|init|build|pretrain|eval", line)[0] for line in lines] == [
        *("clone", "setup", "init", "build", "pretrain", "eval"),
    ]
    (tmp_path / "mixctl/.venv").mkdir(parents=True)
    os.symlink(Path(sys.executable).parent, tmp_path / "mixctl/.venv/bin")
    (question,) = [block for block in fenced(ROOT / "README.md") if block.language == "jsonl"]
    chance = random.Random(4)
    rows = [question.text.replace("Peru", random_text(chance, 6)) for _ in range(50)]
    (tmp_path / "QUESTIONS.jsonl").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "TEXTS").mkdir()
    for n in range(80):
        text = random_text(random.Random(n), 800)
        (tmp_path / "TEXTS" / f"{n}.txt").write_text(text, encoding="utf-8")
    for line in lines[2:4]:
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    for line in lines[4:]:
        words = [word for word in shlex.split(line) if "=" not in word]
        assert (tmp_path / words[0]).exists() or words[0] == "mixctl/.venv/bin/litgpt"
        assert any((tmp_path / word).exists() for word in words[2:]), line
    trained = yaml.safe_load((tmp_path / "first/build/litgpt.yaml").read_text())["out_dir"]
    assert trained == str((tmp_path / "first/out/run").resolve())


def test_every_file_that_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
