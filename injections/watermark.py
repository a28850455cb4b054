"""watermark: marks that a test can find in a model that was trained on them.

- `method: green-list`: documents whose tokens lean to a secret list (`watermark_green`).
- `method: strings`: collections whose documents end in a random string (`watermark_strings`).
- `method: gaussian`: nothing is placed. `count` whole batches, or single sequences (`unit:`), are
  chosen and recorded, each with the seed of a noise that the trainer's data module adds to their
  input embeddings (the rule is in `shards.meta.watermark.GaussianMeta`). The score needs the seed
  alone, and seeds that are never used for comparison. The placement is `mark`.

      {name: noise, kind: watermark, method: gaussian, count: 200, unit: batch,
       arms: [{name: holdout, items: 100, copies: 0}, {name: marked, items: rest, copies: 1}]}

A draw depends on (seed, experiment, item) alone.

Price: of gaussian, nothing. The others say theirs.
Source of gaussian: Pawelczyk et al., "Machine unlearning fails to remove data poisoning attacks",
arXiv 2406.17216 (Gaussian poisons).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from mixctl.injections.base import BaseData, Item, Kind, KindContext
from mixctl.injections.config import ExperimentConfig
from mixctl.injections.watermark_config import WatermarkConfig
from mixctl.injections.watermark_green import green_items
from mixctl.injections.watermark_strings import string_items
from mixctl.shards.draws import bits, stream
from mixctl.shards.meta.watermark import GaussianMeta

__all__ = ["KIND", "WatermarkConfig"]

_NOTHING = np.array([], dtype=np.uint32)


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(WatermarkConfig, config)
    if config.method == "green-list":
        return green_items(config, context)
    if config.method == "strings":
        return string_items(config, context)
    return [_mark(config, f"mark-{n:06d}", context) for n in range(config.count or 0)]


def _mark(config: WatermarkConfig, name: str, context: KindContext) -> Item:
    """Returns a mark: its first draw is the seed of its noise, the others are never used."""
    key = stream(context.seed, "watermark", config.name, name)
    drawn = bits(key, np.arange(1 + config.n_null_or_default)) >> np.uint64(1)
    n_sequences = context.global_batch if config.unit == "batch" else 1
    meta = GaussianMeta(
        unit=config.unit,
        n_sequences=n_sequences,
        sigma=config.sigma,
        noise_seed=int(drawn[0]),
        null_seeds=drawn[1:].tolist(),
    )
    base = BaseData(n_sequences=n_sequences, mark=True)
    return Item(item=name, variants=(), meta=meta, base=base, compared=_NOTHING)


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    config = cast(WatermarkConfig, config)
    named = [config.items if isinstance(config.items, str) else None, config.ngrams]
    return [folder / path for path in named if path is not None]


KIND = Kind("watermark", 1, WatermarkConfig, _make_items, _inputs)
