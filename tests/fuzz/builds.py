"""Finished builds: mix.json changed and sealed anew, tables of the manifest broken."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mixctl.evals.experiments import read_experiments
from mixctl.evals.shard_sample import check_shards
from mixctl.evals.work import gather
from mixctl.pipeline.build import build
from mixctl.pipeline.relayout import relayout
from mixctl.pipeline.show import Choice, show
from mixctl.shards.files import digest_bytes
from mixctl.shards.manifest import TABLES
from mixctl.shards.record import read_record
from mixctl.shards.verify import verify
from tests.evals import tiny
from tests.fuzz.loop import Parse
from tests.fuzz.mutate import mutated_bytes, mutated_tree, write_rows
from tests.support.workspace import Workspace, quiz


class Records:
    """mix.json of a build, changed and given its digest again."""

    name = "records"

    def __init__(self, folder: Path) -> None:
        work = Workspace(folder / "work")
        self.other, self.out = work.trainer("other.yaml", devices=2), folder / "other"
        self.build = folder / "build"
        build(work.mix(quiz()), self.build)
        self.path = self.build / "mix.json"
        self.record = json.loads(self.path.read_text())

    def broken(self, chance: random.Random) -> Parse:
        tree = mutated_tree(chance, self.record) if chance.random() < 0.8 else self.record
        if chance.random() < 0.7 and isinstance(tree, dict):
            blank = _canonical({**tree, "self_digest": ""})
            tree = {**tree, "self_digest": digest_bytes(blank)}
        data = _canonical(tree)
        if tree is self.record or chance.random() < 0.1:
            data = mutated_bytes(chance, data)
        self.path.write_bytes(data)
        way = chance.random()

        def parse() -> None:
            show(self.build, Choice(), 3)
            if way < 0.1:
                verify(self.build)
            elif way < 0.15:
                try:
                    relayout(self.build, self.other, self.out)
                finally:
                    shutil.rmtree(self.out, ignore_errors=True)

        return parse


def _canonical(tree: Any) -> bytes:
    text = json.dumps(tree, sort_keys=False, indent=1, ensure_ascii=False, default=str)
    return (text + "\n").encode("utf-8", "surrogatepass")


class Manifests:
    """The tables of a build, read as an eval reads them, digests left out of account."""

    name = "manifests"

    def __init__(self, folder: Path) -> None:
        arms = {"holdout": (3, 0), "x2": (3, 2)}
        made = {
            "facts": ("documents", [_of_a_sequence(item) for item in tiny.documents(arms)]),
            "leak": ("contamination", tiny.questions(arms)),
            "secrets": ("memorization", tiny.canaries(arms)),
        }
        self.build = tiny.make_build(folder / "build", made)
        tiny.into_shards(self.build, "facts")
        self.sound = {name: (self.build / name).read_bytes() for name in TABLES}
        self.record = read_record(self.build)

    def broken(self, chance: random.Random) -> Parse:
        for name, data in self.sound.items():
            (self.build / name).write_bytes(data)
        name = chance.choice(["manifest/items.parquet", "manifest/placements.parquet", *TABLES])
        path = self.build / name
        if chance.random() < 0.4:
            path.write_bytes(mutated_bytes(chance, self.sound[name]))
        else:
            rows = pq.read_table(path).to_pylist() or [{"a": 1}]
            write_rows(mutated_tree(chance, rows), TABLES[name], path)
        return self._read

    def _read(self) -> None:
        experiments = read_experiments(self.build, self.record)
        check_shards(self.build, self.record)
        gather(experiments, [0])


def _of_a_sequence(item: tiny.TinyItem) -> tiny.TinyItem:
    return dataclasses.replace(item, tokens=(item.tokens * 3)[:33])
