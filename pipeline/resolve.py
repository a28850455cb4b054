"""What only the base stream can settle: document ends, clean spare sequences, purged sequences.

- A `boundary` placement goes behind a document that ends inside its sequence, one drawn among those
  that leave room for the whole payload; to the front of the sequence when none does.
- Spare base data that is placed (iid, fresh batches) is taken from spare sequences that hold no
  forbidden string (`spares.py`).
- Every sequence of the run that holds a forbidden string is replaced by another clean spare one; so
  is the first spare one, which fills the blocks of train/ that training never reaches, by the first
  that is clean.

    document ends at 20, 50 in a sequence of 65, payload of 30  ->  offset 21 (50 leaves 13 tokens)

Price: a binary search a boundary placement; no token is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mixctl.pipeline.copies import BOUNDARY
from mixctl.pipeline.plan import Copies, Plan
from mixctl.pipeline.spares import allot
from mixctl.shards.draws import I64, U64, below, bits
from mixctl.shards.errors import InputError

BOUNDARY_DRAW = 2**45


class DocumentEnds(Protocol):
    """What is asked of the base stream."""

    @property
    def n_spare(self) -> int:
        """Returns how many base sequences there are beyond those of the run."""

    def base_sequence(self, sequence: I64) -> I64:
        """Returns the base sequence under each of these."""

    def document_ends(self, sequence: I64) -> tuple[I64, I64]:
        """Returns (row, offset) of the end-of-document tokens in these sequences of the run."""


@dataclass(frozen=True)
class Replacements:
    """Sequences whose base data is exchanged; int64 arrays of shape (n,), sorted by sequence.

    `string` says which forbidden string it held, the first by number; `source` is a sequence from
    `topology.sequences` on: a spare one.
    """

    sequence: I64
    source: I64
    string: I64

    @classmethod
    def nothing(cls) -> Replacements:
        """Returns no replacement."""
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, empty, empty)

    def content(self, sequence: I64) -> I64:
        """Returns the sequence whose base data each of these holds in the run."""
        if not len(self.sequence):
            return np.asarray(sequence)
        place = np.searchsorted(self.sequence, sequence) % len(self.sequence)
        held = self.sequence[place] == sequence
        return np.where(held, self.source[place], sequence)


@dataclass(frozen=True)
class Resolved:
    """The plan's placements with nothing left open, and the replaced sequences."""

    copies: tuple[Copies, ...]
    replacements: Replacements
    spares: I64
    """the spare sequence of each rank that the plan uses, as a sequence from topology.sequences"""


def resolve(plan: Plan, stream: DocumentEnds, dirty: tuple[I64, I64]) -> Resolved:
    """Returns the placements with every offset and source settled.

    Args:
        plan: the plan.
        stream: the base stream.
        dirty: (sequence, string) of the sequences, spare ones included, that hold a forbidden
            string; sorted by sequence.

    Raises:
        InputError: when there are too few clean spare sequences, with the shortfall.
    """
    needed = plan.topology.sequences
    in_run = dirty[0] < needed
    taken = np.zeros(stream.n_spare, dtype=np.bool_)
    taken[dirty[0][~in_run] - needed] = True
    n_clean = len(taken) - int((~in_run).sum())
    if n_clean < plan.n_spares + int(in_run.sum()):
        raise InputError(_too_few(plan, n_clean, int(in_run.sum())))
    clean = needed + np.flatnonzero(~taken[: int((~in_run).sum()) + 1])  # the first is among them
    spares = needed + allot(plan.spare_keys, taken)
    swapped = needed + allot(bits(plan.replacement_key, dirty[0][in_run]), taken)
    beyond, strings = _dirty_filling(stream, dirty, needed)
    fill = np.concatenate([clean, np.setdiff1d(np.arange(len(dirty[0]) + 1), dirty[0])])[:1]
    replaced = Replacements(
        sequence=np.concatenate([dirty[0][in_run], beyond]),
        source=np.concatenate([swapped, np.repeat(fill, len(beyond))]),
        string=np.concatenate([dirty[1][in_run], strings]),
    )
    copies = [_settled(one.copies, plan, stream, replaced, spares) for one in plan.experiments]
    return Resolved(tuple(copies), replaced, spares)


def _dirty_filling(stream: DocumentEnds, dirty: tuple[I64, I64], needed: int) -> tuple[I64, I64]:
    """Returns (sequence, string) of what fills train/ after the run, when it holds a string."""
    filling = np.array([needed], dtype=np.int64)
    held = stream.base_sequence(dirty[0]) == stream.base_sequence(filling)
    strings = dirty[1][held][:1]
    return filling[: len(strings)], strings


def _too_few(plan: Plan, n_clean: int, n_replaced: int) -> str:
    short = plan.n_spares + n_replaced - n_clean
    tokens = short * plan.topology.sequence_tokens
    asked = ", ".join(f"'{one.config.name}'" for one in plan.experiments if (one.spare >= 0).any())
    absent = ", ".join(sorted({f"'{name}'" for name, _, _ in plan.forbidden}))
    return (
        f"corpus: the run takes {plan.topology.sequences} base sequences; {plan.n_spares} more are "
        f"asked for as spare base data (experiments: {asked or 'none'}) and {n_replaced} to "
        f"replace those that hold a forbidden string (experiments: {absent or 'none'}), but only "
        f"{n_clean} spare ones are clean: about {tokens} tokens are missing; add text "
        f"(corpus.repeat gives none: repeated text is not spare)"
    )


def _settled(
    copies: Copies, plan: Plan, stream: DocumentEnds, replaced: Replacements, spares: I64
) -> Copies:
    needed = plan.topology.sequences
    spare = copies.source >= needed
    source = copies.source.copy()
    source[spare] = spares[source[spare] - needed]
    named = ~spare & (source >= 0)
    source[named] = replaced.content(source[named])
    offset = copies.offset.copy()
    rows = np.flatnonzero(copies.mode == BOUNDARY)
    content = replaced.content(copies.sequence[rows])
    row, end = stream.document_ends(content)
    last = plan.topology.sequence_tokens - 2
    offset[rows] = boundary_offsets(row, end, copies.length[rows], copies.key[rows], last)
    return replace(copies, source=source, offset=offset)


def boundary_offsets(row: I64, end: I64, length: I64, key: U64, last: int) -> I64:
    """Returns the offset of each payload, int64 of shape (n,): behind a document end, else 1.

    Args:
        row: int64, sorted, which payload's sequence a document end lies in.
        end: int64, the offset of that end-of-document token.
        length: int64 of shape (n,), tokens of each payload.
        key: uint64 of shape (n,), the stream of each payload.
        last: the last offset at which a payload token may lie.
    """
    fits = end + length[row] <= last
    row, end = row[fits], end[fits]
    first = np.searchsorted(row, np.arange(len(length)))
    count = np.searchsorted(row, np.arange(len(length)), side="right") - first
    offset = np.ones(len(length), dtype=np.int64)
    some = np.flatnonzero(count)
    chosen = first[some] + below(bits(key[some], BOUNDARY_DRAW), count[some])
    offset[some] = end[chosen] + 1
    return offset
