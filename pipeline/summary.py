"""What a plan amounts to, in numbers: doses, tokens, share, capacity, detectable effects."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel
from scipy.stats import norm

from mixctl.pipeline.placement import capacity_left
from mixctl.pipeline.plan import SEPARATORS, Plan, PlannedExperiment

ALPHA, POWER = 0.05, 0.8


class ArmSummary(BaseModel):
    """One arm; `steps` are the first and last step of its window."""

    name: str
    items: int
    copies: int
    placements: int
    tokens: int
    steps: tuple[int, int]
    schedule: Any
    detectable_effect_sd: float | None


class ExperimentSummary(BaseModel):
    """One experiment; `share` is its payload tokens over the tokens of the run."""

    name: str
    kind: str
    items: int
    unused_items: int
    placements: int
    tokens: int
    share: float
    capacity_left: int
    arms: list[ArmSummary]


class TotalSummary(BaseModel):
    """All experiments together."""

    placements: int
    tokens: int
    share: float


class PlanSummary(BaseModel):
    """What `mixctl plan --json` prints."""

    geometry: dict[str, int]
    experiments: list[ExperimentSummary]
    total: TotalSummary


def summarise(plan: Plan) -> PlanSummary:
    """Returns the plan in numbers."""
    experiments = [_experiment(plan, one) for one in plan.experiments]
    tokens = sum(one.tokens for one in experiments)
    return PlanSummary(
        geometry=_geometry(plan),
        experiments=experiments,
        total=TotalSummary(
            placements=sum(one.placements for one in experiments),
            tokens=tokens,
            share=tokens / plan.run_tokens,
        ),
    )


def _geometry(plan: Plan) -> dict[str, int]:
    topology = plan.topology
    return {
        "steps": topology.steps,
        "sequences": topology.sequences,
        "max_seq_length": topology.max_seq_length,
        "global_batch": topology.global_batch,
        "micro_batch": topology.micro_batch,
        "devices": topology.devices,
        "nodes": topology.nodes,
        "workers": topology.workers,
        "run_tokens": plan.run_tokens,
        "base_tokens_needed": base_tokens_needed(plan),
    }


def base_tokens_needed(plan: Plan) -> int:
    """Returns the base tokens that the run and the validation set take."""
    return (plan.topology.sequences + plan.mix.config.validation) * plan.topology.sequence_tokens


def _experiment(plan: Plan, one: PlannedExperiment) -> ExperimentSummary:
    return ExperimentSummary(
        name=one.config.name,
        kind=one.config.kind,
        items=len(one.assigned.items),
        unused_items=one.assigned.n_unused,
        placements=len(one.copies),
        tokens=one.n_tokens,
        share=one.n_tokens / plan.run_tokens,
        capacity_left=_capacity_left(plan, one),
        arms=[_arm(one, number) for number in range(len(one.assigned.arms))],
    )


def _capacity_left(plan: Plan, one: PlannedExperiment) -> int:
    """Returns how many more of the longest payload fit into the experiment's windows."""
    if not one.assigned.items or not one.windows:
        return 0
    batch = plan.topology.global_batch
    first = min(window.start for window in one.windows) * batch
    stop = max(window.stop for window in one.windows) * batch
    extent = one.longest_payload + SEPARATORS
    return capacity_left(first, stop, extent, plan.occupied, plan.topology.sequence_tokens)


def _arm(one: PlannedExperiment, number: int) -> ArmSummary:
    arm, window, assigned = one.assigned.arms[number], one.windows[number], one.assigned
    mine = assigned.arm[one.copies.item] == number
    return ArmSummary(
        name=arm.name,
        items=int((assigned.arm == number).sum()),
        copies=arm.copies,
        placements=int(mine.sum()),
        tokens=int(one.copies.length[mine].sum()),
        steps=(window.start + 1, window.stop),
        schedule=(arm.schedule or one.config.schedule) if arm.copies else None,
        detectable_effect_sd=_detectable(one, number),
    )


def _detectable(one: PlannedExperiment, number: int) -> float | None:
    """Returns the smallest difference found with power 0.8 at 0.05, in standard deviations.

    (z_0.975 + z_0.8) * sqrt(1/n + 1/m) for n items in the arm and m held out.
    """
    arms = one.assigned.arms
    n = int((one.assigned.arm == number).sum())
    held_out = [k for k, arm in enumerate(arms) if arm.copies == 0]
    m = int(np.isin(one.assigned.arm, held_out).sum())
    if not n or not m or arms[number].copies == 0:
        return None
    return float((norm.isf(ALPHA / 2) + norm.ppf(POWER)) * np.sqrt(1 / n + 1 / m))
