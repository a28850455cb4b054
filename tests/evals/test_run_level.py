"""Replicated baselines end to end: p-values of run - twin, and when there is none."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from scipy import stats

from mixctl.evals.baselines import training_problems
from mixctl.evals.checkpoint import read_checkpoint
from mixctl.evals.report import write_report
from mixctl.evals.results import Results
from mixctl.evals.run import Settings, evaluate
from mixctl.shards.errors import InputError
from mixctl.shards.layout import train_layout, val_layout
from mixctl.shards.meta import VerbatimMeta
from mixctl.shards.record import Geometry, read_record, write_record
from tests.evals import tiny


@dataclass(frozen=True)
class Replicated:
    build: Path
    other: Path
    run: Path
    twins: list[Path]
    no_op: Path

    def evaluate(self, out: Path, baselines: list[Path], run: Path | None = None) -> Results:
        return evaluate(Settings(self.build, (run or self.run,), out, tuple(baselines)))


def _strings():
    meta = VerbatimMeta(prefix_length=4, suffix_length=8).model_dump_json()
    return [
        tiny.TinyItem(item.name, "purged", item.tokens, meta)
        for item in tiny.documents({"s": (6, 0)}, seed=8)
    ]


def _no_placements(folder, **geometry):
    """Returns another build that holds base data alone, of the same shape but for `geometry`."""
    other = tiny.make_build(folder, {})
    record = read_record(other)
    topology = dataclasses.replace(record.geometry.topology(), **{"data_seed": 7, **geometry})
    n_val = 4 * max(topology.workers, 1)
    layouts = (train_layout(topology, 2, 2**20), val_layout(topology, n_val, 2, 2**20))
    changed = Geometry.of(topology, *layouts, n_val, "uint16")
    write_record(other, record.model_copy(update={"geometry": changed}))
    return other


def _of_other(seed, data_seed=7):
    """Returns what the records of a training on the other build say."""
    return {
        "hyperparameters.seed": seed,
        "hyperparameters.data.init_args.seed": data_seed,
        "loader.dataset.seed": data_seed,
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Replicated:
    """Returns a run of three experiments, three twins of it and a no-op run, at steps 5 and 10."""
    folder = tmp_path_factory.mktemp("replicated")
    alone = tiny.documents({"x4": (12, 4)}, seed=5)
    leak = tiny.questions({"holdout": (12, 0), "x8": (12, 8)})
    experiments = {
        "alone": ("documents", alone),
        "leak": ("contamination", leak),
        "strings": ("verbatim", _strings()),
    }
    build = tiny.make_build(folder / "build", experiments)
    other = _no_placements(folder / "other")
    placed = [(item.tokens, len(item.steps)) for item in [*alone, *leak] if item.steps]
    base = [(item.tokens, 1) for item in tiny.documents({"base": (24, 1)}, seed=77)]
    run = tiny.teach(tiny.tiny_model(0), [*placed, *base], rounds=30)
    for step in (5, 10):
        tiny.make_checkpoint(folder / f"run/step-{step:08d}", run, build, step)
    twins = []
    for seed in (1, 2, 3):
        twin = tiny.teach(tiny.tiny_model(seed), base, rounds=30)
        changes = {"hyperparameters.seed": seed}
        made = folder / f"twin-{seed}/step-00000010"
        tiny.make_checkpoint(made, twin, build, 10, "control/train", changes)
        twins.append(made)
    no_op = tiny.teach(tiny.tiny_model(4), base[:12], rounds=30)
    made = folder / "no-op/step-00000010"
    tiny.make_checkpoint(made, no_op, other, 10, "train", _of_other(1))
    last = folder / "run/step-00000010"
    return Replicated(build, other, last, twins, made)


@pytest.fixture(scope="module")
def three(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("three") / "results"
    return study.evaluate(out, study.twins), out


def _rows(found, **wanted):
    return [row for row in found.rows if all(getattr(row, n) == v for n, v in wanted.items())]


def _place(row):
    return (row.experiment, row.arm, row.stratum, row.metric, row.step)


def test_three_twins_give_the_pooled_t_of_one_training(three, study):
    found, _ = three
    levels = {(*_place(row), row.checkpoint): row for row in _rows(found, contrast="level")}
    tested = 0
    for row in _rows(found, contrast="twin"):
        own = levels[(*_place(row), row.checkpoint)].estimate
        theirs = [levels[(*_place(row), twin.as_posix())].estimate for twin in study.twins]
        assert row.estimate == pytest.approx(own - sum(theirs) / 3)
        assert row.n == levels[(*_place(row), row.checkpoint)].n
        if row.p_value is None:
            assert len(set(theirs)) == 1 and "3 baselines do not differ" in row.note
            continue
        reference = stats.ttest_ind([own], theirs)
        low, high = reference.confidence_interval(0.95)
        assert row.p_value == pytest.approx(reference.pvalue, rel=1e-6)
        assert (row.ci_low, row.ci_high) == pytest.approx((low, high), rel=1e-6)
        assert row.sided == "two" and row.mde > row.se > 0
        assert "t of one training, 2 degrees of freedom" in row.test
        assert row.test.endswith("takes trainings for normally distributed")
        assert "against the mean of 3 baselines" in row.note and "no p-value" not in row.note
        tested += 1
    assert tested > 20


def test_each_twin_keeps_its_own_rows(three, study):
    found, _ = three
    for row in _rows(found, model="run", contrast="level", step=10):
        same = {"experiment": row.experiment, "metric": row.metric, "arm": row.arm}
        twins = _rows(found, **same, model="twin", contrast="level", stratum=row.stratum)
        if row.estimate is not None:
            assert [twin.checkpoint for twin in twins] == [path.as_posix() for path in study.twins]


def test_what_is_primary_without_randomisation_enters_the_family(three):
    found, _ = three
    primary = {row.experiment: row for row in found.primary}
    assert set(primary) == {"alone", "leak", "strings"}  # the whole model is exploratory
    alone = primary["alone"]
    assert (alone.contrast, alone.arm, alone.family) == ("twin", "x4", "primary")
    assert alone.estimate > 0 and alone.p_value <= alone.q_value < 0.05
    assert "no holdout arm to compare with" in alone.note
    strings = primary["strings"]
    assert strings.contrast == "twin" and "nothing was randomised" in strings.note


def test_the_randomisation_test_stays_with_several_twins(three, study, tmp_path):
    found, _ = three
    one = study.evaluate(tmp_path / "one", study.twins[:1])
    at = {"experiment": "leak", "contrast": "did", "metric": "gold_logprob", "stratum": None}
    (several,), (single,) = _rows(found, **at), _rows(one, **at)
    assert all("arms exchangeable within strata" in row.test for row in (several, single))
    assert several.note == "beyond the mean of 3 twins" and single.note is None
    gaps = [r.estimate for r in _rows(found, **{**at, "contrast": "holdout", "model": "twin"})]
    (own,) = _rows(found, **{**at, "contrast": "holdout", "model": "run"})
    assert len(gaps) == 3 and several.estimate == pytest.approx(own.estimate - sum(gaps) / 3)
    assert several.p_value < 0.01


@pytest.mark.parametrize("n_twins", [1, 2])
def test_fewer_than_three_give_a_conditional_interval_and_no_p_value(study, tmp_path, n_twins):
    found = study.evaluate(tmp_path / "out", study.twins[:n_twins])
    rows = _rows(found, contrast="twin")
    these = "pair of runs" if n_twins == 1 else "run and its 2 baselines"
    for row in rows:
        assert row.estimate is not None and row.p_value is None and row.mde is None
        assert f"it takes 3 replicated baselines, here {n_twins}" in row.note
        assert (f"interval conditional on this {these}" in row.note) == (row.ci_low is not None)
    assert any(row.ci_low is not None for row in rows)


def test_the_same_training_several_times_is_one(study, tmp_path):
    copies = [shutil.copytree(study.twins[0], tmp_path / f"copy-{n}") for n in range(3)]
    found = study.evaluate(tmp_path / "out", copies)
    assert sum("has the weights of" in note for note in found.notes) == 2
    rows = _rows(found, contrast="twin")
    assert rows and all(row.p_value is None and "here 1" in row.note for row in rows)
    assert len(_rows(found, model="twin", metric="weight_norm")) == 1
    found = study.evaluate(tmp_path / "again", [study.twins[0], study.twins[0]])
    assert any("given more than once, counted once" in note for note in found.notes)


def test_a_training_repeated_with_its_seed_is_one(study, tmp_path):
    """Nothing but rounding tells them apart: such a spread would make everything significant."""
    again = tiny.tiny_model(9)
    changes = {"hyperparameters.seed": 1}
    path = tmp_path / "again/step-00000010"
    tiny.make_checkpoint(path, again, study.build, 10, "control/train", changes)
    found = study.evaluate(tmp_path / "out", [*study.twins[:2], path])
    assert any("has the data and the seed (1) of" in note for note in found.notes)
    assert all(row.p_value is None for row in _rows(found, contrast="twin"))


def test_a_training_is_repeated_however_its_build_is_written(study, tmp_path, monkeypatch):
    monkeypatch.chdir(study.build.parent)
    changes = {"hyperparameters.seed": 1, "hyperparameters.data.init_args.data_path": "build"}
    path = tmp_path / "again/step-00000010"
    tiny.make_checkpoint(path, tiny.tiny_model(9), study.build, 10, "control/train", changes)
    found = study.evaluate(tmp_path / "out", [*study.twins[:2], path])
    assert any("has the data and the seed (1) of" in note for note in found.notes)


def test_the_checkpoint_to_begin_with_is_the_same_however_it_is_written(
    study, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made = []
    for name, begin in (("run", "begin"), ("twin", f"{tmp_path}/begin"), ("other", "elsewhere")):
        changes = {"hyperparameters.seed": 1, "hyperparameters.initial_checkpoint_dir": begin}
        path, split = tmp_path / name / "step-00000010", "train" if not made else "control/train"
        tiny.make_checkpoint(path, tiny.tiny_model(), study.build, 10, split, changes)
        made.append(path)
    assert training_problems([read_checkpoint(made[0])], [read_checkpoint(made[1])]) == []
    (problem,) = training_problems([read_checkpoint(made[0])], [read_checkpoint(made[2])])
    assert f"initial_checkpoint_dir is '{tmp_path}/elsewhere'" in problem


def test_checkpoints_of_two_runs_are_refused(study, tmp_path):
    def made(name, step, **changes):
        named = {f"hyperparameters.{key}": value for key, value in changes.items()}
        path = tmp_path / name / f"step-{step:08d}"
        return tiny.make_checkpoint(path, tiny.tiny_model(), study.build, step, changes=named)

    first = made("run0", 5, seed=1, precision="32", out_dir="run0")
    resumed = made("resumed", 7, seed=1, precision="32", out_dir="resumed", resume=True)
    other = made("run1", 10, seed=2, precision="16", out_dir="run1")
    found = evaluate(Settings(study.build, (first, resumed), tmp_path / "out"))
    assert {row.step for row in found.rows} == {5, 7}
    with pytest.raises(InputError) as caught:
        evaluate(Settings(study.build, (first, resumed, other), tmp_path / "again"))
    said = f"in {first}/hyperparameters.yaml it is"
    assert caught.value.problems == [
        f"{other}/hyperparameters.yaml: precision is '16', {said} '32': not of one run; score one "
        "run at a time",
        f"{other}/hyperparameters.yaml: seed is 2, {said} 1: not of one run; score one run at a "
        "time",
    ]


def test_steps_are_judged_one_by_one(study, tmp_path):
    early = tmp_path / "early/step-00000005"
    tiny.make_checkpoint(early, tiny.tiny_model(1), study.build, 5, "control/train")
    found = study.evaluate(tmp_path / "out", [*study.twins, early], study.run.parent)
    late = _rows(found, contrast="twin", metric="gold_logprob", step=10)
    first = _rows(found, contrast="twin", metric="gold_logprob", step=5)
    assert len(late) == len(first) > 0
    assert all(row.p_value is not None for row in late)
    assert all(row.p_value is None and "here 1" in row.note for row in first)


def test_a_no_op_run_of_another_build_is_a_replicate(study, tmp_path):
    found = study.evaluate(tmp_path / "out", [*study.twins[:2], study.no_op])
    assert any("a no-op run, trained on" in note and "data seed 7" in note for note in found.notes)
    rows = _rows(found, contrast="twin", metric="gold_logprob")
    assert rows and all(row.p_value is not None for row in rows)
    of_no_op = _rows(found, checkpoint=study.no_op.as_posix())
    assert of_no_op and {row.model for row in of_no_op} == {"twin"}


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"max_tokens": 640}, "its max_tokens is 640, this build has 1280"),
        ({"global_batch": 8}, "its global_batch is 8, this build has 4"),
        (
            {"max_seq_length": 16},
            "its max_seq_length is 16, this build has 32",
        ),
        ({"workers": 2}, "its workers is 2, this build has 0"),
    ],
)
def test_a_no_op_run_of_another_shape_is_refused(study, tmp_path, geometry, message):
    other = _no_placements(tmp_path / "other", **geometry)
    made = tiny.make_checkpoint(
        tmp_path / "c/step-00000010", tiny.tiny_model(), other, 10, "train", _of_other(1)
    )
    with pytest.raises(InputError) as caught:
        study.evaluate(tmp_path / "out", [made])
    assert any(f"trained on {other}: {message}" in problem for problem in caught.value.problems)


def test_a_run_of_another_build_is_no_baseline(study, tmp_path):
    other = tiny.make_build(tmp_path / "other", {})
    record = read_record(other)
    totals = read_record(study.build).totals
    placed = {"leak": totals["leak"].model_copy(update={"placements": 96})}
    write_record(other, record.model_copy(update={"totals": placed}))
    for split in ("train", "control/train"):
        made = tmp_path / split / "step-00000010"
        tiny.make_checkpoint(made, tiny.tiny_model(), other, 10, split, _of_other(1, 42))
    with pytest.raises(InputError, match="its train/ holds what leak placed"):
        study.evaluate(tmp_path / "out", [tmp_path / "train/step-00000010"])
    found = study.evaluate(tmp_path / "out", [tmp_path / "control/train/step-00000010"])
    assert any("a no-op run" in note for note in found.notes)
    record = record.model_copy(
        update={"tokenizer": record.tokenizer.model_copy(update={"digest": "1"})}
    )
    write_record(other, record)
    with pytest.raises(
        InputError, match="no baseline of this build: .*: its tokenizer is '1', this"
    ):
        study.evaluate(tmp_path / "again", [tmp_path / "control/train/step-00000010"])


def test_a_no_op_run_must_agree_with_its_own_build(study, tmp_path):
    changes = {**_of_other(1), "loader.dataset.seed": 42}
    made = tmp_path / "c/step-00000010"
    tiny.make_checkpoint(made, tiny.tiny_model(), study.other, 10, "train", changes)
    with pytest.raises(InputError, match="dataset.seed is 42, this build needs 7"):
        study.evaluate(tmp_path / "out", [made])
    with pytest.raises(InputError, match="is not this build"):  # and no run of this one at all
        study.evaluate(tmp_path / "out", [], study.no_op)


def test_baselines_trained_otherwise_than_the_run_are_refused(study, tmp_path):
    changes = {
        "hyperparameters.seed": 5,
        "hyperparameters.train.min_lr": 1e-4,
        "hyperparameters.precision": "bf16-true",
        "hyperparameters.out_dir": "elsewhere",
        "hyperparameters.train.save_interval": 3,
    }
    made = tmp_path / "c/step-00000010"
    tiny.make_checkpoint(made, tiny.tiny_model(), study.build, 10, "control/train", changes)
    with pytest.raises(InputError) as caught:
        study.evaluate(tmp_path / "out", [made])
    assert caught.value.problems == [
        f"{made / 'hyperparameters.yaml'}: precision is 'bf16-true', the run was trained with "
        "None: no baseline of it",
        f"{made / 'hyperparameters.yaml'}: train.min_lr is 0.0001, the run was trained with None: "
        "no baseline of it",
    ]
    plain = tiny.make_checkpoint(tmp_path / "plain", tiny.tiny_model(), step=10)
    with pytest.raises(InputError, match="plain: given as CHECKPOINT and as --baseline"):
        study.evaluate(tmp_path / "out", [plain], plain)


def test_the_report_takes_the_rows(three):
    found, out = three
    html = write_report(out).read_text(encoding="utf-8")
    assert "alone" in html and _rows(found, experiment="(model)")
