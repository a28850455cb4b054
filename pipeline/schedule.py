"""From windows and schedules to the sequences among which each copy is drawn.

`during: [start, stop]` means start < step <= stop in completed steps; a bound is a step (1000), a
share of all steps ("25%") or a number of tokens ("30B"), rounded down. So adjacent windows
partition the run. The default is [1, end]: LitGPT's warm-up gives the first step a learning rate of
zero.

    100 steps of 8 sequences, during [25%, 50%], schedule uniform
        -> every copy is drawn among sequences 200 <= n < 400, steps 26 to 50
    schedule even, 2 copies -> 12 or 13 steps apart, the first at a step drawn for the item: say 31
    and 43
    schedule {ramp: [0, 1]} -> a step drawn for each copy, step 50 about 25 times as likely as 26

Price: two int64 a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixctl.injections.config import (
    Bound,
    CopyWindows,
    EverySteps,
    GivenSteps,
    Ramp,
    Schedule,
    Window,
)
from mixctl.injections.quantities import parse_share, parse_tokens
from mixctl.shards.draws import I64, U64, below, bits
from mixctl.shards.topology import Topology

RAMP_DRAW = 2**41
"""the counter of a copy's stream that its step on a ramp is drawn with"""


@dataclass(frozen=True)
class StepWindow:
    """The steps with start < step <= stop."""

    start: int
    stop: int

    @property
    def n_steps(self) -> int:
        """Returns the number of steps in the window."""
        return self.stop - self.start


def parse_bound(bound: Bound, topology: Topology) -> int:
    """Returns a window bound in completed steps, rounded down.

    Raises:
        ValueError: when it is neither steps, nor percent, nor tokens, or lies outside the run.
    """
    if isinstance(bound, int):
        steps = bound
    elif bound.strip().endswith("%"):
        steps = int(parse_share(bound) * topology.steps)
    else:
        steps = _tokens(bound) // (topology.global_batch * topology.max_seq_length)
    if not 0 <= steps <= topology.steps:
        raise ValueError(f"{bound!r} is step {steps}: the run has steps 0 to {topology.steps}")
    return steps


def _no_bound(bound: str) -> str:
    return f"{bound!r} is no window bound: use steps (1000), percent ('25%') or tokens ('30B')"


def _tokens(bound: str) -> int:
    try:
        return parse_tokens(bound)
    except ValueError:
        raise ValueError(_no_bound(bound)) from None


def parse_window(window: Window | None, topology: Topology, after: int = 0) -> StepWindow:
    """Returns the window in completed steps.

    Args:
        window: as the mix file says; None for all steps but the first.
        topology: of the run.
        after: the steps that cannot be changed any more; the window must begin there or later.

    Raises:
        ValueError: when a bound is wrong, no step lies between them, or it begins too early.
    """
    if window is None:
        return StepWindow(max(1, after), topology.steps)
    start, stop = (parse_bound(bound, topology) for bound in window)
    if start >= stop:
        raise ValueError(
            f"{window} is steps {start} < step <= {stop}: no step of the {topology.steps} lies in "
            "it"
        )
    if start < after:
        nearest = [after, stop if stop > after else topology.steps]
        raise ValueError(
            f"{window} is steps {start} < step <= {stop}, and only steps after {after} can be "
            f"changed: the nearest window is {nearest}"
        )
    return StepWindow(start, stop)


def arm_window(
    schedule: Schedule, during: Window | None, topology: Topology, after: int = 0
) -> StepWindow:
    """Returns the steps that an arm's copies may fall in: its windows together, or `during`.

    Raises:
        ValueError: as `parse_window`.
    """
    if not isinstance(schedule, CopyWindows):
        return parse_window(during, topology, after)
    windows = [parse_window(window, topology, after) for window in schedule.windows]
    return StepWindow(min(w.start for w in windows), max(w.stop for w in windows))


@dataclass(frozen=True)
class CopyNumbers:
    """What a schedule may look at of each copy; arrays of shape (n,).

    Attributes:
        copy: number of the copy within its item, int64.
        copies: copies of its item, int64.
        phase: random bits of its item, uint64; `even` begins there.
        key: the stream of the copy, uint64; a ramp draws from it.
    """

    copy: I64
    copies: I64
    phase: U64
    key: U64


def copy_ranges(
    schedule: Schedule, window: StepWindow, numbers: CopyNumbers, topology: Topology
) -> tuple[I64, I64]:
    """Returns (first, stop), int64: each copy is drawn among first <= sequence < stop.

    Raises:
        ValueError: when the schedule does not fit the window.
    """
    batch = topology.global_batch
    if schedule == "uniform":
        shape = numbers.copy.shape
        return np.full(shape, window.start * batch), np.full(shape, window.stop * batch)
    if isinstance(schedule, CopyWindows):
        windows = [parse_window(one, topology) for one in schedule.windows]
        turn = numbers.copy % len(windows)
        starts = np.array([one.start for one in windows], dtype=np.int64)
        stops = np.array([one.stop for one in windows], dtype=np.int64)
        return starts[turn] * batch, stops[turn] * batch
    steps = _copy_steps(schedule, window, numbers)
    return (steps - 1) * batch, steps * batch


def _copy_steps(schedule: Schedule, window: StepWindow, numbers: CopyNumbers) -> I64:
    """Returns the step of each copy, inside the window."""
    copy = numbers.copy
    if isinstance(schedule, GivenSteps):
        steps = np.array(schedule.steps, dtype=np.int64)[copy % len(schedule.steps)]
    elif isinstance(schedule, EverySteps):
        steps = window.start + 1 + copy * schedule.every
    elif isinstance(schedule, Ramp):
        steps = window.start + 1 + ramp_steps(schedule, window.n_steps, numbers.key)
    elif schedule == "even":
        begin = below(numbers.phase, window.n_steps)
        apart = copy * window.n_steps + begin
        steps = window.start + 1 + apart // np.maximum(numbers.copies, 1)
    else:
        raise ValueError(f"unknown schedule {schedule!r}")
    outside = (steps <= window.start) | (steps > window.stop)
    if outside.any():
        copies = int(np.broadcast_to(numbers.copies, steps.shape)[outside][0])
        raise ValueError(
            f"copy {copy[outside][0] + 1} of {copies} would fall in step {steps[outside][0]}: the "
            f"window is steps {window.start + 1} to {window.stop}"
        )
    return steps


def ramp_steps(schedule: Ramp, n_steps: int, key: U64) -> I64:
    """Returns a step 0 <= s < n_steps for each key, its density linear from a to b.

    The distribution function of a density a + (b - a) x on [0, 1] is inverted in closed form:
    x = (sqrt(a^2 + u (b^2 - a^2)) - a) / (b - a).
    """
    low, high = schedule.ramp
    u = (bits(key, RAMP_DRAW) >> np.uint64(11)).astype(np.float64) / 2.0**53
    if low == high:
        x = u
    else:
        x = (np.sqrt(low**2 + u * (high**2 - low**2)) - low) / (high - low)
    return np.asarray(np.minimum(x * n_steps, n_steps - 1), dtype=np.int64)


def off_batches(step: I64, window: StepWindow, taken: I64) -> I64:
    """Returns the steps, counted from 0; one that a whole batch holds becomes the next free one.

    After the last step of the window the first one follows. Where no step is free, all stay.

    Args:
        step: int64, the steps that the schedule drew, inside the window.
        window: of the arm.
        taken: int64, sorted, the steps that hold a whole batch, counted from 0.
    """
    free = np.setdiff1d(np.arange(window.start, window.stop, dtype=np.int64), taken)
    if not len(free):
        return step
    following = free[np.searchsorted(free, step) % len(free)]
    return np.where(np.isin(step, taken), following, step)
