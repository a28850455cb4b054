"""Item files: the rows of every kind of the example mix, broken."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from mixctl.injections.base import KindContext
from mixctl.injections.encode import load_encoder
from mixctl.pipeline.mixfile import Experiment, read_mix
from mixctl.pipeline.plan import kind_context
from tests.fuzz.loop import Parse
from tests.fuzz.mixes import EXAMPLES
from tests.fuzz.mutate import mutated_bytes, mutated_tree

MOST_ROWS = 6


class Rows:
    """A few rows of an example's item file, one or more of them changed."""

    name = "rows"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rows.jsonl"
        every = yaml.safe_load((EXAMPLES / "all-small.yaml").read_text())
        self.kinds: list[tuple[Experiment, KindContext, list[bytes]]] = []
        mix = read_mix(EXAMPLES / "all-small.yaml")
        context = kind_context(mix, load_encoder(EXAMPLES / "tokenizer"))
        items = {one["name"]: one.get("items") for one in every["experiments"]}
        for experiment in mix.experiments:
            if name := items[experiment.config.name]:
                changed = experiment.config.model_copy(update={"items": str(self.path)})
                lines = (EXAMPLES / name).read_bytes().splitlines()
                self.kinds.append((Experiment(changed, experiment.kind), context, lines))

    def broken(self, chance: random.Random) -> Parse:
        experiment, context, lines = chance.choice(self.kinds)
        rows = chance.sample(lines, chance.randint(1, MOST_ROWS))
        rows[0] = _broken_row(chance, rows[0])
        text = b"\n".join(rows)
        if chance.random() < 0.3:
            text = mutated_bytes(chance, text)
        self.path.write_bytes(text)
        return lambda: experiment.kind.make_items(experiment.config, context)


def _broken_row(chance: random.Random, row: bytes) -> bytes:
    tree: Any = mutated_tree(chance, json.loads(row))
    return json.dumps(tree, ensure_ascii=chance.random() < 0.5, default=str).encode(
        "utf-8", "surrogatepass"
    )
