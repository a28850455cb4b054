"""Pictures with a band an arm, named at its left: scores of items, copies over the run.

Each band is a histogram of its own above its own base line, so bands never hide each other and need
no colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixctl.evals.charts import INCHES_A_LETTER, INK, SOFT, Canvas, Look, shortened
from mixctl.evals.stats.arms import FloatArray

MAX_BANDS = 12
_HIGHEST = 0.86


@dataclass(frozen=True)
class Band:
    """One arm's histogram.

    Attributes:
        arm: its name.
        look: its look.
        filled: float64 (n_bins,), drawn solid.
        outline: float64 (n_bins,), drawn as a line over it, or None.
    """

    arm: str
    look: Look
    filled: FloatArray
    outline: FloatArray | None = None


def bands(
    name: str,
    label: str,
    rows: Sequence[Band],
    edges: FloatArray,
    axis: str,
    marks: Sequence[float] = (),
    one_scale: bool = True,
) -> str:
    """Returns the picture, the first band lowest.

    Args:
        name: unique on the page.
        label: for those who do not see it.
        rows: the bands.
        edges: float64 (n_bins + 1,).
        axis: the label below.
        marks: where dotted upright lines stand.
        one_scale: whether the heights of all bands have one scale, else each its own.
    """
    names = [shortened(band.arm) for band in rows]
    left = 0.15 + INCHES_A_LETTER * max(map(len, names))
    height = 0.65 + (0.3 if one_scale else 0.4) * len(rows)
    canvas = Canvas(name, label, height=height, left=left, across=False)
    tallest = max(_tallest(band) for band in rows)
    for place, band in enumerate(rows):
        _draw(canvas, band, place, edges, _HIGHEST / (tallest if one_scale else _tallest(band)))
    for mark in marks:
        canvas.axes.axvline(mark, color=SOFT, lw=0.8, ls=(0, (1, 2)))
    canvas.axes.set_yticks(np.arange(len(rows)) + 0.3, names, parse_math=False)
    canvas.axes.set_ylim(-0.05, len(rows))
    canvas.axes.set_xlim(edges[0], edges[-1])
    canvas.axes.set_xlabel(axis, parse_math=False)
    return canvas.finish()


def _draw(canvas: Canvas, band: Band, place: int, edges: FloatArray, scale: float) -> None:
    axes = canvas.axes
    shape = place + band.filled * scale
    axes.stairs(shape, edges, baseline=place, fill=True, color=band.look.colour)
    axes.plot(edges[[0, -1]], [place, place], color=SOFT, lw=0.6)
    if band.outline is not None:
        line = place + band.outline * scale
        axes.stairs(line, edges, baseline=None, color=INK, lw=1.1, ls=(0, (1, 1)))


def _tallest(band: Band) -> float:
    parts = [band.filled] if band.outline is None else [band.filled, band.outline]
    return max(float(part.max()) for part in parts) or 1.0


def most_telling(arms: Sequence[str]) -> Sequence[str]:
    """Returns as many arms as a picture holds: the first (lowest dose) and the last ones."""
    return arms if len(arms) <= MAX_BANDS else [arms[0], *arms[-MAX_BANDS + 1 :]]


def shares(values: FloatArray, edges: FloatArray) -> FloatArray:
    """Returns the share of the values in each bin, float64 (n_bins,); NaN values are left out."""
    finite = values[np.isfinite(values)]
    counts, _ = np.histogram(finite, edges)
    return np.asarray(counts / max(len(finite), 1), dtype=np.float64)
