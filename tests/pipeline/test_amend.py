"""Amendments: what they place and where, what they leave alone, what they refuse."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from mixctl.pipeline.additions import Additions, read_additions
from mixctl.pipeline.amend import amend, replay
from mixctl.pipeline.build import build
from mixctl.pipeline.cli import cli
from mixctl.pipeline.relayout import relayout
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.manifest import BEFORE, before_name, read_placements, write_table
from mixctl.shards.marks import read_marks
from mixctl.shards.reading import read_batches
from mixctl.shards.record import read_record, write_record
from mixctl.shards.verify import verify
from mixctl.shards.verify_amendments import check_amendments
from tests.support.slow_mix import _with, rows_of, run_blocks
from tests.support.workspace import canaries, documents, quiz, write_jsonl

S = 100
BATCH = 8
LATE = {**documents(), "name": "late", "placement": "boundary"}
MORE = quiz(arms=[{"name": "x4", "copies": 3}, {"name": "holdout", "copies": 0}])


def facts(**changes):
    """Returns a knowledge section over facts.jsonl, two of whose paraphrases are reserved."""
    arms = [{"name": "once", "items": 3, "copies": 1}, {"name": "told", "items": 3, "copies": 0}]
    section = {"name": "facts", "kind": "knowledge", "items": "facts.jsonl", "reserve": 2}
    return {**section, "arms": arms, **changes}


def write_facts(folder):
    texts = [[f"w{n} is w{n + 7} and w{n + k}" for k in range(4)] for n in range(6)]
    probes = [{"input": "w1 is", "target": "w8"}]
    rows = [
        {"id": f"f{n}", "text": text, "paraphrases": rest, "probes": probes}
        for n, (text, *rest) in enumerate(texts)
    ]
    write_jsonl(folder / "facts.jsonl", rows)


@pytest.fixture(scope="module")
def finished(shared):
    """Returns {control: build} of one mix, with and without the twin; not to be changed."""
    write_facts(shared.folder)
    mix = shared.mix(quiz(), canaries(), documents(), facts(), name="amend.yaml")
    found = {}
    for control in (True, False):
        found[control] = shared.folder / f"amend-{control}"
        build(mix, found[control], control=control)
    return found


@pytest.fixture
def made(finished, tmp_path):
    """Returns a copy of the build with its twin, to be amended."""
    return clone(finished[True], tmp_path / "build")


def clone(folder, out):
    shutil.copytree(folder, out)
    return out


def added(shared, *sections, **more):
    return Additions(shared.folder, tuple(sections), **more)


def tree(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def key(row):
    return (row["experiment"], row["item"], row["copy"], row["part"])


@pytest.mark.parametrize("control", [True, False])
def test_new_placements_are_later_steps_of_free_sequences(shared, finished, tmp_path, control):
    out = clone(finished[control], tmp_path / "build")
    blocks, before = run_blocks(out), rows_of(out, "placements")
    amend(out, added(shared, LATE, MORE), S)
    after = {key(row): row for row in rows_of(out, "placements")}
    old = {key(row): row for row in before}
    assert {name: after[name] for name in old} == old
    new = [after[name] for name in after.keys() - old.keys()]
    taken = {row["sequence"] for row in before}
    assert len(new) == 7 * 1 + 6 * 4 + 20 * 3  # documents of one copy and of four; three of x4's
    assert all(row["step"] > S and row["sequence"] not in taken for row in new)
    assert {row["sequence"] // BATCH + 1 - row["step"] for row in new} == {0}
    slow = [row.tolist() for row in blocks]
    items = {(r["experiment"], r["item"]): r["tokens"] for r in rows_of(out, "items")}
    for row in new:
        payload = items[row["experiment"], row["item"]]
        slow[row["sequence"]] = _with(slow[row["sequence"]], row, payload)
    assert np.array_equal(run_blocks(out), np.array(slow))
    assert {row["mode"] for row in new} == {"boundary", "overwrite"}
    assert verify(out, full=True).findings == []


def test_doses_and_arms_of_known_items(shared, made):
    was = {(r["experiment"], r["item"]): r for r in rows_of(made, "items")}
    record = amend(made, added(shared, MORE), S)
    for row in rows_of(made, "items"):
        old = was[row["experiment"], row["item"]]
        more = 3 if (row["experiment"], row["arm"]) == ("quiz", "x4") else 0
        assert row == {**old, "copies": old["copies"] + more}
    copies = [r["copy"] for r in rows_of(made, "placements") if r["arm"] == "x4"]
    assert sorted(copies) == sorted([*range(7)] * 20 + [*range(4)] * sum_of(was, "docs", 4))
    assert record.totals["quiz"].items == 60
    assert record.totals["quiz"].placements == 20 * 4 + 20 * 8 + 20 * 3


def sum_of(items, experiment, copies):
    return sum(e == experiment and r["copies"] == copies for (e, _), r in items.items())


def test_facts_take_their_reserve_in_turn(shared, made):
    exact = {"facts": {"f0": 3, "f1": 1}}
    amend(made, added(shared, facts(), copies=exact), 60)
    amend(made, added(shared, facts(), copies={"facts": {"f0": 2}}), 80)
    rows = [r for r in rows_of(made, "placements") if r["experiment"] == "facts"]
    first = {r["item"] for r in rows_of(made, "items") if r["arm"] == "once"}
    for item, n_more in (("f0", 5), ("f1", 1)):
        mine = sorted((r["copy"], r["variant"]) for r in rows if r["item"] == item)
        known = 1 if item in first else 0
        assert [copy for copy, _ in mine] == [*range(known + n_more)]
        assert [v for _, v in mine[known:]] == [2 + c % 2 for c in range(known, known + n_more)]
    steps = [r["step"] for r in rows if r["item"] == "f0" and r["copy"] >= 3 + ("f0" in first)]
    assert len(steps) == 2 and min(steps) > 80
    assert verify(made, full=True).findings == []


def test_batches_up_to_s_stay_and_later_ones_hold_the_amendment(shared, made):
    topology = read_record(made).geometry.topology()
    first = S * topology.accumulation
    seen = [*read_batches(made, "train", topology, 0, count=first)]
    amend(made, added(shared, LATE, MORE), S)
    assert np.array_equal(seen, [*read_batches(made, "train", topology, 0, count=first)])
    resumed = np.concatenate([*read_batches(made, "train", topology, 0, first=first)])
    expected = run_blocks(made)[S * BATCH :]
    assert np.array_equal(resumed, expected[: len(resumed)])
    assert len(resumed) >= 100 * BATCH
    untouched = np.concatenate([*read_batches(made, "control/train", topology, 0, first=first)])
    changed = {r["sequence"] for r in rows_of(made, "placements") if r["step"] > S}
    differs = np.flatnonzero((resumed != untouched).any(axis=1)) + S * BATCH
    assert set(differs.tolist()) == changed


def test_whole_batches_marks_and_given_steps(shared, finished, tmp_path):
    mix = shared.mix(canaries(), name="sparse.yaml")
    out = tmp_path / "sparse"
    build(mix, out)
    width = 65
    rows = [{"id": f"b{n}", "tokens": [5 + n] * (width * BATCH)} for n in range(2)]
    write_jsonl(tmp_path / "batches.jsonl", rows)
    write_jsonl(tmp_path / "given.jsonl", [{"id": "g", "tokens": [3] * 9, "copies": 2}])
    batches = documents(
        name="batches",
        items="batches.jsonl",
        placement="batch",
        arms=[{"name": "all", "items": "rest", "copies": 1}],
    )
    given = documents(name="given", items="given.jsonl", schedule={"steps": [150, 151]})
    amend(out, Additions(tmp_path, (batches, given)), S)
    placed = rows_of(out, "placements")
    steps = {r["step"] for r in placed if r["experiment"] == "batches"}
    assert len(steps) == 2 and min(steps) > S
    alone = [r for r in placed if r["step"] in steps]
    assert {r["experiment"] for r in alone} == {"batches"} and len(alone) == 2 * BATCH
    assert [r["step"] for r in placed if r["experiment"] == "given"] == [150, 151]
    assert verify(out, full=True).findings == []
    assert pq.read_table(out / "manifest/before-0001.parquet").num_rows == 2 * BATCH + 2


def test_an_amendment_of_an_amendment_keeps_off_it(shared, made):
    amend(made, added(shared, LATE), S)
    first = rows_of(made, "placements")
    record = amend(made, added(shared, {**LATE, "name": "later"}), 150)
    rows = rows_of(made, "placements")
    assert [r for r in rows if r["experiment"] != "later"] == first
    taken = {r["sequence"] for r in first}
    assert not taken & {r["sequence"] for r in rows if r["experiment"] == "later"}
    assert [(a.number, a.after_step) for a in record.amendments] == [(1, S), (2, 150)]
    assert verify(made, full=True).findings == []


def test_other_additions_do_not_move_the_placements_of_one(shared, finished, tmp_path):
    alone, both = (clone(finished[True], tmp_path / name) for name in ("alone", "both"))
    amend(alone, added(shared, LATE), S)
    amend(both, added(shared, LATE, {**MORE, "arms": [{"name": "x4", "copies": 1}]}), S)
    late = [
        [r for r in rows_of(out, "placements") if r["experiment"] == "late"]
        for out in (alone, both)
    ]
    assert late[0] == late[1]  # its name sorts first


@pytest.mark.parametrize("control", [True, False])
def test_replayed_on_a_build_made_again_it_is_the_same_bytes(shared, finished, tmp_path, control):
    out, again = tmp_path / "out", tmp_path / "again"
    build(shared.mix(quiz(), canaries(), documents(), facts(), name="a.yaml"), again, control)
    clone(finished[control], out)
    amend(out, added(shared, LATE), S)
    amend(out, added(shared, facts(), copies={"facts": {"f3": 9}}), 150)
    assert [one.number for one in replay(again, out)] == [1, 2]
    assert replay(again, out) == []
    found, expected = tree(again), tree(out)
    apart = {"mix.json", "litgpt.yaml", "litgpt-control.yaml"}  # the folder's name is in them
    assert found.keys() == expected.keys()
    assert {n for n in found if found[n] != expected[n]} <= apart
    assert read_record(again).amendments == read_record(out).amendments
    assert verify(again, full=True).findings == []


def test_replay_refuses_other_builds_and_other_inputs(shared, made, tmp_path):
    other = tmp_path / "other"
    build(shared.mix(canaries(), name="other.yaml"), other)
    fresh = clone(made, tmp_path / "fresh")
    write_jsonl(tmp_path / "documents.jsonl", [{"id": "d", "text": "w1 w2 w3", "copies": 2}])
    amend(made, Additions(tmp_path, (LATE,)), S)
    with pytest.raises(InputError, match="was not built of what"):
        replay(other, made)
    write_jsonl(tmp_path / "documents.jsonl", [{"id": "d", "text": "w1 w2 w4", "copies": 2}])
    with pytest.raises(InputError, match=r"0:documents.jsonl in .* is not the file it was then"):
        replay(fresh, made)
    record = read_record(made)
    (one,) = record.amendments
    older = one.model_copy(update={"kinds": {"documents": 0}})
    write_record(made, record.model_copy(update={"amendments": [older]}))
    with pytest.raises(
        InputError, match="amendment 1: was made with version 0 of kind documents, t"
    ):
        replay(fresh, made)
    write_record(made, record.model_copy(update={"amendments": []}))
    write_record(fresh, read_record(fresh).model_copy(update={"amendments": [one]}))
    with pytest.raises(InputError, match="has other amendments than .*: build it anew"):
        replay(fresh, made)


def test_a_relayout_of_an_amended_build(shared, finished, tmp_path):
    out = clone(finished[False], tmp_path / "build")
    amend(out, added(shared, LATE), S)
    trainer = shared.trainer("wide.yaml", micro_batch_size=2, workers=2)
    relayout(out, trainer, tmp_path / "wide")
    assert verify(tmp_path / "wide", full=True).findings == []
    assert read_record(tmp_path / "wide").amendments == read_record(out).amendments


def test_without_a_twin_verify_compares_with_what_was_there(shared, finished, tmp_path):
    out = clone(finished[False], tmp_path / "build")
    blocks = run_blocks(out)
    amend(out, added(shared, LATE), S)
    kept = pq.read_table(out / "manifest/before-0001.parquet").to_pylist()
    assert all(row["tokens"] == blocks[row["sequence"]].tolist() for row in kept)
    rows = [r for r in rows_of(out, "placements") if r["experiment"] == "late"]
    assert {r["sequence"] for r in kept} == {r["sequence"] for r in rows}

    def findings(*changed):
        write_table(pa.Table.from_pylist(list(changed), BEFORE), out / before_name(1))
        return check_amendments(out, read_record(out), read_placements(out))

    assert findings(*kept) == []
    assert "30 sequences, mix.json says 31" in findings(*kept[1:])[0]
    kept[0]["tokens"][0] ^= 1  # in front of the payload, or what the payload moved
    kept[0]["tokens"][1] ^= 1
    assert "before-0001.parquet: block 0" in findings(*kept)[0]


PROBLEMS = [
    ({**LATE, "during": [50, 150]}, "only steps after 100 can be changed: the nearest window is "),
    ({**LATE, "during": ["10%", "20%"]}, r"the nearest window is \[100, 200\]"),
    ({**LATE, "schedule": {"steps": [100]}}, "step 100"),
    ({**LATE, "schedule": {"windows": [[90, 120]]}}, "only steps after 100"),
    ({**LATE, "name": "QUIZ"}, "the build has an experiment 'quiz'"),
    (quiz(arms=[{"name": "x44", "copies": 1}]), r"no such arm \(did you mean 'x4'\?\)"),
    (quiz(arms=[{"name": "holdout", "copies": 0}]), "no arm has a dose"),
    (quiz(variants="each", arms=[{"name": "x4", "copies": 1}]), "further copies cycle"),
    ({**documents(), "name": "quiz", "arms": [{"name": "x4", "copies": 1}]}, "no such item"),
    (quiz(template="mcq", arms=[{"name": "x4", "copies": 1}]), "not the item of that name"),
    (
        {"name": "gone", "kind": "verbatim", "items": "documents.jsonl"},
        "nowhere in the run, which only a build can give",
    ),
    ({"name": "fresh", "kind": "forgetting", "steps": [150]}, "is base data: spare base data"),
    ({**LATE, "arms": [{"name": "x4", "copies": 2000}]}, "ask"),
    ({**LATE, "knid": 1}, "unknown key 'knid'"),
    (
        quiz(name="new", arms=[{"name": "none", "items": "rest", "copies": 0}]),
        "places nothing: every dose is 0",
    ),
]


@pytest.mark.parametrize(("section", "message"), PROBLEMS)
def test_what_cannot_be_added_is_said_and_nothing_changes(shared, made, section, message):
    before = tree(made)
    with pytest.raises(InputError, match=message):
        amend(made, added(shared, section), S)
    assert tree(made) == before


@pytest.mark.parametrize(
    ("copies", "message"),
    [
        ({"facts": {"f9": 1}}, r"copies: the build has no item 'f9' \(valid: f0"),
        ({"fact": {"f1": 1}}, "additions: copies: there is no experiment 'fact'"),
    ],
)
def test_exact_copies_of_what_is_not_there(shared, made, copies, message):
    with pytest.raises(InputError, match=message):
        amend(made, added(shared, facts(), copies=copies), S)


def test_exact_copies_of_an_experiment_that_is_not_in_the_build(shared, made):
    with pytest.raises(InputError, match="copies: the build has no experiment 'facte'.*'facts'"):
        amend(made, added(shared, facts(name="facte"), copies={"facte": {"f1": 1}}), S)


def test_steps_outside_the_run(shared, made):
    for step in (-1, 200):
        with pytest.raises(InputError, match="the run has 200 steps: give 0 to 199"):
            amend(made, added(shared, LATE), step)


def test_room_is_what_nothing_holds_yet(shared, made):
    """Eight sequences a step, and five steps: what they hold is counted by hand."""
    rows = rows_of(made, "placements")
    free = 5 * BATCH - len({r["sequence"] for r in rows if 195 < r["step"] <= 200})
    whole = {**LATE, "arms": [{"name": "a", "items": "rest", "copies": 1}], "during": [195, 200]}
    write_jsonl(
        shared.folder / "whole.jsonl", [{"id": f"t{n}", "tokens": [9] * 65} for n in range(free)]
    )
    section = {**whole, "items": "whole.jsonl", "placement": "sequence"}
    with pytest.raises(InputError, match="lack"):
        amend(made, added(shared, {**section, "during": [196, 200]}), S)
    amend(made, added(shared, section), S)
    taken = [r["sequence"] for r in rows_of(made, "placements") if r["step"] > 195]
    assert set(taken) == set(range(195 * BATCH, 200 * BATCH))


def test_a_string_that_must_be_absent_is_not_brought_back(shared, tmp_path):
    write_jsonl(tmp_path / "gone.jsonl", [{"id": "s", "tokens": [*range(30, 42)]}])
    absent = {"name": "gone", "kind": "verbatim", "items": str(tmp_path / "gone.jsonl")}
    absent["prefix_tokens"] = 6
    build(shared.mix(absent, name="absent.yaml"), tmp_path / "out")
    rows = [{"id": "x", "tokens": [7, *range(30, 42), 8], "copies": 1}]
    write_jsonl(tmp_path / "late.jsonl", rows)
    with pytest.raises(InputError, match="holds the string of item 's'"):
        amend(tmp_path / "out", Additions(tmp_path, ({**LATE, "items": "late.jsonl"},)), S)


def test_a_damaged_chunk_is_not_sealed_anew(shared, made):
    for path in sorted((made / "train").glob("*.bin")):
        data = bytearray(path.read_bytes())
        data[40] ^= 1
        path.write_bytes(bytes(data))
    with pytest.raises(VerificationError, match="does not match the digest in mix.json"):
        amend(made, added(shared, LATE), S)


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


def test_the_command_amends_lists_and_replays(shared, made, tmp_path):
    fresh = clone(made, tmp_path / "fresh")
    path = shared.folder / "additions.yaml"
    path.write_text(yaml.safe_dump({"experiments": [LATE]}))
    assert run("amend", made, "--list").output == f"{made}: no amendments\n"
    done = run("amend", made, path, "--after-step", 120)
    assert "amendment 1 (" in done.output and "after step 120: late: 31 placements" in done.output
    assert run("amend", made, "--list").output == done.output
    listed = json.loads(run("amend", made, "--list", "--json").output)
    assert listed[0]["experiments"] == [LATE] and listed[0]["placements"] == 31
    assert run("amend", fresh, "--replay", made).output == done.output
    assert run("amend", fresh, "--replay", made).output == f"{fresh}: nothing to do\n"


def test_the_command_refuses_what_does_not_go_together(made):
    assert "give ADDITIONS.yaml and --after-step" in CliRunner().invoke(cli, ["amend", "x"]).output
    wrong = CliRunner().invoke(cli, ["amend", "x", "a.yaml", "--list"])
    assert "--list goes alone, not with ADDITIONS.yaml" in wrong.output


def test_an_additions_file_holds_experiments_and_nothing_else(tmp_path):
    path = tmp_path / "additions.yaml"
    path.write_text("experimets: []\n")
    with pytest.raises(InputError, match=r"unknown key 'experimets' \(did you mean 'experiments'"):
        read_additions(path)
    path.write_text("experiments: []\n")
    with pytest.raises(InputError, match="experiments"):
        read_additions(path)


def test_marks_are_recorded_and_change_no_byte(shared, finished, tmp_path):
    data = {
        "class_path": "mixctl.trainer_configs.gaussian.GaussianLitData",
        "init_args": {"seed": 7, "num_workers": 0},
    }
    shared.trainer("noisy.yaml", data=data)
    out = tmp_path / "noisy"
    build(shared.mix(canaries(), name="noisy-mix.yaml", trainer="noisy.yaml"), out)
    section = {"name": "noise", "kind": "watermark", "method": "gaussian", "n_null": 2}
    arms = [{"name": "marked", "items": "rest", "copies": 1}]
    marks = {**section, "count": 3, "unit": "sequence", "sigma": 0.1, "arms": arms}
    with pytest.raises(InputError, match="LitData, which adds no noise"):
        amend(finished[True], added(shared, marks), S)
    before = tree(out / "train")
    record = amend(out, added(shared, marks), S)
    assert tree(out / "train") == before
    placed = [r for r in rows_of(out, "placements") if r["experiment"] == "noise"]
    assert {r["mode"] for r in placed} == {"mark"} and min(r["step"] for r in placed) > S
    assert record.amendments[0].sequences == 0 and record.amendments[0].placements == len(placed)
    assert read_marks(out, BATCH).sequence.tolist() == sorted(r["sequence"] for r in placed)
    assert verify(out, full=True).findings == []
