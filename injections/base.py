"""What a kind is: a name, a configuration, and a function from it to items.

A kind knows nothing of steps, sequences or offsets. It makes items; the plan randomises them to
arms and places their copies. Adding a kind takes one module with a `Kind` and one registry entry
(or an entry point of the group `mixctl.kinds` in a package of your own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mixctl.injections.config import ExperimentConfig
from mixctl.injections.encode import Encoder

TokenIds = NDArray[np.uint32]


@dataclass(frozen=True)
class BaseData:
    """Base data as a payload.

    Attributes:
        n_sequences: how many whole sequences; of a batch, the sequences of a step.
        sequence: the sequence of the run whose base data is placed again; None for spare base data
            that the run holds nowhere else.
        mark: whether nothing is placed: the sequences drawn keep their own base data, and are only
            recorded (Gaussian watermarks).
    """

    n_sequences: int = 1
    sequence: int | None = None
    mark: bool = False


@dataclass(frozen=True)
class Item:
    """One unit of study.

    Attributes:
        item: the id, unique in the experiment.
        variants: the payloads, uint32; copy c is made of variant c mod len(variants), unless the
            arm says otherwise (`variants:`). Empty when the payload is base data.
        meta: what the scorer needs (a model of `shards.meta` or of the kind's own package).
        stratum: items are randomised within strata.
        cluster: items of one cluster go to the same arm; None stands for a cluster of its own.
        text: the first payload as text, for people.
        arm: the arm that the row itself asks for.
        copies: the dose that the row itself asks for.
        steps: where the row itself fixes it, the step of each copy in turn.
        base: where the payload is base data, which.
        compared: the tokens that near-duplicates are told by; None for the first variant, an empty
            array where items are made at random and cannot be near-duplicates.
        forms: other token strings to look for in the base corpus: every form that is scored.
        reserve: payloads that a build does not place: copies that are added later take them in
            turn.
    """

    item: str
    variants: tuple[TokenIds, ...]
    meta: BaseModel
    stratum: str | None = None
    cluster: str | None = None
    text: str | None = None
    arm: str | None = None
    copies: int | None = None
    steps: tuple[int, ...] | None = None
    base: BaseData | None = None
    compared: TokenIds | None = None
    forms: tuple[TokenIds, ...] = ()
    reserve: tuple[TokenIds, ...] = ()


@dataclass(frozen=True)
class KindContext:
    """What a kind may look at besides its own configuration."""

    folder: Path
    """the folder of the mix file, which paths are relative to"""
    encoder: Encoder
    seed: int
    max_payload_tokens: int
    """the longest payload that a sequence can hold between two end-of-document tokens"""
    sequence_tokens: int = 0
    """tokens of a sequence, max_seq_length + 1"""
    global_batch: int = 0
    """sequences of a step"""
    steps: int = 0
    """optimizer steps of the run"""
    sample: int | None = None
    """for `mixctl plan`: a kind that generates more payloads than this makes so many and sizes the
    others after them (`sources.stand_ins`); None, in a build, makes every one"""

    @property
    def run_tokens(self) -> int:
        """Returns the tokens of the whole run as LitGPT counts them."""
        return self.steps * self.global_batch * (self.sequence_tokens - 1)


MakeItems = Callable[[ExperimentConfig, KindContext], list[Item]]


@dataclass(frozen=True)
class Kind:
    """An experiment kind.

    Attributes:
        name: what `kind:` says in a mix file.
        version: raised when the same configuration would give other items.
        config: the model of its section in the mix file.
        make_items: the items, in a fixed order; raises InputError with all problems of the item
        files.
        inputs: the files that the items depend on.
        absent: whether the items are token strings that must occur nowhere in the run: sequences
            of the base stream that hold one are replaced, and payloads that do are refused.
    """

    name: str
    version: int
    config: type[ExperimentConfig]
    make_items: MakeItems
    inputs: Callable[[ExperimentConfig, Path], list[Path]]
    absent: bool = False
