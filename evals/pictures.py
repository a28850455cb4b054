"""Which pictures an experiment gets: its doses, its trajectories, its items, its placement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixctl.evals import charts_bands, pictures_control, pictures_items, pictures_levels
from mixctl.evals.picture import Cell, Drawn, Picture
from mixctl.evals.stats.arms import FloatArray

MAX_METRICS = 2
"""metrics of an experiment that are drawn, the primary one first; the tables have all"""


def pictures(drawn: Drawn) -> list[Picture]:
    """Returns the pictures of an experiment; those that cannot be had are left out."""
    metrics = item_metrics(drawn)
    made: list[Picture | None] = []
    for metric in metrics[:MAX_METRICS]:
        made += [
            pictures_levels.dose_response(drawn, metric),
            pictures_levels.trajectories(drawn, metric),
        ]
    made += [*pictures_items.roc_curves(drawn), pictures_items.histograms(drawn, metrics)]
    made += [timeline(drawn), *pictures_control.steering(drawn)]
    return [picture for picture in made if picture is not None]


def item_metrics(drawn: Drawn) -> list[str]:
    """Returns the metrics that single items have, the primary one first."""
    levels = [placed.row.metric for placed in drawn.rows if placed.row.contrast == "level"]
    per_item = [m for m in levels if drawn.scores is None or m in drawn.scores.run]
    return list(dict.fromkeys([drawn.primary.metric, *per_item]))


def timeline(drawn: Drawn) -> Picture | None:
    """Returns when copies were placed; None where there are none."""
    binned = drawn.about["timeline"]
    counts = {arm: binned[arm] for arm in drawn.arms if sum(binned.get(arm, []))}
    if not counts:
        return None
    n_bins = len(next(iter(counts.values())))
    edges = np.linspace(0, drawn.run_steps, n_bins + 1)
    rows = [
        charts_bands.Band(arm, drawn.look[arm], np.array(counts[arm], dtype=np.float64))
        for arm in charts_bands.most_telling(list(counts))
    ]
    label = f"Placement over the run's {drawn.run_steps} steps by arm: {', '.join(counts)}"
    name = f"{drawn.name}-timeline"
    svg = charts_bands.bands(name, label, rows, edges, "optimizer step", marks=drawn.checkpoints)
    caption = f"A band an arm: copies in each of {n_bins} parts of the run; dotted: checkpoints."
    numbers = [_placed(arm, values, edges) for arm, values in counts.items()]
    head = ["arm", "copies", "between steps"]
    return Picture("When copies were placed", caption, svg, head, numbers)


def _placed(arm: str, values: Sequence[int], edges: FloatArray) -> list[Cell]:
    filled = np.flatnonzero(values)
    first, last = edges[filled[0]], edges[filled[-1] + 1]
    return [Cell(arm), Cell(f"{sum(values):,}"), Cell(f"{first:.0f} and {last:.0f}")]
