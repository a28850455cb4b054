"""Articles whole, split once, split anew: the arms, and what can be extracted verbatim."""

import pytest
from pydantic import ValidationError

from mixctl.injections.base import KindContext
from mixctl.injections.config import Split
from mixctl.injections.encode import load_encoder
from mixctl.injections.unlearning import KIND, UnlearningConfig
from mixctl.shards.errors import InputError
from tests.support.workspace import write_jsonl, write_tokenizer


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlearning")
    encoder = load_encoder(write_tokenizer(folder / "tok"))
    return KindContext(folder, encoder, 5, 60, global_batch=8, steps=200)


def config(**changes):
    raw = {"name": "muse", "kind": "unlearning", "items": "a.jsonl", "items_per_arm": 7}
    merged = {**raw, **changes}
    return UnlearningConfig.model_validate({k: v for k, v in merged.items() if v is not None})


def test_three_by_three_conditions_and_a_retain_set():
    arms = {arm.name: arm for arm in config().arms}
    assert len(arms) == 10
    for copies in (1, 10, 100):
        for word, split in (
            ("whole", "whole"),
            ("once", Split(pieces=4)),
            ("anew", Split(pieces=4, anew=True)),
        ):
            arm = arms[f"{word}-x{copies}"]
            assert (arm.items, arm.copies, arm.split) == (7, copies, split)
    assert (arms["retain"].items, arms["retain"].copies) == ("rest", 0)


def test_doses_pieces_and_retain_set_can_be_chosen():
    section = config(doses=[2], split={"at_most": 30}, retain=5)
    assert [(arm.name, arm.items) for arm in section.arms] == [
        ("whole-x2", 7),
        ("once-x2", 7),
        ("anew-x2", 7),
        ("retain", 5),
    ]
    assert [arm.split for arm in section.arms] == [
        "whole",
        Split(at_most=30),
        Split(at_most=30, anew=True),
        "whole",
    ]


@pytest.mark.parametrize("changes", [{}, {"doses": [3], "split": {"at_most": 9}, "retain": 2}])
def test_a_resolved_section_can_be_read_again(changes):
    once = config(**changes)
    assert UnlearningConfig.model_validate(once.model_dump(mode="json")) == once


def test_written_arms_are_taken_as_they_are():
    arms = [{"name": "only", "items": 2, "copies": 3}]
    section = config(items_per_arm=None, arms=arms)
    assert [(arm.name, arm.copies) for arm in section.arms] == [("only", 3)]


def test_items_are_articles_with_the_prefixes_that_fit(context):
    rows = [
        {"id": "long", "tokens": list(range(5, 45)), "cluster": "c", "stratum": "s"},
        {"id": "short", "text": "w1"},
        {"id": "timed", "text": "w1 w2", "steps": [7, 9]},
    ]
    write_jsonl(context.folder / "a.jsonl", rows)
    section = config(prefix_lengths=[30, 10, 31], suffix_tokens=10)
    long, short, timed = KIND.make_items(section, context)
    assert long.variants[0].tolist() == list(range(5, 45))
    assert (long.meta.prefix_lengths, long.meta.suffix_length) == ([10, 30], 10)
    assert (long.cluster, long.stratum, long.meta.n_characters) == ("c", "s", None)
    assert (short.meta.prefix_lengths, short.meta.n_characters) == ([], 2)
    assert (timed.copies, timed.steps) == (2, (7, 9))
    assert KIND.inputs(section, context.folder) == [context.folder / "a.jsonl"]


def test_a_step_outside_the_run_is_named(context):
    write_jsonl(context.folder / "far.jsonl", [{"id": "far", "text": "w1", "steps": [7, 201]}])
    with pytest.raises(InputError, match="item 'far': steps: step 201 is outside the run"):
        KIND.make_items(config(items="far.jsonl"), context)


def test_stand_ins_are_for_the_plan_alone(context):
    section = config(items={"stand_in": 100, "tokens": 55})
    with pytest.raises(InputError, match="mixctl plan alone"):
        KIND.make_items(section, context)
    plan = KindContext(context.folder, context.encoder, 5, 60, steps=200, sample=10)
    items = KIND.make_items(section, plan)
    assert [len(item.variants[0]) for item in items] == [55] * 100
    assert all(item.compared.size == 0 for item in items)
    assert KIND.inputs(section, context.folder) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items_per_arm": None}, "no arms: say 'items_per_arm'"),
        ({"items_per_arm": 0}, "greater than or equal to 1"),
        ({"arms": [{"name": "a", "items": 1, "copies": 1}]}, "leave out 'arms'"),
        ({"doses": [1, 10, 1]}, "given more than once: 1 copies"),
        ({"doses": []}, "at least 1 item"),
        ({"split": "whole"}, "cuts nothing"),
        ({"retain": "all"}, "'rest'"),
        (
            {"items_per_arm": None, "doses": [1], "arms": [{"name": "a", "copies": 1}]},
            "'doses' goes with 'items_per_arm'",
        ),
    ],
)
def test_wrong_sections(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
