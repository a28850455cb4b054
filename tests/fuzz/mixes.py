"""Mix files and trainer configs: examples changed here and there, and random YAML."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.planning import plan_mix
from mixctl.pipeline.prepare import prepare
from tests.fuzz.loop import Parse
from tests.fuzz.mutate import ODD, mutated_bytes, mutated_tree
from tests.support.workspace import Workspace, trainer_config

EXAMPLES = Path(__file__).parents[2] / "examples"
WHOLE = 0.5
"""the share of readable mixes that are planned and prepared too: the slow part"""


class Mixes:
    name = "mixes"

    def __init__(self, folder: Path) -> None:
        self.work = Workspace(folder / "work")
        self.path = self.work.mix()
        self.mixes = [yaml.safe_load(self.path.read_text())]
        every = yaml.safe_load((EXAMPLES / "all-small.yaml").read_text())
        self.mixes += [{**every, "experiments": [one]} for one in every["experiments"]]
        for name in ("tokenizer", "small"):
            (self.path.parent / name).symlink_to(EXAMPLES / name)

    def broken(self, chance: random.Random) -> Parse:
        mix = self.mixes[0] if chance.random() < 0.3 else chance.choice(self.mixes)
        self.path.write_bytes(broken_yaml(chance, mix))
        whole = chance.random() < WHOLE

        def parse() -> None:
            read_mix(self.path)
            if whole:
                plan_mix(self.path)
                prepare(self.path)

        return parse


class Trainers:
    name = "trainers"

    def __init__(self, folder: Path) -> None:
        self.work = Workspace(folder / "work")
        self.mix = self.work.mix()
        self.path = self.work.folder / "trainer.yaml"
        shipped = Path(__file__).parents[2] / "trainer_configs"
        own = [yaml.safe_load(path.read_text()) for path in sorted(shipped.glob("*.yaml"))]
        self.configs = [*[trainer_config()] * len(own), *own]

    def broken(self, chance: random.Random) -> Parse:
        self.path.write_bytes(broken_yaml(chance, chance.choice(self.configs)))
        whole = chance.random() < WHOLE

        def parse() -> None:
            read_mix(self.mix)
            if whole:
                prepare(self.mix)

        return parse


def broken_yaml(chance: random.Random, tree: Any) -> bytes:
    """Returns YAML that is not quite the tree's any more, or never was."""
    way = chance.random()
    if way < 0.05:
        tree = _anything(chance, 4)
    elif way < 0.7:
        tree = mutated_tree(chance, tree, chance.choice((1, 1, 3)))
    text = yaml.safe_dump(tree, allow_unicode=chance.random() < 0.3).encode("utf-8", "replace")
    if 0.6 < way < 0.97:
        return mutated_bytes(chance, text, 2)
    return chance.choice(BOMBS) + text if way >= 0.97 else text


BOMBS = (
    b"x: &x [*x]\n",
    b"x: &x {y: *x}\n",
    b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)),
    b"a0: &a0 {k: x}\n"
    + b"".join(
        b"a%d: &a%d {<<: *a%d, k%d: *a%d}\n" % (n, n, n - 1, n, n - 1) for n in range(1, 40)
    ),
    b"x: " + b"[" * 5000 + b"\n",
    b"- " * 3000 + b"x\n",
    b"x: 1" + b"_" * 50_000 + b"\n",
    b"x: " + b"9" * 6000 + b"\n",
    b"x: " + b"1:" * 400 + b"1\n",
    b"? " * 400 + b"x\n",
    b"%YAML 9.9\n---\n",
    b"--- 1\n--- 2\n",
    b"x: !!timestamp 9999-99-99\n",
    b"x: !!python/name:os.system\n",
    b"2020-01-01: x\n",
    b"!!binary aGk=: x\n",
    b"x: !!set {a, b}\n",
    b"x: !!omap [a: 1]\n",
)
"""what may stand before a sound file: aliases without end, depth, long numbers, tags"""


def _anything(chance: random.Random, depth: int) -> Any:
    """Returns a random tree, keys of a mix file among its keys."""
    if depth == 0 or chance.random() < 0.4:
        return chance.choice(ODD)
    if chance.random() < 0.5:
        return [_anything(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    names = ("corpus", "trainer", "tokenizer", "seed", "experiments", "name", "kind", "arms", "x")
    return {chance.choice(names): _anything(chance, depth - 1) for _ in range(chance.randint(0, 5))}
