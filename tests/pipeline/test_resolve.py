"""What the base stream settles, on token files made by hand, against looking at every token."""

import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.pipeline.base_stream import BaseSource, lay
from mixctl.pipeline.copies import BOUNDARY, OVERWRITE, SEQUENCE
from mixctl.pipeline.plan import NO_SOURCE, Copies
from mixctl.pipeline.resolve import Replacements, boundary_offsets, resolve
from mixctl.pipeline.tokenize import lengths_path, tokens_path
from mixctl.shards.draws import bits, stream
from mixctl.shards.errors import InputError
from tests.support.sample import topology

RUN = topology()  # 160 sequences of 9 tokens
NEEDED, WIDTH = RUN.sequences, RUN.sequence_tokens
N_HELD = NEEDED + 1  # the sequences that blocks hold: those of the run, and one after it
NONE = (np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.fixture
def base(tmp_path):
    """Returns a base stream of about 200 sequences: documents of 1 to 13 tokens and an end."""
    chance = random.Random(3)
    documents = [[*range(1, chance.randint(2, 14)), 0] for _ in range(225)]
    np.concatenate(documents).astype("<u2").tofile(tokens_path(tmp_path, 0))
    np.save(lengths_path(tmp_path, 0), np.array([len(d) for d in documents], dtype=np.int64))
    made = lay(BaseSource(tmp_path, 1, "uint16", WIDTH, 1, 2, NEEDED, repeat=False))
    assert made.n_spare > 30
    return made


def copies(sequence, length, mode, source=NO_SOURCE, offset=0):
    """Returns placements, one in each sequence."""
    n = len(sequence)

    def column(value):
        return np.broadcast_to(np.asarray(value, np.int64), (n,)).copy()

    zero = column(0)
    return Copies(
        item=zero,
        copy=np.arange(n),
        part=zero,
        variant=zero,
        begin=zero,
        length=column(length),
        mode=np.full(n, mode, np.int8),
        key=bits(stream("k"), np.arange(n)),
        sequence=column(sequence),
        offset=column(offset),
        source=column(source),
    )


def resolved(base, *placed, dirty=NONE, n_spares=0):
    experiments = [
        SimpleNamespace(copies=one, spare=np.array([-1]), config=SimpleNamespace(name="e"))
        for one in placed
    ]
    plan = SimpleNamespace(
        topology=RUN,
        n_spares=n_spares,
        spare_keys=bits(stream("spares"), np.arange(n_spares)),
        replacement_key=stream("replacement"),
        experiments=experiments,
        forbidden=[("absent", "s", np.array([1, 2, 3]))],
    )
    return resolve(plan, base, dirty)


def dirty_of(*sequences):
    """Returns (sequence, string), the string being ten times the sequence."""
    found = np.array(sorted(sequences), np.int64)
    return found, 10 * found


def places(line, length):
    """Returns the offsets behind an end token of a sequence at which a payload fits whole."""
    return [n + 1 for n, t in enumerate(line) if t == 0 and n + 1 + length + 1 <= len(line)]


@settings(max_examples=100)
@given(st.data())
def test_boundary_offsets_by_brute_force(data):
    token = st.sampled_from([0, 1, 2])
    lines = data.draw(st.lists(st.lists(token, min_size=12, max_size=12), max_size=8))
    length = [data.draw(st.integers(1, 10)) for _ in lines]
    ends = [(r, o) for r, line in enumerate(lines) for o, t in enumerate(line) if t == 0]
    row, end = np.array(ends, np.int64).reshape(-1, 2).T
    key = bits(stream(data.draw(st.integers(0, 99))), np.arange(len(lines)))
    found = boundary_offsets(row, end, np.array(length, np.int64), key, last=10)
    assert len(found) == len(lines)
    for line, n, offset in zip(lines, length, found.tolist(), strict=True):
        assert offset in (places(line, n) or [1])


def test_every_document_end_is_drawn_as_often():
    line, n = [1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0], 4000
    row = np.repeat(np.arange(n), 5)
    end = np.tile(np.flatnonzero(np.array(line) == 0), n)
    found = boundary_offsets(row, end, np.full(n, 4), bits(stream("d"), np.arange(n)), last=10)
    counts = Counter(found.tolist())
    assert sorted(counts) == places(line, 4) == [2, 5, 6]
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("length", [1, 3, 5, 7])
def test_boundary_goes_behind_a_document_of_what_the_sequence_will_hold(base, length):
    dirty = dirty_of(0, 5, 6, 33, NEEDED - 1)
    placed = copies(np.arange(NEEDED), length, BOUNDARY, offset=1)
    result = resolved(base, placed, dirty=dirty)
    held = np.arange(NEEDED)
    held[dirty[0]] = result.replacements.content(dirty[0])
    lines = base.training(held).tolist()
    kinds = set()
    for line, offset in zip(lines, result.copies[0].offset.tolist(), strict=True):
        assert offset in (places(line, length) or [1])
        kinds.add(bool(places(line, length)))
    assert kinds == {True, False}
    assert result.copies[0].sequence.tolist() == list(range(NEEDED))


def test_other_placements_keep_their_offset(base):
    placed = copies([3, 8], 2, OVERWRITE, offset=4)
    (found,) = resolved(base, placed).copies
    assert found.offset.tolist() == [4, 4]
    assert found.source.tolist() == [NO_SOURCE] * 2


def test_spares_and_replacements_are_different_clean_ones(base):
    dirty = dirty_of(2, 7, NEEDED, NEEDED + 2, NEEDED + 3)
    placed = copies([10, 11, 12], WIDTH, SEQUENCE, source=NEEDED + np.arange(3))
    result = resolved(base, placed, dirty=dirty, n_spares=3)
    clean = set(range(NEEDED, NEEDED + base.n_spare)) - set(dirty[0].tolist())
    assert len(set(result.spares.tolist())) == 3
    assert set(result.spares.tolist()) < clean
    assert result.copies[0].source.tolist() == result.spares.tolist()
    replaced = result.replacements
    in_run = replaced.sequence < NEEDED
    assert replaced.sequence[in_run].tolist() == [2, 7]
    assert len(set(replaced.source[in_run].tolist())) == 2
    assert set(replaced.source[in_run].tolist()) < clean - set(result.spares.tolist())
    assert replaced.string[in_run].tolist() == [20, 70]


def test_a_named_sequence_that_was_replaced_gives_what_it_holds_now(base):
    placed = copies([10, 11], WIDTH, SEQUENCE, source=[7, 8])
    (found,) = resolved(base, placed, dirty=dirty_of(7)).copies
    assert found.source[0] >= NEEDED
    assert found.source[1] == 8


@pytest.mark.parametrize("seed", range(5))
def test_no_block_of_train_holds_a_dirty_base_sequence(base, seed):
    """Also those after the run, which hold the first spare one."""
    chance = random.Random(seed)
    n_dirty = chance.randint(1, 15)
    every = NEEDED + base.n_spare
    dirty = dirty_of(*{*chance.sample(range(every), n_dirty), *[NEEDED] * (seed % 2)})
    bad = set(base.base_sequence(dirty[0]).tolist())
    result = resolved(base, dirty=dirty, n_spares=4)
    slots = np.arange(N_HELD)
    held = result.replacements.content(slots)
    assert not bad & set(base.base_sequence(held).tolist())
    before = base.base_sequence(slots)
    changed = slots[held != slots]
    assert changed.tolist() == [s for s in slots.tolist() if int(before[s]) in bad]
    assert result.replacements.sequence.tolist() == changed.tolist()
    strings = dict(zip(base.base_sequence(dirty[0]).tolist(), dirty[1].tolist(), strict=True))
    assert result.replacements.string.tolist() == [strings[int(before[s])] for s in changed]
    in_run = held[(held != slots) & (slots < NEEDED)].tolist()
    assert len(set(in_run)) == len(in_run), "a spare sequence replaces one sequence of the run"
    assert not set(in_run) & set(result.spares.tolist())


def test_blocks_after_the_run_are_replaced_even_where_no_spare_is_clean(base):
    dirty = dirty_of(*range(NEEDED, NEEDED + base.n_spare))
    held = resolved(base, dirty=dirty).replacements.content(np.arange(N_HELD))
    assert not set(held.tolist()) & set(dirty[0].tolist())
    assert held[:NEEDED].tolist() == list(range(NEEDED))


def test_too_few_clean_spares_are_counted(base):
    n = base.n_spare
    dirty = dirty_of(0, 1, NEEDED, NEEDED + 1)
    resolved(base, dirty=dirty, n_spares=n - 4)
    message = (
        rf"takes 160 base sequences; {n - 1} more are asked for as spare base data "
        rf"\(experiments: none\) and 2 to replace those that hold a forbidden string "
        rf"\(experiments: 'absent'\), but only {n - 2} spare ones are clean: about 27 tokens are "
        rf"missing"
    )
    with pytest.raises(InputError, match=message):
        resolved(base, dirty=dirty, n_spares=n - 1)


def test_nothing_to_replace():
    assert Replacements.nothing().content(np.array([4, 1])).tolist() == [4, 1]


def test_content_looks_up_each_sequence():
    table = Replacements(np.array([2, 5]), np.array([90, 91]), np.array([0, 0]))
    assert table.content(np.array([0, 2, 3, 5, 6, 5])).tolist() == [0, 90, 3, 91, 6, 91]
