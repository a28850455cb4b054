"""A kind as another package would bring it: every item is the same word, `length` times."""

from pathlib import Path
from typing import Literal

import numpy as np

from mixctl.injections.base import Item, Kind, KindContext
from mixctl.injections.config import ExperimentConfig
from mixctl.shards.meta import DocumentsMeta


class MineConfig(ExperimentConfig):
    """The section of a `mine` experiment."""

    kind: Literal["mine"]
    length: int


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    if not isinstance(config, MineConfig):
        raise TypeError(config)
    ids = np.repeat(context.encoder.text("w"), config.length)
    return [Item(item=f"item-{n}", variants=(ids + n,), meta=DocumentsMeta()) for n in range(3)]


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return []


KIND = Kind("mine", 1, MineConfig, _make_items, _inputs)
