"""The pictures of single items: ROC curves of arm against holdout, and histograms of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mixctl.evals import charts_bands, charts_roc
from mixctl.evals.charts import plain
from mixctl.evals.item_scores import ItemScores
from mixctl.evals.metric_words import described
from mixctl.evals.picture import (
    Cell,
    Drawn,
    Picture,
    Point,
    models_of,
    twins_in_words,
    with_interval,
)
from mixctl.evals.report_rows import Placed
from mixctl.evals.stats import roc
from mixctl.evals.stats.arms import FloatArray

DIFFERENCE = "run − twin"
FEW_FOR_LOGARITHMS = 100
"""holdout items below which a picture of low false-positive rates would show single items"""
_BINS = 30
_SAME_AREA = 1e-9
_LONGEST_AXIS = 40
"""letters below a picture; the heading names the metric anyway"""


def roc_curves(drawn: Drawn) -> list[Picture]:
    """Returns the ROC curves of the primary metric, top arm against holdout, if it has AUC rows.

    A curve is drawn only when the area below it is the AUC of its row. The mean of several twins
    has no row: its curve is drawn where the one of run - twin, which is made of it, is drawn.
    """
    aucs: dict[str, Placed | Point] = {**_membership(drawn, "auc")}
    scores = drawn.scores
    if scores is None or drawn.primary.metric not in scores.run:
        return []
    curves = {
        model: curve
        for model, values in _values(scores, drawn.primary.metric).items()
        if (curve := _curve(scores, values, drawn.primary.arm, aucs.get(model))) is not None
    }
    if scores.n_twins > 1 and scores.twin is not None and DIFFERENCE in curves:
        values = scores.twin[drawn.primary.metric]
        curve = roc.curve(scores.against_holdout(values, drawn.primary.arm))
        name = twins_in_words([scores.n_twins])
        bare = replace(aucs["run"].row, estimate=curve.area, ci_low=None, ci_high=None, note=None)
        curves[name], aucs[name] = curve, Point(bare, None)
    return _roc_pictures(drawn, curves, aucs) if "run" in curves else []


def _membership(drawn: Drawn, metric: str) -> dict[str, Placed]:
    """Returns run, twin, run - twin -> the row of a membership metric of the top arm."""
    primary = drawn.primary
    return {
        DIFFERENCE if placed.row.contrast == "did" else placed.row.model: placed
        for placed in drawn.rows
        if (placed.row.metric, placed.row.arm) == (metric, primary.arm)
        and (placed.row.step, placed.row.stratum) == (primary.step, None)
    }


def _values(scores: ItemScores, metric: str) -> dict[str, FloatArray]:
    values = {"run": scores.run[metric]}
    if scores.twin is not None and metric in scores.twin:
        values[DIFFERENCE] = scores.run[metric] - scores.twin[metric]
        values[twins_in_words([scores.n_twins])] = scores.twin[metric]
    return values


def _curve(
    scores: ItemScores, values: FloatArray, arm: str, auc: Placed | Point | None
) -> roc.Curve | None:
    sample = scores.against_holdout(values, arm)
    if auc is None or auc.row.estimate is None or not sample.n_treated:
        return None
    curve = roc.curve(sample)
    return curve if abs(curve.area - auc.row.estimate) < _SAME_AREA else None


def _roc_pictures(
    drawn: Drawn, curves: Mapping[str, roc.Curve], aucs: Mapping[str, Placed | Point]
) -> list[Picture]:
    row = aucs["run"].row
    n_holdout = row.n_holdout or 1
    least = 1 / n_holdout
    heading = f"ROC of {row.arm} against holdout by {described(drawn.primary.metric).words}"
    areas = ", ".join(f"{model} {plain(aucs[model].row.estimate)}" for model in curves)
    label = f"{heading}; areas below the curves: {areas}"
    caption = f"{row.n} items against {n_holdout}; the grey line is chance."
    if means := [model for model in curves if model.startswith("mean of")]:
        caption += f" The curve '{means[0]}' is of the items' mean scores."
    few = n_holdout < FEW_FOR_LOGARITHMS
    if few:
        caption += f" Rates below {plain(least)}, one holdout item, cannot be told."
    rates = _membership(drawn, "tpr_at_1pct_fpr")
    numbers = [
        [Cell(model), with_interval(aucs[model]), with_interval(rates.get(model))]
        for model in curves
    ]
    head = ["scores", "AUC", "true positives at 1% false positives"]
    svg = charts_roc.roc(f"{drawn.name}-roc", label, curves)
    made = [Picture(heading, caption, svg, head, numbers)]
    if not few:
        svg = charts_roc.roc_low(f"{drawn.name}-roc-low", f"{label}; logarithmic", curves, least)
        low = f"The same on logarithmic axes, down to one of {n_holdout} holdout items; dotted: 1%."
        made.append(Picture("ROC at low false-positive rates", low, svg))
    return made


def histograms(drawn: Drawn, metrics: Sequence[str]) -> Picture | None:
    """Returns the histograms of a score by arm: the exposure, else the first that has a spread."""
    scores = drawn.scores
    metric = _spread_metric(scores, ["exposure", *metrics]) if scores else None
    if scores is None or metric is None:
        return None
    run = scores.run[metric]
    twin = (scores.twin or {}).get(metric)
    edges = _edges(run if twin is None else np.concatenate([run, twin]))
    arms = [arm for arm in drawn.arms if np.isfinite(run[scores.arms == arm]).any()]
    rows = [
        charts_bands.Band(
            arm,
            drawn.look[arm],
            charts_bands.shares(run[scores.arms == arm], edges),
            None if twin is None else charts_bands.shares(twin[scores.arms == arm], edges),
        )
        for arm in charts_bands.most_telling(arms)
    ]
    words = described(metric)
    label = f"Histograms of {words.axis} by arm: {', '.join(band.arm for band in rows)}"
    name = f"{drawn.name}-scores"
    axis = words.axis if len(words.axis) <= _LONGEST_AXIS else words.unit
    svg = charts_bands.bands(name, label, rows, edges, axis, one_scale=False)
    dotted = "" if twin is None else f"; dotted: {twins_in_words([scores.n_twins])}"
    caption = f"A band an arm: how its items are spread in the run{dotted}. Each to its own scale."
    head, numbers = _item_numbers(drawn, metric, run, arms)
    return Picture(f"{words.words} of single items", caption, svg, head, numbers)


def _spread_metric(scores: ItemScores, metrics: Sequence[str]) -> str | None:
    """Returns the first metric that has more than two values."""
    for metric in metrics:
        values = scores.run.get(metric)
        if values is not None and len(np.unique(values[np.isfinite(values)])) > 2:
            return metric
    return None


def _edges(values: FloatArray) -> FloatArray:
    finite = values[np.isfinite(values)]
    return np.linspace(finite.min(), finite.max(), _BINS + 1)


def _item_numbers(
    drawn: Drawn, metric: str, run: FloatArray, arms: Sequence[str]
) -> tuple[list[str], list[list[Cell]]]:
    """Returns the head and the lines of the table below the histograms."""
    levels = drawn.last_levels(metric)
    models = models_of(levels)
    inside = {arm: drawn.scores.arms == arm for arm in arms} if drawn.scores else {}
    lines = [
        [
            Cell(arm),
            Cell(f"{np.isfinite(run[inside[arm]]).sum():,}"),
            *(with_interval(levels.get((arm, model))) for model in models),
        ]
        for arm in arms
    ]
    twin = twins_in_words([p.n_twins for (_, model), p in levels.items() if model == "twin"])
    heads = [twin if twin != model == "twin" else f"mean, {model}" for model in models]
    return ["arm", "items", *heads], lines
