"""Kinds as another package would bring them, small enough to be seen through."""

from pathlib import Path
from typing import Literal

import numpy as np

from mixctl.injections.base import BaseData, Item, Kind, KindContext
from mixctl.injections.config import AbsentConfig, ExperimentConfig, Mode
from mixctl.pipeline.controllers import Controller, Decide, Limits
from mixctl.shards.meta import DocumentsMeta


class MineConfig(ExperimentConfig):
    """The section of a `mine` experiment."""

    kind: Literal["mine"]
    length: int


class MarksConfig(ExperimentConfig):
    """The section of a `marks` experiment."""

    kind: Literal["marks"]
    placement: Mode = "mark"
    count: int
    whole_steps: bool = False


class AbsentStringsConfig(AbsentConfig):
    """The section of an `absent` experiment."""

    kind: Literal["absent"]
    strings: list[list[int]]


def _mine(config: ExperimentConfig, context: KindContext) -> list[Item]:
    """Returns items that are the same word, `length` times."""
    if not isinstance(config, MineConfig):
        raise TypeError(config)
    ids = np.repeat(context.encoder.text("w"), config.length)
    return [Item(item=f"item-{n}", variants=(ids + n,), meta=DocumentsMeta()) for n in range(3)]


def _marks(config: ExperimentConfig, context: KindContext) -> list[Item]:
    """Returns items that mark one sequence each, or a whole step."""
    if not isinstance(config, MarksConfig):
        raise TypeError(config)
    base = BaseData(context.global_batch if config.whole_steps else 1, mark=True)
    names = [f"mark-{n}" for n in range(config.count)]
    return [Item(item=name, variants=(), meta=DocumentsMeta(), base=base) for name in names]


def _absent(config: ExperimentConfig, context: KindContext) -> list[Item]:
    """Returns an item a string, never placed."""
    if not isinstance(config, AbsentStringsConfig):
        raise TypeError(config)
    strings = [np.array(ids, dtype=np.uint32) for ids in config.strings]
    return [
        Item(item=f"string-{n}", variants=(ids,), meta=DocumentsMeta(), copies=0)
        for n, ids in enumerate(strings)
    ]


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return []


class HaikuScorer:
    """A scorer by what every scorer says of itself."""

    kind, version, metrics, membership = "haiku", 1, (), None


def _steady(options: Limits) -> Decide:
    return lambda state, value, set_point: ({"n": 3, "seen": state.get("seen", 0) + 1}, 3)


CONTROLLER = Controller(Limits, _steady)
NOTHING = object()
KIND = Kind("mine", 1, MineConfig, _mine, _inputs)
MARKS = Kind("marks", 1, MarksConfig, _marks, _inputs)
ABSENT = Kind("absent", 1, AbsentStringsConfig, _absent, _inputs, absent=True)
