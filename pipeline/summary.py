"""What a plan amounts to, in numbers: doses, tokens, share, capacity, detectable effects."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel

from mixctl.injections.config import AbsentConfig
from mixctl.injections.quantities import parse_tokens
from mixctl.pipeline.copies import OVERWRITE, arm_mode
from mixctl.pipeline.placement import SEPARATORS
from mixctl.pipeline.plan import Plan, PlannedExperiment

ALPHA, POWER = 0.05, 0.8


class ArmSummary(BaseModel):
    """One arm; `steps` are the first and last step of its window.

    `copies` is the mean over its items where the arm has a budget.
    """

    name: str
    items: int
    copies: float
    placements: int
    tokens: int
    placement: str
    steps: tuple[int, int]
    schedule: Any
    detectable_effect_sd: float | None


class ExperimentSummary(BaseModel):
    """One experiment; `share` is its tokens over the tokens of the run.

    `tokens` are those that the experiment decides: its payloads, the base data it places or marks,
    and the base sequences that are expected to be replaced for it.
    """

    name: str
    kind: str
    items: int
    unused_items: int
    placements: int
    tokens: int
    share: float
    capacity_left: int
    near_duplicates: int
    spare_sequences: int
    expected_replaced: int
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
    """Returns the base tokens that the run, the validation set and spare base data take."""
    expected = sum(_expected_replaced(one, plan) for one in plan.experiments)
    sequences = plan.topology.sequences + plan.mix.config.validation + plan.n_spares + expected
    return sequences * plan.topology.sequence_tokens


def _expected_replaced(one: PlannedExperiment, plan: Plan) -> int:
    """Returns the base sequences that the mix expects to be replaced for the experiment."""
    expected = one.config.expected_tokens if isinstance(one.config, AbsentConfig) else None
    return round(parse_tokens(expected or 0) / plan.topology.max_seq_length)


def _experiment(plan: Plan, one: PlannedExperiment) -> ExperimentSummary:
    replaced = _expected_replaced(one, plan)
    tokens = one.n_tokens + replaced * plan.topology.max_seq_length
    spare = np.array([i.base.n_sequences if i.base else 0 for i in one.assigned.items])
    return ExperimentSummary(
        name=one.config.name,
        kind=one.config.kind,
        items=len(one.assigned.items),
        unused_items=one.assigned.n_unused,
        placements=len(one.copies),
        tokens=tokens,
        share=tokens / plan.run_tokens,
        capacity_left=_capacity_left(plan, one),
        near_duplicates=one.assigned.near_duplicates,
        spare_sequences=int(spare[one.spare >= 0].sum()),
        expected_replaced=replaced,
        arms=[_arm(one, number) for number in range(len(one.assigned.arms))],
    )


def _capacity_left(plan: Plan, one: PlannedExperiment) -> int:
    """Returns how many more of the longest payload fit into the experiment's windows."""
    if not one.assigned.items or not one.windows:
        return 0
    batch = plan.topology.global_batch
    first = min(window.start for window in one.windows) * batch
    stop = max(window.stop for window in one.windows) * batch
    if one.copies.mode.max(initial=OVERWRITE) != OVERWRITE:
        extent = plan.topology.sequence_tokens
    else:
        extent = one.longest_payload + SEPARATORS
    return plan.free_room.left(first, stop, extent)


def _arm(one: PlannedExperiment, number: int) -> ArmSummary:
    arm, window, assigned = one.assigned.arms[number], one.windows[number], one.assigned
    mine = assigned.arm[one.copies.item] == number
    return ArmSummary(
        name=arm.name,
        items=int((assigned.arm == number).sum()),
        copies=_mean_copies(one, number),
        placements=int(mine.sum()),
        tokens=int(one.copies.length[mine].sum()),
        placement=arm_mode(one.config, arm),
        steps=(window.start + 1, window.stop),
        schedule=None if arm.held_out else _schedule(one, number),
        detectable_effect_sd=_detectable(one, number),
    )


def _schedule(one: PlannedExperiment, number: int) -> Any:
    """Returns the arm's schedule as in the mix file, or that its items' rows name the steps."""
    arm, assigned = one.assigned.arms[number], one.assigned
    mine = [i for i, a in zip(assigned.items, assigned.arm.tolist(), strict=True) if a == number]
    if mine and all(item.steps for item in mine):
        return "as given"
    return arm.schedule or one.config.schedule


def _mean_copies(one: PlannedExperiment, number: int) -> float:
    copies = one.assigned.arms[number].copies
    if copies is not None:
        return copies
    mine = one.assigned.copies[one.assigned.arm == number]
    return float(mine.mean()) if len(mine) else 0.0


def _detectable(one: PlannedExperiment, number: int) -> float | None:
    """Returns the smallest difference found with power 0.8 at 0.05, in standard deviations.

    (z_0.975 + z_0.8) * sqrt(1/n + 1/m) for n items in the arm and m held out.
    """
    arms = one.assigned.arms
    n = int((one.assigned.arm == number).sum())
    held_out = [k for k, arm in enumerate(arms) if arm.held_out]
    m = int(np.isin(one.assigned.arm, held_out).sum())
    if not n or not m or arms[number].held_out:
        return None
    from scipy.stats import norm  # late: scipy is slow to import

    return float((norm.isf(ALPHA / 2) + norm.ppf(POWER)) * np.sqrt(1 / n + 1 / m))
