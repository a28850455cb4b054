"""The calibration suite itself, small: sound scorers pass it, one that reads the arm does not.

`make calibration` runs it in full; docs/calibration.md holds what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.calibration.attainable import largest, sizes
from benchmarks.calibration.cases import Case, Model, dealt, scored_cases
from benchmarks.calibration.mix import ROOT, build, write_mix
from benchmarks.calibration.models import untrained
from benchmarks.calibration.rerandomise import rerandomise
from benchmarks.calibration.secrets import marked_anew, redrawn
from benchmarks.calibration.table import Covered, NullLine, holm, null_line, verdicts
from mixctl.evals.experiments import Experiment
from mixctl.evals.forward import Request
from mixctl.evals.scorers.base import AnyScorer, FloatArray, Item, ItemScore
from mixctl.evals.stats.arms import Units
from mixctl.shards.record import read_record

SEEDS = 100
DRAWS = 400
ALARM = 1e-4
"""a sound suite fails with this probability at most, for each sort of line"""
QUICK = ("articles", "canaries", "diaries", "green", "noise", "quiz", "spare", "statements", "sums")
"""every kind that is randomised and does not need long generation"""


def silent(text: str) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    small = {"n_layer": 1, "n_embd": 32, "intermediate_size": 64}
    mix = write_mix(folder / "mix", ROOT / "examples/tokenizer", small)
    return build(mix, folder / "build")


def models(made: Path) -> list[Model]:
    """Returns two untrained models, as run and twin of one step."""
    return [
        Model(role, role, untrained(made, made.parent / role, seed), 1)
        for seed, role in enumerate(("run", "twin"))
    ]


@pytest.fixture(scope="module")
def cases(made: Path) -> list[Case]:
    torch.set_num_threads(1)
    return scored_cases(made, models(made), made.parent / "scores", silent, QUICK)


def test_dealing_keeps_clusters_whole_and_totals_exact(cases: list[Case]) -> None:
    for case in cases:
        before = case.experiment
        after = dealt(before, 7)
        assert sorted(after.arms) == sorted(before.arms)
        for cluster in np.unique(before.clusters):
            assert len(set(after.arms[after.clusters == cluster])) == 1
        assert (after.arms[before.given] == before.arms[before.given]).all()
        assert (after.is_holdout == np.isin(after.arms, before.arms[before.is_holdout])).all()
        if not before.given.all():
            assert (after.arms != before.arms).any(), before.name


def test_every_arm_meets_every_item(cases: list[Case]) -> None:
    """Each item is as often in the arm as the arm has items: the deal favours none."""
    (case,) = [case for case in cases if case.experiment.name == "statements"]
    hits = sum(dealt(case.experiment, seed).arms == "x2" for seed in range(400))
    share = (case.experiment.arms == "x2").mean()
    assert np.abs(hits / 400 - share).max() < 0.13  # five standard errors


def test_tests_and_intervals_are_in_line(cases: list[Case]) -> None:
    tests, intervals = rerandomise(cases, SEEDS)
    kinds = {line.kind for line in tests}
    assert kinds >= {"contamination", "documents", "iid", "memorization", "unlearning", "watermark"}
    assert {line.contrast for line in tests} == {"holdout", "did"}
    assert sum(line.below[2] > line.below[0] for line in tests) > 20  # the arms were dealt anew
    assert all(0.9 * SEEDS <= line.n <= SEEDS for line in tests)
    lowered = [replace(line, least=0.9) for line in intervals]
    assert verdicts(tests, lowered, ALARM) == []


def test_tests_of_an_arm_alone_are_in_line(cases: list[Case], made: Path) -> None:
    prefix, model = [read_record(made).tokenizer.eod_id], models(made)[0]
    lines = list(redrawn(cases, model, prefix, DRAWS, silent))
    (green,) = [case for case in cases if case.experiment.name == "green"]
    lines += marked_anew(green, model, prefix, 60)
    names = " ".join(line.name for line in lines)
    for test in ("guessing", "rank_test", "radioactivity", "radioactivity_control", "noise_test"):
        assert test in names
    assert verdicts(lines, [], ALARM) == []


class ReadsTheArm:
    """A scorer of iid that knows the manifest and prefers what was placed."""

    def __init__(self, inner: AnyScorer, experiment: Experiment) -> None:
        self.inner, self.kind, self.version = inner, inner.kind, inner.version
        self.metrics, self.membership = inner.metrics, inner.membership
        names = [item.name for item in experiment.items]
        self.placed = {n for n, held in zip(names, experiment.is_holdout, strict=True) if not held}

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        return self.inner.requests(item, prefix)  # type: ignore[union-attr]

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        found = self.inner.score(item, logprobs)  # type: ignore[union-attr]
        gain = 0.5 * (item.name in self.placed)
        values = {name: value + gain for name, value in found.values.items()}
        return replace(found, values=values)


def test_a_scorer_that_reads_the_arm_is_caught(made: Path) -> None:
    """On a model that met nothing, the arms of the build differ: the suite says so."""

    def wrap(experiment: Experiment, scorer: AnyScorer) -> AnyScorer:
        return ReadsTheArm(scorer, experiment)

    def found(out: str, broken: bool) -> list[str]:
        scorers = wrap if broken else None
        folder = made.parent / out
        only = ("spare",)
        cases = scored_cases(made, models(made)[:1], folder, silent, only, scorers)
        tests, _ = rerandomise(cases, 5)
        return [verdict.what for verdict in verdicts(tests, [], ALARM)]

    assert found("sound", broken=False) == []
    caught = found("broken", broken=True)
    assert any("spare x1 loglikelihood_per_token, holdout" in what for what in caught)
    assert any("spare x1 auc, holdout" in what for what in caught)


def _line(p_values: FloatArray) -> NullLine:
    return null_line("made up", "any", "test", "holdout", "none", "exact", p_values)


def test_the_table_sees_tests_that_reject_too_often_or_too_rarely() -> None:
    uniform = np.random.default_rng(0).random(2000)
    assert verdicts([_line(uniform)], []) == []
    (often,) = [v for v in verdicts([_line(uniform**1.5)], []) if "p <= 0.05" in v.seen]
    assert often.holm_p < 1e-6
    rarely = verdicts([_line(uniform**0.5)], [])
    assert rarely and all("conservative" in verdict.seen for verdict in rarely)


def test_a_discrete_test_is_held_to_what_it_can_reach() -> None:
    steps = np.array([0.1, 0.4, 0.7, 1.0])
    coarse = np.random.default_rng(0).choice(steps, 2000, p=[0.1, 0.3, 0.3, 0.3])
    assert largest(steps).tolist() == [0, 0, 0.1]
    assert verdicts([replace(_line(coarse), attainable=(0, 0, 0.1))], []) == []
    assert verdicts([_line(coarse)], [])  # a continuous one would have to do more
    doubled = np.minimum(2 * coarse, 1)
    (rarely,) = verdicts([replace(_line(doubled), attainable=(0, 0, 0.2))], [])
    assert "0.2000 can be had" in rarely.seen


def test_the_sizes_of_a_row_are_those_of_all_its_deals(cases: list[Case]) -> None:
    """Three of three against three items: 20 deals, two-sided p-values 0.1, 0.2, ..."""
    units = Units(np.array([0.0, 1, 2, 4, 8, 16]), np.arange(6) < 3, np.zeros(6, np.int64))
    assert sizes(units, two_sided=True) == pytest.approx([0, 0, 0.2])
    assert sizes(units, two_sided=False) == pytest.approx([0, 0.05, 0.2])
    tests, _ = rerandomise([case for case in cases if case.experiment.name == "spare"], 40)
    by_name = {line.name: line.attainable for line in tests if line.contrast == "holdout"}
    for name in ("spare x1 loglikelihood_per_token", "spare x1 auc"):
        assert 0.9 * 0.05 < by_name[name][1] <= 0.05 + 1e-9


def test_the_table_sees_intervals_that_do_not_cover() -> None:
    assert verdicts([], [Covered("made up", "x", "mean", 2000, 1890)]) == []
    assert verdicts([], [Covered("made up", "x", "mean", 2000, 1840)])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
