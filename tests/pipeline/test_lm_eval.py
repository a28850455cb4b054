"""Questions to lm-evaluation-harness and from it, and from saved data sets. Its own reading of the
same files is compared in test_lm_eval_peer.py."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from mixctl.pipeline.build import build
from mixctl.pipeline.cli import cli
from mixctl.pipeline.lm_eval_export import export_tasks
from mixctl.pipeline.local_rows import read_local_rows
from mixctl.pipeline.questions_import import import_task
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import read_items
from tests.support.workspace import quiz, write_jsonl

ARC = [
    {
        "question": f"Why {n}?",
        "choices": {"text": [f"a{n}", f"b{n}", f"c{n}"], "label": ["A", "B", "C"]},
        "answerKey": "ABC"[n % 3],
    }
    for n in range(6)
]
ARC_TASK = """
task: arc_like
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
"""


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def mixctl(*arguments):
    command = [sys.executable, "-m", "mixctl.pipeline.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_arm_becomes_a_task_with_the_questions_of_the_file(built, shared, tmp_path):
    paths = export_tasks(built, "quiz", tmp_path)
    names = ["mixctl_quiz", "mixctl_quiz_holdout", "mixctl_quiz_x4", "mixctl_quiz_x8"]
    assert [path.stem for path in paths] == names
    group, *tasks = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths)
    assert group["task"] == names[1:]
    asked = {row["id"]: row for row in rows_of(shared.folder / "questions.jsonl")}
    arms = {row["item"]: row["arm"] for row in read_items(built).to_pylist()}
    seen = []
    for task in tasks:
        for row in rows_of(tmp_path / f"{task['task']}.jsonl"):
            source = asked[row["id"]]
            assert row["context"] == f"Question: {source['question']}\nAnswer:"
            assert row["choices"] == [f" {choice}" for choice in source["choices"]]
            assert (row["gold"], row["benchmark"]) == (source["gold"], source["benchmark"])
            assert task["task"] == f"mixctl_quiz_{arms[row['id']]}"
            assert row["copies"] == task["metadata"]["copies"]
            seen.append(row["id"])
    assert sorted(seen) == sorted(asked)


@pytest.mark.parametrize("template", ["completion", "mcq"])
def test_every_template_is_cut_at_the_answer_and_bos_left_out(shared, tmp_path, template):
    choices = ["Zü", "Zül", "é", "Zü W"]
    rows = [{"question": f"Ü {n}:", "choices": choices, "gold": n % 4} for n in range(8)]
    write_jsonl(shared.folder / "cut.jsonl", rows)
    arms = [{"name": "all", "items": "rest", "copies": 1}]
    section = quiz(items="cut.jsonl", template=template, arms=arms, near_duplicates="keep")
    build(shared.mix(section, name="cut.yaml", bos=True), tmp_path / "out")
    export_tasks(tmp_path / "out", "quiz", tmp_path / "tasks")
    made = rows_of(tmp_path / "tasks/mixctl_quiz_all.jsonl")
    for row in made:
        source = rows[int(row["id"]) - 1]
        if template == "completion":
            assert row["context"] == source["question"]
            assert row["choices"] == [f" {choice}" for choice in source["choices"]]
        else:
            assert row["context"].startswith(f"Question: {source['question']}\nA. Zü\nB.")
            assert row["context"].endswith("D. Zü W\nAnswer:")
            assert row["choices"] == [" A", " B", " C", " D"]


def test_what_cannot_be_exported_is_said(built, tmp_path):
    done = mixctl("export", "lm-eval", built, "--experiment", "canaries", "--out", tmp_path)
    assert (
        done.returncode == 2
        and "'canaries' has another kind; lm-eval tasks are made of" in done.stderr
    )
    done = mixctl("export", "lm-eval", built, "--experiment", "quizz", "--out", tmp_path)
    assert done.returncode == 2 and "(did you mean 'quiz'?)" in done.stderr
    assert run("export", "lm-eval", built, "--experiment", "quiz", "--out", tmp_path).exit_code == 0
    done = mixctl("export", "lm-eval", built, "--experiment", "quiz", "--out", tmp_path)
    assert done.returncode == 2 and "mixctl_quiz.yaml" in done.stderr


def test_a_task_is_imported_as_its_templates_say(tmp_path):
    (tmp_path / "arc.yaml").write_text(ARC_TASK, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ARC), tmp_path / "arc.parquet")
    out = tmp_path / "questions.jsonl"
    arguments = [tmp_path / "arc.yaml", "--data", tmp_path / "arc.parquet", "--out", out]
    result = run("import", "lm-eval", *arguments)
    assert result.exit_code == 0 and "6 questions" in result.output
    assert "template: completion" in result.output
    assert rows_of(out) == [
        {
            "benchmark": "arc_like",
            "question": f"Question: Why {n}?\nAnswer:",
            "choices": [f"a{n}", f"b{n}", f"c{n}"],
            "gold": n % 3,
        }
        for n in range(6)
    ]
    again = mixctl("import", "lm-eval", *arguments)
    assert again.returncode == 2 and "is there already" in again.stderr


def test_includes_fields_lists_and_letters(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "output_type: multiple_choice\ndoc_to_text: input\ndoc_to_choice: [A, B, C, D]\n"
    )
    (tmp_path / "sub").mkdir()
    task = "include: ../base.yaml\ntask: my/task\ndoc_to_target: target\n"
    (tmp_path / "sub/task.yaml").write_text(task)
    rows = [{"input": "Q", "target": "C"}, {"input": "{{ R }}", "target": 1}]
    first, second = import_task(tmp_path / "sub/task.yaml", rows)
    assert first == {
        **{"benchmark": "my-task", "question": "Q", "choices": ["A", "B", "C", "D"], "gold": 2}
    }
    assert (second["question"], second["gold"]) == ("{{ R }}", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ question.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ choices.append(1) }}", "append"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{% include 'x' %}", "no loader"),
    ],
)
def test_templates_reach_nothing_but_the_row(tmp_path, text, message):
    task = {**yaml.safe_load(ARC_TASK), "doc_to_text": text}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(task))
    rows = [{"question": "q", "choices": ["a", "b"], "answerKey": "A"}]
    with pytest.raises(InputError, match=rf"row 1: .*{message}"):
        import_task(tmp_path / "t.yaml", rows)


def test_a_task_that_runs_python_or_is_no_choice_is_refused(tmp_path):
    (tmp_path / "t.yaml").write_text(
        "task: t\noutput_type: generate_until\nprocess_docs: !function utils.docs\n"
        "doc_to_text: q\ndoc_to_target: t\ntarget_delimiter: ''\ndescription: Answer.\n"
    )
    with pytest.raises(InputError) as found:
        import_task(tmp_path / "t.yaml", ARC)
    text = str(found.value)
    assert "process_docs: is the Python function 'utils.docs'" in text
    assert "output_type: is 'generate_until'; multiple_choice is imported" in text
    assert "target_delimiter: is ''; a payload has one space between question and answer" in text
    assert "key 'doc_to_choice' is missing" in text
    assert "description: stands before every question; put it into doc_to_text" in text
    (tmp_path / "evil.yaml").write_text("task: !!python/object/apply:os.system [ls]\n")
    with pytest.raises(InputError, match="not a task"):
        import_task(tmp_path / "evil.yaml", ARC)
    (tmp_path / "loop.yaml").write_text("include: loop.yaml\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="list.yaml: not a task .no mapping."):
        import_task(tmp_path / "list.yaml", ARC)
    with pytest.raises(InputError, match="more than 8 files deep"):
        import_task(tmp_path / "loop.yaml", ARC)


def saved(folder, rows, shards=2):
    """Writes rows as `Dataset.save_to_disk` does: arrow streams, and JSON beside them."""
    folder.mkdir(parents=True)
    for n in range(shards):
        table = pa.Table.from_pylist(rows[n * len(rows) // shards : (n + 1) * len(rows) // shards])
        name = f"data-{n:05d}-of-{shards:05d}.arrow"
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as w,
        ):
            w.write_table(table)
    (folder / "state.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")


def test_a_saved_data_set_is_read_from_disk(tmp_path):
    for split in ("test", "train"):
        saved(tmp_path / "arc" / split, ARC)
    (tmp_path / "arc/test/cache-1.arrow").write_bytes(b"not data")
    out = tmp_path / "questions.jsonl"
    fields = ("--question", "question", "--choices", "choices.text", "--gold", "answerKey")
    source = ("--data", tmp_path / "arc", "--split", "test", "--labels", "choices.label")
    result = run("import", "dataset", *source, *fields, "--benchmark", "arc", "--out", out)
    assert result.exit_code == 0, result.output
    assert rows_of(out) == [
        {
            "benchmark": "arc",
            "question": row["question"],
            "choices": row["choices"]["text"],
            "gold": n % 3,
        }
        for n, row in enumerate(ARC)
    ]
    with pytest.raises(InputError, match="--split: choose one: .* has test, train"):
        read_local_rows(tmp_path / "arc")
    with pytest.raises(InputError, match="--split: .* is a file, which has no splits"):
        read_local_rows(source_file(tmp_path), "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no saved data set .* and no parquet files"):
        read_local_rows(tmp_path / "empty")
    with pytest.raises(InputError, match="--split: no 'tests'.* did you mean 'test'|no 'tests'"):
        read_local_rows(tmp_path / "arc", "tests")


def source_file(folder):
    return write_jsonl(folder / "arc.jsonl", ARC)


def test_every_form_of_a_table_gives_the_same_rows(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ARC)
    (tmp_path / "a.json").write_text(json.dumps(ARC))
    table = pa.Table.from_pylist(ARC)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    saved(tmp_path / "set", ARC)
    for name in ("a.jsonl", "a.json", "a.parquet", "a.arrow", "set"):
        assert read_local_rows(tmp_path / name) == ARC, name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"{}\n[1]\n", "a row must be a JSON object, this is a list"),
        ("a.jsonl", b"\xff", "cannot be read"),
        ("a.jsonl", b"\n", "no rows"),
        ("a.json", b"{}", "must hold a list"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.arrow", b"nothing", "cannot be read"),
        ("a.csv", b"a,b", "must end in one of .jsonl, .json, .parquet, .arrow"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_local_rows(tmp_path / name)


def test_rows_that_are_no_question_are_all_named(tmp_path):
    rows = [
        {"q": "fine", "c": ["a", "b"], "g": "b", "name": "x y"},
        {"q": "twice", "c": ["a", "a"], "g": 0, "name": "2"},
        {"q": "far", "c": ["a", "b"], "g": 7, "name": "3"},
        {"q": "which", "c": ["a", "b"], "g": "maybe", "name": "4"},
        {"q": "flat", "c": "a", "g": 0, "name": "5"},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    arguments = ("--data", tmp_path / "rows.jsonl", "--out", tmp_path / "out.jsonl")
    fields = ("--question", "q", "--choices", "c", "--gold", "g", "--id", "name")
    done = mixctl("import", "dataset", *arguments, *fields)
    assert done.returncode == 2 and not (tmp_path / "out.jsonl").exists()
    assert "row 1" not in done.stderr
    for said in (
        "row 2: two choices are the same text",
        "row 3: gold is 7",
        "row 4: gold 'maybe' is no number, no letter and no choice",
        "row 5: 'c' must be a list, is 'a'",
    ):
        assert said in done.stderr
    done = mixctl("import", "dataset", *arguments, *fields[:-4], "--gold", "gg")
    assert "row 1: there is no field 'gg' (did you mean 'g'?)" in done.stderr
    write_jsonl(tmp_path / "rows.jsonl", rows[:1])
    assert mixctl("import", "dataset", *arguments, *fields).returncode == 0
    assert rows_of(tmp_path / "out.jsonl")[0]["id"] == "x-y"
