"""An experiment on its way into the plan: its copies, where each may go, its places.

Whole batches are placed first, those whose step is given before those that draw one; random places
would hardly leave a step empty. Then every other copy is drawn (`placement.py`).
Price: about three microseconds and 90 bytes a placement.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.base import KindContext
from mixctl.injections.config import Arm, CopyWindows, ExperimentConfig, GivenSteps, Ramp, Schedule
from mixctl.pipeline.assignment import AssignedItems, assign_items
from mixctl.pipeline.batches import place_batches
from mixctl.pipeline.capacity import lacking, lacking_batches, over_capacity, too_many
from mixctl.pipeline.copies import BATCH, BOUNDARY, MARK, Pieces, make_pieces
from mixctl.pipeline.mixfile import Experiment, Mix
from mixctl.pipeline.placement import NoRoomError, Occupied, Requests, place
from mixctl.pipeline.schedule import (
    CopyNumbers,
    StepWindow,
    arm_window,
    copy_ranges,
    off_batches,
)
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.topology import Topology


@dataclass(frozen=True)
class Draft:
    """An experiment on its way into the plan."""

    experiment: Experiment
    assigned: AssignedItems
    windows: tuple[StepWindow, ...]
    pieces: Pieces
    first: I64
    stop: I64
    sequence: I64
    offset: I64
    is_batch: NDArray[np.bool_] = field(repr=False)

    @property
    def config(self) -> ExperimentConfig:
        """Returns the section of the mix file."""
        return self.experiment.config


def make_draft(experiment: Experiment, context: KindContext, mix: Mix) -> Draft:
    """Returns the experiment with its copies and the sequences that each may be drawn among."""
    return draft_of(experiment, assign_items(experiment, context), mix)


def draft_of(experiment: Experiment, assigned: AssignedItems, mix: Mix, after: int = 0) -> Draft:
    """Returns the draft of an experiment whose items are in their arms.

    Args:
        experiment: its section and kind.
        assigned: its items.
        mix: what else it depends on.
        after: every copy must be placed in a later step than this one.

    Raises:
        InputError: with every problem of windows, schedules and payloads.
    """
    config, topology = experiment.config, mix.topology
    windows = _windows(config, assigned.arms, topology, after)
    if problems := [*too_many(config, assigned, windows, topology)]:
        raise InputError(problems)
    pieces = make_pieces(config, assigned, topology, mix.config.seed)
    first, stop = _ranges(config, assigned, windows, pieces, mix, after)
    is_batch = (pieces.mode == BATCH) | ((pieces.mode == MARK) & (pieces.n_sequences > 1))
    unplaced = np.full(len(pieces), -1, dtype=np.int64)
    return Draft(
        experiment, assigned, windows, pieces, first, stop, unplaced, unplaced.copy(), is_batch
    )


def _windows(
    config: ExperimentConfig, arms: tuple[Arm, ...], topology: Topology, after: int
) -> tuple[StepWindow, ...]:
    """Returns the window of each arm; arms inherit the experiment's."""
    windows, problems = [], []
    for arm in arms:
        place = f"experiment '{config.name}', arm '{arm.name}'"
        schedule = arm.schedule or config.schedule
        if isinstance(schedule, CopyWindows) and (arm.during or config.during):
            problems.append(
                f"{place}: during: is given beside the schedule's windows, which say the same: "
                f"leave one of them out"
            )
        try:
            window = arm_window(schedule, arm.during or config.during, topology, after)
        except ValueError as error:
            problems.append(f"{place}: during: {error}")
            continue
        windows.append(window)
        try:
            if arm.copies:
                copy_ranges(schedule, window, _telling_copies(schedule, arm.copies), topology)
        except ValueError as error:
            problems.append(f"{place}: schedule: {error}")
    if problems:
        raise InputError(problems)
    return tuple(windows)


def _telling_copies(schedule: Schedule, copies: int) -> CopyNumbers:
    """Returns the copies that show whether a schedule fits: first and last, or every given step."""
    if isinstance(schedule, GivenSteps):
        copy = np.arange(min(copies, len(schedule.steps)))
    else:
        copy = np.unique([0, copies - 1])
    zeros = np.zeros(len(copy), dtype=np.uint64)
    return CopyNumbers(copy, np.full(len(copy), copies), zeros, zeros)


def _ranges(
    config: ExperimentConfig,
    assigned: AssignedItems,
    windows: tuple[StepWindow, ...],
    pieces: Pieces,
    mix: Mix,
    after: int,
) -> tuple[I64, I64]:
    """Returns (first, stop): the sequences that each piece is drawn among."""
    first, stop = np.zeros(len(pieces), np.int64), np.zeros(len(pieces), np.int64)
    turn = pieces.copy
    if assigned.earlier is not None:
        turn = turn - assigned.earlier[pieces.item]
    for number, (arm, window) in enumerate(zip(assigned.arms, windows, strict=True)):
        mine = np.flatnonzero(assigned.arm[pieces.item] == number)
        numbers = CopyNumbers(
            copy=turn[mine],
            copies=assigned.copies[pieces.item[mine]],
            phase=pieces.phase[mine],
            key=pieces.key[mine],
        )
        schedule = arm.schedule or config.schedule
        try:
            first[mine], stop[mine] = copy_ranges(schedule, window, numbers, mix.topology)
        except ValueError as error:
            place = f"experiment '{config.name}', arm '{arm.name}'"
            raise InputError(f"{place}: schedule: {error}") from None
    return _given_steps(config, assigned, pieces, first, stop, mix.topology, after)


def _given_steps(
    config: ExperimentConfig,
    assigned: AssignedItems,
    pieces: Pieces,
    first: I64,
    stop: I64,
    topology: Topology,
    after: int,
) -> tuple[I64, I64]:
    """Returns (first, stop) with the copies whose rows name their steps put there."""
    problems = []
    earliest = after + 1
    for number, item in enumerate(assigned.items):
        if not item.steps or not assigned.copies[number]:
            continue
        place = f"experiment '{config.name}': item '{item.item}': steps"
        outside = [step for step in item.steps if not earliest <= step <= topology.steps]
        if outside:
            what = f"only steps {earliest} to" if after else "the run has steps 1 to"
            rest = " can be changed" if after else ""
            problems.append(f"{place}: {outside[0]}: {what} {topology.steps}{rest}")
        if len(item.steps) != assigned.copies[number]:
            problems.append(
                f"{place}: {len(item.steps)} steps for {assigned.copies[number]} copies"
            )
        if problems:
            continue
        low, high = np.searchsorted(pieces.item, [number, number + 1])
        before = 0 if assigned.earlier is None else int(assigned.earlier[number])
        steps = np.array(item.steps, dtype=np.int64)[pieces.copy[low:high] - before]
        first[low:high] = (steps - 1) * topology.global_batch
        stop[low:high] = steps * topology.global_batch
    if problems:
        raise InputError(problems)
    return first, stop


def with_batches(
    draft: Draft, given: bool, taken: set[int], topology: Topology
) -> tuple[Draft, set[int]]:
    """Returns the draft with whole batches placed, and the steps that hold one.

    Args:
        draft: the experiment.
        given: whether the batches at given steps are placed, or those that draw one.
        taken: steps, from 0, that hold a batch already.
        topology: of the run.

    Raises:
        InputError: when batches lack a step.
    """
    one_step = draft.stop - draft.first == topology.global_batch
    rows = np.flatnonzero(draft.is_batch & (one_step == given))
    if not rows.size:
        return draft, taken
    batch = topology.global_batch
    first, stop = draft.first[rows] // batch, draft.stop[rows] // batch
    try:
        steps, taken = place_batches(draft.pieces.key[rows], first, stop, taken)
    except NoRoomError as error:
        low, high = int(first[error.lacking].min()), int(stop[error.lacking].max())
        sentence = lacking_batches(draft.config, low, high, len(error.lacking))
        raise InputError(sentence) from None
    sequence, offset = draft.sequence.copy(), draft.offset.copy()
    sequence[rows], offset[rows] = steps * batch, 0
    return replace(draft, sequence=sequence, offset=offset), taken


def clear_of_batches(draft: Draft, taken: set[int], topology: Topology) -> Draft:
    """Returns the draft with the steps that `even` and ramps drew moved off whole batches."""
    first, stop, item = draft.first.copy(), draft.stop.copy(), draft.pieces.item
    given = np.array([one.steps is not None for one in draft.assigned.items], dtype=np.bool_)
    for number, (arm, window) in enumerate(zip(draft.assigned.arms, draft.windows, strict=True)):
        schedule = arm.schedule or draft.config.schedule
        if not taken or not (schedule == "even" or isinstance(schedule, Ramp)):
            continue
        mine = (draft.assigned.arm[item] == number) & ~given[item] & ~draft.is_batch
        held = np.array(sorted(taken), dtype=np.int64)
        step = off_batches(first[mine] // topology.global_batch, window, held)
        first[mine] = step * topology.global_batch
        stop[mine] = first[mine] + topology.global_batch
    return replace(draft, first=first, stop=stop)


def step_sequences(steps: set[int], topology: Topology) -> I64:
    """Returns the sequences of the steps, counted from 0, in order."""
    first = np.array(sorted(steps), dtype=np.int64) * topology.global_batch
    return (first[:, None] + np.arange(topology.global_batch)).ravel()


def occupied_sequences(sequence: I64, topology: Topology) -> Occupied:
    """Returns the occupation of the line by whole sequences, given in order."""
    begin = sequence * (topology.sequence_tokens + 1)
    return Occupied(begin, begin + topology.sequence_tokens)


def with_places(draft: Draft, occupied: Occupied, topology: Topology) -> tuple[Draft, Occupied]:
    """Returns the draft with all copies but whole batches placed, and the new occupation."""
    pieces, rows = draft.pieces, np.flatnonzero(~draft.is_batch)
    extent = pieces.extents(topology.sequence_tokens)
    requests = Requests(pieces.key, draft.first, draft.stop, extent).take(rows)
    if problems := [*over_capacity(draft.config, requests, topology)]:
        raise InputError(problems)
    try:
        found, begin, occupied = place(requests, occupied, topology.sequence_tokens)
    except NoRoomError as error:
        which = requests.take(error.lacking)
        raise InputError(lacking(draft.config, requests, which, topology)) from None
    sequence, offset = draft.sequence.copy(), draft.offset.copy()
    sequence[rows] = found
    offset[rows] = begin + (pieces.mode[rows] <= BOUNDARY)
    return replace(draft, sequence=sequence, offset=offset), occupied
