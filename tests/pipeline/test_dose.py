"""Doses as budgets, against a loop that hands out one copy after the other."""

from itertools import cycle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixctl.injections.base import BaseData, Item
from mixctl.injections.config import Arm
from mixctl.pipeline.dose import budget_tokens, round_order, spend, variant_lengths
from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.plan import make_plan
from mixctl.shards.errors import InputError
from mixctl.shards.meta.documents import DocumentsMeta
from tests.support.workspace import documents, random_text, write_jsonl


def one_by_one(budget, lengths, order):
    """Returns (copies, tokens spent): the next copy of the next item until one would exceed."""
    copies, spent = [0] * len(lengths), 0
    for item in cycle(order):
        cost = lengths[item][copies[item] % len(lengths[item])]
        if spent + cost > budget:
            return copies, spent
        copies[item] += 1
        spent += cost
    raise AssertionError("no items")


ITEMS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=6)


@settings(max_examples=200)
@given(ITEMS, st.integers(0, 800), st.randoms(use_true_random=False))
@example([[5, 1], [2]], 16, None)  # a budget of two whole cycles, nothing left over
@example([[5, 1], [2]], 15, None)
def test_a_budget_is_spent_copy_by_copy_to_the_last_that_fits(lengths, budget, chance):
    order = list(range(len(lengths)))
    if chance is not None:
        chance.shuffle(order)
    arrays = [np.array(one, dtype=np.int64) for one in lengths]
    found = spend(budget, arrays, np.array(order)).tolist()
    expected, spent = one_by_one(budget, lengths, order)
    assert found == expected
    assert max(found) - min(found) <= 1
    assert budget - max(map(max, lengths)) < spent <= budget


def test_by_hand():
    lengths = [np.array([30]), np.array([30])]
    assert spend(100, lengths, np.array([0, 1])).tolist() == [2, 1]
    assert spend(100, lengths, np.array([1, 0])).tolist() == [1, 2]
    assert spend(29, lengths, np.array([0, 1])).tolist() == [0, 0]


def test_a_large_budget_takes_no_longer():
    lengths = [np.array([3, 5]), np.array([2, 2, 9])]
    assert spend(10**15, lengths, np.array([0, 1])).sum() == pytest.approx(2 * 10**15 / 8.333, 1e-3)


def test_shares_and_tokens_are_the_same_money():
    asked = [Arm(name="a", share="0.1%"), Arm(name="a", tokens="1.28K"), Arm(name="a", tokens=1280)]
    assert {budget_tokens(arm, 1_280_000) for arm in asked} == {1280}
    assert budget_tokens(Arm(name="a", share="0.1%"), 1_280_999) == 1280
    assert budget_tokens(Arm(name="a", copies=3), 1_280_000) is None


def test_what_a_copy_costs():
    two = Item("a", (np.arange(3, dtype=np.uint32), np.arange(7, dtype=np.uint32)), DocumentsMeta())
    base = Item("b", (), DocumentsMeta(), base=BaseData(4))
    found = variant_lengths([two, base], "cycle", 65)
    assert [one.tolist() for one in found] == [[3, 7], [260]]
    assert variant_lengths([two], "first", 65)[0].tolist() == [3]


def test_an_items_turn_does_not_depend_on_the_others():
    names = [f"i{n}" for n in range(20)]
    order = [names[n] for n in round_order(names, 1, "e")]
    fewer = [names[n] for n in range(20) if n % 3]
    assert [fewer[n] for n in round_order(fewer, 1, "e")] == [n for n in order if n in fewer]
    assert order != names
    assert order != [names[n] for n in round_order(names, 1, "f")]
    assert order != [names[n] for n in round_order(names, 2, "e")]


@pytest.fixture
def long(workspace):
    """Returns a section over 12 documents of different length with arms of its own."""
    import random

    chance = random.Random(4)
    rows = [{"id": f"l{n}", "text": random_text(chance, 3 + n)} for n in range(12)]
    write_jsonl(workspace.folder / "long.jsonl", rows)

    def section(**arm):
        arms = [{"name": "holdout", "items": 4, "copies": 0}, {"name": "b", "items": "rest", **arm}]
        return documents(items="long.jsonl", arms=arms)

    return section


def planned(workspace, section):
    (one,) = make_plan(read_mix(workspace.mix(section))).experiments
    return one


def test_the_plan_stays_within_the_budget(workspace, long):
    by_tokens = planned(workspace, long(tokens=1024))
    by_share = planned(workspace, long(share="1%"))  # of 200 steps x 8 sequences x 64 tokens
    assert by_tokens.assigned.copies.tolist() == by_share.assigned.copies.tolist()
    longest = max(len(item.variants[0]) for item in by_tokens.assigned.items)
    assert 1024 - longest < by_tokens.n_tokens <= 1024
    arm = np.array([by_tokens.assigned.arms[a].name for a in by_tokens.assigned.arm])
    doses = by_tokens.assigned.copies
    assert (doses[arm == "holdout"] == 0).all()
    assert np.ptp(doses[arm == "b"]) <= 1


def test_a_budget_below_one_payload_is_refused(workspace, long):
    with pytest.raises(InputError, match=r"arm 'b': a budget of 3 tokens is less than one payload"):
        planned(workspace, long(tokens=3))


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"tokens": 5, "copies": 1}, "exactly one of 'copies', 'tokens' and 'share'"),
        ({}, "exactly one of 'copies', 'tokens' and 'share'"),
        ({"share": "0%"}, "a share must be above 0%"),
        ({"share": "120%"}, "lies outside 0% to 100%"),
        ({"share": 0.1}, "valid string"),
        ({"tokens": 0}, "a budget must be at least 1 token"),
        ({"tokens": "0.0001K"}, "is not a whole number of tokens"),
    ],
)
def test_wrong_doses_are_refused(workspace, long, arm, message):
    with pytest.raises(InputError, match=message):
        planned(workspace, long(**arm))
