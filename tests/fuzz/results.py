"""Results folders: results.json, results.parquet and samples, broken; read and drawn."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq

from mixctl.evals import findings
from mixctl.evals.report import render
from mixctl.evals.results import read_results
from tests.evals.made_results import made_results
from tests.fuzz.loop import Parse
from tests.fuzz.mutate import mutated_bytes, mutated_tree, write_rows

DRAWN = 0.1
"""the share of readable results of which the report is made: the slow part"""


class ResultsFolders:
    """A folder that `mixctl report` is given."""

    name = "results"

    def __init__(self, folder: Path) -> None:
        self.folder = made_results(folder / "results")
        self.files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        self.sound = {path: path.read_bytes() for path in self.files}

    def broken(self, chance: random.Random) -> Parse:
        for path, data in self.sound.items():
            path.write_bytes(data)
        names = ["results.json"] * 3 + ["results.parquet"] * 2
        path = chance.choice([*(self.folder / name for name in names), *self.files])
        if chance.random() < 0.3:
            path.write_bytes(mutated_bytes(chance, self.sound[path]))
        elif path.suffix == ".json":
            tree = mutated_tree(chance, json.loads(self.sound[path]))
            text = json.dumps(tree, ensure_ascii=False, default=str)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        else:
            table = pq.read_table(path)
            write_rows(mutated_tree(chance, table.to_pylist()), table.schema, path)
        drawn = chance.random() < DRAWN

        def parse() -> None:
            found = read_results(self.folder)
            json.dumps(findings.as_json(findings.findings(found)))
            if drawn:
                render(found, self.folder)

        return parse
