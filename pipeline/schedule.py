"""From windows and schedules to the sequences among which each copy is drawn.

`during: [start, stop]` means start < step <= stop in completed steps; a bound is a step (1000), a
share of all steps ("25%") or a number of tokens ("30B"), rounded down. So adjacent windows
partition the run. The default is [1, end]: LitGPT's warm-up gives the first step a learning rate of
zero.

    100 steps of 8 sequences, during [25%, 50%], schedule uniform
        -> every copy is drawn among sequences 200 <= n < 400, steps 26 to 50
    schedule even, 2 copies -> 12 or 13 steps apart, the first at a step drawn for the item: say 31
    and 43

Price: two int64 a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mixctl.injections.config import Bound, EverySteps, GivenSteps, Schedule, Window
from mixctl.pipeline.mixfile import parse_tokens
from mixctl.shards.draws import I64, U64, below
from mixctl.shards.topology import Topology


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
        steps = int(_percent(bound) / 100 * topology.steps)
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


def _percent(bound: str) -> Fraction:
    try:
        percent = Fraction(bound.strip().removesuffix("%").strip())
    except (ValueError, ZeroDivisionError):
        raise ValueError(_no_bound(bound)) from None
    if not 0 <= percent <= 100:
        raise ValueError(f"{bound!r} lies outside 0% to 100%")
    return percent


def parse_window(window: Window | None, topology: Topology) -> StepWindow:
    """Returns the window in completed steps.

    Raises:
        ValueError: when a bound is wrong or no step lies between them.
    """
    if window is None:
        return StepWindow(1, topology.steps)
    start, stop = (parse_bound(bound, topology) for bound in window)
    if start >= stop:
        raise ValueError(
            f"{window} is steps {start} < step <= {stop}: no step of the {topology.steps} lies in "
            "it"
        )
    return StepWindow(start, stop)


def copy_ranges(
    schedule: Schedule, window: StepWindow, copies: int, copy: I64, phase: U64, global_batch: int
) -> tuple[I64, I64]:
    """Returns (first, stop), int64: each copy is drawn among first <= sequence < stop.

    Args:
        schedule: as in the mix file.
        window: the steps that are allowed.
        copies: how often each item is placed.
        copy: number of the copy within its item, int64, shape (n,).
        phase: random bits of the copy's item, uint64, shape (n,); `even` begins there.
        global_batch: sequences of a step.

    Raises:
        ValueError: when the schedule does not fit the window.
    """
    if schedule == "uniform":
        first = np.full(len(copy), window.start * global_batch, dtype=np.int64)
        return first, np.full(len(copy), window.stop * global_batch, dtype=np.int64)
    steps = _copy_steps(schedule, window, copies, copy, phase)
    return (steps - 1) * global_batch, steps * global_batch


def _copy_steps(schedule: Schedule, window: StepWindow, copies: int, copy: I64, phase: U64) -> I64:
    """Returns the step of each copy, inside the window."""
    if isinstance(schedule, GivenSteps):
        steps = np.array(schedule.steps, dtype=np.int64)[copy % len(schedule.steps)]
    elif isinstance(schedule, EverySteps):
        steps = window.start + 1 + copy * schedule.every
    elif schedule == "even":
        begin = below(phase, window.n_steps)
        steps = window.start + 1 + (copy * window.n_steps + begin) // max(copies, 1)
    else:
        raise ValueError(f"unknown schedule {schedule!r}")
    outside = (steps <= window.start) | (steps > window.stop)
    if outside.any():
        raise ValueError(
            f"copy {copy[outside][0] + 1} of {copies} would fall in step {steps[outside][0]}: the "
            "window is "
            f"steps {window.start + 1} to {window.stop}"
        )
    return steps
