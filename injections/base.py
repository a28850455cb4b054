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
class Item:
    """One unit of study.

    Attributes:
        item: the id, unique in the experiment.
        variants: the payloads, uint32; copy c is made of variant c mod len(variants).
        meta: what the scorer needs (a model of `shards.meta` or of the kind's own package).
        stratum: items are randomised within strata.
        cluster: items of one cluster go to the same arm; None stands for a cluster of its own.
        text: the first payload as text, for people.
        arm: the arm that the row itself asks for.
        copies: the dose that the row itself asks for.
    """

    item: str
    variants: tuple[TokenIds, ...]
    meta: BaseModel
    stratum: str | None = None
    cluster: str | None = None
    text: str | None = None
    arm: str | None = None
    copies: int | None = None


@dataclass(frozen=True)
class KindContext:
    """What a kind may look at besides its own configuration."""

    folder: Path
    """the folder of the mix file, which paths are relative to"""
    encoder: Encoder
    seed: int
    max_payload_tokens: int
    """the longest payload that a sequence can hold"""


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
    """

    name: str
    version: int
    config: type[ExperimentConfig]
    make_items: MakeItems
    inputs: Callable[[ExperimentConfig, Path], list[Path]]
