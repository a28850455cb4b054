"""The experiment on the whole model: what is in it, what it says when something is missing."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mixctl.evals import whole_model
from mixctl.evals.run import Settings, evaluate
from mixctl.evals.scorers.contamination import ContaminationScorer
from mixctl.injections.config import NAME_PATTERN
from mixctl.shards.chunks import chunk_bytes, chunk_name
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_file
from mixctl.shards.record import FileRecord, read_record, write_record
from tests.evals import tiny

VALIDATION = "validation_loglikelihood_per_token"


def _build(folder, more=None):
    arms = {"holdout": (10, 0), "x2": (6, 2)}
    leaks = {"leak": ("contamination", tiny.questions(arms))}
    return tiny.make_build(folder, {**leaks, **(more or {})})


def _checkpoint(folder, build, seed=0, split="train"):
    return tiny.make_checkpoint(folder, tiny.tiny_model(seed), build, 10, split)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    build = _build(
        folder / "build",
        {
            "other": ("contamination", tiny.questions({"holdout": (6, 0), "x1": (6, 1)}, seed=9)),
            "no-holdout": ("contamination", tiny.questions({"x1": (4, 1)}, seed=10)),
        },
    )
    run = _checkpoint(folder / "run", build)
    twin = _checkpoint(folder / "twin", build, 1, "control/train")
    out = folder / "out"
    return evaluate(Settings(build, (run,), out, (twin,))), out


def _rows(found, **wanted):
    wanted = {"experiment": "(model)", **wanted}
    return [row for row in found.rows if all(getattr(row, n) == v for n, v in wanted.items())]


def test_it_has_levels_of_both_and_their_difference_and_nothing_else(evaluated):
    found, _ = evaluated
    arms = {VALIDATION: "validation", "weight_norm": "weights", "holdout_accuracy": "holdout"}
    for metric, arm in arms.items():
        rows = _rows(found, metric=metric)
        assert {(r.arm, r.model, r.contrast) for r in rows} == {
            (arm, "run", "level"),
            (arm, "twin", "level"),
            (arm, "run", "twin"),
        }
        levels = {r.model: r.estimate for r in rows if r.contrast == "level"}
        (gap,) = (r for r in rows if r.contrast == "twin")
        assert gap.estimate == pytest.approx(levels["run"] - levels["twin"], abs=1e-12)
        assert gap.p_value is None and gap.estimate != 0
    for row in _rows(found):
        assert (row.kind, row.family, row.primary, row.dose) == ("model", "exploratory", False, 0)
    assert {r.metric for r in _rows(found, arm="weights")} >= {
        "weight_norm_embedding",
        "weight_norm_attention",
        "weight_norm_mlp",
        "weight_norm_head",
        "weight_norm_norms",
    }


def test_holdout_accuracy_is_that_of_all_questions_never_placed(evaluated):
    found, out = evaluated
    for model in ("run", "twin"):
        (path,) = out.glob(f"samples/{model}-*.parquet")
        rows = pq.read_table(path).to_pylist()
        never = [r["accuracy"] for r in rows if r["copies"] == 0 and r["accuracy"] is not None]
        (row,) = _rows(found, metric="holdout_accuracy", model=model, contrast="level")
        assert row.n == len(never) == 16 and row.estimate == pytest.approx(np.mean(never))
        wilson = stats.binomtest(int(sum(never)), 16).proportion_ci(method="wilson")
        assert (row.ci_low, row.ci_high) == pytest.approx((wilson.low, wilson.high))


def test_scores_of_sequences_are_kept(evaluated):
    _, out = evaluated
    (path,) = out.glob("samples/run-*.parquet")
    rows = [r for r in pq.read_table(path).to_pylist() if r["experiment"] == "(model)"]
    names = [r["item"] for r in rows]
    assert names == ["val-000000", "val-000001", "val-000002", "val-000003", "weights"]
    assert [r["n_tokens"] for r in rows] == [32] * 4 + [0]
    assert rows[0][VALIDATION] == pytest.approx(rows[0]["loglikelihood"] / 32)
    assert rows[4]["weight_norm"] > 0 and rows[4][VALIDATION] is None


def test_no_experiment_of_a_mix_can_have_its_name():
    assert not re.match(NAME_PATTERN, whole_model.MODEL)


def test_other_held_out_sequences_are_scored_anew(tmp_path):
    build = _build(tmp_path / "build")
    settings = Settings(build, (_checkpoint(tmp_path / "run", build),), tmp_path / "out")
    before = _rows(evaluate(settings), metric=VALIDATION)[0].estimate
    blocks = np.full((4, 33), 5, dtype=np.uint16)
    (build / "val" / chunk_name(0)).write_bytes(chunk_bytes(blocks))
    assert _rows(evaluate(settings), metric=VALIDATION)[0].estimate != before


def test_without_val_the_number_is_null_and_says_why(tmp_path):
    build = _build(tmp_path / "build")
    shutil.rmtree(build / "val")
    run = _checkpoint(tmp_path / "run", build)
    found = evaluate(Settings(build, (run,), tmp_path / "out"))
    (row,) = _rows(found, metric=VALIDATION)
    assert row.estimate is None and row.note == "the build's folder has no val/"
    assert _rows(found, metric="weight_norm")[0].estimate > 0 and not found.errors


def test_without_held_out_questions_the_number_is_null_and_says_why(tmp_path):
    facts = {"facts": ("documents", tiny.documents({"holdout": (4, 0), "x1": (4, 1)}))}
    build = tiny.make_build(tmp_path / "build", facts)
    run = _checkpoint(tmp_path / "run", build)
    found = evaluate(Settings(build, (run,), tmp_path / "out"))
    (row,) = _rows(found, metric="holdout_accuracy")
    assert row.estimate is None
    assert row.note == "no contamination experiment has holdout items"


def test_questions_that_could_not_be_scored_are_named(tmp_path, monkeypatch):
    def explode(self, item, logprobs):
        if item.experiment == "leak":
            raise ZeroDivisionError("one over nothing")
        return real(self, item, logprobs)

    real = ContaminationScorer.score
    monkeypatch.setattr(ContaminationScorer, "score", explode)
    other = {"other": ("contamination", tiny.questions({"holdout": (6, 0), "x1": (6, 1)}, seed=9))}
    build = _build(tmp_path / "build", other)
    run = _checkpoint(tmp_path / "run", build)
    found = evaluate(Settings(build, (run,), tmp_path / "out"))
    (row,) = _rows(found, metric="holdout_accuracy")
    assert row.n == 6 and row.note == "without leak, not scored"


def test_a_scorer_that_fails_is_an_error_of_the_whole_model_alone(tmp_path, monkeypatch):
    scorer = "mixctl.evals.scorers.whole_model.weight_norms"
    monkeypatch.setattr(scorer, lambda model: {"weight_norm": float("nan")})
    build = _build(tmp_path / "build")
    run = _checkpoint(tmp_path / "run", build)
    found = evaluate(Settings(build, (run,), tmp_path / "out"))
    assert "item weights: weight_norm is not a finite number" in found.errors["(model)"]
    (row,) = _rows(found)
    assert row.estimate is None and "not scored" in row.note
    assert [row.experiment for row in found.primary] == ["leak"]


def test_a_head_that_one_of_the_two_ties_has_a_level_and_no_difference(tmp_path):
    build = _build(tmp_path / "build")
    run = _checkpoint(tmp_path / "run", build)
    tied = tiny.tiny_model(1)
    tied.lm_head.weight.data = tied.transformer.wte.weight.data.clone()
    twin = tiny.make_checkpoint(tmp_path / "twin", tied, build, 10, "control/train")
    found = evaluate(Settings(build, (run,), tmp_path / "out", (twin,)))
    assert found.errors == {}
    (row,) = _rows(found, metric="weight_norm_head")
    assert (row.model, row.contrast) == ("run", "level") and row.estimate > 0
    assert len(_rows(found, metric="weight_norm", contrast="twin")) == 1


def test_damaged_val_is_wrong_input(tmp_path):
    build = _build(tmp_path / "build")
    run = _checkpoint(tmp_path / "run", build)
    name, record = f"val/{chunk_name(0)}", read_record(build)
    path = build / name
    files = {name: FileRecord(bytes=path.stat().st_size, digest=digest_file(path))}
    write_record(build, record.model_copy(update={"files": files}))
    whole_model.model_experiment(build, read_record(build))
    blocks = np.full((4, 33), 5, dtype=np.uint16)
    path.write_bytes(chunk_bytes(blocks))
    with pytest.raises(InputError, match="does not match its digest"):
        evaluate(Settings(build, (run,), tmp_path / "out"))
    path.write_bytes(b"short")
    with pytest.raises(InputError, match=rf"{name}: cannot be read"):
        evaluate(Settings(build, (run,), tmp_path / "out"))
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}: cannot be read"):
        evaluate(Settings(build, (run,), tmp_path / "out"))


def test_of_very_many_sequences_a_part_is_read_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_model, "MAX_SEQUENCES", 2)
    build = _build(tmp_path / "build")
    run = _checkpoint(tmp_path / "run", build)
    (row,) = _rows(evaluate(Settings(build, (run,), tmp_path / "out")), metric=VALIDATION)
    assert row.n == 2 and row.note == "2 of 4 held-out sequences, evenly spaced"


def test_more_chunks_of_val_than_files_may_be_open(tmp_path, few_descriptors):
    build = _build(tmp_path / "build")
    record = read_record(build)
    shape = {"val_sequences": 100, "val_chunks": 100, "val_blocks_per_chunk": 1}
    geometry = record.geometry.model_copy(update=shape)
    blocks = np.random.default_rng(7).integers(1, tiny.VOCABULARY, (100, 33)).astype(np.uint16)
    for number, block in enumerate(blocks):
        (build / "val" / chunk_name(number)).write_bytes(chunk_bytes(block[None]))
    found = whole_model.model_experiment(build, record.model_copy(update={"geometry": geometry}))
    assert [item.tokens.tolist() for item in found.items[:-1]] == blocks.tolist()


@given(st.integers(0, 200_000))
def test_chosen_sequences_are_all_or_evenly_spaced(n_sequences):
    chosen = whole_model.chosen_sequences(n_sequences)
    assert len(chosen) == min(n_sequences, 1_024)
    gaps = np.diff([*chosen, n_sequences])
    assert not len(chosen) or (chosen[0] == 0 and gaps.min() >= 1)
    assert not len(chosen) or gaps.max() - gaps.min() <= 1
