"""The items of an experiment with their arms: made by the kind, checked, clustered, randomised.

Items are sorted by id. Rows that name an arm or a dose keep it; the rest is randomised to the arms
that say how many items they take. Items with the same payload, with nearly the same one, or with
the same `cluster`, are one cluster. With `near_duplicates: remove` only the first of them stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.base import Item, KindContext, TokenIds
from mixctl.injections.components import components
from mixctl.injections.config import Arm, ExperimentConfig
from mixctl.injections.near_duplicates import near_duplicates
from mixctl.pipeline.arms import UNUSED, ClusterTooLargeError, assign_arms
from mixctl.pipeline.dose import budget_tokens, round_order, spend, variant_lengths
from mixctl.pipeline.mixfile import Experiment
from mixctl.shards.draws import I64, stream
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.manifest import payload_digest

ALL = "all"
"""the stratum of an item that has none"""
_MOST_NAMED = 5
_NONE = np.empty(0, dtype=np.uint32)


@dataclass(frozen=True)
class AssignedItems:
    """The items of one experiment that are in an arm, sorted by id.

    Attributes:
        items: the items, holdouts included.
        arm: index into `arms`, int64 of shape (n,).
        copies: the dose of each item, int64 of shape (n,).
        near_duplicates: items left out because an earlier one is nearly the same.
        clusters: the label of each item's cluster.
        randomised: whether the arm was drawn, not named by the item's row; bool of shape (n,).
        n_unused: items of the file that no arm takes.
        earlier: where copies are added to a build, how many of each item it holds already: int64 of
            shape (n,); None for none. The numbers of the new copies follow.
        first_variant: of each item, the first of the payloads that copies take in turn: int64 of
            shape (n,); None for 0.
    """

    items: tuple[Item, ...]
    arms: tuple[Arm, ...]
    arm: I64
    copies: I64
    clusters: tuple[str, ...]
    randomised: NDArray[np.bool_]
    n_unused: int
    near_duplicates: int = 0
    earlier: I64 | None = None
    first_variant: I64 | None = None


def assign_items(experiment: Experiment, context: KindContext) -> AssignedItems:
    """Returns the experiment's items with their arms.

    Raises:
        InputError: with every problem of the items and arms, naming experiment and item.
    """
    config = experiment.config
    made = sorted(_made(experiment, context), key=lambda item: item.item)
    arms = _all_arms(config, made)
    _check_payloads(config, arms, made, context)
    items, cluster = _clustered(config, made)
    arm = _fixed_arms(config, items, arms)
    given = arm != UNUSED
    free = np.flatnonzero(~given)
    _check_clusters_free(config, items, cluster, arm)
    _check_arms_used(config, arms, arm)
    quotas = _quotas(config, arms, len(free))
    strata = np.unique([items[i].stratum or ALL for i in free], return_inverse=True)[1]
    try:
        key = stream(context.seed, "arms", config.name)
        arm[free] = assign_arms(strata.astype(np.int64), cluster[free], quotas, key)
    except ClusterTooLargeError as error:
        first = items[int(np.argmax(cluster == error.cluster))].item
        raise InputError(
            f"experiment '{config.name}': item '{first}' is one of {error.n_items} that belong "
            f"together (same payload, near-duplicates, or cluster), more than the larger clusters "
            f"before it left room for in any arm: ask for other numbers of items"
        ) from None
    kept = _kept(items, arms, arm, cluster, ~given)
    copies = _copies(config, kept, context)
    return replace(kept, copies=copies, near_duplicates=len(made) - len(items))


def _made(experiment: Experiment, context: KindContext) -> list[Item]:
    """Returns the kind's items; its problems get the name of the experiment where they lack it."""
    name = f"experiment '{experiment.config.name}'"
    try:
        return experiment.kind.make_items(experiment.config, context)
    except InputError as error:
        named = [p if p.startswith((name, "...")) else f"{name}: {p}" for p in error.problems]
        raise InputError(named) from None


def _kept(
    items: list[Item], arms: list[Arm], arm: I64, cluster: I64, randomised: NDArray[np.bool_]
) -> AssignedItems:
    used = np.flatnonzero(arm != UNUSED)
    labels, first = np.unique(cluster, return_index=True)
    names = {int(label): items[i].item for label, i in zip(labels, first, strict=True)}
    return AssignedItems(
        items=tuple(items[i] for i in used),
        arms=tuple(arms),
        arm=arm[used],
        copies=np.zeros(len(used), dtype=np.int64),
        clusters=tuple(names[int(cluster[i])] for i in used),
        randomised=randomised[used],
        n_unused=len(items) - len(used),
    )


def _copies(config: ExperimentConfig, kept: AssignedItems, context: KindContext) -> I64:
    """Returns the dose of each item: its arm's copies, or its part of the arm's budget."""
    copies = np.zeros(len(kept.items), dtype=np.int64)
    problems = []
    for number, arm in enumerate(kept.arms):
        mine = np.flatnonzero(kept.arm == number)
        items = [kept.items[i] for i in mine]
        budget = budget_tokens(arm, context.run_tokens)
        variants = arm.variants or config.variants
        if budget is None:
            copies[mine] = arm.copies or 0
        elif items:
            lengths = variant_lengths(items, variants, context.sequence_tokens)
            order = round_order([i.item for i in items], context.seed, config.name)
            copies[mine] = spend(budget, lengths, order)
            if not copies[mine].any():
                problems.append(
                    f"experiment '{config.name}', arm '{arm.name}': a budget of {budget} tokens "
                    f"is less than one payload ({min(int(one[0]) for one in lengths)} tokens)"
                )
        if variants == "each":
            problems += _too_few_variants(config, items, copies[mine])
    if problems:
        raise InputError(problems)
    return copies


def _too_few_variants(config: ExperimentConfig, items: list[Item], copies: I64) -> list[str]:
    short = [
        (item, n)
        for item, n in zip(items, copies.tolist(), strict=True)
        if item.base is None and n > len(item.variants)
    ]
    if not short:
        return []
    item, n = short[0]
    more = f" (and {len(short) - 1} more such items)" if len(short) > 1 else ""
    return [
        f"experiment '{config.name}': item '{item.item}': {n} copies, each with a payload of its "
        f"own, but it has {len(item.variants)}: add paraphrases, or say variants: cycle{more}"
    ]


def _check_payloads(
    config: ExperimentConfig, arms: list[Arm], items: list[Item], context: KindContext
) -> None:
    """Refuses payloads that are empty, or longer than any of the arms can place."""
    dosed = [arm for arm in arms if not arm.held_out]
    whole = all((arm.split or config.split) in (None, "whole") for arm in dosed)
    modes = {arm.placement or config.placement for arm in dosed}
    most = context.max_payload_tokens if whole and modes <= {"overwrite", "boundary"} else None
    problems = []
    for item in items:
        place = f"experiment '{config.name}': item '{item.item}'"
        longest = max((len(ids) for ids in item.variants), default=0)
        if any(not len(ids) for ids in item.variants) or (not item.variants and not item.base):
            problems.append(f"{place}: the payload is empty")
        elif most is not None and longest > most:
            problems.append(
                f"{place}: the payload has {longest} tokens; a sequence holds at most {most} "
                f"between two end-of-document tokens (split: cuts it into pieces)"
            )
    raise_problems(problems)


def raise_problems(problems: list[str]) -> None:
    """Raises the first few problems, and how many more there are; nothing when there is none."""
    rest = len(problems) - _MOST_NAMED
    if problems:
        more = [f"... and {rest} more such items"] if rest > 0 else []
        raise InputError([*problems[:_MOST_NAMED], *more])


def _all_arms(config: ExperimentConfig, items: list[Item]) -> list[Arm]:
    """Returns the arms of the mix file and those that doses in rows ask for."""
    arms = list(config.arms)
    for copies in sorted({item.copies for item in items if item.copies is not None}):
        name = _dose_arm(copies)
        if name not in {arm.name for arm in arms}:
            arms.append(Arm(name=name, copies=copies))
    if not arms:
        raise InputError(
            f"experiment '{config.name}': no arms: add arms:, or give every row its 'copies'"
        )
    return arms


def _dose_arm(copies: int) -> str:
    return f"x{copies}" if copies else "holdout"


def _fixed_arms(config: ExperimentConfig, items: list[Item], arms: list[Arm]) -> I64:
    """Returns the arm of each item whose row names one, UNUSED for the others."""
    names = {arm.name: number for number, arm in enumerate(arms)}
    fixed = np.full(len(items), UNUSED, dtype=np.int64)
    problems = []
    for number, item in enumerate(items):
        wanted = _dose_arm(item.copies) if item.copies is not None else item.arm
        if wanted is None:
            continue
        if wanted not in names:
            problems.append(
                f"experiment '{config.name}': item '{item.item}': there is no arm '{wanted}'"
                f"{nearest(wanted, names)}"
            )
        elif item.copies not in (None, arms[names[wanted]].copies):
            problems.append(
                f"experiment '{config.name}': item '{item.item}' asks for {item.copies} copies, "
                "but the arm "
                f"'{wanted}' has {arms[names[wanted]].copies}"
            )
        fixed[number] = names.get(wanted, UNUSED)
    if problems:
        raise InputError(problems)
    return fixed


def _clustered(config: ExperimentConfig, items: list[Item]) -> tuple[list[Item], I64]:
    """Returns the items and the label of each one's cluster; near-duplicates removed if asked."""
    if config.near_duplicates == "remove":
        alike = _components([_payload_links(items), _near_links(items)], len(items))
        items = [items[i] for i in np.sort(np.unique(alike, return_index=True)[1])]
    links = [_payload_links(items), _cluster_links(items)]
    if config.near_duplicates == "cluster":
        links.append(_near_links(items))
    return items, _components(links, len(items))


def _payload_links(items: list[Item]) -> list[str]:
    return [
        f"item {i.item}" if i.base is not None else payload_digest(i.variants[0]) for i in items
    ]


def _cluster_links(items: list[Item]) -> list[str]:
    return [f"item {i.item}" if i.cluster is None else f"cluster {i.cluster}" for i in items]


def _near_links(items: list[Item]) -> list[str]:
    compared = [_compared(item) for item in items]
    return [f"near {label}" for label in near_duplicates(compared).tolist()]


def _compared(item: Item) -> TokenIds:
    """Returns the tokens that near-duplicates are told by; rows that name their arm have none."""
    if item.arm is not None or item.copies is not None:
        return _NONE
    if item.compared is not None:
        return item.compared
    return item.variants[0] if item.variants else _NONE


def _components(links: list[list[str]], n: int) -> I64:
    """Returns a label for each item: equal for items that some chain of equal links connects."""
    different, nodes = np.unique(np.array(links).ravel(), return_inverse=True)
    if len(different) == len(nodes):
        return np.arange(n)  # nothing is shared
    first = np.full(len(different), n, dtype=np.int64)
    item = np.tile(np.arange(n), len(links))
    np.minimum.at(first, nodes, item)
    return components(n, item, first[nodes])


def _check_clusters_free(
    config: ExperimentConfig, items: list[Item], cluster: I64, arm: I64
) -> None:
    """Refuses a cluster of which some items have their arm from the row and others another."""
    problems = []
    labels, counts = np.unique(cluster, return_counts=True)
    for label in np.intersect1d(labels[counts > 1], cluster[arm != UNUSED]):
        members = np.flatnonzero(cluster == label)
        if len(np.unique(arm[members])) > 1:
            names = ", ".join(f"'{items[i].item}'" for i in members[:_MOST_NAMED])
            problems.append(
                f"experiment '{config.name}': items {names} belong together (same payload or "
                "cluster), "
                f"but their rows put them into different arms"
            )
    if problems:
        raise InputError(problems[:_MOST_NAMED])


def _check_arms_used(config: ExperimentConfig, arms: list[Arm], fixed: I64) -> None:
    """Refuses an arm that neither says how many items it takes nor is named by a row."""
    problems = [
        f"experiment '{config.name}', arm '{arm.name}': takes no items: say items: (a number or "
        f"'rest'), or name the arm in the rows"
        for number, arm in enumerate(arms)
        if arm.items is None and not (fixed == number).any()
    ]
    if problems:
        raise InputError(problems)


def _quotas(config: ExperimentConfig, arms: list[Arm], n_free: int) -> list[int]:
    asked = [arm.items if isinstance(arm.items, int) else 0 for arm in arms]
    if sum(asked) > n_free:
        raise InputError(
            f"experiment '{config.name}': the arms ask for {sum(asked)} items, there are only "
            f"{n_free} to "
            f"randomise"
        )
    rest = n_free - sum(asked)
    return [rest if arm.items == "rest" else n for arm, n in zip(arms, asked, strict=True)]
