"""The plan: what every sequence of the run will hold besides base tokens.

Content is indexed by training position: the plan says which copy of which item goes to which
sequence and offset, before anything is tokenized or written. It depends on the mix file, the item
files, the tokenizer and the trainer's step sizes, not on devices, workers or chunk layout.

Price: about two microseconds and 60 bytes a placement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mixctl.injections.base import KindContext
from mixctl.injections.config import Arm, ExperimentConfig, GivenSteps, Schedule
from mixctl.injections.encode import Encoder, load_encoder
from mixctl.pipeline.assignment import AssignedItems, assign_items
from mixctl.pipeline.mixfile import Experiment, Mix, check_vocabulary
from mixctl.pipeline.placement import NoRoomError, Occupied, Requests, most_extents, place
from mixctl.pipeline.schedule import StepWindow, copy_ranges, parse_window
from mixctl.shards.draws import I64, bits, streams
from mixctl.shards.errors import InputError
from mixctl.shards.topology import Topology

PHASE = 2**40
"""the counter of an item's stream that gives its phase; copies are counted from 0"""
SEPARATORS = 2
"""an end-of-document token on each side of an overwritten payload"""


@dataclass(frozen=True)
class Copies:
    """The copies of one experiment, sorted by item and copy; int64 arrays of shape (n,).

    Attributes:
        item: index into the experiment's items.
        copy: from 0, within the item.
        sequence: of the training run, from 0.
        offset: of the first payload token in the sequence.
        length: payload tokens.
    """

    item: I64
    copy: I64
    sequence: I64
    offset: I64
    length: I64

    def __len__(self) -> int:
        """Returns the number of copies."""
        return len(self.item)


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment with its items, arms, windows and placed copies."""

    experiment: Experiment
    assigned: AssignedItems
    windows: tuple[StepWindow, ...]
    copies: Copies

    @property
    def config(self) -> ExperimentConfig:
        """Returns the section of the mix file."""
        return self.experiment.config

    @property
    def n_tokens(self) -> int:
        """Returns the payload tokens of all copies."""
        return int(self.copies.length.sum())

    @cached_property
    def longest_payload(self) -> int:
        """Returns the tokens of the longest payload."""
        return max((len(i.variants[0]) for i in self.assigned.items), default=0)


@dataclass(frozen=True)
class Plan:
    """What a build is going to hold."""

    mix: Mix
    encoder: Encoder
    experiments: tuple[PlannedExperiment, ...]
    occupied: Occupied

    @property
    def topology(self) -> Topology:
        """Returns the topology that the trainer config gives."""
        return self.mix.topology

    @property
    def run_tokens(self) -> int:
        """Returns the tokens of the whole run as LitGPT counts them: max_seq_length a sequence."""
        return self.topology.sequences * self.topology.max_seq_length


def make_plan(mix: Mix) -> Plan:
    """Returns the plan of a mix.

    Raises:
        InputError: with every problem of tokenizer, items, arms, windows and capacity.
    """
    folder = Path(mix.resolve(mix.config.tokenizer))
    encoder = load_encoder(folder, eod=mix.config.eod, bos=mix.config.bos)
    problems = check_vocabulary(mix, encoder.vocab_size)
    context = KindContext(
        folder=mix.folder,
        encoder=encoder,
        seed=mix.config.seed,
        max_payload_tokens=mix.topology.sequence_tokens - SEPARATORS,
    )
    drafts = []
    for experiment in mix.experiments:
        try:
            assigned = assign_items(experiment, context)
            drafts.append((experiment, assigned, _windows(experiment, assigned.arms, mix)))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return _place_all(mix, encoder, drafts)


Draft = tuple[Experiment, AssignedItems, tuple[StepWindow, ...]]


def _place_all(mix: Mix, encoder: Encoder, drafts: list[Draft]) -> Plan:
    occupied, planned = Occupied.nothing(), []
    problems: list[str] = []
    for experiment, assigned, windows in drafts:
        problems += _too_many(experiment, assigned, windows, mix.topology)
        if problems:
            continue
        requests = _requests(experiment, assigned, windows, mix)
        problems += _over_capacity(experiment, requests[2], mix.topology)
        if problems:
            continue
        try:
            copies, occupied = _placed(*requests, occupied, mix.topology.sequence_tokens)
        except NoRoomError as error:
            problems.append(_lacking(experiment, requests[2], error, mix.topology))
            continue
        planned.append(PlannedExperiment(experiment, assigned, windows, copies))
    if problems:
        raise InputError(problems)
    return Plan(mix, encoder, tuple(planned), occupied)


def _windows(experiment: Experiment, arms: tuple[Arm, ...], mix: Mix) -> tuple[StepWindow, ...]:
    """Returns the window of each arm; arms inherit the experiment's."""
    config, windows, problems = experiment.config, [], []
    for arm in arms:
        place = f"experiment '{config.name}', arm '{arm.name}'"
        try:
            window = parse_window(arm.during or config.during, mix.topology)
        except ValueError as error:
            problems.append(f"{place}: during: {error}")
            continue
        windows.append(window)
        try:
            copy = _telling_copies(arm.schedule or config.schedule, arm.copies)
            phase = np.zeros(len(copy), np.uint64)
            copy_ranges(arm.schedule or config.schedule, window, arm.copies, copy, phase, 1)
        except ValueError as error:
            problems.append(f"{place}: schedule: {error}")
    if problems:
        raise InputError(problems)
    return tuple(windows)


def _telling_copies(schedule: Schedule, copies: int) -> I64:
    """Returns the copies that show whether a schedule fits: first and last, or every given step."""
    if isinstance(schedule, GivenSteps):
        return np.arange(min(copies, len(schedule.steps)))
    return np.unique([0, max(copies - 1, 0)])[:copies]


def _requests(
    experiment: Experiment, assigned: AssignedItems, windows: tuple[StepWindow, ...], mix: Mix
) -> tuple[I64, I64, Requests]:
    """Returns (item, copy, request) of every copy, by item and copy."""
    item = np.repeat(np.arange(len(assigned.items)), assigned.copies)
    copy = np.arange(len(item)) - np.repeat(
        np.cumsum(assigned.copies) - assigned.copies, assigned.copies
    )
    names = [i.item for i in assigned.items]
    keys = streams(names, mix.config.seed, "placement", experiment.config.name)
    phase = bits(keys, PHASE)[item]
    first, stop = np.zeros(len(item), np.int64), np.zeros(len(item), np.int64)
    for number, (arm, window) in enumerate(zip(assigned.arms, windows, strict=True)):
        schedule = arm.schedule or experiment.config.schedule
        mine = np.flatnonzero(assigned.arm[item] == number)
        first[mine], stop[mine] = copy_ranges(
            schedule, window, arm.copies, copy[mine], phase[mine], mix.topology.global_batch
        )
    return (
        item,
        copy,
        Requests(bits(keys[item], copy), first, stop, _lengths(assigned, item, copy) + SEPARATORS),
    )


def _lengths(assigned: AssignedItems, item: I64, copy: I64) -> I64:
    """Returns the payload tokens of each copy."""
    n_variants = np.array([len(i.variants) for i in assigned.items], dtype=np.int64)
    lengths = [len(ids) for i in assigned.items for ids in i.variants]
    begin = np.cumsum(n_variants) - n_variants
    return np.array(lengths, dtype=np.int64)[begin[item] + copy % n_variants[item]]


def _placed(
    item: I64, copy: I64, requests: Requests, occupied: Occupied, sequence_tokens: int
) -> tuple[Copies, Occupied]:
    sequence, offset, occupied = place(requests, occupied, sequence_tokens)
    return Copies(item, copy, sequence, offset + 1, requests.extent - SEPARATORS), occupied


def _too_many(
    experiment: Experiment,
    assigned: AssignedItems,
    windows: tuple[StepWindow, ...],
    topology: Topology,
) -> Iterator[str]:
    """Yields the arms whose copies cannot fit even into an empty window; lays out nothing."""
    for number, (arm, window) in enumerate(zip(assigned.arms, windows, strict=True)):
        mine = [assigned.items[i] for i in np.flatnonzero(assigned.arm == number)]
        if not mine or not arm.copies:
            continue
        shortest = min(len(ids) for item in mine for ids in item.variants) + SEPARATORS
        first, stop = window.start * topology.global_batch, window.stop * topology.global_batch
        yield from _excess(experiment, len(mine) * arm.copies, first, stop, shortest, topology)


def _over_capacity(experiment: Experiment, requests: Requests, topology: Topology) -> Iterator[str]:
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
        yield from _excess(experiment, int(asked[n]), first, stop, int(shortest[n]), topology)


def _excess(
    experiment: Experiment, asked: int, first: int, stop: int, extent: int, topology: Topology
) -> Iterator[str]:
    """Yields one sentence when more copies are asked for than the empty sequences hold."""
    most = (stop - first) * int(most_extents(np.int64(extent), topology.sequence_tokens))
    if asked > most:
        yield (
            f"experiment '{experiment.config.name}': {asked} copies in steps "
            f"{_step(first, topology)} to {_step(stop - 1, topology)} do not fit: these "
            f"{stop - first} sequences hold at most {most} payloads of {extent - SEPARATORS} "
            f"tokens, so {asked - most} lack a place"
        )


def _lacking(
    experiment: Experiment, requests: Requests, error: NoRoomError, topology: Topology
) -> str:
    lacking = requests.take(error.lacking)
    first, stop = int(lacking.first.min()), int(lacking.stop.max())
    return (
        f"experiment '{experiment.config.name}': {len(lacking)} of {len(requests)} copies lack a "
        "place in steps "
        f"{_step(first, topology)} to {_step(stop - 1, topology)}: what experiments before it in "
        "the "
        "alphabet and its own copies left free is shorter than its payloads (random places fill "
        "about three "
        f"quarters of what the tightest packing would)"
    )


def _step(sequence: int, topology: Topology) -> int:
    return int(sequence) // topology.global_batch + 1
