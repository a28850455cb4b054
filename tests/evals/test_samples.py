"""Stored scores are used again only when nothing that they depend on has changed."""

from __future__ import annotations

import pytest
import torch

from mixctl.evals import samples
from mixctl.evals.checkpoint import read_checkpoint
from mixctl.evals.experiments import read_experiments
from mixctl.evals.samples import missing, read_samples, samples_key, samples_table, write_samples
from mixctl.evals.scorers.base import ItemScore
from mixctl.evals.scorers.documents import DocumentsScorer
from mixctl.shards.record import read_record
from tests.evals import tiny


@pytest.fixture
def folder(tmp_path):
    return tiny.make_checkpoint(tmp_path / "step-00000007", tiny.tiny_model(), step=7)


def _key(folder, inputs="digest", prefix=(0,), device="cpu"):
    return samples_key(read_checkpoint(folder), inputs, prefix, device)


def test_the_key_covers_everything(folder):
    first = _key(folder)
    assert _key(folder) == first
    changed = {
        _key(folder, inputs="other"),
        _key(folder, prefix=(0, 1)),
        _key(folder, device="cuda"),
    }
    config = folder / "model_config.yaml"
    config.write_text(config.read_text() + "# \n")
    changed.add(_key(folder))
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    state["model"]["lm_head.weight"][0, 0] += 1
    torch.save(state, folder / "lit_model.pth")
    changed.add(_key(folder))
    assert len(changed | {first}) == 6


@pytest.mark.parametrize("package", ["litgpt", "torch"])
def test_other_versions_are_another_key(folder, monkeypatch, package):
    first = _key(folder)
    real = samples.version
    monkeypatch.setattr(samples, "version", lambda n: "0" if n == package else real(n))
    assert _key(folder) != first


def _scorer(version=1):
    scorer = DocumentsScorer()
    scorer.version = version
    return scorer


def test_only_what_failed_or_has_another_scorer_is_scored_again(tmp_path, folder):
    items = tiny.documents({"holdout": (3, 0)})
    named = {name: ("documents", items) for name in ("a", "b", "c")}
    build = tiny.make_build(tmp_path / "build", named)
    experiments = read_experiments(build, read_record(build))
    made, path = read_checkpoint(folder), tmp_path / "samples.parquet"
    scorers = {name: _scorer() for name in named}

    def write(values, failures, kept=None, by=scorers):
        scores = {
            name: [ItemScore(1, -float(n), {metric: float(n)}, {metric: "way"}) for n in range(3)]
            for name, metric in values.items()
        }
        table = samples_table("run", made, experiments, scores, failures, by, kept)
        write_samples(table, path)
        return read_samples(path, "run", made)

    assert missing(None, scorers) == ["a", "b", "c"]
    first = write({"c": "x", "a": "y"}, {"b": "no"})
    assert missing(first, scorers) == ["b"] and first.failures == {"b": "no"}
    second = write({"b": "z"}, {}, first)
    assert missing(second, scorers) == [] and second.failures == {}
    assert second.table["experiment"].to_pylist() == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert second.table["y"].to_pylist() == [0, 1, 2] + [None] * 6
    assert second.estimators["c"] == {"x": "way"}
    assert second.table.equals(write({"a": "y", "b": "z", "c": "x"}, {}).table)
    newer = {**scorers, "a": _scorer(2)}
    assert missing(second, newer) == ["a"]
    third = write({}, {"a": "broke"}, second, newer)
    assert missing(third, newer) == ["a"] and len(third.table) == 6
