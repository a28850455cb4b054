"""The table: what was seen, line by line, and whether it is in line.

A test's line holds its p-values under a true null. It is out of line where P(p <= a) exceeds a by
more than chance explains (one-sided binomial, at a = 0.01, 0.05, 0.2), and where P(p <= a) falls
below `KEEPS` times the largest size that a test of its law can have at a: for a continuous test a
itself, for a discrete one the largest of its p-values that is not above a. An interval's line holds
how often it covered the truth; it is out of line where that is less than `COVERS` of its class by
more than chance explains. Holm's rule runs over all lines of one sort, so that a run of the whole
suite gives a false alarm with probability `ALARM` at most for each sort.

    2,000 p-values, 131 of them <= 0.05 -> 0.0655, binomial p 0.0013; 0.04 after Holm over 30 lines
    p-values 0.1, 0.4, 0.7, 1 -> the size at 0.2 is 0.1 at most; at 0.05 it is 0, nothing is asked
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVELS = (0.01, 0.05, 0.2)
ALARM = 1e-3
KEEPS = 0.9
"""a test has P(p <= a) of at least this times the largest size that it could have at a"""


@dataclass(frozen=True)
class NullLine:
    """A test under a true null.

    Attributes:
        source: how the null was made: arms dealt anew, secrets drawn anew, clean runs.
        kind: of the experiment.
        name: experiment, arm, metric.
        contrast: level | holdout | did | runs.
        models: whose scores.
        method: how the p-values were had, in brief.
        n: draws.
        below: how many p-values were at most each of LEVELS.
        attainable: the largest size that the test could have at or below each of LEVELS.
        as_dealt: the p-value of the arms as the build dealt them; None where there is none.
    """

    source: str
    kind: str
    name: str
    contrast: str
    models: str
    method: str
    n: int
    below: tuple[int, ...]
    attainable: tuple[float, ...] = LEVELS
    as_dealt: float | None = None

    @property
    def shares(self) -> list[float]:
        """Returns P(p <= a) as seen, for each of LEVELS."""
        return [count / self.n for count in self.below]


@dataclass(frozen=True)
class Covered:
    """An interval where the truth is known.

    Attributes:
        source: how the values came about.
        name: what is estimated from what.
        method: the class of interval.
        n: intervals that were had.
        covered: how many held the truth.
        missing: draws without an interval (no spread).
        least: the coverage that the class promises.
    """

    source: str
    name: str
    method: str
    n: int
    covered: int
    missing: int = 0
    least: float = 0.95

    @property
    def share(self) -> float:
        """Returns the coverage as seen."""
        return self.covered / self.n if self.n else float("nan")


@dataclass(frozen=True)
class Verdict:
    """Something that is out of line, and how surely."""

    what: str
    seen: str
    holm_p: float


def null_line(
    source: str,
    kind: str,
    name: str,
    contrast: str,
    models: str,
    method: str,
    p_values: npt.NDArray[np.float64],
    attainable: Iterable[float] = LEVELS,
    as_dealt: float | None = None,
) -> NullLine:
    """Returns the line of a test from its p-values; without `attainable` it could have any size."""
    below = tuple(int((p_values <= level + 1e-12).sum()) for level in LEVELS)
    n, sizes = len(p_values), tuple(float(size) for size in attainable)
    return NullLine(source, kind, name, contrast, models, method, n, below, sizes, as_dealt)


def holm(p_values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns Holm's adjusted p-values, in the order given."""
    found = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(found, kind="stable")
    steps = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def verdicts(
    tests: Sequence[NullLine], intervals: Sequence[Covered], alarm: float = ALARM
) -> list[Verdict]:
    """Returns everything that is out of line; nothing where all is well."""
    found = [*_too_often(tests), *_too_rarely(tests), *_as_dealt(tests), *_coverage(intervals)]
    return [verdict for verdict in found if verdict.holm_p <= alarm]


def _named(line: NullLine) -> str:
    return f"{line.source}: {line.kind} {line.name}, {line.contrast}, {line.models}"


def _judged(asked: Iterable[tuple[str, str, float]]) -> list[Verdict]:
    """Returns verdicts with Holm's p-values out of (what, what was seen, p-value)."""
    given = list(asked)
    adjusted = holm([p for _, _, p in given])
    pairs = zip(given, adjusted, strict=True)
    return [Verdict(what, seen, float(p)) for (what, seen, _), p in pairs]


def _too_often(tests: Sequence[NullLine]) -> list[Verdict]:
    return _judged(
        (
            _named(line),
            f"P(p <= {level}) = {count / line.n:.4f} of {line.n}",
            float(stats.binom.sf(count - 1, line.n, level)),
        )
        for line in tests
        for level, count in zip(LEVELS, line.below, strict=True)
    )


def _too_rarely(tests: Sequence[NullLine]) -> list[Verdict]:
    return _judged(
        (
            _named(line),
            f"conservative: P(p <= {level}) = {count / line.n:.4f} of {line.n}, "
            f"{size:.4f} can be had",
            float(stats.binom.cdf(count, line.n, KEEPS * size)),
        )
        for line in tests
        for level, count, size in zip(LEVELS, line.below, line.attainable, strict=True)
    )


def _as_dealt(tests: Sequence[NullLine]) -> list[Verdict]:
    """Returns what the arms of the build itself say: a model that met nothing tells none apart."""
    return _judged(
        (_named(line), f"p = {line.as_dealt:.3g} for the arms as the build dealt them", p)
        for line in tests
        if (p := line.as_dealt) is not None
    )


def _coverage(intervals: Sequence[Covered]) -> list[Verdict]:
    return _judged(
        (
            f"{line.source}: {line.name}, {line.method}",
            f"covers {line.share:.4f} of {line.n}, at least {line.least} promised",
            float(stats.binom.cdf(line.covered, line.n, line.least)),
        )
        for line in intervals
        if line.n
    )
