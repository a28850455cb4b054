"""`mixctl init`: what it writes builds as it is, reads one's own files, and overwrites nothing."""

import json
import random
import re
import shlex
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mixctl.pipeline.build import build
from mixctl.pipeline.cli import cli
from mixctl.pipeline.init import HIGH_DOSE, LOW_DOSE, NAMES, init
from mixctl.pipeline.planning import plan_mix
from mixctl.pipeline.text import print_starter
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import read_items, read_placements
from mixctl.shards.verify import verify
from tests.support.workspace import random_text, write_jsonl


def contents(folder):
    """Returns the digest of every file below the folder."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def questions(count, words=3):
    chance = random.Random(5)
    return [
        {
            "id": f"q{n}",
            "question": f"Which of them, number {n}: {random_text(chance, words)}?",
            "choices": [f"w{n + j}" for j in range(4)],
            "gold": n % 4,
        }
        for n in range(count)
    ]


def texts(folder, count=60, words=300, suffix=".txt"):
    """Returns a folder of texts, a file a document."""
    chance = random.Random(9)
    folder.mkdir(parents=True)
    for n in range(count):
        (folder / f"text {n}{suffix}").write_text(random_text(chance, words), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    """Returns the folder of a starter mix."""
    return init(tmp_path_factory.mktemp("init") / "first").parent


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Returns a folder with a starter mix on a small folder of text and 50 questions."""
    folder = tmp_path_factory.mktemp("own")
    texts(folder / "my texts")
    write_jsonl(folder / "quiz.jsonl", questions(50))
    init(folder / "first", str(folder / "my texts"), folder / "quiz.jsonl")
    return folder


def test_the_starter_builds_and_verifies_as_it_is(starter, tmp_path):
    record = build(starter / "mix.yaml", tmp_path / "out", control=True)
    report = verify(tmp_path / "out", full=True)
    assert report.placements == sum(total.placements for total in record.totals.values())
    items = read_items(tmp_path / "out").to_pylist()
    doses = {(row["experiment"], row["arm"], row["copies"]) for row in items}
    assert doses == {
        *{("leak", "holdout", 0), ("leak", "x16", 16), ("leak", "x64", 64)},
        *{("secrets", "holdout", 0), ("secrets", "x4", 4), ("secrets", "x32", 32)},
    }
    assert not record.config["corpus"]["repeat"]
    assert sum(total.share for total in record.totals.values()) < 0.25


def test_it_is_the_same_every_time(starter, tmp_path):
    again = init(tmp_path / "again").parent
    one, other = contents(starter), contents(again)
    assert (
        one.keys()
        == other.keys()
        == {
            *set(NAMES) - {"tokenizer"},
            *("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
        }
    )
    assert {name for name in one if one[name] != other[name]} == {"trainer.yaml"}  # its out_dir


def test_an_editor_finds_the_schema_and_the_mix_fits_it(starter):
    jsonschema = pytest.importorskip("jsonschema")
    first = (starter / "mix.yaml").read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    schema = json.loads((starter / named[1]).read_text(encoding="utf-8"))
    mix = yaml.safe_load((starter / "mix.yaml").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(mix)
    mix["experiments"][0]["arms"][0]["copeis"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(mix)


def test_the_printed_commands_can_be_typed_as_they_are(own, monkeypatch, capsys):
    monkeypatch.chdir(own)
    print_starter(own / "first/mix.yaml")
    lines = capsys.readouterr().out.splitlines()
    commands = {
        line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ":" in line
    }
    for name in ("Look at it", "Build it"):
        done = subprocess.run(
            commands[name], shell=True, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    trainings = [line for line in lines if line.startswith("Train it")]
    configs = [Path(shlex.split(line)[-1]) for line in trainings]
    assert [config.name for config in configs] == ["litgpt.yaml", "litgpt-control.yaml"]
    program = shlex.split(trainings[0].removeprefix("Train it:"))[2]
    assert "/" not in program or Path(program).is_file()
    run, twin = shlex.split(commands["Score both"])[3:6:2]
    found = [yaml.safe_load(config.read_text(encoding="utf-8"))["out_dir"] for config in configs]
    assert (
        found
        == [str(Path(run).resolve()), str(Path(twin).resolve())]
        == [
            str(own / "first/out/run"),
            str(own / "first/out/run-control"),
        ]
    )


def test_ones_own_files_are_read_where_they_are(own):
    mix = yaml.safe_load((own / "first/mix.yaml").read_text(encoding="utf-8"))
    assert mix["corpus"] == {"path": "../my texts", "format": "text", "repeat": True}
    assert mix["experiments"][0]["items"] == "../quiz.jsonl"
    assert not (own / "first/corpus.jsonl").exists()
    leak, _ = plan_mix(own / "first/mix.yaml").experiments
    assert len(leak.assigned.items) == 50
    assert len(leak.copies) == 12 * (LOW_DOSE + HIGH_DOSE)


def test_long_questions_get_long_sequences(tmp_path):
    rows = [{"body": random_text(random.Random(n), 600)} for n in range(100)]
    write_jsonl(tmp_path / "base.jsonl", rows)
    write_jsonl(tmp_path / "quiz.jsonl", questions(40, words=150))
    mix = init(tmp_path / "d", str(tmp_path / "base.jsonl"), tmp_path / "quiz.jsonl", "body")
    plan = plan_mix(mix)
    longest = plan.experiments[0].longest_payload
    assert 128 <= longest < plan.topology.max_seq_length <= 2 * longest
    assert plan.topology.global_batch * plan.topology.max_seq_length == 1024
    build(mix, tmp_path / "out")
    verify(tmp_path / "out", full=True)
    assert set(read_placements(tmp_path / "out")["experiment"].to_pylist()) == {"leak", "secrets"}


def test_other_texts_than_txt_are_found_by_their_suffix(tmp_path):
    texts(tmp_path / "notes", suffix=".md")
    (tmp_path / "notes/logo.png").write_bytes(b"\x89PNG")
    corpus = yaml.safe_load(init(tmp_path / "d", str(tmp_path / "notes")).read_text())["corpus"]
    assert (corpus["format"], corpus["glob"]) == ("text", "*.md*")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=f"holds {name} already, and nothing is overwritten"):
        init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


def test_a_folder_with_other_files_may_be_used(own, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    init(tmp_path, str(own / "my texts"), own / "quiz.jsonl")
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("notes.txt", "mix.yaml", "mix.schema.json", "trainer.yaml", "tokenizer"),
    }


def test_all_problems_at_once_and_nothing_written(tmp_path):
    (tmp_path / "quiz.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    arguments = ["--corpus", tmp_path / "no", "--questions", tmp_path / "quiz.jsonl"]
    command = [
        sys.executable,
        "-m",
        "mixctl.pipeline.cli",
        "init",
        tmp_path / "d/first",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--corpus: corpus: path:" in done.stderr and "no such file or folder" in done.stderr
    assert "--questions: " in done.stderr and "field 'choices' is missing" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["quiz.jsonl"]


def test_a_question_file_of_another_sort_is_told_what_one_is(tmp_path):
    (tmp_path / "quiz.csv").write_text("question,a,b\nwhy?,x,y\n", encoding="utf-8")
    with pytest.raises(InputError) as found:
        init(tmp_path / "d", None, tmp_path / "quiz.csv")
    assert "quiz.csv: a question file is JSON lines" in found.value.problems[-1]
    assert "mixctl import dataset" in found.value.problems[-1]
    assert not (tmp_path / "d").exists()


def test_what_is_too_small_or_too_long_is_said(tmp_path):
    texts(tmp_path / "few", count=2)
    (tmp_path / "book.txt").write_text(random_text(random.Random(2), 60_000), encoding="utf-8")
    write_jsonl(tmp_path / "three.jsonl", questions(3))
    write_jsonl(tmp_path / "long.jsonl", questions(8, words=1500))
    for corpus, rows, message in (
        (None, "three.jsonl", "holds 3 questions; the starter's arms need at least 8"),
        (None, "long.jsonl", "tokens, the starter's longest sequence has 2048"),
        ("few", None, "tokens; the starter needs at least 16512"),
        ("book.txt", None, "one of its 1 documents holds 120001 of 120001 tokens, and whole"),
    ):
        with pytest.raises(InputError, match=message):
            init(tmp_path / "d", corpus and str(tmp_path / corpus), rows and tmp_path / rows)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("few", "book.txt", "three.jsonl", "long.jsonl"),
    }


def test_questions_that_would_not_build_are_refused_and_nothing_is_written(tmp_path):
    """All of one cluster: no arm could take them."""
    rows = [{**row, "question": "Which of them?", "id": f"q{n}"} for n, row in
            enumerate(questions(1) * 12)]  # fmt: skip
    write_jsonl(tmp_path / "same.jsonl", rows)
    with pytest.raises(InputError, match=r"/d/mix\.yaml: .* item .q0. is one of 12"):
        init(tmp_path / "d", None, tmp_path / "same.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["same.jsonl"]


@pytest.mark.parametrize("name", ['say "hi"', "#1: a", "ünï", "true", "- x", "{a}", "x\\n"])
def test_any_name_of_a_corpus_stands_in_the_mix(tmp_path, name):
    texts(tmp_path / name)
    mix = init(tmp_path / "d", str(tmp_path / name), None)
    assert yaml.safe_load(mix.read_text(encoding="utf-8"))["corpus"]["path"] == f"../{name}"


def test_the_json_names_the_mix(own, tmp_path):
    arguments = ["--corpus", own / "my texts", "--questions", own / "quiz.jsonl", "--json"]
    result = CliRunner().invoke(cli, ["init", str(tmp_path / "x"), *map(str, arguments)])
    assert json.loads(result.output) == {"mix": str(tmp_path / "x/mix.yaml")}
