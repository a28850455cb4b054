"""An experiment's scores under one checkpoint: what samples/ hold and estimates are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mixctl.evals.scorers.base import FloatArray


@dataclass(frozen=True)
class Scored:
    """An experiment's scores under one checkpoint.

    Attributes:
        model: "run" or "twin".
        checkpoint: its folder.
        step: its step; None when unknown.
        values: metric -> float64 (n_items,), NaN where an item has none.
        estimators: metric -> how its values were had.
    """

    model: str
    checkpoint: str
    step: int | None
    values: Mapping[str, FloatArray]
    estimators: Mapping[str, str]
