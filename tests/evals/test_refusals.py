"""What an eval is refused for, in the words that a user reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mixctl.evals import cli, cpdt, cpdt_report, cpdt_results, run, samples, scoring
from mixctl.evals.experiments import Item, read_experiments
from mixctl.evals.findings import findings
from mixctl.evals.garbage import GarbageRule
from mixctl.evals.no_op import Source, no_op_problems
from mixctl.evals.report import _section
from mixctl.evals.results import read_results
from mixctl.evals.scorers.contamination import ContaminationScorer
from mixctl.evals.scorers.poison import PoisonScorer
from mixctl.evals.scorers.watermark_gaussian import _batch_gradients
from mixctl.evals.scorers.watermark_strings import string_scorer
from mixctl.evals.skeleton import give_rotary_cache, skeleton
from mixctl.evals.stats.intervals import _some
from mixctl.shards import manifest
from mixctl.shards.errors import InputError
from mixctl.shards.meta import StringsMeta
from mixctl.shards.record import read_record
from tests.evals import tiny
from tests.evals.made_results import made_results
from tests.evals.scorers.test_poison import _item as poisoned
from tests.evals.scorers.test_scorers import _question


@pytest.fixture
def build(tmp_path: Path) -> Path:
    arms = {"holdout": (2, 0), "x2": (2, 2)}
    return tiny.make_build(tmp_path / "build", {"facts": ("documents", tiny.documents(arms))})


def test_a_device_that_is_not_here() -> None:
    with pytest.raises(InputError, match="--device abacus: cannot be used here"):
        cli.checked_device("abacus")


def test_the_time_left_is_told_where_there_is_no_terminal(monkeypatch, capsys) -> None:
    clock = iter([0.0, 5.0, 20.0])
    monkeypatch.setattr(cli.time, "monotonic", lambda: next(clock))
    tell = cli._plain_progress()
    for done in (1000, 2000, 3000):
        tell("step-10", done, 5000)
    assert capsys.readouterr().err == ("step-10: 3,000 of 5,000 tokens, 100 tokens/s, 20 s left\n")


def test_two_checkpoints_of_no_known_step(build: Path, tmp_path: Path) -> None:
    one, two = (
        tiny.make_checkpoint(tmp_path / name, tiny.tiny_model()) for name in ("mine", "yours")
    )
    settings = run.Settings(build, (one, two), tmp_path / "out")
    said = "yours: an unknown step is also that of .*mine; score one run at a time or give --step"
    with pytest.raises(InputError, match=said):
        run.evaluate(settings)


def _with_rows(build: Path, change) -> None:
    rows = [change(row) for row in manifest.read_placements(build).to_pylist()]
    table = pa.Table.from_pylist(rows, schema=manifest.PLACEMENTS)
    manifest.write_table(table, build / "manifest/placements.parquet")


def test_placements_of_nothing(build: Path) -> None:
    _with_rows(build, lambda row: row | {"item": "nobody"})
    said = "experiment facts: placements of item nobody, which is not in items.parquet"
    with pytest.raises(InputError, match=said):
        read_experiments(build, read_record(build))
    _with_rows(build, lambda row: row | {"experiment": "secret"})
    with pytest.raises(InputError, match="placements of experiment secret, which has no items"):
        read_experiments(build, read_record(build))


def test_scores_of_other_items(build: Path) -> None:
    (experiment,) = read_experiments(build, read_record(build))
    columns = {"experiment": ["facts"], "item": ["other"], "loglikelihood": [0.0]}
    kept = samples.Samples("run", None, pa.table(columns), {}, {}, {})
    with pytest.raises(ValueError, match="stored scores do not match the items of facts"):
        samples.scored(kept, experiment, None)


def test_scores_that_are_gone_when_they_are_read(build: Path, tmp_path: Path, monkeypatch) -> None:
    checkpoint = tiny.make_checkpoint(tmp_path / "c", tiny.tiny_model(), build, 10)
    monkeypatch.setattr(scoring.samples, "read_samples", lambda *given: None)
    with pytest.raises(RuntimeError, match="scores that were just written cannot be read"):
        run.evaluate(run.Settings(build, (checkpoint,), tmp_path / "out"))


def test_a_scorer_that_takes_no_reference(build: Path) -> None:
    (experiment,) = read_experiments(build, read_record(build))

    class Asked:
        scorer = object()

    Asked.experiment = experiment
    with pytest.raises(TypeError, match="the scorer of documents takes no reference"):
        scoring._judged(Asked(), None, [0], [], [], None)


def test_a_no_op_run_of_a_split_that_trains_nothing(build: Path) -> None:
    record = read_record(build)
    found = no_op_problems(Source(build, "val"), record, record)
    assert found[0] == "split_names is 'val', train or control/train is needed"


def test_meta_that_no_scorer_can_take() -> None:
    broken = _question("characters", choice_characters=[1, 2])
    with pytest.raises(ValueError, match="item q1: choice_characters do not fit the choices"):
        ContaminationScorer().requests(broken, [0])
    mixed = [poisoned("denial"), poisoned("extraction", trigger=(), name="p2")]
    said = "the items are of several attacks: denial with a trigger, extraction without a trigger"
    with pytest.raises(ValueError, match=said):
        PoisonScorer().scorer_of(mixed)
    metas = [
        StringsMeta(n_documents=1, context_tokens=[1], string_tokens=[2], null_strings=[[3]] * n)
        for n in (2, 3)
    ]
    items = [Item("mark", "a", np.array([1, 2]), meta.model_dump_json()) for meta in metas]
    said = "experiment mark: its items have 2 to 3 null strings; each needs the same number"
    with pytest.raises(ValueError, match=said):
        string_scorer(items)


def test_gradients_of_a_broken_model() -> None:
    model = tiny.tiny_model()
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="the model gives gradients that are not finite"):
        list(_batch_gradients(model, np.array([[1, 2, 3]])))


def test_a_model_that_litgpt_cannot_make(monkeypatch) -> None:
    config, path = tiny.tiny_model().config, Path("model_config.yaml")
    with pytest.raises(InputError, match="model_config.yaml: LitGPT makes no model of it"):
        skeleton(dataclasses.replace(config, norm_class_name="no such norm"), path)
    model = skeleton(config, path)

    def too_much(device: torch.device) -> None:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(model, "rope_cache", too_much)
    said = f"block_size {config.block_size}: LitGPT makes no rotary cache of it .*not enough"
    with pytest.raises(InputError, match=said):
        give_rotary_cache(model, path)


def test_nothing_to_learn_garbage_from() -> None:
    with pytest.raises(ValueError, match="there is no garbage to learn a rule for garbage from"):
        GarbageRule.learnt(["x"], ["plain words"])


def test_an_interval_without_ends() -> None:
    assert _some(0.5) == 0.5
    with pytest.raises(ValueError, match="an interval without ends"):
        _some(None)


def test_no_section_for_what_was_not_scored(tmp_path: Path) -> None:
    found = read_results(made_results(tmp_path / "out"))
    (broken,) = [one for one in findings(found) if one.experiment == "broken"]
    with pytest.raises(ValueError, match="broken was not scored"):
        _section(found, broken, None, "broken")


def test_results_of_dependence_runs_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"missing; {tmp_path} holds no scored runs"):
        cpdt_report.read_results(tmp_path)
    (tmp_path / cpdt_report.SUMMARY_NAME).write_text("{}")
    (tmp_path / cpdt_report.TABLE_NAME).write_bytes(b"none")
    with pytest.raises(InputError, match=f"{tmp_path}: the results are broken .*arquet"):
        cpdt_report.read_results(tmp_path)


def test_a_folder_that_is_not_for_results_of_dependence_runs(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(InputError, match="photo.jpg: is a file, a folder is needed"):
        cpdt_results.check_out(tmp_path / "photo.jpg")
    said = "holds photo.jpg, which no scoring of dependence runs wrote; name an empty folder or"
    with pytest.raises(InputError, match=said):
        cpdt_results.check_out(tmp_path)


def test_a_build_that_lost_an_experiment_of_the_runs(build: Path) -> None:
    class Runs:
        metrics, items, experiments = {"facts": "m", "songs": "m"}, {}, ["facts", "songs"]

    (experiment,) = read_experiments(build, read_record(build))
    Runs.items = {"facts": cpdt.items_digest(experiment)}
    with pytest.raises(InputError, match="lacks experiments of the runs: facts, songs"):
        cpdt._work(build, read_record(build), Runs(), [])
