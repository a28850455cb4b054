"""The items of an experiment with their arms: made by the kind, checked, clustered, randomised.

Items are sorted by id. Rows that name an arm or a dose keep it; the rest is randomised to the arms
that say how many items they take. Items with the same payload, or with the same `cluster`, are one
cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixctl.injections.base import Item, KindContext
from mixctl.injections.config import Arm, ExperimentConfig
from mixctl.pipeline.arms import UNUSED, ClusterTooLargeError, assign_arms
from mixctl.pipeline.mixfile import Experiment
from mixctl.shards.draws import I64, stream
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.manifest import payload_digest

ALL = "all"
"""the stratum of an item that has none"""
_MOST_NAMED = 5


@dataclass(frozen=True)
class AssignedItems:
    """The items of one experiment that are in an arm, sorted by id.

    Attributes:
        items: the items, holdouts included.
        arm: index into `arms`, int64 of shape (n,).
        copies: the dose of each item, int64 of shape (n,).
        clusters: the label of each item's cluster.
        randomised: whether the arm was drawn, not named by the item's row; bool of shape (n,).
        n_unused: items of the file that no arm takes.
    """

    items: tuple[Item, ...]
    arms: tuple[Arm, ...]
    arm: I64
    copies: I64
    clusters: tuple[str, ...]
    randomised: NDArray[np.bool_]
    n_unused: int


def assign_items(experiment: Experiment, context: KindContext) -> AssignedItems:
    """Returns the experiment's items with their arms.

    Raises:
        InputError: with every problem of the items and arms, naming experiment and item.
    """
    config = experiment.config
    items = sorted(experiment.kind.make_items(config, context), key=lambda item: item.item)
    _check_lengths(config, items, context.max_payload_tokens)
    arms = _all_arms(config, items)
    cluster = _clusters(items)
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
            f"together (same payload or cluster), more than the larger clusters before it left "
            f"room for in any arm: ask for other numbers of items"
        ) from None
    return _kept(items, arms, arm, cluster, ~given)


def _kept(
    items: list[Item], arms: list[Arm], arm: I64, cluster: I64, randomised: NDArray[np.bool_]
) -> AssignedItems:
    used = np.flatnonzero(arm != UNUSED)
    doses = np.array([a.copies for a in arms] or [0], dtype=np.int64)
    labels, first = np.unique(cluster, return_index=True)
    names = {int(label): items[i].item for label, i in zip(labels, first, strict=True)}
    return AssignedItems(
        items=tuple(items[i] for i in used),
        arms=tuple(arms),
        arm=arm[used],
        copies=doses[arm[used]],
        clusters=tuple(names[int(cluster[i])] for i in used),
        randomised=randomised[used],
        n_unused=len(items) - len(used),
    )


def _check_lengths(config: ExperimentConfig, items: list[Item], most: int) -> None:
    problems = [
        f"experiment '{config.name}': item '{item.item}': the payload has {len(ids)} tokens; a "
        "sequence "
        f"holds at most {most} between two end-of-document tokens"
        for item in items
        for ids in item.variants
        if len(ids) > most
    ]
    problems += [
        f"experiment '{config.name}': item '{item.item}': the payload is empty"
        for item in items
        for ids in item.variants
        if not len(ids)
    ]
    if len(problems) > _MOST_NAMED:
        problems = [
            *problems[:_MOST_NAMED],
            f"... and {len(problems) - _MOST_NAMED} more such items",
        ]
    if problems:
        raise InputError(problems)


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


def _clusters(items: list[Item]) -> I64:
    """Returns a label for each item: equal for items linked by a payload or a cluster name."""
    links = [payload_digest(item.variants[0]) for item in items]
    names = [f"item {i.item}" if i.cluster is None else f"cluster {i.cluster}" for i in items]
    nodes = np.unique([*links, *names], return_inverse=True)[1] + len(items)
    n = len(items)
    ones = np.ones(2 * n, dtype=np.int8)
    edges = (ones, (np.tile(np.arange(n), 2), nodes))
    side = n + int(nodes.max(initial=n)) + 1
    graph = coo_array(edges, shape=(side, side))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels[:n], dtype=np.int64)


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
