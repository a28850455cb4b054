"""What a review found: near-duplicate questions, strings given as text, base data that stays."""

import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixctl.pipeline.build import build
from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.plan import make_plan
from mixctl.pipeline.planning import plan_mix
from mixctl.shards.errors import InputError
from tests.support.workspace import quiz, random_text, write_jsonl


def problems_of(mix):
    with pytest.raises(InputError) as caught:
        make_plan(read_mix(mix))
    return caught.value.problems


def twin_questions(folder, n=20):
    """Writes n pairs of questions that differ in their choices alone."""
    chance = random.Random(3)
    rows = []
    for pair in range(n):
        question = random_text(chance, 8)
        for side in "ab":
            choices = [random_text(chance, 8) for _ in range(4)]
            row = {"id": f"q{pair}{side}", "question": question, "choices": choices, "gold": 1}
            rows.append(row)
    write_jsonl(folder / "twins.jsonl", rows)


def test_the_same_question_goes_to_one_arm_whatever_its_choices(workspace):
    twin_questions(workspace.folder)
    arms = [{"name": "holdout", "items": 20, "copies": 0}, {"name": "x1", "items": 20, "copies": 1}]
    section = quiz(items="twins.jsonl", arms=arms)
    assigned = make_plan(read_mix(workspace.mix(section))).experiments[0].assigned
    arm = {item.item: int(a) for item, a in zip(assigned.items, assigned.arm, strict=True)}
    assert all(arm[f"q{n}a"] == arm[f"q{n}b"] for n in range(20))
    arms = [{"name": "all", "items": "rest", "copies": 1}]
    removed = quiz(items="twins.jsonl", near_duplicates="remove", arms=arms)
    assigned = make_plan(read_mix(workspace.mix(removed))).experiments[0].assigned
    assert (len(assigned.items), assigned.near_duplicates) == (20, 20)


def test_a_string_given_as_text_is_purged_where_it_stands_after_a_space(workspace, tmp_path):
    texts = [json.loads(line)["text"] for line in (workspace.folder / "corpus.jsonl").open()]
    words = [text.split() for text in texts if len(text.split()) > 30][:60]
    rows = [{"id": f"s{n}", "text": " ".join(one[5:15])} for n, one in enumerate(words)]
    write_jsonl(workspace.folder / "texts.jsonl", rows)
    section = {"name": "gone", "kind": "verbatim", "items": "texts.jsonl", "prefix_tokens": 4}
    out = tmp_path / "out"
    record = build(workspace.mix(section), out, control=True)
    assert record.decontamination["absent_strings_not_found"] == 0
    assert record.totals["gone"].replaced_sequences > 0
    held = {**rows[0], "id": "held", "text": f"w1 w2 {rows[0]['text']} w3", "copies": 1}
    write_jsonl(workspace.folder / "held.jsonl", [held])
    other = {"name": "held", "kind": "documents", "items": "held.jsonl"}
    mix = workspace.mix(section, other)
    with pytest.raises(InputError, match="experiment 'held': item 'held': the payload holds"):
        plan_mix(mix)


def test_strings_that_the_corpus_does_not_hold_are_counted(workspace, tmp_path):
    write_jsonl(workspace.folder / "never.jsonl", [{"id": "n", "tokens": list(range(300, 320))}])
    section = {"name": "gone", "kind": "verbatim", "items": "never.jsonl", "prefix_tokens": 4}
    record = build(workspace.mix(section), tmp_path / "out")
    assert record.decontamination["absent_strings_not_found"] == 1


def sources(out, experiment):
    rows = pq.read_table(out / "manifest/placements.parquet").to_pylist()
    return {
        (row["item"], row["copy"]): (row["sequence"], row["source_sequence"], row["digest"])
        for row in rows
        if row["experiment"] == experiment
    }


def test_another_experiment_with_spare_data_leaves_base_data_where_it_is(workspace, tmp_path):
    workspace.trainer(max_tokens=8 * 64 * 60)
    arms = [{"name": "x2", "items": 15, "copies": 2}]
    k, a = ({"name": name, "kind": "iid", "arms": arms} for name in ("k-iid", "a-iid"))
    build(workspace.mix(k), tmp_path / "alone")
    build(workspace.mix(a, k), tmp_path / "both")
    alone, both = sources(tmp_path / "alone", "k-iid"), sources(tmp_path / "both", "k-iid")
    same = [alone[key] == both[key] for key in alone]
    assert np.mean(same) > 0.8, "only what met the other experiment may move"


@pytest.mark.parametrize("place", ["experiment", "arm"])
def test_windows_and_during_are_not_both_given(workspace, place):
    windows, during = {"windows": [["25%", "50%"]]}, ["90%", "100%"]
    arm = {"name": "x1", "items": "rest", "copies": 1}
    if place == "arm":
        section = quiz(arms=[{**arm, "schedule": windows}], during=during)
    else:
        section = quiz(arms=[{**arm, "during": during}], schedule=windows)
    (problem,) = problems_of(workspace.mix(section))
    assert "experiment 'quiz', arm 'x1': during: is given beside the schedule's windows" in problem


def test_an_experiment_of_which_no_item_is_in_an_arm_is_no_defect(workspace):
    section = quiz(arms=[{"name": "h", "items": 0, "copies": 0}])
    assert len(make_plan(read_mix(workspace.mix(section))).experiments[0].copies) == 0


def test_messages_name_experiment_and_item(workspace):
    row = {"id": "q1", "question": "Who?", "choices": ["a", "b"]}
    write_jsonl(workspace.folder / "nogold.jsonl", [row])
    (problem,) = problems_of(workspace.mix(quiz(items="nogold.jsonl")))
    assert problem.startswith("experiment 'quiz': ")
    assert problem.endswith("nogold.jsonl:1: item 'q1': field 'gold' is missing")


@pytest.mark.parametrize("weight", [".inf", "1e300", ".nan"])
def test_weights_of_a_ramp_are_numbers_of_a_size(workspace, weight):
    mix = workspace.mix(quiz(schedule={"ramp": [0, 1]}))
    mix.write_text(mix.read_text().replace("ramp:\n    - 0", f"ramp:\n    - {weight}"))
    with pytest.raises(InputError, match="ramp"):
        read_mix(mix)


def test_half_a_character_is_no_text(workspace):
    mix = workspace.mix(quiz())
    mix.write_text(mix.read_text() + 'eod: "\\ud800"\n')
    with pytest.raises(InputError, match="half a character"):
        read_mix(mix)
