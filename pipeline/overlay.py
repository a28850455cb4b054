"""The plan in the form the mix tasks need: which payload goes to which sequence and offset.

Written once as plain arrays, read by every task; a task sorts the placements by chunk and takes
those of its chunks. Price: 24 bytes a placement and 4 a payload token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixctl.pipeline.patch import PayloadPool
from mixctl.pipeline.plan import Plan
from mixctl.shards.draws import I64
from mixctl.shards.files import replacing
from mixctl.shards.order import TrainingOrder


@dataclass(frozen=True)
class Overlay:
    """All placements of a build; int64 arrays of shape (n,), and the payloads they point to."""

    sequence: I64
    offset: I64
    payload: I64
    pool: PayloadPool


def make_overlay(plan: Plan) -> Overlay:
    """Returns the placements of all experiments and the pool of their payloads."""
    payloads = [ids for e in plan.experiments for item in e.assigned.items for ids in item.variants]
    length = np.array([len(ids) for ids in payloads], dtype=np.int64)
    tokens = np.concatenate([*payloads, np.empty(0, np.uint32)]).astype(np.uint32)
    pool = PayloadPool(tokens, np.cumsum(length) - length, length)
    numbers, before = [np.empty(0, np.int64)], 0
    for experiment in plan.experiments:
        n_variants = np.array([len(i.variants) for i in experiment.assigned.items], dtype=np.int64)
        first = before + np.cumsum(n_variants) - n_variants
        item, copy = experiment.copies.item, experiment.copies.copy
        numbers.append(first[item] + copy % n_variants[item])
        before += int(n_variants.sum())
    copies = [e.copies for e in plan.experiments]
    empty = np.empty(0, np.int64)
    return Overlay(
        sequence=np.concatenate([empty, *(c.sequence for c in copies)]),
        offset=np.concatenate([empty, *(c.offset for c in copies)]),
        payload=np.concatenate(numbers),
        pool=pool,
    )


def save_overlay(overlay: Overlay, path: Path) -> None:
    """Writes the overlay as one npz file, all or nothing."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            sequence=overlay.sequence,
            offset=overlay.offset,
            payload=overlay.payload,
            tokens=overlay.pool.tokens,
            begin=overlay.pool.begin,
            length=overlay.pool.length,
        )


def load_overlay(path: Path) -> Overlay:
    """Returns the overlay that `save_overlay` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        pool = PayloadPool(arrays["tokens"], arrays["begin"], arrays["length"])
        return Overlay(arrays["sequence"], arrays["offset"], arrays["payload"], pool)


class ChunkPlacements:
    """The placements of each chunk: sorted once, then a slice a chunk."""

    def __init__(self, overlay: Overlay, order: TrainingOrder) -> None:
        """Asks the training order for the slot of every placement."""
        chunk, block = order.slots(overlay.sequence)
        self._by_chunk = np.argsort(chunk, kind="stable")
        self._chunk = chunk[self._by_chunk]
        self._block = block
        self._overlay = overlay

    def of(self, chunk: int) -> tuple[I64, I64, I64]:
        """Returns (block, offset, payload) of the placements in one chunk."""
        low, high = np.searchsorted(self._chunk, [chunk, chunk + 1])
        chosen = self._by_chunk[low:high]
        return self._block[chosen], self._overlay.offset[chosen], self._overlay.payload[chosen]
