"""The picture of a plan: the payload tokens of every part of training, by experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixctl.injections.config import Arm
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


def _dose(arm: Arm) -> str:
    if arm.copies is not None:
        return f"{arm.copies} x"
    return arm.share or f"{arm.tokens:,} tokens"


def _row(axis: Axes, plan: Plan, experiment: PlannedExperiment, edges: np.ndarray) -> None:
    bin_of_step = np.searchsorted(edges, np.arange(plan.topology.steps), side="right") - 1
    bins = bin_of_step[experiment.copies.sequence // plan.topology.global_batch]
    arm_of_copy = experiment.assigned.arm[experiment.copies.item]
    bottom = np.zeros(len(edges) - 1)
    per_step = plan.topology.global_batch * plan.topology.max_seq_length * np.diff(edges)
    for number, arm in enumerate(experiment.assigned.arms):
        mine = arm_of_copy == number
        if not mine.any():
            continue
        tokens = np.bincount(bins[mine], experiment.copies.length[mine], minlength=len(bottom))
        share = 100 * tokens / per_step
        label = f"{arm.name} ({_dose(arm)})"
        axis.stairs(bottom + share, edges, baseline=bottom.copy(), fill=True, label=label)
        bottom += share
    axis.set_ylabel("%", fontsize=8)
    axis.set_title(f"{experiment.config.name} ({experiment.config.kind})", fontsize=9, loc="left")
    axis.tick_params(labelsize=8)
    if bottom.any():
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        axis.text(0.5, 0.4, "nothing is placed", transform=axis.transAxes, ha="center", fontsize=8)
