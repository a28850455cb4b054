"""plan.html: a plan to look at before it is paid for. One file, no script, no network.

Each experiment has its doses, its share of the tokens, its placements over the steps, what it adds
to a batch, the room that is left, what its arms can detect, and a few payloads as the tokenizer
cuts them. The pictures are drawn as those of the report (evals/charts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixctl.evals import charts
from mixctl.evals.charts_bands import Band, bands, most_telling
from mixctl.injections.base import Item
from mixctl.injections.encode import Encoder
from mixctl.pipeline.cost import Disk, Measured, disk, measure
from mixctl.pipeline.page import template
from mixctl.pipeline.plan import Plan, PlannedExperiment
from mixctl.pipeline.summary import ExperimentSummary, PlanSummary, summarise
from mixctl.shards.draws import I64
from mixctl.shards.files import write_text
from mixctl.shards.meta.contamination import ContaminationMeta

_MOST_BINS = 100
_SAMPLES = 3
_SAMPLE_TOKENS = 60


@dataclass(frozen=True)
class Density:
    """Payload tokens of a step: mean, median, 95th percentile and most, as shares of its tokens."""

    mean: float
    median: float
    high: float
    most: float
    busiest: int
    """the step with most, from 1"""


@dataclass(frozen=True)
class Sample:
    """A payload cut into tokens: (text, id) each, and how many more there are."""

    item: str
    arm: str
    tokens: list[tuple[str, int]]
    n_more: int


@dataclass(frozen=True)
class Section:
    """An experiment on the page; `picture` is None where nothing is placed."""

    anchor: str
    summary: ExperimentSummary
    legend: list[tuple[str, str]]
    picture: str | None
    density: Density
    samples: list[Sample]
    chance: float | None
    """accuracy of a guess, where the items are questions"""


def write_plan_page(plan: Plan, path: Path) -> None:
    """Writes the page of a plan; measures the corpus for some seconds where there is one."""
    measured = measure(plan)
    corpus = plan.mix.config.corpus
    given = corpus.tokens if isinstance(corpus.tokens, int) else None
    n_tokens = given if measured is None else measured.corpus_tokens
    write_text(path, render(plan, disk(plan, n_tokens), measured))


def render(plan: Plan, room: Disk, measured: Measured | None) -> str:
    """Returns the HTML of a plan's page."""
    summary = summarise(plan)
    sections = [
        _section(plan, one, said, f"e{number}")
        for number, (one, said) in enumerate(
            zip(plan.experiments, summary.experiments, strict=True)
        )
    ]
    every = [one.copies for one in plan.experiments]
    steps = np.concatenate([np.empty(0, np.int64), *(one.sequence for one in every)])
    lengths = np.concatenate([np.empty(0, np.int64), *(one.length for one in every)])
    per_step = _per_step(plan, steps, lengths)
    return template("plan.html.j2").render(
        mix=str(plan.mix.path),
        summary=summary,
        sections=sections,
        density=_density(per_step),
        overall=_overall(plan, per_step) if len(steps) else None,
        disk=room,
        measured=measured,
        spare=_spare(summary),
    )


def _spare(summary: PlanSummary) -> int:
    return sum(one.spare_sequences + one.expected_replaced for one in summary.experiments)


def _section(plan: Plan, one: PlannedExperiment, said: ExperimentSummary, anchor: str) -> Section:
    arms = [arm.name for arm in one.assigned.arms]
    dosed = [arm.name for arm in one.assigned.arms if not arm.held_out]
    look = charts.looks(arms, dosed)
    return Section(
        anchor=anchor,
        summary=said,
        legend=[(name, charts.swatch(look[name])) for name in arms],
        picture=_timeline(plan, one, dosed, look, anchor) if len(one.copies) else None,
        density=_density(_per_step(plan, one.copies.sequence, one.copies.length)),
        samples=_samples(plan.encoder, one),
        chance=_chance(one.assigned.items),
    )


def _per_step(plan: Plan, sequence: I64, length: I64) -> np.ndarray:
    """Returns the payload tokens of each step as a share of its tokens: float64 (steps,)."""
    topology = plan.topology
    tokens = np.bincount(sequence // topology.global_batch, length, minlength=topology.steps)
    return np.asarray(tokens / (topology.global_batch * topology.max_seq_length))


def _density(per_step: np.ndarray) -> Density:
    return Density(
        mean=float(per_step.mean()),
        median=float(np.median(per_step)),
        high=float(np.quantile(per_step, 0.95)),
        most=float(per_step.max()),
        busiest=int(per_step.argmax()) + 1,
    )


def _edges(steps: int) -> np.ndarray:
    """Returns the bounds of the pictures' bins: whole steps, float64."""
    return np.unique(np.linspace(0, steps, min(steps, _MOST_BINS) + 1).round())


def _overall(plan: Plan, per_step: np.ndarray) -> str:
    """Returns the picture of the density of all experiments: the mean of each bin, and its most."""
    edges = _edges(plan.topology.steps)
    first = edges[:-1].astype(np.int64)
    mean = np.add.reduceat(per_step, first) / np.diff(edges)
    look = charts.looks(["all"], ["all"])["all"]
    band = Band("payload", look, mean, np.maximum.reduceat(per_step, first))
    label = (
        f"Payload tokens of a step over the run: {100 * per_step.mean():.3g}% of its tokens in the "
        f"mean, {100 * per_step.max():.3g}% at most"
    )
    return bands("all", label, [band], edges, "optimizer step")


def _timeline(
    plan: Plan,
    one: PlannedExperiment,
    dosed: list[str],
    look: dict[str, charts.Look],
    anchor: str,
) -> str:
    """Returns the picture of an experiment's copies over the steps, a band an arm."""
    edges = _edges(plan.topology.steps)
    step = one.copies.sequence // plan.topology.global_batch
    arm = one.assigned.arm[one.copies.item]
    names = [known.name for known in one.assigned.arms]
    rows = []
    for name in most_telling(dosed):
        placed, _ = np.histogram(step[arm == names.index(name)] + 0.5, edges)
        rows.append(Band(name, look[name], placed.astype(np.float64)))
    label = f"Placements of {one.config.name} over the run, by arm: {', '.join(dosed)}"
    return bands(anchor, label, rows, edges, "optimizer step", one_scale=False)


def _samples(encoder: Encoder, one: PlannedExperiment) -> list[Sample]:
    """Returns a few payloads, of different arms while there are any."""
    items, arms = one.assigned.items, one.assigned.arms
    named = [n for n, item in enumerate(items) if item.text is not None and item.variants]
    firsts = {int(one.assigned.arm[n]): n for n in reversed(named)}
    chosen = sorted(firsts.values())[:_SAMPLES] or [
        n for n, item in enumerate(items[:_SAMPLES]) if item.variants
    ]
    return [_sample(encoder, items[n], arms[int(one.assigned.arm[n])].name) for n in chosen]


def _sample(encoder: Encoder, item: Item, arm: str) -> Sample:
    ids = item.variants[0][:_SAMPLE_TOKENS].tolist()
    shown = [(encoder.decode([token]), token) for token in ids]
    return Sample(item.item, arm, shown, len(item.variants[0]) - len(ids))


def _chance(items: Sequence[Item]) -> float | None:
    """Returns the accuracy of a guess over questions; None for other items."""
    metas = (item.meta for item in items)
    sizes = [len(meta.choice_tokens) for meta in metas if isinstance(meta, ContaminationMeta)]
    return float(np.mean([1 / n for n in sizes])) if sizes and all(sizes) else None
