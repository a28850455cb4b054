"""The copies of an experiment in pieces: parts, variants, modes."""

from typing import get_args

import numpy as np
import pytest

from mixctl.injections import documents as documents_kind
from mixctl.injections.base import BaseData, Item
from mixctl.injections.config import Arm, ExperimentConfig, Mode
from mixctl.pipeline.assignment import AssignedItems
from mixctl.pipeline.copies import MODES, make_pieces
from mixctl.pipeline.placement import SEPARATORS
from mixctl.shards.errors import InputError
from mixctl.shards.meta.documents import DocumentsMeta
from tests.support.sample import topology

RUN = topology()  # sequences of 9 tokens, 16 a step
WIDTH, BATCH = RUN.sequence_tokens, RUN.global_batch


def config(**changes):
    return ExperimentConfig(name="e", kind=documents_kind.KIND.name, **changes)


def item(name, *lengths, base=None):
    """Returns an item whose variants hold 100 * variant, 100 * variant + 1, ..."""
    variants = tuple(
        np.arange(100 * v, 100 * v + n, dtype=np.uint32) for v, n in enumerate(lengths)
    )
    return Item(name, variants, DocumentsMeta(), base=base)


def assigned(*rows, arms):
    """Returns items in arms; a row is (item, arm, copies)."""
    items, arm, copies = zip(*rows, strict=True)
    return AssignedItems(
        items=items,
        arms=tuple(arms),
        arm=np.array(arm, dtype=np.int64),
        copies=np.array(copies, dtype=np.int64),
        clusters=tuple(one.item for one in items),
        randomised=np.ones(len(items), dtype=np.bool_),
        n_unused=0,
    )


def pieces_of(*rows, arms=None, seed=1, **changes):
    arms = arms or [Arm(name="x", copies=1)]
    return make_pieces(config(**changes), assigned(*rows, arms=arms), RUN, seed)


def table(pieces):
    """Returns (item, copy, part, variant, begin, length) of each piece."""
    columns = (pieces.item, pieces.copy, pieces.part, pieces.variant, pieces.begin, pieces.length)
    return list(zip(*(c.tolist() for c in columns), strict=True))


def test_modes_are_those_of_the_mix_file():
    assert get_args(Mode) == MODES


def test_whole_copies_by_hand():
    found = pieces_of((item("a", 3, 5), 0, 3), (item("b", 4), 0, 0), (item("c", 2), 0, 1))
    assert table(found) == [
        (0, 0, 0, 0, 0, 3),
        (0, 1, 0, 1, 0, 5),
        (0, 2, 0, 0, 0, 3),
        (2, 0, 0, 0, 0, 2),
    ]
    assert len(set(found.key.tolist())) == 4
    assert found.n_sequences.tolist() == [1] * 4
    assert found.extents(WIDTH).tolist() == [3 + SEPARATORS, 5 + SEPARATORS, 5, 4]


@pytest.mark.parametrize(
    ("rule", "expected"), [("cycle", [0, 1, 2, 0, 1]), ("first", [0] * 5), ("each", None)]
)
def test_which_variant_a_copy_takes(rule, expected):
    three = item("a", 1, 2, 3)
    if expected is not None:
        assert pieces_of((three, 0, 5), variants=rule).variant.tolist() == expected
    assert pieces_of((three, 0, 3), variants="each").variant.tolist() == [0, 1, 2]
    own = [Arm(name="x", copies=1, variants="first"), Arm(name="y", copies=1)]
    found = pieces_of((three, 0, 2), (three, 1, 2), arms=own, variants="cycle")
    assert found.variant.tolist() == [0, 0, 0, 1]


def test_parts_tile_each_copy_once_or_anew():
    arms = [
        Arm(name="whole", copies=2),
        Arm(name="once", copies=4, split={"pieces": 3}),
        Arm(name="anew", copies=4, split={"pieces": 3, "anew": True}),
    ]
    rows = [(item("a", 7), 0, 2), (item("b", 40, 30), 1, 4), (item("c", 40, 30), 2, 4)]
    wide = topology(max_seq_length=64)
    found = make_pieces(config(), assigned(*rows, arms=arms), wide, 1)
    copies = {}
    for number, copy, part, variant, begin, length in table(found):
        pieces = copies.setdefault((number, copy), [])
        assert part == len(pieces)
        assert begin == (pieces[-1][2] if pieces else 0)
        pieces.append((variant, begin, begin + length))
    assert [len(copies[0, copy]) for copy in range(2)] == [1, 1]
    for number in (1, 2):
        cut = [tuple(copies[number, copy]) for copy in range(4)]
        assert [len(one) for one in cut] == [3] * 4
        assert [(one[0][0], one[-1][2]) for one in cut] == [(0, 40), (1, 30), (0, 40), (1, 30)]
        assert (cut[0] == cut[2]) == (cut[1] == cut[3]) == (number == 1)
    assert len(set(found.key.tolist())) == len(found), "every piece draws its own place"


def test_the_first_part_has_the_key_of_the_whole_copy():
    arms = [Arm(name="x", copies=3)]
    whole = pieces_of((item("a", 6), 0, 3), arms=arms)
    split = pieces_of((item("a", 6), 0, 3), arms=arms, split={"at_most": 2})
    assert split.key[split.part == 0].tolist() == whole.key.tolist()


def test_an_arm_may_stay_whole_where_the_experiment_splits():
    arms = [Arm(name="x", copies=1, split="whole"), Arm(name="y", copies=1)]
    rows = [(item("a", 6), 0, 1), (item("b", 6), 1, 1)]
    assert pieces_of(*rows, arms=arms, split={"at_most": 4}).length.tolist() == [6, 4, 2]


def test_neither_other_items_nor_arms_change_a_piece():
    rows = [(item("a", 6), 0, 2), (item("b", 6), 0, 2)]
    arms = [Arm(name="x", copies=2, split={"pieces": 3, "anew": True})]
    both, alone = pieces_of(*rows, arms=arms), pieces_of(rows[1], arms=arms)
    mine = both.item == 1
    assert both.key[mine].tolist() == alone.key.tolist()
    assert both.begin[mine].tolist() == alone.begin.tolist()


def test_whole_sequences_and_batches():
    arms = [
        Arm(name="s", copies=1, placement="sequence"),
        Arm(name="b", copies=1, placement="batch"),
        Arm(name="m", copies=1, placement="mark"),
    ]
    found = pieces_of(
        (item("a", WIDTH), 0, 1),
        (item("b", base=BaseData()), 0, 2),
        (item("c", BATCH * WIDTH), 1, 1),
        (item("d", base=BaseData(BATCH)), 1, 1),
        (item("e", base=BaseData(mark=True)), 2, 1),
        (item("f", base=BaseData(BATCH, mark=True)), 2, 1),
        arms=arms,
    )
    assert found.n_sequences.tolist() == [1, 1, 1, BATCH, BATCH, 1, BATCH]
    assert found.length.tolist() == [WIDTH * n for n in found.n_sequences.tolist()]
    assert found.extents(WIDTH).tolist() == [WIDTH] * 7
    assert [MODES[m] for m in found.mode] == [*["sequence"] * 3, *["batch"] * 2, *["mark"] * 2]


def test_boundary_takes_the_whole_sequence():
    found = pieces_of((item("a", 3), 0, 1), placement="boundary")
    assert found.extents(WIDTH).tolist() == [WIDTH]


MARKS = "marks, and only marks, are placed with mark"
REFUSED = [
    (item("q", 8), {}, "a piece of 8 tokens; a sequence holds at most 7 between two"),
    (item("q", 3, 8), {"copies": 2}, "a piece of 8 tokens; a sequence holds at most 7"),
    (item("q", 8), {"placement": "boundary"}, "a piece of 8 tokens; a sequence holds at most 7"),
    (item("q", 8), {"split": {"at_most": 8}}, "a piece of 8 tokens; a sequence holds at most 7"),
    (item("q", 5), {"placement": "sequence"}, "has 5 tokens; placement sequence needs exactly 9"),
    (item("q", 9, 8), {"placement": "sequence"}, "has 8 tokens; placement sequence needs exactly"),
    (item("q", 9), {"placement": "batch"}, "has 9 tokens; placement batch needs exactly 144"),
    (item("q", base=BaseData(2)), {"placement": "sequence"}, "has 18 tokens; placement sequence"),
    (item("q", base=BaseData()), {"placement": "batch"}, "has 9 tokens; placement batch needs"),
    (item("q", base=BaseData()), {}, "placement is overwrite, but it is whole base sequences"),
    (item("q", base=BaseData()), {"placement": "boundary"}, "is boundary, but it is whole base"),
    (item("q", base=BaseData()), {"placement": "mark"}, f"placement is mark: {MARKS}"),
    (item("q", base=BaseData(mark=True)), {}, f"placement is overwrite: {MARKS}"),
    (item("q", base=BaseData(mark=True)), {"placement": "batch"}, f"is batch: {MARKS}"),
    (item("q", base=BaseData(3, mark=True)), {"placement": "mark"}, "marks 3 sequences: it must"),
    (item("q", 3), {"placement": "mark"}, "which is for sequences that are only recorded"),
    (item("q", 9), {"placement": "sequence", "split": {"pieces": 2}}, "which cannot hold pieces"),
    (item("q", 3), {"split": {"pieces": 4}}, "split: 3 tokens cannot be cut into 4 pieces"),
]


@pytest.mark.parametrize(("one", "arm", "message"), REFUSED)
def test_what_cannot_be_placed_is_named(one, arm, message):
    arms = [Arm(**{"name": "x", "copies": 1, **arm})]
    with pytest.raises(InputError) as error:
        pieces_of((one, 0, arms[0].copies), arms=arms)
    (problem,) = error.value.problems
    assert problem.startswith("experiment 'e': item 'q': ")
    assert message in problem


def test_a_holdout_may_have_any_size():
    arms = [Arm(name="x", copies=0)]
    assert len(pieces_of((item("q", 100), 0, 0), arms=arms, placement="sequence")) == 0


def test_a_variant_that_no_copy_takes_may_have_any_size():
    arms = [Arm(name="x", copies=2, variants="first")]
    found = pieces_of((item("q", 9, 3), 0, 2), arms=arms, placement="sequence")
    assert found.length.tolist() == [9, 9]


def test_all_problems_of_modes_come_together():
    rows = [(item(f"q{n}", 5), 0, 1) for n in range(8)]
    with pytest.raises(InputError) as error:
        pieces_of(*rows, placement="sequence")
    assert [p.split("'")[3] for p in error.value.problems[:5]] == [f"q{n}" for n in range(5)]
    assert error.value.problems[5:] == ["... and 3 more such items"]
