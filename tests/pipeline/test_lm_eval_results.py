"""Scores of lm-evaluation-harness through mixctl's statistics, and results in its shape. The
harness itself writes and reads the same files in test_lm_eval_peer.py."""

import json
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixctl.evals.lm_eval_json import export_results
from mixctl.evals.lm_eval_results import import_results
from mixctl.evals.report import write_report
from mixctl.evals.results import read_results
from mixctl.pipeline.build import build
from mixctl.pipeline.lm_eval_export import export_tasks
from mixctl.shards.errors import InputError
from mixctl.shards.locks import only_writer
from mixctl.shards.manifest import read_items
from tests.support.workspace import canaries, quiz

DATE = "2026-01-31T12-00-00.123456"


def mixctl(*arguments):
    command = [sys.executable, "-m", "mixctl.pipeline.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sample(doc, scores):
    """Returns a line as the harness writes it, with its own sums of a choice's characters."""
    lengths = [len(choice) for choice in doc["choices"]]
    normed = [score / length for score, length in zip(scores, lengths, strict=True)]
    return {
        "doc_id": 0,
        "doc": doc,
        "target": str(doc["gold"]),
        "arguments": {
            f"gen_args_{n}": {"arg_0": doc["context"], "arg_1": choice}
            for n, choice in enumerate(doc["choices"])
        },
        "resps": [[[str(score), "False"]] for score in scores],
        "filtered_resps": [[str(score), "False"] for score in scores],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": float(int(np.argmax(scores)) == doc["gold"]),
        "acc_norm": float(int(np.argmax(normed)) == doc["gold"]),
    }


def answered(tasks, folder, seed, lift):
    """Writes what the harness would of a model whose gold answers are lifted by arm."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)
    for path in sorted(tasks.glob("mixctl_*.jsonl")):
        rows = []
        for doc in rows_of(path):
            scores = [-round(chance.uniform(5, 15), 6) for _ in doc["choices"]]
            scores[doc["gold"]] += lift.get(path.stem.rpartition("_")[2], 0)
            rows.append(sample(doc, scores))
        write_rows(folder / f"samples_{path.stem}_{DATE}.jsonl", rows)
    said = {"lm_eval_version": "0.4.13"}
    (folder / f"results_{DATE}.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def harness(built, tmp_path_factory):
    """Returns what the harness wrote of two checkpoints of a run and of its twin."""
    folder = tmp_path_factory.mktemp("harness")
    export_tasks(built, "quiz", folder / "tasks")
    for step, lift in ((100, 2), (200, 9)):
        arms = {"x4": lift / 2, "x8": lift}
        answered(folder / "tasks", folder / f"run/out__step-00000{step}", step, arms)
        answered(folder / "tasks", folder / f"twin/twin__step-00000{step}", step + 1, {})
    return folder


@pytest.fixture
def copied(harness, tmp_path):
    """Returns a copy of one model's folder."""
    folder = tmp_path / "out__step-00000200"
    folder.mkdir()
    for path in (harness / "run/out__step-00000200").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_the_harness_scores_are_joined_to_items_and_arms(built, harness, tmp_path):
    out = tmp_path / "results"
    found = import_results(built, [harness / "run"], out, [harness / "twin"])
    arms = {row["item"]: row["arm"] for row in read_items(built).to_pylist()}
    for step in (100, 200):
        folder = harness / f"run/out__step-00000{step}"
        lines = [row for path in folder.glob("samples_*.jsonl") for row in rows_of(path)]
        for arm in ("holdout", "x4", "x8"):
            mine = [row for row in lines if arms[row["doc"]["id"]] == arm]
            for metric in ("acc", "acc_norm"):
                (row,) = rows(found, step, arm, metric, "level", "run")
                assert row.n == len(mine) == 20
                assert row.estimate == pytest.approx(np.mean([one[metric] for one in mine]))
            (row,) = rows(found, step, arm, "gold_loglikelihood", "level", "run")
            gold = [float(one["resps"][one["doc"]["gold"]][0][0]) for one in mine]
            assert row.estimate == pytest.approx(np.mean(gold))
    (table,) = [
        pq.read_table(path).to_pylist() for path in (out / "samples").glob("run-00000200-*.parquet")
    ]
    assert {row["item"]: row["arm"] for row in table}.items() <= arms.items()
    assert {row["seen"] for row in table if row["arm"] == "holdout"} == {0}
    gold = {row["doc"]["id"]: float(row["resps"][row["doc"]["gold"]][0][0]) for row in lines}
    assert {row["item"]: row["loglikelihood"] for row in table} == gold
    assert len(gold) == 60


def rows(found, step, arm, metric, contrast, model):
    return [
        row
        for row in found.rows
        if (row.step, row.arm, row.metric, row.contrast, row.model, row.stratum)
        == (step, arm, metric, contrast, model, None)
    ]


def test_our_statistics_and_report_take_them(built, harness, tmp_path):
    out = tmp_path / "results"
    found = import_results(built, [harness / "run"], out, [harness / "twin"])
    (primary,) = found.primary
    said = (primary.metric, primary.arm, primary.step, primary.contrast)
    assert said == ("acc", "x8", 200, "did")
    levels = {
        (arm, model): rows(found, 200, arm, "acc", "level", model)[0].estimate
        for arm in ("holdout", "x8")
        for model in ("run", "twin")
    }
    effect = [levels["x8", m] - levels["holdout", m] for m in ("run", "twin")]
    assert primary.estimate == pytest.approx(effect[0] - effect[1])
    assert primary.p_value < 0.01 and primary.q_value == primary.p_value
    page = write_report(out).read_text(encoding="utf-8")
    assert "log-likelihoods by lm-evaluation-harness (0.4.13); what the models were trained" in page
    again = read_results(out)
    assert again.rows == found.rows and again.summary["scored_by"] == "lm-evaluation-harness"


def test_questions_normalised_by_characters_are_judged_by_acc_norm(shared, tmp_path):
    mix = shared.mix(quiz(normalisation="characters"), name="characters.yaml")
    build(mix, tmp_path / "out")
    export_tasks(tmp_path / "out", "quiz", tmp_path / "tasks")
    answered(tmp_path / "tasks", tmp_path / "mine-step-200", 1, {"x8": 9})
    found = import_results(tmp_path / "out", [tmp_path / "mine-step-200"], tmp_path / "results")
    assert [row.metric for row in found.primary] == ["acc_norm"]


def test_the_commands_go_there_and_back(built, harness, tmp_path):
    out = tmp_path / "results"
    asked = ["import", "lm-eval-results", built, harness / "run", "--out", out]
    done = mixctl(*asked)
    assert done.returncode == 0, done.stderr
    assert "quiz" in done.stdout and "report.html" in done.stdout
    assert json.loads(mixctl(*asked, "--json").stdout)["primary"][0]["contrast"] == "holdout"
    done = mixctl("export", "lm-eval-results", out, "--out", tmp_path / "back", "--json")
    paths = json.loads(done.stdout)["files"]
    assert len(paths) == 2 and all("step-00000" in path for path in paths)


def test_results_have_the_shape_of_the_harness(built, harness, tmp_path):
    found = import_results(built, [harness / "run"], tmp_path / "r", [harness / "twin"])
    paths = export_results(found, tmp_path / "back")
    assert len(paths) == 4
    for path in paths:
        plain = json.loads(path.read_text(encoding="utf-8"))
        assert path.name.startswith("results_") and plain["n-shot"]["mixctl_quiz_x8"] == 0
        model = "run" if "run" in plain["model_name"] else "twin"
        step = plain["configs"]["mixctl_quiz_x8"]["metadata"]["step"]
        for arm in ("holdout", "x4", "x8"):
            task = plain["results"][f"mixctl_quiz_{arm}"]
            (row,) = rows(found, step, arm, "acc", "level", model)
            assert task["acc,none"] == row.estimate and task["acc_stderr,none"] == row.se
            assert plain["n-samples"][f"mixctl_quiz_{arm}"] == {"original": 20, "effective": 20}
            assert ("acc,holdout" in task) == (arm != "holdout")
            assert ("acc,did" in task) == (arm != "holdout" and model == "run")
        assert plain["group_subtasks"]["mixctl_quiz"] == [
            name for name in plain["results"] if name.startswith("mixctl_quiz_")
        ]


def test_a_step_is_named_or_unknown(built, harness, tmp_path):
    tasks = harness / "tasks"
    answered(tasks, tmp_path / "harness/mine", 1, {})
    found = import_results(built, [tmp_path / "harness"], tmp_path / "a")
    assert found.summary["checkpoints"][0]["step"] is None
    assert any("counted as after all placements" in note for note in found.notes)
    assert {row.dose for row in found.rows if row.arm == "x8"} == {8}
    found = import_results(built, [tmp_path / "harness"], tmp_path / "a", step=40)
    assert found.summary["checkpoints"][0]["step"] == 40
    assert len(list((tmp_path / "a/samples").iterdir())) == 1


def test_what_was_asked_otherwise_is_said(built, copied, tmp_path):
    path = copied / f"samples_mixctl_quiz_x4_{DATE}.jsonl"
    lines = rows_of(path)
    lines[3]["arguments"]["gen_args_0"]["arg_0"] = "An example first.\n\n"
    write_rows(path, lines)
    older = path.with_name(f"samples_mixctl_quiz_x4_{DATE.replace('2026', '2025')}.jsonl")
    write_rows(older, lines[:1])
    notes = import_results(built, [copied], tmp_path / "results").notes
    assert any("1 items were asked with more than the question" in note for note in notes)
    assert any("run more than once, the newest counts: mixctl_quiz_x4" in note for note in notes)


def refused(built, folder, tmp_path, **options):
    with pytest.raises(InputError) as found:
        import_results(built, [folder], tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
    return str(found.value)


def test_every_item_must_be_there_once(built, copied, tmp_path):
    path = copied / f"samples_mixctl_quiz_x4_{DATE}.jsonl"
    lines = rows_of(path)
    write_rows(path, lines[1:])
    said = refused(built, copied, tmp_path)
    assert f"1 of 60 items of experiment 'quiz' have no sample ('{lines[0]['doc']['id']}'" in said
    assert "arms x4" in said and "without --limit" in said
    write_rows(path, [*lines, lines[0]])
    assert f"line 21: item '{lines[0]['doc']['id']}' is there twice" in refused(
        built, copied, tmp_path
    )
    path.unlink()
    assert "20 of 60 items" in refused(built, copied, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["doc"].update(context="Question: other?"), "context is not that of the build"),
        (lambda s: s["doc"].update(gold=9, copies=7), "copies, gold are not that of the build"),
        (lambda s: s["doc"].update(id="nobody"), "the experiment has no item 'nobody'"),
        (lambda s: s.update(filtered_resps=[["-1", "x"]]), "1 log-likelihoods of 4 choices"),
        (
            lambda s: s["filtered_resps"][0].__setitem__(0, "nan"),
            "filtered_resps.0.0: Input should be a finite",
        ),
        (
            lambda s: s["filtered_resps"][0].__setitem__(0, None),
            "filtered_resps.0.0: Input should be a valid",
        ),
        (lambda s: s["filtered_resps"].__setitem__(0, []), "filtered_resps.0.0: Field required"),
        (lambda s: s.pop("arguments"), "no sample of lm_eval: arguments: Field"),
        (lambda s: s.pop("acc_norm"), "no sample of lm_eval: acc_norm: Field"),
        (lambda s: s.update(doc=3), "no sample of lm_eval: doc: Input"),
    ],
)
def test_what_is_not_of_the_build_is_refused(built, copied, tmp_path, change, message):
    path = copied / f"samples_mixctl_quiz_x8_{DATE}.jsonl"
    lines = rows_of(path)
    change(lines[4])
    write_rows(path, lines)
    said = refused(built, copied, tmp_path)
    assert f"{path}, line 5: " in said and message in said


def test_folders_and_files_that_are_none(built, harness, copied, tmp_path):
    assert "no such folder" in refused(built, tmp_path / "nothing", tmp_path)
    assert "holds no samples_mixctl_" in refused(built, harness / "tasks", tmp_path)
    path = copied / f"samples_mixctl_quiz_x8_{DATE}.jsonl"
    path.rename(path.with_name(f"samples_mixctl_quizz_x8_{DATE}.jsonl"))
    said = refused(built, copied, tmp_path)
    assert "no such experiment and arm (did you mean 'mixctl_quiz_x8'?)" in said
    said = refused(built, harness / "run", tmp_path, baselines=[harness / "run"])
    assert "the same model cannot be the run and its baseline" in said
    said = refused(built, harness, tmp_path)  # holds no folder of a model itself
    assert "holds no samples_mixctl_" in said


def test_two_models_of_one_step_are_refused(built, harness, tmp_path):
    both = [harness / "run", harness / "twin"]
    with pytest.raises(InputError, match="step 100 is also that of"):
        import_results(built, both, tmp_path / "results")


def test_a_training_given_twice_counts_once(built, harness, copied, tmp_path):
    twins = [copied, copied.rename(tmp_path / "again__step-00000200")]
    found = import_results(
        built, [harness / "twin"], tmp_path / "results", [harness / "run", twins[1]]
    )
    assert len(found.summary["baselines"]) == 2
    assert any("the same training, counted once" in note for note in found.notes)


def test_results_of_an_eval_are_not_written_over(built, harness, tmp_path):
    out = tmp_path / "results"
    import_results(built, [harness / "run"], out)
    summary = json.loads((out / "results.json").read_text())
    summary.pop("scored_by")
    (out / "results.json").write_text(json.dumps(summary))
    for interrupted in (False, True):
        if interrupted:  # samples of an eval that goes on when it is run again
            (out / "results.json").unlink()
        with pytest.raises(InputError, match="holds results of `mixctl eval`"):
            import_results(built, [harness / "run"], out)
        assert list((out / "samples").iterdir())


def test_all_models_are_of_the_same_experiments(shared, tmp_path):
    mix = shared.mix(quiz(), quiz(name="other"), name="both.yaml")
    build(mix, tmp_path / "out")
    for name in ("quiz", "other"):
        export_tasks(tmp_path / "out", name, tmp_path / name)
    answered(tmp_path / "quiz", tmp_path / "h/step-1", 1, {})
    answered(tmp_path / "quiz", tmp_path / "h/step-2", 2, {})
    import_results(tmp_path / "out", [tmp_path / "h"], tmp_path / "results")
    for path in (tmp_path / "other").glob("mixctl_other_*.jsonl"):
        lines = [sample(doc, [-1, -2, -3, -4]) for doc in rows_of(path)]
        write_rows(tmp_path / f"h/step-2/samples_{path.stem}_{DATE}.jsonl", lines)
    said = refused(tmp_path / "out", tmp_path / "h", tmp_path / "again")
    assert "step-1: has no samples of experiment 'other', other models have" in said


def test_a_build_without_questions_or_tokenizer_is_refused(shared, harness, tmp_path):
    build(shared.mix(canaries(), name="canaries.yaml"), tmp_path / "canaries")
    said = refused(tmp_path / "canaries", harness / "run", tmp_path / "a")
    assert "has no experiment of the kind contamination" in said
    build(shared.mix(quiz(), name="alone.yaml"), tmp_path / "out")
    (tmp_path / "out/tokenizer/tokenizer.json").unlink()
    said = refused(tmp_path / "out", harness / "run", tmp_path / "a")
    assert "tokenizer.json: missing, the questions cannot be read" in said


def test_results_without_a_number_have_nothing_to_export(built, harness, tmp_path):
    found = import_results(built, [harness / "run"], tmp_path / "results")
    with pytest.raises(InputError, match="no row of the results has a number"):
        export_results(replace(found, rows=[]), tmp_path / "back")


def test_a_folder_that_another_process_writes_is_left_alone(built, harness, tmp_path):
    with only_writer(tmp_path / "r"), pytest.raises(InputError, match="another mixctl is writing"):
        import_results(built, [harness / "run"], tmp_path / "r")
    assert not (tmp_path / "r").exists()
