"""The ROC curve of an arm against the holdout, within strata.

Each item of the arm has a false-positive rate: the share of its stratum's holdout that it would
take along, were its own score the threshold. The curve at rate t is the share of the arm whose rate
is at most t: the covariate-adjusted ROC curve of Janes and Pepe (2009, "Adjusting for covariate
effects on classification accuracy using the covariate-adjusted ROC curve"), and the usual one where
there is one stratum. Ties make a slope instead of a step, so that the area below is exactly the AUC
of `mixctl.evals.stats.ranks`.

    arm 3, 1 against holdout 2 -> (0, 0) (0, 0.5) (1, 0.5) (1, 1), area 0.5
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixctl.evals.stats.arms import FloatArray, TwoArms


@dataclass(frozen=True)
class Curve:
    """The corners of a ROC curve, from (0, 0) to (1, 1).

    Attributes:
        false_rate: float64 (n,), never falling.
        true_rate: float64 (n,), never falling.
    """

    false_rate: FloatArray
    true_rate: FloatArray

    @property
    def area(self) -> float:
        """Returns the area below the curve."""
        widths = np.diff(self.false_rate)
        return float(widths @ (self.true_rate[1:] + self.true_rate[:-1]) / 2)


def curve(arms: TwoArms) -> Curve:
    """Returns the ROC curve of arm against holdout.

    Raises:
        ValueError: when either has no item.
    """
    if not arms.n_treated or not arms.n_holdout:
        raise ValueError("a ROC curve needs items of both the arm and the holdout")
    starts, ends = _false_rates(arms)
    weight = 1 / len(starts)
    sloped = ends > starts
    knots = np.unique(np.concatenate([[0.0, 1.0], starts, ends]))
    slope = np.zeros(len(knots))
    steepness = weight / (ends - starts)[sloped]
    np.add.at(slope, np.searchsorted(knots, starts[sloped]), steepness)
    np.subtract.at(slope, np.searchsorted(knots, ends[sloped]), steepness)
    jump = np.bincount(np.searchsorted(knots, starts[~sloped]), minlength=len(knots)) * weight
    risen = np.concatenate([[0.0], np.cumsum(np.cumsum(slope)[:-1] * np.diff(knots))])
    after = risen + np.cumsum(jump)
    pairs = np.stack([after - jump, after], axis=1).reshape(-1)
    return Curve(np.repeat(knots, 2), np.clip(pairs, 0.0, 1.0))


def _false_rates(arms: TwoArms) -> tuple[FloatArray, FloatArray]:
    """Returns, per item of the arm, the share of its stratum's holdout above it, and at or above.

    Float64 (n_treated,) each.
    """
    above, reaching = np.zeros(len(arms.values)), np.zeros(len(arms.values))
    for stratum in range(arms.n_strata):
        inside = arms.strata == stratum
        own, others = inside & arms.treated, np.sort(arms.values[inside & ~arms.treated])
        at_most = np.searchsorted(others, arms.values[own], "right")
        below = np.searchsorted(others, arms.values[own], "left")
        above[own] = (len(others) - at_most) / len(others)
        reaching[own] = (len(others) - below) / len(others)
    return above[arms.treated], reaching[arms.treated]
