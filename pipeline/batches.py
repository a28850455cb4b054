"""Where whole batches go: every copy gets a step of its own, or the build fails.

Whole batches are placed before everything else, experiments by name: a batch is free of all other
payloads only as long as nothing has been placed, and its steps are often given. In each round every
copy not placed yet takes its next draw among the steps of its window; a step that is taken, or that
an earlier copy of the round drew too, is lost. What is left after `DRAW_ROUNDS` rounds draws among
the steps that are still free.

    copies a (step 3 given) and b (steps 1 to 3): b draws until it meets 1 or 2

Price: that of a few thousand small arrays; there are as many batches as steps at most.
"""

from __future__ import annotations

import numpy as np

from mixctl.pipeline.placement import DRAW_ROUNDS, NoRoomError
from mixctl.shards.draws import I64, U64, below, bits


def place_batches(key: U64, first: I64, stop: I64, taken: set[int]) -> tuple[I64, set[int]]:
    """Returns (the step of each copy counted from 0, all steps taken); the array has shape (n,).

    Args:
        key: uint64, the stream of each copy, in order of priority.
        first: int64, the copy is drawn among first <= step < stop, counted from 0.
        stop: int64, as above.
        taken: steps that hold a batch already.

    Raises:
        NoRoomError: when copies lack a step; nothing is placed then.
    """
    steps = np.full(len(key), -1, dtype=np.int64)
    taken, lacking = set(taken), []
    waiting = np.arange(len(key))
    for turn in range(DRAW_ROUNDS):
        if not waiting.size:
            break
        drawn = first[waiting] + below(bits(key[waiting], 2 * turn), (stop - first)[waiting])
        for copy, step in zip(waiting.tolist(), drawn.tolist(), strict=True):
            if step not in taken:
                taken.add(step)
                steps[copy] = step
        waiting = waiting[steps[waiting] < 0]
    for copy in waiting.tolist():
        free = [s for s in range(int(first[copy]), int(stop[copy])) if s not in taken]
        if free:
            chosen = free[int(below(bits(key[copy], 2 * DRAW_ROUNDS), len(free)))]
            taken.add(chosen)
            steps[copy] = chosen
        else:
            lacking.append(copy)
    if lacking:
        raise NoRoomError(np.array(lacking, dtype=np.int64))
    return steps, taken
