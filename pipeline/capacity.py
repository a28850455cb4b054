"""What cannot fit, said before anything is placed, and what was left without a place.

Price: nothing is laid out for the first check; the second sorts the copies of one experiment.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mixctl.injections.config import Arm, ExperimentConfig
from mixctl.pipeline.assignment import AssignedItems
from mixctl.pipeline.copies import arm_mode, arm_split
from mixctl.pipeline.placement import SEPARATORS, Requests, most_extents
from mixctl.pipeline.schedule import StepWindow
from mixctl.shards.topology import Topology


def too_many(
    config: ExperimentConfig,
    assigned: AssignedItems,
    windows: tuple[StepWindow, ...],
    topology: Topology,
) -> Iterator[str]:
    """Yields the arms whose copies cannot fit even into an empty window; lays out nothing."""
    given = np.array([bool(item.steps) for item in assigned.items], dtype=np.bool_)
    for number, (arm, window) in enumerate(zip(assigned.arms, windows, strict=True)):
        mine = (assigned.arm == number) & ~given
        asked = int(assigned.copies[mine].sum())
        if not asked:
            continue
        if _whole_steps(config, assigned, arm, number):
            yield from too_many_batches(config, asked, window)
            continue
        extent = _shortest_extent(config, assigned, arm, number, topology)
        first, stop = window.start * topology.global_batch, window.stop * topology.global_batch
        yield from _excess(config, asked, first, stop, extent, topology)


def _whole_steps(config: ExperimentConfig, assigned: AssignedItems, arm: Arm, number: int) -> bool:
    """Returns whether the copies of an arm fill whole steps."""
    mode = arm_mode(config, arm)
    items = (i for i, a in zip(assigned.items, assigned.arm, strict=True) if a == number)
    first = next(items)
    marked = mode == "mark" and first.base is not None and first.base.n_sequences > 1
    return mode == "batch" or marked


def _shortest_extent(
    config: ExperimentConfig, assigned: AssignedItems, arm: Arm, number: int, topology: Topology
) -> int:
    if arm_mode(config, arm) != "overwrite":
        return topology.sequence_tokens
    if arm_split(config, arm) is not None:
        return 1 + SEPARATORS
    mine = np.flatnonzero(assigned.arm == number)
    lengths = (len(ids) for i in mine for ids in assigned.items[i].variants)
    return min(lengths, default=1) + SEPARATORS


def too_many_batches(config: ExperimentConfig, asked: int, window: StepWindow) -> Iterator[str]:
    """Yields one sentence when more whole batches are asked for than the window has steps."""
    if asked > window.n_steps:
        yield (
            f"experiment '{config.name}': {asked} whole batches in steps {window.start + 1} to "
            f"{window.stop} do not fit: these are {window.n_steps} steps, so "
            f"{asked - window.n_steps} lack a place"
        )


def over_capacity(
    config: ExperimentConfig, requests: Requests, topology: Topology
) -> Iterator[str]:
    """Yields what cannot fit even into an empty run, window by window."""
    if not len(requests):
        return
    order = np.lexsort([requests.extent, requests.stop, requests.first])
    windows = np.stack([requests.first, requests.stop], axis=1)[order]
    begin = np.flatnonzero(np.r_[True, (windows[1:] != windows[:-1]).any(axis=1)])
    asked = np.diff(np.r_[begin, len(order)])
    shortest = requests.extent[order][begin]
    room = (windows[begin, 1] - windows[begin, 0]) * most_extents(
        shortest, topology.sequence_tokens
    )
    for n in np.flatnonzero(asked > room):
        first, stop = windows[begin[n]].tolist()
        yield from _excess(config, int(asked[n]), first, stop, int(shortest[n]), topology)


def _excess(
    config: ExperimentConfig, asked: int, first: int, stop: int, extent: int, topology: Topology
) -> Iterator[str]:
    """Yields one sentence when more copies are asked for than the empty sequences hold."""
    most = (stop - first) * int(most_extents(np.int64(extent), topology.sequence_tokens))
    if asked > most:
        whole = extent == topology.sequence_tokens
        what = "one" if whole else f"payloads of {extent - SEPARATORS} tokens"
        yield (
            f"experiment '{config.name}': {asked} copies in steps "
            f"{step_of(first, topology)} to {step_of(stop - 1, topology)} do not fit: these "
            f"{stop - first} sequences hold at most {most} {'copies, ' if whole else ''}{what}"
            f"{' a sequence' if whole else ''}, so {asked - most} lack a place"
        )


def lacking_batches(config: ExperimentConfig, first: int, stop: int, n_lacking: int) -> str:
    """Returns the sentence for whole batches whose steps hold another whole batch."""
    return (
        f"experiment '{config.name}': {n_lacking} whole batches lack a step in steps {first + 1} "
        f"to {stop}: whole batches of experiments before it in the alphabet, or its own, hold them"
    )


def lacking(config: ExperimentConfig, requests: Requests, which: Requests, run: Topology) -> str:
    """Returns the sentence for copies that found no place among the others."""
    first, stop = int(which.first.min()), int(which.stop.max())
    whole = int(which.extent.max()) == run.sequence_tokens
    left = (
        "no sequence is left that holds nothing else"
        if whole
        else "what others and its own copies left free is shorter than its payloads (random "
        "places fill about three quarters of what the tightest packing would)"
    )
    return (
        f"experiment '{config.name}': {len(which)} of {len(requests)} copies lack a place in steps "
        f"{step_of(first, run)} to {step_of(stop - 1, run)}: {left}; all its copies take "
        f"{int(requests.extent.sum())} tokens, these steps have "
        f"{(stop - first) * run.sequence_tokens}"
    )


def step_of(sequence: int, topology: Topology) -> int:
    """Returns the optimizer step of a sequence, from 1."""
    return int(sequence) // topology.global_batch + 1
