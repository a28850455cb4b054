"""The picture of a plan: the payload tokens of every part of training, by experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixctl.pipeline.plan import Plan, PlannedExperiment
from mixctl.shards.files import replacing

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
_MOST_BINS = 120


def draw_plan(plan: Plan, path: Path) -> None:
    """Writes the picture; the suffix of `path` decides the format (png, svg, pdf)."""
    rows = max(len(plan.experiments), 1)
    figure = Figure(figsize=(9, 1.2 + 1.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    steps = plan.topology.steps
    edges = np.unique(np.linspace(0, steps, min(steps, _MOST_BINS) + 1).round())
    for axis, experiment in zip(axes, plan.experiments, strict=False):
        _row(axis, plan, experiment, edges)
    axes[-1].set_xlabel("optimizer step")
    figure.suptitle(
        f"payload tokens as a share of each step's tokens ({steps:,} steps)", fontsize=10
    )
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix.lstrip("."), dpi=130)


def _row(axis: Axes, plan: Plan, experiment: PlannedExperiment, edges: np.ndarray) -> None:
    step = experiment.copies.sequence // plan.topology.global_batch
    bottom = np.zeros(len(edges) - 1)
    per_step = plan.topology.global_batch * plan.topology.max_seq_length * np.diff(edges)
    for number, arm in enumerate(experiment.assigned.arms):
        mine = experiment.assigned.arm[experiment.copies.item] == number
        if not mine.any():
            continue
        tokens, _ = np.histogram(step[mine], edges, weights=experiment.copies.length[mine])
        share = 100 * tokens / per_step
        label = f"{arm.name} ({arm.copies} x)"
        axis.bar(edges[:-1], share, np.diff(edges), bottom, align="edge", label=label)
        bottom += share
    axis.set_ylabel("%", fontsize=8)
    axis.set_title(f"{experiment.config.name} ({experiment.config.kind})", fontsize=9, loc="left")
    axis.tick_params(labelsize=8)
    if bottom.any():
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
