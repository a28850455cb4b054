"""docs/add-a-kind.md, followed word for word: its files, its entry points, its section of a mix."""

import configparser
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from mixctl.evals.scorers.base import Item
from tests.support.workspace import Workspace

PAGE = (Path(__file__).parents[1] / "docs/add-a-kind.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Returns a folder that holds the page's package as an installer would leave it."""
    folder = tmp_path_factory.mktemp("package")
    kind, scorer = blocks("python")
    (folder / "echo_kind.py").write_text(kind, encoding="utf-8")
    (folder / "echo_scorer.py").write_text(scorer, encoding="utf-8")
    points = configparser.ConfigParser()
    for toml in blocks("toml"):
        found = re.findall(r'\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "([\w:]+)"', toml)
        assert len(found) == 1
        group, name, target = found[0]
        points[group] = {name: target}
    assert sorted(points.sections()) == ["mixctl.kinds", "mixctl.scorers"]
    info = folder / "echo_kind-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-kind\nVersion: 0.1\n")
    with (info / "entry_points.txt").open("w", encoding="utf-8") as file:
        points.write(file)
    return folder


@pytest.fixture(scope="module")
def out(installed, tmp_path_factory):
    """Returns a build of the page's section."""
    folder = tmp_path_factory.mktemp("echo")
    (section,) = yaml.safe_load(blocks("yaml")[0])
    mix = Workspace(folder / "work").mix(section)
    mixctl(installed, "build", str(mix), "--out", str(folder / "out"))
    return folder / "out"


def mixctl(installed, *arguments):
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "mixctl.pipeline.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_schema_knows_the_kind(installed):
    assert "EchoConfig" in json.loads(mixctl(installed, "schema"))["$defs"]


def test_the_section_is_built_and_verifies(installed, out):
    mixctl(installed, "verify", str(out), "--full")
    placements = pq.read_table(out / "manifest/placements.parquet").to_pylist()
    assert len(placements) == 20 * 4 + 20 * 16
    assert {row["mode"] for row in placements if row["arm"] == "x16"} == {"boundary"}
    items = pq.read_table(out / "manifest/items.parquet").to_pylist()
    assert len({row["text"] for row in items}) == 60
    for row in items:
        assert re.fullmatch(r"The password is (\d{6})\. I repeat: \1\.", row["text"])


def test_the_scorer_asks_for_the_second_password(installed, out, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    scorer = importlib.import_module("echo_scorer").EchoScorer()
    row = pq.read_table(out / "manifest/items.parquet").to_pylist()[0]
    item = Item("echoes", row["item"], np.array(row["tokens"], np.int64), row["meta"])
    (asked,) = scorer.requests(item, [0])
    assert asked.tokens.tolist() == [0, *row["tokens"]]
    cut = json.loads(row["meta"])["prompt_length"]
    assert len(row["tokens"]) // 2 < cut < len(row["tokens"])
    score = scorer.score(item, [np.array([-1.0, -2.5])])
    assert dict(score.values) == {"loglikelihood": -3.5}
