"""Whole batches at given steps: an item a step, nothing outside the run."""

import pytest
from pydantic import ValidationError

from mixctl.injections.base import BaseData, KindContext
from mixctl.injections.encode import load_encoder
from mixctl.injections.forgetting import KIND, ForgettingConfig
from mixctl.shards.errors import InputError
from tests.support.workspace import write_tokenizer


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forgetting")
    encoder = load_encoder(write_tokenizer(folder / "tok"))
    return KindContext(folder, encoder, 5, 60, global_batch=8, steps=200)


def config(**changes):
    raw = {"name": "curves", "kind": "forgetting", "steps": [101, 21]}
    return ForgettingConfig.model_validate({**raw, **changes})


def test_every_step_is_a_batch_of_its_own(context):
    items = KIND.make_items(config(), context)
    assert [item.item for item in items] == ["batch-000000021", "batch-000000101"]
    assert [item.steps for item in items] == [(21,), (101,)]
    assert [item.meta.step for item in items] == [21, 101]
    for item in items:
        assert (item.variants, item.base, item.arm) == ((), BaseData(8), "fresh")


def test_the_default_arms_and_placement():
    assert config().placement == "batch"
    assert [(arm.name, arm.copies) for arm in config().arms] == [("fresh", 1)]
    arms = [(arm.name, arm.copies) for arm in config(holdout=2).arms]
    assert arms == [("fresh", 1), ("holdout", 0)]


def test_batches_can_be_held_out(context):
    items = KIND.make_items(config(holdout=2), context)[2:]
    assert [(item.item, item.arm, item.steps) for item in items] == [
        ("holdout-000001", "holdout", None),
        ("holdout-000002", "holdout", None),
    ]
    assert all(item.base == BaseData(8) and item.meta.step is None for item in items)


@pytest.mark.parametrize(
    ("first", "every", "steps"),
    [(11, 50, [11, 61, 111, 161]), (100, 50, [100, 150, 200]), (200, 1, [200])],
)
def test_from_every_runs_to_the_end(context, first, every, steps):
    items = KIND.make_items(config(steps={"from": first, "every": every}), context)
    assert [item.meta.step for item in items] == steps


def test_the_reference_study_has_nine_batches(context):
    large = KindContext(context.folder, context.encoder, 5, 60, global_batch=512, steps=100_000)
    items = KIND.make_items(config(steps={"from": 10_001, "every": 10_000}), large)
    assert [item.meta.step for item in items] == [10_000 * n + 1 for n in range(1, 10)]


@pytest.mark.parametrize("steps", [[101, 21], {"from": 10, "every": 5}])
def test_a_resolved_section_can_be_read_again(steps):
    once = config(steps=steps, holdout=1)
    assert ForgettingConfig.model_validate(once.model_dump(mode="json")) == once
    assert once.model_dump(mode="json")["steps"] == steps


def test_steps_outside_the_run_are_all_named(context):
    with pytest.raises(InputError) as error:
        KIND.make_items(config(steps=[201, 5, 900]), context)
    assert error.value.problems == [
        f"experiment 'curves': steps: step {step} is outside the run, which has steps 1 to 200"
        for step in (201, 900)
    ]
    with pytest.raises(InputError, match="step 300 is outside the run"):
        KIND.make_items(config(steps={"from": 300, "every": 5}), context)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([7, 8, 7], "given more than once: step 7"),
        ([0], "greater than or equal to 1"),
        ([], "at least 1 item"),
        ("all", "must be \\[10001, 20001\\] or \\{from: 10001, every: 10000\\}"),
        ({"from": 5}, "must be \\[10001"),
        ({"every": 5}, "from"),
        ({"from": 5, "every": 5, "until": 7}, "until"),
    ],
)
def test_wrong_steps(steps, message):
    with pytest.raises(ValidationError, match=message):
        config(steps=steps)
