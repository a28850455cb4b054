"""How much one exposure teaches, and how much of it stays: trajectories over checkpoints.

l(S) is the log-probability of a probe's target in checkpoint `step-S`, which holds all that was
placed at steps <= S. Of an exposure at step e (Chang et al. 2024, "How do large language models
acquire factual knowledge during pretraining?", arXiv 2406.11813, equations 2 to 4; window 50):

    peak           the checkpoint S with the largest l(S) among e <= S < e + 50
    effectivity    l(peak) - l(before), before: the last checkpoint with S < e
    retainability  (l(peak of the last exposure + lag) - l(start)) / (l(that peak) - l(start)),
                   start: the last checkpoint before the first exposure

The paper saves every step. With fewer checkpoints an exposure counts only where its rise is its
own: `before` lies within the window too, and no other exposure of the item lies between `before`
and the checkpoints that may be the peak. A checkpoint every 50 steps is enough for exposures that
are 100 steps apart; with fewer there is no number. The checkpoint at a lag is the one nearest to
it, by a fifth of the lag at most.

    l = -9, -4, -6 at steps 10, 20, 30, exposed at 15: effectivity 5, retainability at 10: 3 / 5

The largest of several noisy numbers is above their mean, so a model that learns nothing has an
effectivity a little above 0 where the window holds several checkpoints: compare with items that
were not exposed, at the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixctl.evals.stats.arms import FloatArray, IntArray

WINDOW = 50
LAGS = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000)
_TOLERANCE = 5
"""a checkpoint stands for a lag when it is off by a fifth of it at most"""


@dataclass(frozen=True)
class Rise:
    """The checkpoints, by place, that tell what an exposure taught.

    Attributes:
        before: the last one before it.
        after: int64, those in which the peak is looked for.
    """

    before: int
    after: IntArray


def rises(exposures: IntArray, steps: IntArray, window: int = WINDOW) -> list[Rise]:
    """Returns the rises that the checkpoints resolve, a list no longer than the exposures.

    Args:
        exposures: int64, the steps at which the item was placed, in any order; equal ones count
            once.
        steps: int64, ascending, the steps of the checkpoints.
        window: in how many steps, that of the exposure included, the peak must lie.
    """
    found = []
    own = np.unique(exposures)
    for at, step in enumerate(own.tolist()):
        before = int(np.searchsorted(steps, step)) - 1
        end = step + window if at + 1 == len(own) else min(step + window, int(own[at + 1]))
        after = np.flatnonzero((steps >= step) & (steps < end))
        fresh = before >= 0 and steps[before] >= step - window
        alone = at == 0 or before >= 0 and steps[before] >= own[at - 1]
        if fresh and alone and len(after):
            found.append(Rise(before, after))
    return found


def effectivity(values: FloatArray, found: Sequence[Rise]) -> FloatArray:
    """Returns the mean rise over the exposures, for each row of values.

    Args:
        values: float64 (n_items, n_checkpoints), l of each item.
        found: at least one.
    """
    each = [values[:, rise.after].max(axis=1) - values[:, rise.before] for rise in found]
    return np.asarray(np.mean(each, axis=0), dtype=np.float64)


@dataclass(frozen=True)
class Kept:
    """Of one item: what it had gained at its peak, and what is left of that after the lag."""

    gained: float
    left: float


def kept_after(
    values: FloatArray, exposures: IntArray, steps: IntArray, lag: int, window: int = WINDOW
) -> Kept | None:
    """Returns both parts of the retainability of an item; None where the checkpoints miss one.

    Args:
        values: float64 (n_checkpoints,), l of the item.
        exposures: int64, the steps at which the item was placed.
        steps: int64, ascending, the steps of the checkpoints.
        lag: in steps.
        window: in how many steps after the last exposure the peak must lie.
    """
    if not len(exposures):
        return None
    start = int(np.searchsorted(steps, exposures.min())) - 1
    last = int(exposures.max())
    after = np.flatnonzero((steps >= last) & (steps < last + window))
    if start < 0 or not len(after):
        return None
    peak = int(after[values[after].argmax()])
    distance = np.abs(steps - steps[peak] - lag)
    late = int(distance.argmin())
    if late <= peak or distance[late] * _TOLERANCE > lag:
        return None
    return Kept(float(values[peak] - values[start]), float(values[late] - values[start]))


def retainability(kept: Sequence[Kept]) -> tuple[float, FloatArray] | None:
    """Returns what is left over what was gained, and each item's share in its deviation.

    Both are summed over the items first, since a single item may have gained next to nothing. The
    second is float64 (n_items,): (left - retainability x gained) / gained of all, the linear part
    of a ratio. None where the items together gained nothing.
    """
    gained = np.array([one.gained for one in kept])
    left = np.array([one.left for one in kept])
    whole = float(gained.sum())
    if whole <= 0:
        return None
    ratio = float(left.sum()) / whole
    return ratio, np.asarray((left - ratio * gained) / whole, dtype=np.float64)
