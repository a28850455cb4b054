"""The copies of an experiment, piece by piece, before they have a place.

A copy of an item is one piece, or several where the arm splits payloads; a piece is what is placed
at one offset of one sequence. A copy in `batch` mode fills every sequence of a step.

    2 items, copies 3 and 1, no splitting  ->  4 pieces:
    item 0 0 0 1   copy 0 1 2 0   part 0 0 0 0

Price: about a microsecond a piece; a few more where payloads are split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.base import Item
from mixctl.injections.config import Arm, ExperimentConfig, Mode, Split, Variants
from mixctl.pipeline.assignment import AssignedItems, raise_problems
from mixctl.pipeline.dose import variant_lengths
from mixctl.pipeline.placement import SEPARATORS
from mixctl.pipeline.splitting import cuts
from mixctl.shards.draws import I64, U64, bits, stream, streams
from mixctl.shards.errors import InputError
from mixctl.shards.topology import Topology

MODES: tuple[Mode, ...] = ("overwrite", "boundary", "sequence", "batch", "mark")
OVERWRITE, BOUNDARY, SEQUENCE, BATCH, MARK = range(len(MODES))
PHASE, PART_DRAW, SPLIT_DRAW = 2**40, 2**43, 2**44


@dataclass(frozen=True)
class Pieces:
    """What is to be placed, by item, copy and part; arrays of shape (n,), int64 unless said.

    Attributes:
        item: index into the experiment's items.
        copy: number within the item.
        part: number within the copy.
        variant: which payload of the item.
        begin: of the piece in that payload.
        length: tokens of the piece; of a whole step in `batch` mode.
        mode: int8, index into MODES.
        n_sequences: sequences that the piece fills; 1 but for whole steps.
        key: uint64, the stream of the piece.
        phase: uint64, random bits of the item.
    """

    item: I64
    copy: I64
    part: I64
    variant: I64
    begin: I64
    length: I64
    mode: NDArray[np.int8]
    n_sequences: I64
    key: U64
    phase: U64

    def __len__(self) -> int:
        """Returns the number of pieces."""
        return len(self.item)

    def extents(self, sequence_tokens: int) -> I64:
        """Returns the tokens of its sequence that each piece keeps others out of."""
        whole = np.full(len(self), sequence_tokens, dtype=np.int64)
        return np.where(self.mode == OVERWRITE, self.length + SEPARATORS, whole)


def arm_mode(config: ExperimentConfig, arm: Arm) -> Mode:
    """Returns how the arm's payloads enter their sequences."""
    return arm.placement or config.placement


def arm_split(config: ExperimentConfig, arm: Arm) -> Split | None:
    """Returns how the arm's payloads are cut, None where they stay whole."""
    split = arm.split or config.split
    return split if isinstance(split, Split) else None


def make_pieces(
    config: ExperimentConfig, assigned: AssignedItems, topology: Topology, seed: int
) -> Pieces:
    """Returns the pieces of all copies.

    Raises:
        InputError: naming the items whose payloads do not go with the mode of their arm.
    """
    raise_problems(_mode_problems(config, assigned, topology))
    item = np.repeat(np.arange(len(assigned.items)), assigned.copies)
    first = np.cumsum(assigned.copies) - assigned.copies
    copy = np.arange(len(item)) - np.repeat(first, assigned.copies)
    if assigned.earlier is not None:
        copy += assigned.earlier[item]
    names = [one.item for one in assigned.items]
    item_key = streams(names, seed, "placement", config.name)
    key = bits(item_key[item], copy)
    modes = [MODES.index(arm_mode(config, one)) for one in assigned.arms]
    tables = _payload_tables(config, assigned, topology)
    variant = _variant(assigned, tables, item, copy)
    whole = Pieces(
        item=item,
        copy=copy,
        part=np.zeros(len(item), dtype=np.int64),
        variant=variant,
        begin=np.zeros(len(item), dtype=np.int64),
        length=tables.length[tables.first[item] + variant],
        mode=np.array(modes, dtype=np.int8)[assigned.arm[item]],
        n_sequences=tables.n_sequences[item],
        key=key,
        phase=bits(item_key, PHASE)[item],
    )
    pieces = _split(whole, config, assigned, seed)
    raise_problems(_length_problems(pieces, config, assigned, topology))
    return pieces


def _variant(assigned: AssignedItems, tables: _PayloadTables, item: I64, copy: I64) -> I64:
    """Returns which payload each copy takes: each in turn, from the item's first one on."""
    if assigned.first_variant is None:
        return copy % tables.n_variants[item]
    first = assigned.first_variant[item]
    return first + copy % (tables.n_variants[item] - first)


@dataclass(frozen=True)
class _PayloadTables:
    """Of each item: its payloads in turn, where their lengths begin, the sequences it fills."""

    n_variants: I64
    first: I64
    length: I64
    n_sequences: I64


def _payload_tables(
    config: ExperimentConfig, assigned: AssignedItems, topology: Topology
) -> _PayloadTables:
    batches = [
        topology.global_batch if arm_mode(config, a) == "batch" else 1 for a in assigned.arms
    ]
    only_first = [(a.variants or config.variants) == "first" for a in assigned.arms]
    lengths: list[int] = []
    n_variants: list[int] = []
    n_sequences: list[int] = []
    for item, arm in zip(assigned.items, assigned.arm.tolist(), strict=True):
        if item.base is not None:
            found = [item.base.n_sequences * topology.sequence_tokens]
        else:
            found = [len(ids) for ids in item.variants[: 1 if only_first[arm] else None]]
        lengths += found
        n_variants.append(len(found))
        n_sequences.append(batches[arm] if item.base is None else item.base.n_sequences)
    counts = np.array(n_variants, dtype=np.int64)
    return _PayloadTables(
        n_variants=counts,
        first=np.cumsum(counts) - counts,
        length=np.array(lengths, dtype=np.int64),
        n_sequences=np.array(n_sequences, dtype=np.int64),
    )


def _with_arms(assigned: AssignedItems) -> Iterator[tuple[Item, Arm]]:
    for item, arm in zip(assigned.items, assigned.arm, strict=True):
        yield item, assigned.arms[arm]


def _mode_problems(
    config: ExperimentConfig, assigned: AssignedItems, topology: Topology
) -> list[str]:
    """Returns the items whose payload cannot be placed in the mode of their arm."""
    problems = []
    for (item, arm), copies in zip(_with_arms(assigned), assigned.copies, strict=True):
        reason = _unfit(item, config, arm, topology) if copies else None
        if reason:
            problems.append(f"experiment '{config.name}': item '{item.item}': {reason}")
    return problems


def _unfit(item: Item, config: ExperimentConfig, arm: Arm, topology: Topology) -> str | None:
    """Returns why the item cannot be placed as its arm says, None when it can."""
    mode = arm_mode(config, arm)
    if item.base is not None and item.base.mark != (mode == "mark"):
        return f"placement is {mode}: marks, and only marks, are placed with mark"
    if item.base is None and mode == "mark":
        return "placement is mark, which is for sequences that are only recorded"
    if arm_split(config, arm) is not None and mode not in ("overwrite", "boundary"):
        return f"placement is {mode}, which cannot hold pieces: split goes with overwrite, boundary"
    if mode in ("overwrite", "boundary"):
        return None if item.base is None else f"placement is {mode}, but it is whole base sequences"
    return _wrong_size(item, mode, arm.variants or config.variants, topology)


def _wrong_size(item: Item, mode: Mode, variants: Variants, topology: Topology) -> str | None:
    """Returns why the item does not fill whole sequences as its mode asks, None when it does."""
    width, batch = topology.sequence_tokens, topology.global_batch
    if mode == "mark" and item.base is not None:
        n = item.base.n_sequences
        return (
            None if n in (1, batch) else f"marks {n} sequences: it must be 1, or a step's {batch}"
        )
    wanted = width if mode == "sequence" else batch * width
    lengths = variant_lengths([item], variants, width)[0]
    wrong = lengths[lengths != wanted]
    if not len(wrong):
        return None
    return f"the payload has {wrong[0]} tokens; placement {mode} needs exactly {wanted}"


def _length_problems(
    pieces: Pieces, config: ExperimentConfig, assigned: AssignedItems, topology: Topology
) -> list[str]:
    """Returns the pieces that no sequence holds between two end-of-document tokens."""
    most = topology.sequence_tokens - SEPARATORS
    long = (pieces.length > most) & (pieces.mode <= BOUNDARY)
    return [
        f"experiment '{config.name}': item '{assigned.items[pieces.item[n]].item}': a piece of "
        f"{pieces.length[n]} tokens; a sequence holds at most {most} between two end-of-document "
        f"tokens"
        for n in np.flatnonzero(long)
    ]


def _split(whole: Pieces, config: ExperimentConfig, assigned: AssignedItems, seed: int) -> Pieces:
    """Returns the pieces of the copies whose arms split payloads, and the other copies whole."""
    cutter, bounds = _Cutter(config, assigned, seed), []
    chosen = np.zeros(len(whole), dtype=np.bool_)
    for number, arm in enumerate(assigned.arms):
        rule = arm_split(config, arm)
        if rule is not None:
            chosen |= assigned.arm[whole.item] == number
    for n in np.flatnonzero(chosen):
        rule = arm_split(config, assigned.arms[assigned.arm[whole.item[n]]])
        bounds += [cutter.cuts(whole, int(n), rule)] if rule else []
    if not bounds:
        return whole
    n_parts = np.ones(len(whole), dtype=np.int64)
    n_parts[chosen] = [len(one) - 1 for one in bounds]
    row = np.repeat(np.arange(len(whole)), n_parts)
    part = np.arange(len(row)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    begin, length = whole.begin[row], whole.length[row]
    begin[chosen[row]] = np.concatenate([one[:-1] for one in bounds])
    length[chosen[row]] = np.concatenate([np.diff(one) for one in bounds])
    key = whole.key[row]
    return Pieces(
        item=whole.item[row],
        copy=whole.copy[row],
        part=part,
        variant=whole.variant[row],
        begin=begin,
        length=length,
        mode=whole.mode[row],
        n_sequences=whole.n_sequences[row],
        key=np.where(part > 0, bits(key, PART_DRAW + part), key),
        phase=whole.phase[row],
    )


class _Cutter:
    """Cuts payloads: those that are cut once are remembered."""

    def __init__(self, config: ExperimentConfig, assigned: AssignedItems, seed: int) -> None:
        self._config, self._assigned, self._seed = config, assigned, seed
        self._once: dict[tuple[int, int], I64] = {}

    def cuts(self, whole: Pieces, n: int, rule: Split) -> I64:
        """Returns the cuts of the n-th copy; raises InputError when it is too short for them."""
        item, variant = int(whole.item[n]), int(whole.variant[n])
        name = self._assigned.items[item].item
        try:
            if rule.anew:
                return cuts(int(whole.length[n]), rule, int(bits(whole.key[n], SPLIT_DRAW)))
            if (item, variant) not in self._once:
                key = stream(self._seed, "split", self._config.name, name, variant)
                self._once[item, variant] = cuts(int(whole.length[n]), rule, key)
        except ValueError as error:
            place = f"experiment '{self._config.name}': item '{name}'"
            raise InputError(f"{place}: split: {error}") from None
        return self._once[item, variant]
