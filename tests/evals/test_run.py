"""A whole eval of a tiny study: what is found, what is repeatable, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from mixctl.evals import cli, run, scoring
from mixctl.evals.checkpoint import load_model, read_checkpoint
from mixctl.evals.forward import token_logprobs
from mixctl.evals.rows import SCHEMA
from mixctl.evals.scorers.documents import DocumentsScorer
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import ITEMS
from tests.evals import tiny


def _rows(found, **wanted):
    return [r for r in found.rows if all(getattr(r, n) == v for n, v in wanted.items())]


def test_every_planted_effect_is_found_and_none_in_the_twin(evaluated):
    found, _, _ = evaluated
    assert [row.experiment for row in found.primary] == ["facts", "leak", "secrets"]
    for row in found.primary:
        assert (row.arm, row.contrast, row.step, row.dose) == ("x8", "did", 10, 8.0)
        assert row.estimate > 0 and row.p_value < 1e-2 and row.ci_low > 0
        assert row.p_value <= row.q_value < 0.05
        (twin,) = _rows(
            found,
            experiment=row.experiment,
            arm="x8",
            metric=row.metric,
            model="twin",
            step=10,
            contrast="holdout",
            stratum=None,
        )
        assert twin.p_value > 1e-3 and twin.q_value is None
    assert found.primary[2].p_value < 1e-6


def test_contrasts_add_up(evaluated):
    found, _, _ = evaluated
    at = {"experiment": "secrets", "metric": "loglikelihood", "stratum": None, "step": 10}

    def value(model, contrast, arm):
        (row,) = _rows(found, **at, model=model, contrast=contrast, arm=arm)
        return row.estimate

    run_gap, twin_gap = value("run", "holdout", "x8"), value("twin", "holdout", "x8")
    level_gap = value("run", "level", "x8") - value("run", "level", "holdout")
    assert run_gap == pytest.approx(level_gap)
    assert value("run", "did", "x8") == pytest.approx(run_gap - twin_gap)
    assert value("run", "twin", "x8") == pytest.approx(
        value("run", "level", "x8") - value("twin", "level", "x8")
    )


def test_run_level_contrasts_have_no_p_value_and_say_why(evaluated):
    found, _, _ = evaluated
    twins = [row for row in found.rows if row.contrast == "twin"]
    assert twins and all(row.p_value is None for row in twins)
    of_items = [row for row in twins if row.arm != "weights"]
    assert all(row.ci_low is not None for row in of_items)
    assert all("conditional on this pair of runs; no p-value" in row.note for row in of_items)


def test_dose_is_what_was_seen_by_the_step(evaluated, study):
    found, out, _ = evaluated
    doses = {(row.arm, row.step): row.dose for row in found.rows if row.experiment == "secrets"}
    assert doses[("x8", 5)] == 5 and doses[("x8", 10)] == 8 and doses[("x2", 5)] == 2
    tables = [pq.read_table(path).to_pylist() for path in sorted(out.glob("samples/*.parquet"))]
    seen = {(r["model"], r["step"], r["arm"], r["seen"]) for rows in tables for r in rows}
    assert ("run", 5, "x8", 5) in seen and ("twin", 10, "x8", 0) in seen


def test_auc_tpr_and_strata(evaluated):
    found, _, _ = evaluated
    (auc,) = _rows(found, experiment="secrets", metric="auc", arm="x8", model="run", step=10,
                   contrast="holdout")  # fmt: skip
    assert auc.estimate == 1.0 and auc.sided == "greater" and "Mann-Whitney, exact" in auc.test
    tpr = _rows(found, metric="tpr_at_1pct_fpr")
    assert tpr and all(r.estimate is None and "not resolvable" in r.note for r in tpr)
    strata = {row.stratum for row in found.rows if row.experiment == "leak"}
    assert strata == {None, "b0", "b1"}
    exposure = _rows(found, metric="exposure", contrast="level", arm="x8", model="run", step=10)
    assert 2.5 < exposure[0].estimate <= 3 and "7 sampled candidates" in exposure[0].note


def test_samples_equal_an_independent_score(evaluated, study):
    _, out, _ = evaluated
    (path,) = out.glob("samples/run-00000010-*.parquet")
    rows = [r for r in pq.read_table(path).to_pylist() if r["experiment"] == "facts"]
    model = load_model(read_checkpoint(study.run / "step-00000010"))
    items = pq.read_table(study.build / "manifest/items.parquet").to_pylist()
    of = {i["item"]: i for i in items if i["experiment"] == "facts"}
    from mixctl.evals.scorers.base import Item

    for row in rows[::9]:
        item = Item("facts", row["item"], np.array(of[row["item"]]["tokens"]), "{}")
        logprobs = token_logprobs(model, DocumentsScorer().requests(item, [0]))[0][0]
        assert row["loglikelihood"] == pytest.approx(logprobs.sum(), abs=1e-4)
        assert row["n_tokens"] == 12


def test_columns_are_those_of_the_contract(evaluated):
    _, out, _ = evaluated
    contract = (
        "experiment kind arm dose stratum metric checkpoint step contrast estimate se ci_low "
        "ci_high n p_value sided test primary family q_value mde note"
    )
    names = pq.read_schema(out / "results.parquet").names
    assert set(contract.split()) <= set(names) == set(SCHEMA.names)
    samples = pq.read_schema(next(out.glob("samples/*.parquet"))).names
    assert {"experiment", "item", "checkpoint", "n_tokens", "loglikelihood"} <= set(samples)


def test_again_gives_the_same_bytes_and_reuses_samples(evaluated, monkeypatch):
    _, out, settings = evaluated
    before = (out / "results.parquet").read_bytes()
    monkeypatch.setattr(scoring, "token_logprobs", None)  # scoring again would fail
    run.evaluate(settings)
    assert (out / "results.parquet").read_bytes() == before


def test_an_interrupted_eval_continues(evaluated, tmp_path, monkeypatch):
    _, out, settings = evaluated
    partial = tmp_path / "partial"
    shutil.copytree(out, partial)
    (partial / "results.json").unlink()
    (partial / "results.parquet").unlink()
    next(partial.glob("samples/run-00000010-*.parquet")).unlink()
    calls = []
    real = scoring.token_logprobs
    monkeypatch.setattr(scoring, "token_logprobs", lambda *a, **k: calls.append(1) or real(*a, **k))
    run.evaluate(run.Settings(settings.build, settings.checkpoints, partial, settings.baselines))
    assert len(calls) == 1
    assert (partial / "results.parquet").read_bytes() == (out / "results.parquet").read_bytes()


def test_a_tokenizer_that_appears_or_goes_is_scored_anew(study, tmp_path, monkeypatch):
    build = shutil.copytree(study.build, tmp_path / "build")
    settings = run.Settings(build, (study.run / "step-00000010",), tmp_path / "out")
    calls = []
    real = scoring.token_logprobs
    monkeypatch.setattr(scoring, "token_logprobs", lambda *a, **k: calls.append(1) or real(*a, **k))
    run.evaluate(settings)
    (build / "tokenizer").mkdir()
    for words in ("one", "two"):
        Tokenizer(WordLevel({words: 0}, words)).save(str(build / "tokenizer/tokenizer.json"))
        run.evaluate(settings)
    assert len(calls) == 3
    run.evaluate(settings)
    assert len(calls) == 3
    shutil.rmtree(build / "tokenizer")
    run.evaluate(settings)
    assert len(calls) == 4


def test_a_failing_scorer_is_an_error_of_its_experiment(study, tmp_path, monkeypatch):
    def explode(self, item, logprobs, outputs):
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr(DocumentsScorer, "score_generated", explode)
    arguments = [str(study.build), str(study.run / "step-00000010"), "--out", str(tmp_path / "r")]
    result = CliRunner().invoke(cli.eval_command, arguments)
    assert result.exit_code == 1
    assert "leak" in result.output and "report.html" in result.output
    assert "experiment facts: not scored: ZeroDivisionError: one over nothing" in result.output
    summary = json.loads((tmp_path / "r/results.json").read_text())
    assert list(summary["errors"]) == ["facts"]
    rows = pq.read_table(tmp_path / "r/results.parquet").to_pylist()
    facts = [row for row in rows if row["experiment"] == "facts"]
    assert len(facts) == 1 and facts[0]["estimate"] is None and "not scored" in facts[0]["note"]
    assert any(row["experiment"] == "leak" and row["primary"] for row in rows)
    assert "one over nothing" in (tmp_path / "r/report.html").read_text()


def test_a_failed_experiment_alone_is_scored_again(evaluated, tmp_path, monkeypatch):
    _, out, settings = evaluated
    again = tmp_path / "again"
    mine = run.Settings(settings.build, settings.checkpoints, again, settings.baselines)
    score = DocumentsScorer.score_generated
    monkeypatch.setattr(DocumentsScorer, "score_generated", None)
    assert list(run.evaluate(mine).errors) == ["facts"]
    monkeypatch.setattr(DocumentsScorer, "score_generated", score)
    asked = []
    real = scoring.token_logprobs

    def watched(model, requests, **options):
        asked.extend(request.label for request in requests)
        return real(model, requests, **options)

    monkeypatch.setattr(scoring, "token_logprobs", watched)
    assert run.evaluate(mine).errors == {}
    assert asked and all("facts" in label for label in asked)
    found, whole = (pq.read_table(at / "results.parquet").to_pylist() for at in (again, out))
    for row, expected in zip(found, whole, strict=True):
        for name, value in expected.items():  # other batches round otherwise
            near = isinstance(value, float)
            assert row[name] == (pytest.approx(value, rel=1e-3, abs=1e-5) if near else value)


@pytest.mark.parametrize("part", ["token_logprobs", "generate"])
def test_a_pass_that_fails_takes_only_those_out_that_cannot_be_computed(
    study, tmp_path, monkeypatch, part
):
    real = getattr(scoring, part)

    def short_of_memory(model, asked, *more, **options):
        if any("facts" in one.label for one in asked):
            raise RuntimeError("CUDA out of memory")
        return real(model, asked, *more, **options)

    monkeypatch.setattr(scoring, part, short_of_memory)
    build = study.build
    if part == "generate":
        build = _with_long_documents(tmp_path / "build")
    settings = run.Settings(build, (study.run / "step-00000010",), tmp_path / "out")
    if part == "generate":
        made = tiny.make_checkpoint(tmp_path / "c", tiny.tiny_model(), build, 10)
        settings = run.Settings(build, (made,), tmp_path / "out")
    found = run.evaluate(settings)
    assert found.errors == {"facts": "RuntimeError: CUDA out of memory"}
    assert {row.experiment for row in found.primary if row.estimate is not None} >= {"leak"}


def _with_long_documents(folder):
    """Returns a build with facts that are asked and questions that are not."""
    facts = tiny.documents({"holdout": (2, 0), "x1": (2, 1)})
    probe = {"id": "p", "type": "semantic", "input_tokens": [3, 4], "target_tokens": [5]}
    for item in facts:
        item.meta = json.dumps({"probes": [probe]})
    leak = tiny.questions({"holdout": (4, 0), "x1": (4, 1)})
    return tiny.make_build(folder, {"facts": ("knowledge", facts), "leak": ("contamination", leak)})


def test_a_hugging_face_checkpoint_is_scored_like_any_other(study, tmp_path):
    models = Path(__file__).parent / "hugging_face"
    out = tmp_path / "out"
    settings = run.Settings(study.build, (models / "llama",), out, step=10)
    found = run.evaluate(settings)
    assert found.errors == {} and found.summary["checkpoints"][0]["folder"].endswith("face/llama")
    assert all(row.checkpoint.endswith("hugging_face/llama") for row in found.rows)
    assert len(list((out / "converted").iterdir())) == 1
    with pytest.raises(InputError, match="step 10 is also that of"):
        run.evaluate(run.Settings(study.build, (models / "llama", models / "qwen2"), out, step=10))
    assert len(list((out / "converted").iterdir())) == 1
    with pytest.raises(InputError, match="step is 11"):
        run.evaluate(run.Settings(study.build, (models / "qwen2",), tmp_path / "none", step=11))
    assert not (tmp_path / "none").exists()


def test_an_unknown_kind_and_a_too_long_item_spare_the_others(study, tmp_path):
    canary = tiny.canaries({"holdout": (4, 0), "x1": (4, 1)})
    long = tiny.documents({"holdout": (2, 0)})
    long[0].tokens = [1] * 40
    experiments = {
        "good": ("memorization", canary),
        "long": ("documents", long),
        "odd": ("haiku", tiny.documents({"holdout": (2, 0)})),
    }
    build = tiny.make_build(tmp_path / "build", experiments)
    made = tiny.make_checkpoint(tmp_path / "c", tiny.tiny_model(), build, 10)
    found = run.evaluate(run.Settings(build, (made,), tmp_path / "out"))
    assert "no scorer is registered for kind 'haiku'" in found.errors["odd"]
    assert "40 tokens to read, the model's limit is 32" in found.errors["long"]
    assert found.primary[0].experiment == "good" and found.primary[0].contrast == "holdout"


def test_without_holdout_the_primary_row_says_so(tmp_path):
    build = tiny.make_build(
        tmp_path / "build", {"facts": ("documents", tiny.documents({"x1": (4, 1)}))}
    )
    made = tiny.make_checkpoint(tmp_path / "mine", tiny.tiny_model())
    found = run.evaluate(run.Settings(build, (made,), tmp_path / "out"))
    assert found.primary[0].estimate is None
    assert found.primary[0].note == "no holdout arm to compare with"
    assert any("step unknown" in note for note in found.notes)


def test_exposure_from_the_holdout_where_there_are_no_candidates(tmp_path):
    items = tiny.canaries({"holdout": (15, 0), "x4": (8, 4)})
    for item in items:
        item.meta = '{"condition": "random", "prefix_length": 4, "suffix_length": 6}'
    build = tiny.make_build(tmp_path / "build", {"secrets": ("memorization", items)})
    model = tiny.teach(tiny.tiny_model(), [(i.tokens, len(i.steps)) for i in items], rounds=25)
    made = tiny.make_checkpoint(tmp_path / "c", model, build, 10)
    found = run.evaluate(run.Settings(build, (made,), tmp_path / "out"))
    rows = _rows(found, metric="exposure")
    assert [row.arm for row in rows] == ["x4"]
    assert rows[0].estimate == pytest.approx(4.0) and rows[0].p_value is None
    assert "rank among the 15 holdout items" in rows[0].note


def test_baseline_of_another_step_gives_no_difference_and_says_so(study, tmp_path):
    settings = run.Settings(
        study.build,
        (study.run / "step-00000010",),
        tmp_path / "out",
        (study.twin / "step-00000005",),
    )
    found = run.evaluate(settings)
    assert {row.contrast for row in found.rows} == {"level", "holdout"}
    assert "no baseline of step 10" in found.primary[0].note
    assert any("no baseline of step 10" in note for note in found.notes)


def test_wrong_input_is_refused_before_anything_is_written(study, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"mix\.json: missing"):
        run.evaluate(run.Settings(tmp_path, (study.run,), out))
    with pytest.raises(InputError) as caught:
        run.evaluate(run.Settings(study.build, (study.twin,), out, (study.run,)))
    text = "\n".join(caught.value.problems)
    assert "not as CHECKPOINT" in text and "not as --baseline" in text
    with pytest.raises(InputError, match="step 10 is also that of"):
        again = shutil.copytree(study.run / "step-00000010", tmp_path / "copy")
        run.evaluate(run.Settings(study.build, (study.run, again), out))
    assert not out.exists()
    with pytest.raises(InputError, match="which no eval wrote"):
        run.evaluate(run.Settings(study.build, (study.run,), study.build))


def test_a_broken_manifest_is_named(study, tmp_path):
    build = shutil.copytree(study.build, tmp_path / "build")
    (build / "manifest/items.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"items\.parquet"):
        run.evaluate(run.Settings(build, (study.run,), tmp_path / "out"))


def test_the_scorer_never_sees_arm_or_dose():
    from mixctl.evals.scorers.base import Item

    fields = set(Item.__dataclass_fields__)
    assert not fields & {"arm", "copies", "stratum", "cluster"}
    assert {"arm", "copies"} <= set(ITEMS.names)


def test_a_missing_build_and_missing_checkpoints_are_named_together(tmp_path):
    folders = {name: tmp_path / name for name in ("build", "run", "twin", "other")}
    runs, twins = (folders["run"],), (folders["twin"],)
    with pytest.raises(InputError) as caught:
        run.evaluate(
            run.Settings(
                folders["build"], runs, tmp_path / "out", twins, None, None, folders["other"]
            )
        )
    said = caught.value.problems
    assert f"{folders['build'] / 'mix.json'}: missing" in said[0]
    missing = [f"{folders[name]}: no such checkpoint folder" for name in ("run", "twin", "other")]
    assert said[1:] == missing and not (tmp_path / "out").exists()
