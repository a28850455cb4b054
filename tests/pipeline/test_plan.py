"""The plan: exact doses, and experiments that leave each other alone."""

import json

import numpy as np
import pytest

from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.plan import make_plan
from mixctl.shards.errors import InputError
from tests.support.workspace import canaries, documents, quiz


def plan_of(workspace, *experiments, **changes):
    return make_plan(read_mix(workspace.mix(*experiments, name="planned.yaml", **changes)))


def spots(plan):
    """Returns {(experiment, item, copy): (sequence, offset, length)}."""
    found = {}
    for e in plan.experiments:
        c = e.copies
        for row in zip(c.item, c.copy, c.sequence, c.offset, c.length, strict=True):
            item, copy, sequence, offset, length = map(int, row)
            name = e.assigned.items[item].item
            found[e.config.name, name, copy] = (sequence, offset, length)
    return found


def touching(a, b):
    """Returns whether two extents overlap or adjoin; a spot is (sequence, offset, payload
    length)."""
    return a[0] == b[0] and a[1] - 1 <= b[1] + b[2] + 1 and b[1] - 1 <= a[1] + a[2] + 1


def test_each_item_has_exactly_its_copies_inside_its_window(workspace):
    plan = plan_of(workspace)
    for e in plan.experiments:
        counts = np.bincount(e.copies.item, minlength=len(e.assigned.items))
        assert counts.tolist() == e.assigned.copies.tolist()
        step = e.copies.sequence // 8 + 1
        for number, arm in enumerate(e.assigned.arms):
            mine = e.assigned.arm[e.copies.item] == number
            windowed = (e.config.name, arm.name) == ("quiz", "x4")
            low, high = (51, 150) if windowed else (2, 200)
            assert ((step[mine] >= low) & (step[mine] <= high)).all()
        assert (e.copies.offset >= 1).all()
        assert (e.copies.offset + e.copies.length <= 64).all()


def test_no_two_extents_touch_across_experiments(workspace):
    where = sorted(spots(plan_of(workspace)).values())
    for a, b in zip(where, where[1:], strict=False):
        assert not touching(a, b)


def test_reordering_experiments_moves_nothing(workspace):
    sections = [quiz(), canaries(), documents()]
    assert spots(plan_of(workspace, *sections)) == spots(plan_of(workspace, *reversed(sections)))


def test_removing_the_last_experiment_moves_nothing(workspace):
    both = spots(plan_of(workspace, canaries(), documents(), quiz()))
    fewer = spots(plan_of(workspace, canaries(), documents()))
    assert fewer == {key: spot for key, spot in both.items() if key[0] != "quiz"}


def test_removing_the_first_experiment_moves_only_what_had_met_it(workspace):
    both = spots(plan_of(workspace, canaries(), documents(), quiz()))
    fewer = spots(plan_of(workspace, documents(), quiz()))
    removed = [spot for key, spot in both.items() if key[0] == "canaries"]
    moved = [key for key in fewer if fewer[key] != both[key]]
    assert moved, "the workspace is dense enough for collisions"
    freed = removed + [both[key] for key in moved] + [fewer[key] for key in moved]
    for key in moved:
        others = [spot for spot in freed if spot not in (fewer[key],)]
        assert any(touching(fewer[key], spot) for spot in others), key
    assert len(moved) < len(fewer) / 4


def test_the_direct_collisions_are_the_ones_that_move(workspace):
    """Where no moved copy meets another, exactly the copies whose first draw met the removed one
    move."""
    both = spots(plan_of(workspace, canaries(), documents()))
    alone = spots(plan_of(workspace, documents()))
    removed = [spot for key, spot in both.items() if key[0] == "canaries"]
    for key, spot in alone.items():
        met = any(touching(spot, other) for other in removed)
        assert (both[key] != spot) == met


def test_seed_and_name_change_every_placement(workspace):
    one, two = spots(plan_of(workspace, canaries())), spots(plan_of(workspace, canaries(), seed=18))
    named = spots(plan_of(workspace, canaries(name="other")))
    spot_sets = [{k[1:]: v[:2] for k, v in s.items()} for s in (one, two, named)]
    for other in spot_sets[1:]:
        same = [k for k in other if spot_sets[0].get(k) == other[k]]
        assert len(same) < 5


def test_topology_does_not_move_placements(workspace):
    one = spots(plan_of(workspace))
    workspace.trainer("four.yaml", devices=4, micro_batch_size=1, workers=3)
    four = spots(plan_of(workspace, trainer="four.yaml"))
    assert one == four


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            canaries(arms=[{"name": "x", "items": 40, "copies": 400}]),
            r"experiment 'canaries': 16000 copies in steps 2 to 200 do not fit: these 1592 "
            r"sequences hold at most 3184 payloads of 2\d tokens, so 12816 lack a place",
        ),
        (
            canaries(arms=[{"name": "x", "items": 40, "copies": 75}]),
            r"experiment 'canaries': \d+ of 3000 copies lack a place in steps 2 to 200",
        ),
        (
            canaries(arms=[{"name": "x", "items": 41, "copies": 1}]),
            "experiment 'canaries': the arms ask for 41 items, there are only 40 to randomise",
        ),
        (
            canaries(during=["150%", "160%"]),
            r"experiment 'canaries', arm 'holdout': during: '150%' lies outside 0% to 100%",
        ),
        (
            canaries(during=[10, 201]),
            "during: 201 is step 201: the run has steps 0 to 200",
        ),
        (
            canaries(suffix_tokens=70),
            r"experiment 'canaries': item 'canary-000000': the payload has 9\d tokens; a "
            r"sequence holds at most 63",
        ),
        (canaries(arms=[]), "no arms: add arms:, or give every row its 'copies'"),
    ],
)
def test_what_cannot_be_planned_is_said(workspace, section, message):
    with pytest.raises(InputError, match=message):
        plan_of(workspace, section)


def test_problems_of_all_experiments_come_together(workspace):
    with pytest.raises(InputError) as error:
        plan_of(
            workspace, canaries(suffix_tokens=70), quiz(items="no.jsonl"), documents(during=[5, 5])
        )
    text = str(error.value)
    assert "canary-000000" in text
    assert "no.jsonl: no such file" in text
    assert "no step of the 200 lies in it" in text


def test_arms_are_stratified_by_benchmark(workspace):
    plan = plan_of(workspace, quiz())
    assigned = plan.experiments[0].assigned
    strata = np.array([item.stratum for item in assigned.items])
    for number in range(3):
        mine = strata[assigned.arm == number]
        assert abs((mine == "a").sum() - 10) <= 1


def arms_of(plan, name):
    """Returns {item: arm} of an experiment."""
    assigned = next(e.assigned for e in plan.experiments if e.config.name == name)
    names = [assigned.arms[a].name for a in assigned.arm]
    return dict(zip([i.item for i in assigned.items], names, strict=True))


def test_arms_depend_on_the_experiment_and_not_on_its_neighbours(workspace):
    alone = plan_of(workspace, quiz())
    both = plan_of(workspace, quiz(), quiz(name="again"), canaries())
    assert arms_of(alone, "quiz") == arms_of(both, "quiz")
    assert arms_of(both, "quiz") != arms_of(both, "again")
    other_seed = plan_of(workspace, quiz(), seed=18)
    assert arms_of(alone, "quiz") != arms_of(other_seed, "quiz")


def test_equal_payloads_and_clusters_stay_together(workspace):
    """Twins by text, by cluster, and by a chain of both: each group is in one arm, totals exact."""
    rows = [{"id": f"s{n}", "text": f"w{n} w{n + 1}"} for n in range(40)]
    rows += [{"id": f"t{n}", "text": f"w{n} w{n + 1}"} for n in range(6)]
    rows += [{"id": f"c{n}", "text": f"w{n} w{n} w{n}", "cluster": n // 3} for n in range(12)]
    rows += [{"id": "link", "text": "w0 w1", "cluster": 0}]
    path = workspace.folder / "clusters.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    half = [{"name": "a", "items": 25, "copies": 0}, {"name": "b", "items": 25, "copies": 1}]
    for seed in range(6):
        plan = plan_of(workspace, documents(items="clusters.jsonl", arms=half), seed=seed)
        found = arms_of(plan, "docs")
        assert sorted(found.values()).count("a") == sorted(found.values()).count("b") == 25
        for group in [[f"s{n}", f"t{n}"] for n in range(1, 6)] + [
            ["s0", "t0", "link", "c0", "c1", "c2"],
            ["c3", "c4", "c5"],
        ]:
            assert len({found.get(name) for name in group}) == 1
        assigned = plan.experiments[0].assigned
        labels = dict(zip([i.item for i in assigned.items], assigned.clusters, strict=True))
        if "s0" in labels:
            assert labels["s0"] == labels["t0"] == labels["c2"] == "c0"


def test_batches_at_given_steps_come_before_those_that_draw_one(workspace):
    steps = list(range(2, 201, 2))
    given = {"name": "z-given", "kind": "forgetting", "steps": steps}
    arms = [{"name": "marked", "items": "rest", "copies": 1}]
    drawn = {"name": "a-drawn", "kind": "watermark", "method": "gaussian", "count": 90}
    made = make_plan(read_mix(workspace.mix({**drawn, "arms": arms}, given)))
    by_name = {one.config.name: one.copies.sequence // 8 + 1 for one in made.experiments}
    assert sorted(set(by_name["z-given"].tolist())) == steps
    assert not set(by_name["a-drawn"].tolist()) & set(steps)


def test_a_batch_may_stand_at_every_step(workspace):
    every = {"name": "all", "kind": "forgetting", "steps": {"from": 1, "every": 1}}
    made = make_plan(read_mix(workspace.mix(every)))
    assert np.unique(made.experiments[0].copies.sequence).tolist() == list(range(1600))
