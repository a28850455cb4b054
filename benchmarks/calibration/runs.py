"""Trainings against trainings: is a clean run told from clean runs as often as it should be?

Replicates of one clean training, apart in the seed of the model alone, are scored on items that
none of them met. Each is taken for the run once, the others (and the next three alone) for its
baselines: `evals.stats.replicates` must give uniform p-values. So it must for normal numbers.

The reason for the rule stands beside it: tested item by item, as if the items were what was drawn,
two clean runs differ by far too many standard errors.

Price: a forward pass of a few thousand short items a run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.calibration.cases import Case
from benchmarks.calibration.table import NullLine, null_line
from mixctl.evals.stats.replicates import run_test

FloatArray = npt.NDArray[np.float64]
SOURCE = "clean runs"
FEW = 3


@dataclass(frozen=True)
class ItemPaired:
    """The wrong test: two clean runs compared item by item.

    Attributes:
        name: experiment and metric.
        n_pairs: pairs of runs.
        beyond: pairs with |z| above 1.96; 5% if the test were right.
        median: of |z|.
        largest: |z| of the pair that is farthest apart.
    """

    name: str
    n_pairs: int
    beyond: int
    median: float
    largest: float


def run_level(cases: Sequence[Case]) -> tuple[list[NullLine], list[ItemPaired]]:
    """Returns the lines of run-level tests and of the wrong one, of the twins of each case."""
    tests, wrong = [], []
    for case in cases:
        for metric, values in _values(case).items():
            title = f"{case.experiment.name} {metric}"
            tests += _left_out(case.experiment.kind, title, values.mean(axis=1))
            wrong.append(_item_paired(title, values))
    return tests, wrong


def normal_law(n_draws: int) -> Iterator[NullLine]:
    """Yields the lines of the run-level test where runs are normal numbers."""
    rng = np.random.default_rng(7)
    for n_baselines in (3, 5, 10):
        drawn = rng.normal(size=(n_draws, n_baselines + 1))
        found = [run_test(float(row[0]), row[1:]) for row in drawn]
        p_values = np.array([one.p_value for one in found if one is not None])
        title = f"run against {n_baselines} baselines"
        yield null_line("normal runs", "any", title, "runs", "simulated", "t", p_values)


def _values(case: Case) -> Mapping[str, FloatArray]:
    """Returns metric -> float64 (n_runs, n_items), of metrics that every item has."""
    names = [metric.name for metric in case.scorer.metrics]
    found = {}
    for name in names:
        rows = [scored.values[name] for scored in case.twins if name in scored.values]
        if len(rows) == len(case.twins) and np.isfinite(rows).all():
            found[name] = np.array(rows)
    return found


def _left_out(kind: str, title: str, numbers: FloatArray) -> list[NullLine]:
    """Returns the lines of each run against all others, and against the next three."""
    n_runs = len(numbers)
    lines = []
    for n_baselines in (n_runs - 1, FEW):
        found = []
        for left_out in range(n_runs):
            others = np.roll(numbers, -left_out)[1 : n_baselines + 1]
            test = run_test(float(numbers[left_out]), others)
            if test is not None:
                found.append(test.p_value)
        if found:
            name = f"{title}, against {n_baselines} clean runs"
            lines.append(null_line(SOURCE, kind, name, "runs", "clean", "t", np.array(found)))
    return lines


def _item_paired(title: str, values: FloatArray) -> ItemPaired:
    z = []
    for one, other in itertools.combinations(values, 2):
        gap = one - other
        spread = float(gap.std(ddof=1))
        z.append(abs(float(gap.mean())) / (spread / np.sqrt(len(gap))) if spread else 0.0)
    beyond = sum(one > 1.96 for one in z)
    return ItemPaired(title, len(z), beyond, float(np.median(z)), max(z))
