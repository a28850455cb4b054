"""`mixctl diff`: what it counts is what a comparison row by row and byte by byte finds."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from mixctl.pipeline.build import build
from mixctl.pipeline.cli import cli
from mixctl.pipeline.diff import diff
from mixctl.pipeline.diff_sides import flat
from mixctl.pipeline.relayout import relayout
from mixctl.shards.manifest import read_items, read_placements
from tests.support.workspace import Workspace, canaries, documents, quiz

HEADER_BYTES, WIDTH = 12, 65


def iid():
    arms = [{"name": "holdout", "items": 2, "copies": 0}, {"name": "x2", "items": 2, "copies": 2}]
    return {"name": "again", "kind": "iid", "count": 4, "arms": arms}


def sections(copies=8, arm_items=20):
    quiz_section = quiz()
    quiz_section["arms"][2]["copies"] = copies
    quiz_section["arms"][1]["items"] = arm_items
    return [quiz_section, canaries(), documents(placement="boundary"), iid()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a workspace with two mixes, their builds, and a relayout of the first."""
    workspace = Workspace(tmp_path_factory.mktemp("diff") / "work")
    folder = workspace.folder
    for name, section in (("one", sections()), ("two", sections(copies=4, arm_items=18))):
        build(workspace.mix(*section, name=f"{name}.yaml"), folder / name)
    trainer = workspace.trainer("other.yaml", micro_batch_size=2, workers=2)
    relayout(folder / "one", trainer, folder / "moved", workers=1)
    return folder


def test_a_mix_and_what_was_built_of_it_do_not_differ(made):
    for a, b in (
        ("one.yaml", "one"),
        ("one", "one.yaml"),
        ("one", "one"),
        ("one.yaml", "one.yaml"),
    ):
        found = diff(made / a, made / b)
        assert found.same, found
        assert (found.settings, found.doses, found.placements) == ([], [], [])


def rows_of(build):
    keys = ("experiment", "item", "copy", "part")
    return {tuple(row[key] for key in keys): row for row in read_placements(build).to_pylist()}


@pytest.mark.parametrize("b", ["two", "two.yaml"])
def test_placements_are_counted_as_row_by_row(made, b):
    found = {moves.experiment: moves for moves in diff(made / "one", made / b).placements}
    one, two = rows_of(made / "one"), rows_of(made / "two")
    arms = [
        {(row["experiment"], row["item"]): row["arm"] for row in read_items(folder).to_pylist()}
        for folder in (made / "one", made / "two")
    ]
    assert found["quiz"].only_a > 0 and found["quiz"].items_in_another_arm > 0
    for name in ("quiz", "canaries", "docs", "again"):
        mine, theirs = ({key for key in rows if key[0] == name} for rows in (one, two))
        both = mine & theirs
        moved = {
            key
            for key in both
            if one[key]["sequence"] != two[key]["sequence"]
            or (b == "two" or name != "docs")
            and one[key]["offset"] != two[key]["offset"]
        }
        expected = (len(mine - theirs), len(theirs - mine), len(moved), len(both - moved))
        changed = [key for key in arms[0] if key[0] == name and arms[0][key] != arms[1].get(key)]
        if name not in found:
            assert expected == (0, 0, 0, len(mine)) and not changed
            continue
        got = found[name]
        assert (got.only_a, got.only_b, got.moved, got.same) == expected
        assert (got.items_in_another_arm, got.payload) == (len(changed), 0)


def test_doses_are_those_of_the_manifests(made):
    found = {(one.experiment, one.arm): one for one in diff(made / "one", made / "two").doses}
    assert set(found) == {("quiz", "x4"), ("quiz", "x8")}
    for folder, side in ((made / "one", "a"), (made / "two", "b")):
        items, placed = read_items(folder).to_pylist(), read_placements(folder).to_pylist()
        for (experiment, arm), dose in found.items():
            mine = [row for row in items if (row["experiment"], row["arm"]) == (experiment, arm)]
            rows = [row for row in placed if (row["experiment"], row["arm"]) == (experiment, arm)]
            assert getattr(dose, side) == (
                *(len(mine), sum(row["copies"] for row in mine)),
                *(len(rows), sum(row["length"] for row in rows)),
            )


def tokens(build):
    return [
        np.frombuffer(path.read_bytes()[HEADER_BYTES:], "<u2").reshape(-1, WIDTH)
        for path in sorted((build / "train").glob("*.bin"))
    ]


def test_bytes_are_counted_as_byte_by_byte(made):
    content = diff(made / "one", made / "two").content
    one, two = (np.concatenate(tokens(made / name)) for name in ("one", "two"))
    assert content.tokens_changed == (one != two).sum() > 0  # one layout: block for block
    assert content.sequences_changed == (one != two).any(axis=1).sum()
    names = [f"train/{path.name}" for path in sorted((made / "one/train").glob("*.bin"))]
    pairs = zip(names, tokens(made / "one"), tokens(made / "two"), strict=True)
    changed = [name for name, a, b in pairs if (a != b).any()]
    assert [name for name in content.files_changed if name.startswith("train/")] == changed
    steps = [
        min(mine[key]["step"] for key in mine if mine[key] != theirs.get(key))
        for mine, theirs in (
            (rows_of(made / "one"), rows_of(made / "two")),
            (rows_of(made / "two"), rows_of(made / "one")),
        )
    ]
    assert content.first_step == min(steps)


def test_another_layout_of_the_same_run_holds_the_same_sequences(made):
    found = diff(made / "one", made / "moved")
    assert (found.doses, found.placements) == ([], [])
    assert found.content.sequences_changed == found.content.tokens_changed == 0
    assert "manifest/placements.parquet" in found.content.files_changed
    assert {one.key: (one.a, one.b) for one in found.settings} == {
        "trainer": ("trainer.yaml", str(made / "other.yaml")),
        "trainer_config.data.init_args.num_workers": (0, 2),
        "trainer_config.train.micro_batch_size": (4, 2),
    }


def test_what_is_said(made):
    text = CliRunner().invoke(cli, ["diff", str(made / "one"), str(made / "two")]).output
    assert "experiments.quiz.arms.x8.copies: 8 -> 4" in text
    assert "sequences of the run hold other tokens" in text and "first at step" in text
    result = CliRunner().invoke(cli, ["diff", str(made / "one"), str(made / "two"), "--json"])
    raw = json.loads(result.output)
    assert not raw["same"] and {one["key"] for one in raw["settings"]} == {
        *("experiments.quiz.arms.x8.copies", "experiments.quiz.arms.x4.items"),
    }


def test_runs_of_other_shapes_are_compared_by_name_only(made, shared):
    shared.trainer("short.yaml", max_tokens=8 * 64 * 100)
    mix = shared.mix(canaries(), name="short.yaml.mix", trainer="short.yaml")
    build(mix, shared.folder / "short")
    found = diff(made / "one", shared.folder / "short")
    assert not found.same and found.content.sequences_changed is None
    text = CliRunner().invoke(cli, ["diff", str(made / "one"), str(shared.folder / "short")]).output
    assert "the runs have other shapes" in text


def test_what_is_neither_mix_nor_build_is_refused(made, tmp_path):
    for wrong, message in (
        (tmp_path, "no build (it has no mix.json)"),
        (tmp_path / "x", "no such"),
    ):
        command = [
            sys.executable,
            "-m",
            "mixctl.pipeline.cli",
            "diff",
            str(made / "one"),
            str(wrong),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and message in done.stderr


def test_settings_go_by_the_names_in_lists():
    raw = {"arms": [{"name": "x4", "copies": 4}], "seed": 7, "none": None, "steps": [1, 2]}
    assert dict(flat(raw)) == {"arms.x4.copies": 4, "seed": 7, "steps": [1, 2]}
