"""What the outcome of an experiment is in a dependence test: the mean of one metric over its items.

The metric is the kind's primary one, or the one asked for; all items count, placed and held out
ones alike, since another experiment's data may reach any of them. Which metric it is, is decided
before a run is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixctl.evals.experiments import Experiment
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import AnyScorer, FloatArray, ScorerOfMethods
from mixctl.evals.scorers.registry import scorer_for
from mixctl.shards.errors import nearest
from mixctl.shards.files import FileDigest


def scorer_of(experiment: Experiment) -> AnyScorer:
    """Returns the scorer of an experiment's items.

    Raises:
        LookupError: when none is registered for its kind.
    """
    scorer = scorer_for(experiment.kind)
    return scorer.scorer_of(experiment.items) if isinstance(scorer, ScorerOfMethods) else scorer


def items_digest(experiment: Experiment) -> str:
    """Returns the digest of what an experiment is asked: names, tokens and meta of its items."""
    digest = FileDigest()
    for item in experiment.items:
        tokens = item.tokens.astype("<i8").tobytes()
        for part in (item.name.encode(), item.meta.encode(), tokens):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def outcome_metric(scorer: AnyScorer, asked: str | None) -> tuple[str | None, str | None]:
    """Returns (metric, None), or (None, why there is none).

    Args:
        scorer: of the experiment.
        asked: the metric asked for; None for the primary one.
    """
    names = [metric.name for metric in scorer.metrics]
    if asked is None:
        primary = next((metric.name for metric in scorer.metrics if metric.primary), None)
        return primary, None if primary else (
            f"kind {scorer.kind} has no primary metric: name one of {', '.join(names)}"
        )
    begins = tuple(name[:-1] for name in names if name.endswith("*"))
    if asked in names or (begins and asked.startswith(begins)):
        return asked, None
    return None, f"kind {scorer.kind} has no metric '{asked}'{nearest(asked, names)}"


def outcomes(values: Sequence[FloatArray]) -> FloatArray:
    """Returns the mean over the items that have the metric in every run: float64 (runs,).

    Args:
        values: of each run, float64 (n_items,), NaN where an item has none.

    Raises:
        ValueError: when no item has it in all of them.
    """
    table = np.stack(values)
    everywhere = np.isfinite(table).all(axis=0)
    if not everywhere.any():
        raise ValueError("no item has the metric in every run")
    return np.asarray(table[:, everywhere].mean(axis=1), dtype=np.float64)


def values_of(scored: Scored, metric: str) -> FloatArray:
    """Returns a metric of the items, NaN everywhere where the scorer gave none."""
    found: Mapping[str, FloatArray] = scored.values
    return found.get(metric, np.full(len(next(iter(found.values()))), np.nan))
