"""Is there room for the texts of every interval, before a loop begins?

Each text finds a place as long as a sequence of its interval is free, so the most texts that all
controllers may ask for together must not exceed the free sequences of the tightest interval.

    20 steps of 8 sequences, 27 of them hold something -> at most 133 texts
"""

from __future__ import annotations

import numpy as np

from mixctl.pipeline.control_config import controller_of
from mixctl.pipeline.finished import FinishedBuild
from mixctl.pipeline.mixfile import Mix
from mixctl.shards.draws import I64


def free_sequences(held: I64, every: int, steps: int, global_batch: int) -> int:
    """Returns the free sequences of the interval that has fewest.

    Args:
        held: int64, the sequences that hold something.
        every: steps in an interval; the last one may be shorter.
        steps: of the run.
        global_batch: sequences in a step.
    """
    n_steps = np.diff(np.append(np.arange(0, steps, every), steps))
    filled = np.bincount(held // (global_batch * every), minlength=len(n_steps))
    return int((n_steps * global_batch - filled).min())


def room_problems(mix: Mix, build: FinishedBuild) -> list[str]:
    """Returns why an interval might not hold all texts that are asked for; of a fresh build."""
    config = mix.config.control
    if config is None or build.record.amendments:
        return []
    most = {name: controller_of(mix, name).options.most for name in config.experiments}
    topology = mix.topology
    held = np.union1d(build.held, np.arange(topology.global_batch))  # nothing goes to step 1
    free = free_sequences(held, config.every, topology.steps, topology.global_batch)
    if sum(most.values()) <= free:
        return []
    asked = ", ".join(f"{name}: {n}" for name, n in sorted(most.items()))
    each = free // len(most)
    return [
        f"{mix.path}: control: options: most: up to {sum(most.values())} texts in an interval "
        f"({asked}), but the tightest one has only {free} free sequences: most: {each} each fits"
    ]
