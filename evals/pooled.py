"""Tests that need no holdout: the scorer's own, over the items of an arm.

Where the secret of an experiment was drawn at random (a key, a string, a noise), a model that never
met it has a known law, so an arm is tested alone (`PooledScorer`). The holdout's row and the twin's
are negative controls. They are `level` rows; one of them is primary only where there is no holdout
to compare with (`mixctl.evals.primary`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mixctl.evals.experiments import Experiment
from mixctl.evals.rows import Row
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import FloatArray, PooledScorer
from mixctl.evals.stats.permutation import SMALLEST


def pooled_rows(experiment: Experiment, scorer: PooledScorer, scored: Scored) -> Iterator[Row]:
    """Yields a row for each arm and each of the scorer's own numbers."""
    for arm in experiment.all_arms:
        inside = experiment.arms == arm
        values: Mapping[str, FloatArray] = {
            name: of_items[inside] for name, of_items in scored.values.items()
        }
        for found in scorer.pooled(values):
            tested = found.p_value is not None
            yield replace(
                experiment.row(arm, found.metric, scored),
                estimate=found.estimate,
                n=found.n,
                p_value=max(found.p_value, SMALLEST) if found.p_value is not None else None,
                sided="greater" if tested else None,
                test=found.test,
                note=found.note,
            )
