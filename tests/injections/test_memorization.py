"""Canaries: the conditions of the grid, rare and least likely tokens, secrets amid a text."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from pydantic import ValidationError

from mixctl.injections.base import KindContext
from mixctl.injections.canaries import SecretSpace, deal_conditions, deal_rare
from mixctl.injections.encode import load_encoder
from mixctl.injections.memorization import KIND
from mixctl.injections.memorization_config import MemorizationConfig
from mixctl.injections.text_canaries import _cut
from mixctl.pipeline.arms import assign_arms
from mixctl.shards.errors import InputError
from tests.support.workspace import canaries, write_jsonl, write_tokenizer

GRID = {"suffixes": ["none", "rare", "least-likely", "random"], "lengths": [1, 3]}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memorization")
    encoder = load_encoder(write_tokenizer(folder / "tok"))
    return KindContext(folder, encoder, 5, 60, global_batch=8, steps=200)


def config(**changes):
    merged = {**canaries(), **changes}
    return MemorizationConfig.model_validate({k: v for k, v in merged.items() if v is not None})


def of_documents(**changes):
    gone = {"count": None, "template": None, "suffix_tokens": None}
    return config(**{"items": "d.jsonl", **gone, **changes})


def write_documents(context, n, tokens=(100, 300), length=12, **row):
    """Returns the documents' tokens: ordinary ones with numbers in a range, drawn at random."""
    chance = np.random.default_rng(n)
    ids = context.encoder.ordinary_ids[tokens[0] : tokens[1]]
    drawn = [chance.choice(ids, length).tolist() for _ in range(n)]
    rows = [{"id": f"d{k:04d}", "tokens": one, **row} for k, one in enumerate(drawn)]
    write_jsonl(context.folder / "d.jsonl", rows)
    return drawn


def parts(item):
    """Returns prefix, suffix and tail of an item's payload as lists."""
    tokens, meta = item.variants[0].tolist(), item.meta
    end = meta.prefix_length + meta.suffix_length
    assert end + meta.tail_length == len(tokens)
    return tokens[: meta.prefix_length], tokens[meta.prefix_length : end], tokens[end:]


def test_the_design_of_the_reference_study():
    grid = {**GRID, "lengths": [1, 8, 32], "copies": [1, 4, 16], "items": 4000, "holdout": 34907}
    section = of_documents(grid=grid, arms=None)
    assert [c.name for c in section.conditions] == [
        "none",
        *(f"{kind}-{n}" for kind in ("rare", "least-likely", "random") for n in (1, 8, 32)),
    ]
    assert [(arm.name, arm.items, arm.copies) for arm in section.arms] == [
        ("holdout", 34907, 0),
        ("x1", 40000, 1),
        ("x4", 40000, 4),
        ("x16", 40000, 16),
    ]
    assert MemorizationConfig.model_validate(section.model_dump(mode="json")) == section


def test_the_holdout_is_the_rest_and_arms_can_be_written_out():
    section = of_documents(grid={**GRID, "copies": [2], "items": 3}, arms=None)
    assert [(arm.name, arm.items) for arm in section.arms] == [("holdout", "rest"), ("x2", 21)]
    assert of_documents(grid=GRID).arms == config().arms


def test_conditions_and_arms_meet_in_equal_numbers():
    n, copies = 7 * 40 + 35, 4
    names = [f"d{k}" for k in range(n)]
    dealt = deal_conditions(names, [None] * n, 7, 5, "grid")
    assert sorted(Counter(dealt.tolist()).values()) == [45] * 7
    arm = assign_arms(dealt, np.arange(n), [35, *[70] * copies], key=11)
    both = Counter(zip(dealt.tolist(), arm.tolist(), strict=True))
    assert all(abs(both[c, 0] - 5) <= 1 for c in range(7))
    assert all(abs(both[c, a] - 10) <= 1 for c in range(7) for a in range(1, copies + 1))


def test_conditions_are_dealt_within_strata_and_move_little():
    names = [f"d{k}" for k in range(90)]
    strata = ["a", "b", "c"] * 30
    dealt = deal_conditions(names, strata, 5, 5, "grid")
    both = Counter(zip(strata, dealt.tolist(), strict=True))
    assert set(both.values()) == {6}
    more = deal_conditions([*names, "new"], [*strata, "b"], 5, 5, "grid")
    assert (more[:90] != dealt).sum() <= 5
    assert deal_conditions(names, strata, 5, 6, "grid").tolist() != dealt.tolist()
    alone = [int(deal_conditions([f"d{k}"], [f"s{k}"], 5, 5, "grid")[0]) for k in range(100)]
    assert len(set(alone)) == 5, "strata of one item do not all get the first condition"


def test_the_grid_makes_every_condition_its_stratum(context):
    written = write_documents(context, 70)
    items = KIND.make_items(of_documents(grid=GRID, candidates=2), context)
    documents = dict(zip((f"d{k:04d}" for k in range(70)), written, strict=True))
    assert Counter(item.stratum for item in items) == {
        name: 10
        for name in (
            "none",
            *(f"{k}-{n}" for k in ("rare", "least-likely", "random") for n in (1, 3)),
        )
    }
    for item in items:
        prefix, suffix, tail = parts(item)
        assert prefix == documents[item.item]
        assert item.compared.tolist() == prefix
        assert item.stratum == item.meta.condition
        kind, _, length = item.meta.condition.rpartition("-")
        assert len(suffix) == (0 if not kind else int(length))
        assert (len(item.meta.candidates), tail) == (2 if kind == "random" else 0, [])


def test_a_row_keeps_its_own_stratum(context):
    write_documents(context, 14, stratum="news")
    items = KIND.make_items(of_documents(grid=GRID), context)
    assert {item.stratum.partition("/")[0] for item in items} == {"news"}
    items = KIND.make_items(of_documents(suffix="rare", suffix_tokens=2), context)
    assert {item.stratum for item in items} == {"news"}


def test_rare_suffixes_are_one_unseen_token_repeated(context):
    seen = set(itertools.chain(*write_documents(context, 60)))
    items = KIND.make_items(of_documents(suffix="rare", suffix_tokens=4), context)
    suffixes = [parts(item)[1] for item in items]
    ordinary = set(context.encoder.ordinary_ids.tolist())
    assert all(len(s) == 4 and len(set(s)) == 1 and s[0] in ordinary - seen for s in suffixes)
    assert len({s[0] for s in suffixes}) == 60, "unique while they last"
    assert {item.meta.condition for item in items} == {"rare-4"}
    assert {item.meta.space_size for item in items} == {float(len(ordinary - seen))}


def test_the_least_seen_tokens_are_rare_where_all_are_seen(context):
    ordinary = context.encoder.ordinary_ids
    often = np.concatenate([ordinary, ordinary[100:]]).tolist()
    write_jsonl(context.folder / "d.jsonl", [{"tokens": often}, *[{"tokens": [40]}] * 300])
    items = KIND.make_items(of_documents(suffix="rare", suffix_tokens=1), context)
    used = Counter(parts(item)[1][0] for item in items)
    rare = set(ordinary[:100].tolist()) - {40} | {int(ordinary[100])}
    assert set(used) <= rare
    assert len(used) > 80, "drawn at random once there are more items than tokens"


def test_dealt_rare_tokens_are_free_ones():
    assert deal_rare([0, 0, 0, 2**63], 4) == [0, 1, 2, 3]
    assert deal_rare([0, 2**63, 2**63], 4) == [0, 2, 3]
    assert deal_rare([0] * 5, 4) == [0] * 5, "more items than tokens: each its own draw"


@pytest.mark.parametrize("tokens", [(0, 200), (0, None)])
def test_least_likely_tokens_have_the_lowest_bigram_probability(context, tokens):
    stop = tokens[1] or len(context.encoder.ordinary_ids)
    written = write_documents(context, 40, (0, stop), length=50)
    if tokens[1] is None:
        written += [context.encoder.ordinary_ids.tolist()] * 2
        rows = [{"id": f"d{k:04d}", "tokens": one} for k, one in enumerate(written)]
        write_jsonl(context.folder / "d.jsonl", rows)
    items = KIND.make_items(of_documents(suffix="least-likely", suffix_tokens=6), context)
    seen = Counter(itertools.chain(*written))
    pairs = Counter(pair for one in written for pair in itertools.pairwise(one))
    total, size = sum(seen.values()), context.encoder.vocab_size

    def probability(before, token):
        smooth = Fraction(seen[token] + 1, total + size)
        return (pairs[before, token] + smooth) / (seen[before] + 1)

    ordinary = context.encoder.ordinary_ids.tolist()
    for item in items[:8]:
        prefix, suffix, _ = parts(item)
        for n, token in enumerate(suffix):
            before = suffix[n - 1] if n else prefix[-1]
            lowest = min(probability(before, t) for t in ordinary if t not in suffix[:n])
            assert probability(before, token) == lowest
    assert len({tuple(parts(item)[1]) for item in items}) > 30
    assert {item.meta.condition for item in items} == {"least-likely-6"}


def test_a_pair_across_two_documents_is_no_pair(context):
    ordinary = context.encoder.ordinary_ids.tolist()
    a, b, *others = ordinary
    rows = [{"id": "one", "tokens": [a]}, {"id": "two", "tokens": [b]}, {"tokens": others * 2}]
    write_jsonl(context.folder / "d.jsonl", rows)
    items = KIND.make_items(of_documents(suffix="least-likely", suffix_tokens=2), context)
    found = {item.item: parts(item)[1] for item in items}
    assert set(found["one"]) == {a, b}, "both are seen once, all others twice"


def test_no_suffix_leaves_the_document_as_it_is(context):
    written = write_documents(context, 3)
    for changes, name in (({"suffix": "none"}, "none"), ({"suffix_tokens": 0}, "whole-text")):
        items = KIND.make_items(of_documents(**changes), context)
        assert [item.variants[0].tolist() for item in items] == written
        assert {(i.meta.condition, i.meta.suffix_length) for i in items} == {(name, 0)}


def test_rows_pass_their_steps_on(context):
    write_jsonl(context.folder / "d.jsonl", [{"id": "a", "text": "w1", "steps": [4, 5]}])
    (item,) = KIND.make_items(of_documents(suffix_tokens=2), context)
    assert (item.copies, item.steps) == (2, (4, 5))
    write_jsonl(context.folder / "d.jsonl", [{"id": "a", "text": "w1", "steps": [4, 500]}])
    with pytest.raises(InputError, match="item 'a': steps: step 500 is outside the run"):
        KIND.make_items(of_documents(suffix_tokens=2), context)


def test_a_text_may_follow_a_text_secret(context):
    secret = {"alphabet": "0123456789", "length": 4}
    template = "My card number is {secret}, keep {it}."
    section = config(template=template, suffix_tokens=None, secret=secret, count=6, candidates=9)
    items = KIND.make_items(section, context)
    found = []
    for item in items:
        prefix, suffix, tail = parts(item)
        assert item.variants[0].tolist() == context.encoder.text(item.text).tolist()
        assert tail
        assert context.encoder.decode(tail).endswith("keep {it}.")
        assert item.compared.size == 0
        for one in [suffix, *item.meta.candidates]:
            whole = context.encoder.decode([*prefix, *one, *tail])
            assert context.encoder.text(whole).tolist() == [*prefix, *one, *tail]
            number = whole.removeprefix("My card number is ").removesuffix(", keep {it}.")
            assert len(number) == 4
            assert number.isdigit()
            found.append(number)
    assert len(set(found)) == 60


@pytest.mark.parametrize(
    ("prefix", "tail", "whole", "cut"),
    [
        ([1, 2], [8, 9], [[1, 2, 5, 8, 9], [1, 2, 6, 7, 8, 9]], (2, 2)),
        ([1, 2], [8, 9], [[1, 3, 8, 9], [1, 2, 6, 8, 9]], (1, 2)),  # a token over the border
        ([1, 2], [8, 9], [[1, 2, 5, 8, 9], [1, 2, 7, 9]], (2, 1)),
        ([1, 2], [8, 9], [[1, 2, 8, 9]], (2, 1)),  # something is left to be scored
        ([1, 2], [], [[1, 2], [1, 2, 3]], (1, 0)),
        ([], [9], [[9], [5, 9]], (0, 0)),
    ],
)
def test_payloads_are_cut_by_hand(prefix, tail, whole, cut):
    arrays = [np.array(ids, np.uint32) for ids in (prefix, tail, *whole)]
    assert _cut(arrays[0], arrays[1], arrays[2:]) == cut


def test_token_secrets_have_tails_too(context):
    section = config(template="a {secret} b", suffix_tokens=3, count=4)
    for item in KIND.make_items(section, context):
        prefix, suffix, tail = parts(item)
        assert (prefix, tail) == (
            context.encoder.text("a ").tolist(),
            context.encoder.text(" b").tolist(),
        )
        assert len(suffix) == 3
        assert item.text == f"a {context.encoder.decode(suffix)} b"


@pytest.mark.parametrize("template", ["Code {secret}! Right?", "Code "])
def test_all_candidates_are_the_whole_space(context, template):
    secret = {"alphabet": "01x", "length": 3}
    section = config(
        template=template, suffix_tokens=None, secret=secret, count=5, candidates="all"
    )
    items = KIND.make_items(section, context)
    before, _, after = template.partition("{secret}")
    every = {before + "".join(one) + after for one in itertools.product("01x", repeat=3)}
    for item in items:
        prefix, suffix, tail = parts(item)
        spelled = [context.encoder.decode([*prefix, *one, *tail]) for one in item.meta.candidates]
        assert len(spelled) == 27
        assert set(spelled) == every
        assert suffix in item.meta.candidates
        assert item.meta.space_size == 27
        assert item.text == context.encoder.decode([*prefix, *suffix, *tail])
    assert len({item.text for item in items}) == 5
    assert items[0].meta.candidates is items[1].meta.candidates, "written down once"


def test_all_candidates_of_a_token(context):
    items = KIND.make_items(config(suffix_tokens=1, candidates="all", count=3), context)
    every = [[t] for t in context.encoder.ordinary_ids.tolist()]
    assert all(item.meta.candidates == every for item in items)


def test_spaces_are_enumerated_in_order():
    space = SecretSpace("x", 1, 3, 2)
    every = space.enumerate()
    assert every.tolist() == [list(pair) for pair in itertools.product(range(3), repeat=2)]
    assert [space.number(one) for one in every] == list(range(9))
    assert SecretSpace("x", 1, 50_000, 80).size_as_float is None
    assert SecretSpace("x", 1, 50_000, 8).size_as_float == 50_000.0**8


def test_spaces_too_large_to_write_out_are_refused(context):
    section = config(suffix_tokens=3, candidates="all", count=3)
    with pytest.raises(
        InputError, match="experiment .*: candidates: all: .* at most 100000 can be"
    ):
        KIND.make_items(section, context)
    secret = {"alphabet": "0123456789", "length": 5}
    section = config(suffix_tokens=None, secret=secret, candidates="all", count=101)
    with pytest.raises(InputError, match="would write 10100000 of them, more than 10000000"):
        KIND.make_items(section, context)
    with pytest.raises(InputError, match="600 different tokens are asked for, there are"):
        write_documents(context, 3)
        KIND.make_items(of_documents(suffix="least-likely", suffix_tokens=600), context)


def planned(context, sample=10):
    return KindContext(context.folder, context.encoder, 5, 60, 65, 8, 200, sample=sample)


def test_a_plan_makes_a_sample_and_sizes_the_rest(context):
    section = config(count=5000, suffix_tokens=7, template="a {secret} b", candidates=50)
    items = KIND.make_items(section, planned(context))
    made = KIND.make_items(config(count=10, suffix_tokens=7, template="a {secret} b"), context)
    assert [i.variants[0].tolist() for i in items[:10]] == [i.variants[0].tolist() for i in made]
    assert {len(item.variants[0]) for item in items} == {len(made[0].variants[0])}
    assert len({item.variants[0].tobytes() for item in items}) == 5000
    with pytest.raises(InputError, match="need 10000 different secrets, but there are only"):
        KIND.make_items(config(count=10_000, suffix_tokens=1), planned(context))


def test_stand_ins_are_as_long_as_documents_with_their_suffix(context):
    source = {"stand_in": 70, "tokens": 40}
    items = KIND.make_items(of_documents(items=source, grid=GRID), planned(context))
    assert Counter(len(item.variants[0]) for item in items) == {40: 10, 41: 30, 43: 30}
    assert all(item.compared.size == 0 for item in items)
    secret = {"alphabet": "0123456789", "length": 6}
    items = KIND.make_items(of_documents(items=source, secret=secret), planned(context))
    assert len(items) == 70
    assert {len(item.variants[0]) for item in items} <= set(range(41, 47))
    with pytest.raises(InputError, match="mixctl plan alone"):
        KIND.make_items(of_documents(items=source, grid=GRID), context)


def test_text_secrets_need_text_before_them(context):
    write_documents(context, 2)
    with pytest.raises(InputError) as error:
        KIND.make_items(of_documents(secret={"alphabet": "01", "length": 3}), context)
    assert len(error.value.problems) == 2
    assert "item 'd0000': a text secret needs a text before it" in error.value.problems[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": {"alphabet": "01", "length": 3}}, "exactly one of 'suffix_tokens' and"),
        ({"suffix": "rare"}, "'rare-8' needs 'items'"),
        ({"suffix": "none"}, "leaves out 'suffix_tokens' and 'secret'"),
        ({"suffix": "none", "suffix_tokens": None}, "'none' needs 'items'"),
        ({"template": "{secret} {secret}"}, "may hold \\{secret\\} once only"),
        ({"suffix_tokens": None, "grid": GRID}, "'none' needs 'items'"),
        ({"grid": GRID}, "'suffix_tokens' and 'grid' are both given"),
        ({"candidates": "some"}, "'all'"),
    ],
)
def test_wrong_templates(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "exactly one of 'suffix_tokens' and 'secret' must be given \\(or a 'grid'\\)"),
        ({"suffix": "rare"}, "exactly one of"),
        ({"suffix": "rare", "suffix_tokens": 0}, "needs 'suffix_tokens', 1 or more"),
        ({"suffix": "rare", "suffix_tokens": 2, "candidates": 3}, "drawn at random"),
        ({"suffix_tokens": 2, "candidates": "all"}, "needs 'count'"),
        ({"secret": {"alphabet": "01", "length": 3}, "prefix_tokens": 3}, "leave out 'prefix_tok"),
        ({"grid": {"suffixes": ["rare"]}}, "give both or neither"),
        ({"grid": {"suffixes": ["none"], "lengths": [1]}}, "give both or neither"),
        ({"grid": {**GRID, "lengths": [3, 3]}}, "given more than once: 3"),
        ({"grid": {**GRID, "copies": [1]}}, "go together"),
        ({"grid": {**GRID, "holdout": 4}}, "'holdout' goes with"),
        ({"grid": {**GRID, "copies": [1], "items": 3}}, "leave out 'arms'"),
        ({"grid": {**GRID, "suffixes": ["rares"]}}, "'rare'"),
    ],
)
def test_wrong_sections(changes, message):
    with pytest.raises(ValidationError, match=message):
        of_documents(**changes)
