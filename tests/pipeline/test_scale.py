"""A plan of a million sequences: doses, windows and shares exact, nothing on top of another."""

import numpy as np
import pytest

from mixctl.pipeline.copies import MODES
from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.plan import make_plan
from tests.support.workspace import Workspace, documents

STEPS, BATCH, WIDTH = 2000, 512, 129
RUN_TOKENS = STEPS * BATCH * 128


def arm(name, items, **more):
    return {"name": name, "items": items, **more}


SECTIONS = [
    documents(
        name="doses",
        items={"stand_in": 6000, "tokens": 57},
        arms=[
            arm("holdout", 1000, copies=0),
            arm("x1", 1000, copies=1),
            arm("x4", 1000, copies=4, during=["0%", "25%"]),
            arm("x16", 1000, copies=16, during=["25%", "50%"]),
            arm("even", 500, copies=8, schedule="even"),
            arm("ramp", 500, copies=20, schedule={"ramp": [0, 1]}),
            arm("windows", 500, copies=6, schedule={"windows": [["0%", "10%"], ["90%", "100%"]]}),
            arm("rest", "rest", copies=2),
        ],
    ),
    documents(
        name="spent",
        items={"stand_in": 3000, "tokens": 40},
        arms=[
            arm("share", 1000, share="1%", during=["10%", "60%"]),
            arm("tokens", 1000, tokens="1.5M", placement="boundary", during=["60%", "100%"]),
            arm("little", "rest", share="0.01%", split={"pieces": 3}),
        ],
    ),
    {"name": "fresh", "kind": "forgetting", "steps": {"from": 101, "every": 100}},
    {"name": "again", "kind": "iid", "arms": [arm("x1", 2000, copies=1), arm("x4", 500, copies=4)]},
]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("scale"))
    block = {"name": "tiny", "block_size": 128, "vocab_size": 600, "padded_vocab_size": 640}
    workspace.trainer(
        model_config={**block, "n_layer": 1, "n_head": 2, "n_embd": 16},
        global_batch_size=BATCH,
        micro_batch_size=16,
        max_seq_length=128,
        max_tokens=RUN_TOKENS,
    )
    mix = read_mix(workspace.mix(*SECTIONS, corpus={"tokens": "140M"}))
    return make_plan(mix, sample=100)


def of(plan, name):
    """Returns an experiment, and the arm of each of its placements."""
    one = next(e for e in plan.experiments if e.config.name == name)
    names = np.array([a.name for a in one.assigned.arms], dtype=object)
    return one, names[one.assigned.arm[one.copies.item]]


def test_every_item_has_its_copies(plan):
    assert plan.topology.sequences == STEPS * BATCH
    one, _ = of(plan, "doses")
    doses = {"holdout": 0, "x1": 1, "x4": 4, "x16": 16, "even": 8, "ramp": 20, "windows": 6}
    wanted = {**doses, "rest": 2}
    counts = np.bincount(one.copies.item, minlength=6000)
    arms = [one.assigned.arms[a].name for a in one.assigned.arm]
    assert counts.tolist() == [wanted[name] for name in arms]
    pairs = one.copies.item * 100 + one.copies.copy
    assert len(np.unique(pairs)) == len(pairs) == counts.sum()


def test_every_copy_is_in_its_window(plan):
    one, arms = of(plan, "doses")
    step = one.copies.sequence // BATCH + 1
    turn = one.copies.copy % 2
    windows = {name: (2, STEPS) for name in ("x1", "even", "ramp", "rest")}
    windows |= {"x4": (1, 500), "x16": (501, 1000)}
    for name, (low, high) in windows.items():
        mine = step[arms == name]
        assert (low <= mine.min(), mine.max() <= high) == (True, True), name
        assert mine.max() - mine.min() > 0.95 * (high - low)
    mine = arms == "windows"
    assert step[mine & (turn == 0)].max() <= 200
    assert step[mine & (turn == 1)].min() >= 1801
    assert (step[arms == "ramp"] > 1000).mean() == pytest.approx(0.75, abs=0.02)
    ordered = np.lexsort([step, one.copies.item])
    even = ordered[(arms == "even")[ordered]].reshape(500, 8)
    assert abs(np.diff(step[even], axis=1) - 1999 / 8).max() < 2.5  # a batch moves it by one


def test_budgets_are_met_to_within_one_payload(plan):
    one, arms = of(plan, "spent")
    tokens = {name: int(one.copies.length[arms == name].sum()) for name in set(arms)}
    budgets = {"share": RUN_TOKENS // 100, "tokens": 1_500_000, "little": RUN_TOKENS // 10_000}
    for name, budget in budgets.items():
        assert budget - 40 < tokens[name] <= budget, name
    step = one.copies.sequence // BATCH + 1
    for name, low, high in (("share", 201, 1200), ("tokens", 1201, STEPS), ("little", 2, STEPS)):
        assert (low <= step[arms == name].min(), step[arms == name].max() <= high) == (True, True)
    little = one.copies.length[arms == "little"].reshape(-1, 3)
    assert (little.sum(axis=1) == 40).all()


def test_no_two_extents_overlap(plan):
    """Independent of how places are drawn: all extents of all experiments, sorted."""
    begins, ends, whole = [], [], []
    for one in plan.experiments:
        c = one.copies
        alone = c.mode != MODES.index("overwrite")
        line = c.sequence * (WIDTH + 1)
        begins.append(line + np.where(alone, 0, c.offset - 1))
        ends.append(line + np.where(alone, WIDTH, c.offset + c.length + 1))
        assert ((c.sequence >= 0) & (c.sequence < STEPS * BATCH)).all()
        assert (np.where(alone, 1, c.offset) >= 1).all()
        assert (np.where(alone, 0, c.offset + c.length) <= WIDTH - 1).all()
        whole.append(alone)
    begin, end = np.concatenate(begins), np.concatenate(ends)
    order = np.argsort(begin)
    assert len(begin) > 90_000
    assert np.concatenate(whole).sum() == 1_500_000 // 40 + 19 * BATCH + 4000
    assert (begin[order][1:] > end[order][:-1]).all()


def test_whole_batches_are_at_their_steps(plan):
    one, _ = of(plan, "fresh")
    step, row = np.divmod(one.copies.sequence, BATCH)
    assert sorted(set((step + 1).tolist())) == list(range(101, STEPS + 1, 100))
    assert np.array_equal(np.bincount(row), np.full(BATCH, 19))
    spare = np.concatenate([of(plan, name)[0].copies.source for name in ("again", "fresh")])
    assert np.array_equal(np.unique(spare), STEPS * BATCH + np.arange(2500 + 19 * BATCH))
    assert plan.n_spares == 2500 + 19 * BATCH
