"""What lm-evaluation-harness logs, broken: samples a line each, and its results file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.evals.experiments import unplaced
from mixctl.evals.lm_eval_samples import find_models
from mixctl.evals.scorers.base import Item
from tests.fuzz.loop import Parse
from tests.fuzz.mutate import mutated_bytes, mutated_tree
from tests.pipeline.test_lm_eval_results import DATE, sample

ARMS = ("holdout", "x4")
N_ITEMS = 6


class Samples:
    """A folder that `mixctl import lm-eval-results` is given."""

    name = "samples"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "step-00000100"
        self.folder.mkdir()
        names = [f"q{n}" for n in range(N_ITEMS)]
        self.asked = {"leak": {name: _question(name) for name in names}}
        items = [Item("leak", name, np.zeros(0, np.int64), "{}") for name in names]
        arms = np.array([ARMS[n % 2] for n in range(N_ITEMS)])
        self.experiment = unplaced("leak", "contamination", items, arms, np.array(names))
        self.sound = {self.folder / f"results_{DATE}.json": b'{"lm_eval_version": "0.4.13"}'}
        for arm in ARMS:
            mine = [self.asked["leak"][n] for n, own in zip(names, arms, strict=True) if own == arm]
            lines = [json.dumps(sample(doc, [-1.5, -2.5])) for doc in mine]
            path = self.folder / f"samples_mixctl_leak_{arm}_{DATE}.jsonl"
            self.sound[path] = "\n".join(lines).encode()

    def broken(self, chance: random.Random) -> Parse:
        for path, data in self.sound.items():
            path.write_bytes(data)
        path = chance.choice(list(self.sound))
        if chance.random() < 0.3:
            path.write_bytes(mutated_bytes(chance, self.sound[path]))
        else:
            lines: list[Any] = [json.loads(line) for line in self.sound[path].splitlines()]
            place = chance.randrange(len(lines))
            lines[place] = mutated_tree(chance, lines[place])
            text = "\n".join(json.dumps(line, ensure_ascii=False, default=str) for line in lines)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return lambda: find_models([self.folder], None, [self.experiment], self.asked)


def _question(name: str) -> dict[str, Any]:
    return {
        **{"id": name, "benchmark": "b", "copies": 4, "context": f"Why {name}?"},
        **{"choices": [" a", " b"], "gold": 1},
    }
