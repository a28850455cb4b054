"""The pictures of an experiment's levels, with their numbers: by dose, and over training."""

from __future__ import annotations

from mixctl.evals import charts_levels
from mixctl.evals.formatting import MISSING, dose, number
from mixctl.evals.metric_words import described
from mixctl.evals.picture import Cell, Drawn, Picture, models_of, twins_in_words, with_interval


def dose_response(drawn: Drawn, metric: str) -> Picture | None:
    """Returns the levels by arm at the last checkpoint; None where there are none."""
    levels = drawn.last_levels(metric)
    if not levels:
        return None
    step = "the last checkpoint" if drawn.primary.step is None else f"step {drawn.primary.step}"
    heading = f"{described(metric).axis} by dose at {step}"
    svg = charts_levels.dose_response(
        f"{drawn.name}-{metric}-dose",
        f"Dose-response: {heading}",
        [placed.row for placed in levels.values()],
        drawn.look,
    )
    models = models_of(levels)
    numbers = [
        [Cell(arm), _seen(drawn, arm), *(with_interval(levels.get((arm, m))) for m in models)]
        for arm in drawn.arms
        if any((arm, model) in levels for model in models)
    ]
    twin = twins_in_words([p.n_twins for p in levels.values() if p.row.model == "twin"])
    hollow = f"; hollow: {twin}" if "twin" in models else ""
    caption = f"Mean of each arm with its 95% interval. Filled: run{hollow}."
    head = ["arm", "copies seen", *(twin if model == "twin" else model for model in models)]
    return Picture(heading, caption, svg, head, numbers)


def _seen(drawn: Drawn, arm: str) -> Cell:
    doses = [p.row.dose for p in drawn.rows if (p.row.arm, p.row.step) == (arm, drawn.primary.step)]
    return Cell(dose(doses[0]) if doses else MISSING)


def trajectories(drawn: Drawn, metric: str) -> Picture | None:
    """Returns the levels over the checkpoints; None where there is only one."""
    found = [placed for placed in drawn.levels(metric) if placed.row.step is not None]
    steps = sorted({placed.row.step for placed in found if placed.row.step is not None})
    if len(steps) < 2:
        return None
    heading = f"{described(metric).axis} over training"
    svg = charts_levels.curves(
        f"{drawn.name}-{metric}-curves",
        f"Trajectories: {heading}",
        [placed.row for placed in found],
        drawn.look,
    )
    points = {(p.row.model, p.row.arm, p.row.step): p for p in found}
    twin = twins_in_words([p.n_twins for p in found if p.row.model == "twin"])
    numbers = []
    for model, arm in dict.fromkeys((p.row.model, p.row.arm) for p in found):
        line = [points.get((model, arm, step)) for step in steps]
        cells = [Cell(number(p.row.estimate), p.place) if p else Cell(MISSING) for p in line]
        numbers.append([Cell(f"{arm}, {twin if model == 'twin' else model}"), *cells])
    caption = f"A line an arm, with 95% bands; dotted: the same items, {twin}."
    return Picture(heading, caption, svg, ["arm", *(f"step {s}" for s in steps)], numbers)
