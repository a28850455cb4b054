"""The plan of an amendment: new placements in steps that are still ahead, where nothing is yet.

The rules are those of a build (`placement.py`): every copy has a stream of its own, keyed by (seed,
experiment, item, copy), experiments take their turn by name. Only the room differs: a sequence that
holds a placement or a mark, or was replaced, is full, and so is every step up to `after_step`.
Copies of one amendment may share a sequence.

    item with 4 copies in the build, 2 further ones: copies 4 and 5, payloads 4 and 5 in turn
    a fact with reserved paraphrases: further copies take those in turn

Not possible: base data as a payload (spare sequences are gone with the token files) and strings
that must occur nowhere (their sequences would have to be replaced).
Price: that of a plan; documents that end in a sequence are looked up in train/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from mixctl.injections.base import Item, KindContext
from mixctl.injections.config import Arm, ExperimentConfig
from mixctl.pipeline.additions import Additions
from mixctl.pipeline.assignment import AssignedItems, assign_items, raise_problems
from mixctl.pipeline.drafts import Draft, draft_of
from mixctl.pipeline.finished import BuildStream, FinishedBuild, Known
from mixctl.pipeline.mixfile import Experiment, located
from mixctl.pipeline.plan import Plan, kind_context, place_drafts
from mixctl.pipeline.prepare import marks_without_noise
from mixctl.pipeline.purge import payload_problems
from mixctl.pipeline.resolve import Resolved, resolve
from mixctl.shards.errors import InputError, nearest


def plan_amendment(
    build: FinishedBuild, additions: Additions, after_step: int
) -> tuple[Plan, Resolved]:
    """Returns the plan of the new placements, nothing of it left open.

    Args:
        build: what is amended.
        additions: what is to be placed.
        after_step: every placement is in a later step.

    Raises:
        InputError: with every problem.
    """
    steps = build.record.geometry.steps
    if not 0 <= after_step < steps:
        most = f"0 to {steps - 1}"
        raise InputError(f"--after-step: {after_step}: the run has {steps} steps: give {most}")
    try:
        return _planned(build, additions, after_step)
    except InputError as error:
        raise InputError(located(error.problems, additions.path)) from None


def _planned(build: FinishedBuild, additions: Additions, after_step: int) -> tuple[Plan, Resolved]:
    experiments, encoder = additions.experiments(), build.encoder()
    mix = build.mix(experiments, additions.folder / additions.path.name)
    context = kind_context(mix, encoder)
    drafts: list[Draft] = []
    problems: list[str] = []
    for one in experiments:
        try:
            assigned = _assigned(one, context, build, additions.copies.get(one.config.name))
            drafts.append(draft_of(one, assigned, mix, after_step))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    plan = place_drafts(mix, encoder, drafts, build.held)
    problems = payload_problems(plan, build.forbidden) + marks_without_noise(plan)
    if not any(len(one.copies) for one in plan.experiments):
        problems.append(f"{additions.path}: places nothing: every dose is 0")
    if problems:
        raise InputError(problems)
    none = np.empty(0, dtype=np.int64)
    return plan, resolve(plan, BuildStream(build), (none, none))


def _assigned(
    experiment: Experiment,
    context: KindContext,
    build: FinishedBuild,
    exact: Mapping[str, int] | None,
) -> AssignedItems:
    """Returns the items in their arms: drawn for a new experiment, as they are for a known one."""
    name = experiment.config.name
    if experiment.kind.absent:
        raise InputError(
            f"experiment '{name}': kind {experiment.kind.name} wants strings nowhere in the run, "
            "which only a build can give"
        )
    known = build.known_items(name)
    if known:
        assigned = further_copies(experiment, context, known, exact)
    else:
        _check_new(name, build, exact)
        assigned = assign_items(experiment, context)
    raise_problems(
        [
            f"experiment '{name}': item '{item.item}' is base data: spare base data is gone with "
            "the token files, only a build can place it"
            for item in assigned.items
            if item.base is not None and not item.base.mark
        ]
    )
    return assigned


def _check_new(name: str, build: FinishedBuild, exact: Mapping[str, int] | None) -> None:
    alike = [other for other in build.record.totals if other.lower() == name.lower()]
    if alike:
        raise InputError(
            f"experiment '{name}': the build has an experiment '{alike[0]}': names must differ by "
            "more than case"
        )
    if exact is not None:
        hint = nearest(name, build.record.totals)
        raise InputError(f"copies: the build has no experiment '{name}'{hint}")


def further_copies(
    experiment: Experiment,
    context: KindContext,
    known: Mapping[str, Known],
    exact: Mapping[str, int] | None = None,
) -> AssignedItems:
    """Returns the items of an experiment of the build that get further copies, in their arms.

    Args:
        experiment: the section.
        context: as for a build.
        known: the experiment's items in the build.
        exact: the further copies of each item; None: the doses of the section's arms.

    Raises:
        InputError: when the items are not those of the build.
    """
    config = experiment.config
    _check_section(config, known, exact)
    arms = _arms(config, known, exact)

    def make_items(_: ExperimentConfig, context: KindContext) -> list[Item]:
        made = experiment.kind.make_items(config, context)
        raise_problems(_strangers(config.name, made, known))
        wanted = [item for item in made if exact is None or exact.get(item.item)]
        named = {arm.name for arm in arms}
        return [_further(i, known[i.item]) for i in wanted if known[i.item].arm in named]

    kind = replace(experiment.kind, make_items=make_items)
    told = config.model_copy(update={"arms": arms})
    assigned = assign_items(Experiment(told, kind), context)
    names = [item.item for item in assigned.items]
    copies = assigned.copies if exact is None else np.array([exact[n] for n in names], np.int64)
    return replace(
        assigned,
        copies=copies,
        earlier=np.array([known[n].copies for n in names], dtype=np.int64),
        first_variant=np.array(
            [len(i.variants) - len(i.reserve) if i.reserve else 0 for i in assigned.items],
            dtype=np.int64,
        ),
    )


def _check_section(
    config: ExperimentConfig, known: Mapping[str, Known], exact: Mapping[str, int] | None
) -> None:
    place = f"experiment '{config.name}'"
    arms = {one.arm for one in known.values()}
    problems = [
        f"{place}, arm '{arm.name}': the build has no such arm{nearest(arm.name, arms)}: items "
        "stay in their arms, new ones go to an experiment of a new name"
        for arm in config.arms
        if arm.name not in arms
    ]
    each: Literal["each"] = "each"
    if each in {config.variants, *(arm.variants for arm in config.arms)}:
        problems.append(f"{place}: variants: each is for a build; further copies cycle")
    if exact is None and all(arm.held_out for arm in config.arms):
        problems.append(f"{place}: no arm has a dose: an arm says how much more its items get")
    problems += [
        f"{place}: copies: the build has no item '{item}'{nearest(item, known)}"
        for item in exact or {}
        if item not in known
    ]
    if problems:
        raise InputError(problems)


def _arms(
    config: ExperimentConfig, known: Mapping[str, Known], exact: Mapping[str, int] | None
) -> list[Arm]:
    """Returns the arms whose items get further copies; none takes items, since all have an arm."""
    told = {arm.name: arm for arm in config.arms}
    if exact is None:
        dosed = [arm for arm in config.arms if not arm.held_out]
        return [arm.model_copy(update={"items": None}) for arm in dosed]
    dose = {"items": None, "copies": 1, "tokens": None, "share": None}
    return [
        told.get(name, Arm(name=name, copies=1)).model_copy(update=dose)
        for name in sorted({known[item].arm for item, n in exact.items() if n})
    ]


def _strangers(name: str, made: list[Item], known: Mapping[str, Known]) -> list[str]:
    """Returns the items that are not those of the build."""
    problems = []
    for item in made:
        place = f"experiment '{name}': item '{item.item}'"
        found = known.get(item.item)
        if found is None:
            problems.append(
                f"{place}: the build has no such item{nearest(item.item, known)}: new items go to "
                "an experiment of a new name"
            )
        elif not _same(item, found):
            problems.append(f"{place}: not the item of that name in the build")
    return problems


def _same(item: Item, known: Known) -> bool:
    payload = item.variants[0] if item.variants else None
    if (payload is None) != (known.tokens is None):
        return False
    if payload is not None and not np.array_equal(payload, np.asarray(known.tokens)):
        return False
    return item.meta.model_dump_json() == known.meta


def _further(item: Item, known: Known) -> Item:
    """Returns the item as its further copies take it: fixed in its arm, reserve and all."""
    variants = (*item.variants, *item.reserve)
    return replace(item, arm=known.arm, copies=None, steps=None, variants=variants)
