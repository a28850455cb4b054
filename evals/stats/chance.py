"""Is a share above what guessing reaches? The exact binomial tail, one-sided.

    9 right of 46, guessing right in 1 of 23 -> p = 0.0003

Valid for items that are independent of each other: P(p <= a) <= a when all are guessed.
"""

from __future__ import annotations

from scipy import stats


def p_value(n_right: int, n_items: int, chance: float) -> float:
    """Returns P(at least n_right of n_items) when each is right with probability `chance`."""
    return float(stats.binom.sf(n_right - 1, n_items, chance))
