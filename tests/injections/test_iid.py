"""Base data placed again: spare sequences, training deciles, selected sequences."""

import pytest
from pydantic import ValidationError

from mixctl.injections.base import BaseData, KindContext
from mixctl.injections.encode import load_encoder
from mixctl.injections.iid import KIND, IidConfig
from mixctl.shards.errors import InputError
from tests.support.workspace import write_tokenizer

ARMS = [
    {"name": "holdout", "items": 3, "copies": 0},
    {"name": "x1", "items": 2, "copies": 1},
    {"name": "x4", "items": 4, "copies": 4},
]


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iid")
    encoder = load_encoder(write_tokenizer(folder / "tok"))
    return KindContext(folder, encoder, 5, 60, global_batch=8, steps=200)


def config(**changes):
    return IidConfig.model_validate({"name": "again", "kind": "iid", **changes})


def test_spare_sequences_as_many_as_the_arms_ask_for(context):
    items = KIND.make_items(config(arms=ARMS), context)
    assert [item.item for item in items] == [f"spare-000000{n}" for n in range(1, 10)]
    for item in items:
        assert (item.variants, item.base, item.arm) == ((), BaseData(1), None)
        assert (item.meta.source, item.meta.sequence) == ("spare", None)
    assert config(arms=ARMS).placement == "sequence"


def test_the_count_may_leave_sequences_for_the_rest(context):
    arms = [*ARMS, {"name": "rest", "items": "rest", "copies": 1}]
    assert len(KIND.make_items(config(arms=arms, count=20), context)) == 20


def test_deciles_are_ten_arms_that_partition_the_run(context):
    section = config(deciles=5)
    assert [arm.name for arm in section.arms] == [f"decile-{n}" for n in range(1, 11)]
    assert {(arm.items, arm.copies) for arm in section.arms} == {(5, 1)}
    windows = [arm.during for arm in section.arms]
    assert windows[0] == [1, "10%"]
    assert windows[1:] == [[f"{n}%", f"{n + 10}%"] for n in range(10, 100, 10)]
    assert len(KIND.make_items(section, context)) == 50
    assert IidConfig.model_validate(section.model_dump(mode="json")) == section


def test_selected_sequences_are_placed_again(context):
    arms = [{"name": "again", "items": "rest", "copies": 2}]
    items = KIND.make_items(config(selected=[1599, 0], arms=arms), context)
    assert [item.item for item in items] == ["selected-000000000", "selected-000001599"]
    assert [item.base for item in items] == [BaseData(1, 0), BaseData(1, 1599)]
    assert [(i.meta.source, i.meta.sequence) for i in items] == [
        ("selected", 0),
        ("selected", 1599),
    ]


def test_selected_sequences_from_a_file(context):
    (context.folder / "selected.txt").write_text("17\n\n 4 \n")
    section = config(selected="selected.txt", arms=ARMS)
    items = KIND.make_items(section, context)
    assert [item.base.sequence for item in items] == [4, 17]
    assert KIND.inputs(section, context.folder) == [context.folder / "selected.txt"]
    assert KIND.inputs(config(arms=ARMS), context.folder) == []


def test_wrong_sequences_are_all_named(context):
    with pytest.raises(InputError) as error:
        KIND.make_items(config(selected=[3, 1600, 3], arms=ARMS), context)
    assert error.value.problems == [
        "experiment 'again': selected[1]: sequence 1600 is outside the run, which has 0 to 1599",
        "experiment 'again': selected[2]: sequence 3 was given at selected[0] already",
    ]
    path = context.folder / "wrong.txt"
    path.write_text("1\nx\n-2\n")
    with pytest.raises(InputError) as error:
        KIND.make_items(config(selected="wrong.txt", arms=ARMS), context)
    assert error.value.problems == [
        f"{path}:2: must be the number of a sequence, 0 or more (got 'x')",
        f"{path}:3: must be the number of a sequence, 0 or more (got '-2')",
    ]
    path.write_text("\n")
    for name, message in (("wrong.txt", "no sequences"), ("none.txt", "no such file")):
        with pytest.raises(InputError, match=message):
            KIND.make_items(config(selected=name, arms=ARMS), context)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no items: say 'count'"),
        ({"arms": [{"name": "a", "items": "rest", "copies": 1}]}, "no items: say 'count'"),
        ({"arms": [*ARMS, {"name": "a", "items": "rest", "copies": 1}]}, "say with 'count'"),
        ({"arms": ARMS, "selected": [1], "count": 3}, "leave out 'count' and 'deciles'"),
        ({"deciles": 4, "count": 3}, "leave out 'count'"),
        ({"deciles": 4, "arms": ARMS}, "leave out 'arms'"),
        ({"deciles": 4, "arms": []}, "leave out 'arms'"),
        ({"deciles": 0}, "greater than or equal to 1"),
        ({"deciles": "5"}, "valid integer"),
        ({"arms": ARMS, "selected": []}, "at least 1 item"),
        ({"arms": ARMS, "selected": [-1]}, "greater than or equal to 0"),
    ],
)
def test_wrong_sections(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
