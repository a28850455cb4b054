"""Verbatim: strings as given, cut to length, never placed."""

import pytest
from pydantic import ValidationError

from mixctl.injections.base import KindContext
from mixctl.injections.encode import load_encoder
from mixctl.injections.verbatim import KIND
from mixctl.shards.errors import InputError
from tests.support.workspace import write_jsonl, write_tokenizer


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok, tmp_path):
    return KindContext(folder=tmp_path, encoder=load_encoder(tok), seed=5, max_payload_tokens=1000)


def config_of(**section):
    base = {"name": "gone", "kind": "verbatim", "items": "strings.jsonl"}
    return KIND.config.model_validate(base | section)


def items_of(context, rows, **section):
    write_jsonl(context.folder / "strings.jsonl", rows)
    return KIND.make_items(config_of(**section), context)


def test_strings_are_taken_as_they_are(context):
    text = "w1 w2 w3 w4 w5 w6 w7 w8 w9"
    rows = [{"id": "a", "tokens": list(range(300, 350))}, {"id": "b", "text": text, "cluster": 7}]
    a, b = items_of(context, rows, prefix_tokens=3)
    assert a.variants[0].tolist() == list(range(300, 350))
    assert (a.meta.prefix_length, a.meta.suffix_length) == (3, 47)
    assert b.variants[0].tolist() == context.encoder.text(text).tolist()
    assert (b.text, b.cluster) == (text, "7")
    assert (b.meta.prefix_length, b.meta.suffix_length) == (3, len(b.variants[0]) - 3)
    assert a.text == context.encoder.decode(a.variants[0])


def test_longer_strings_are_cut_and_shorter_ones_refused(context):
    rows = [{"id": n, "tokens": list(range(300, 300 + n))} for n in (50, 51, 80)]
    items = items_of(context, rows, length=50)
    assert [item.variants[0].tolist() for item in items] == [list(range(300, 350))] * 3
    assert {(i.meta.prefix_length, i.meta.suffix_length) for i in items} == {(25, 25)}
    with pytest.raises(InputError) as error:
        items_of(
            context, [*rows, {"id": "x", "tokens": [5] * 49}, {"id": "y", "tokens": [5]}], length=50
        )
    assert error.value.problems == [
        "experiment 'gone': item 'x': 49 tokens; it must have at least 50 (length)",
        "experiment 'gone': item 'y': 1 tokens; it must have at least 50 (length)",
    ]


@pytest.mark.parametrize(("prefix", "least"), [(3, 8), (7, 8), (25, 26)])
def test_the_shortest_string(context, prefix, least):
    (item,) = items_of(context, [{"tokens": [5] * least}], prefix_tokens=prefix)
    assert item.meta.suffix_length == least - prefix
    with pytest.raises(InputError, match=f"{least - 1} tokens; it must have at least {least} "):
        items_of(context, [{"tokens": [5] * (least - 1)}], prefix_tokens=prefix)


def test_bos_is_no_part_of_a_string(tok, tmp_path):
    context = KindContext(tmp_path, load_encoder(tok, bos=True), seed=5, max_payload_tokens=1000)
    text = "w1 w2 w3 w4 w5 w6 w7 w8 w9"
    a, b = items_of(context, [{"text": text}, {"tokens": [1] * 9}], prefix_tokens=2)
    assert a.variants[0].tolist() == context.encoder.text(text).tolist()
    assert b.variants[0].tolist() == [1] * 9


def test_control_tokens_and_unknown_tokens_are_refused(context):
    rows = [{"tokens": [5] * 30 + [context.encoder.eod_id]}, {"tokens": [100_000] * 30}]
    with pytest.raises(InputError) as error:
        items_of(context, rows)
    assert "end-of-document token" in error.value.problems[0]
    assert "outside the vocabulary" in error.value.problems[1]


def test_nothing_is_placed(context):
    assert KIND.absent
    (arm,) = config_of().arms
    assert (arm.name, arm.items, arm.copies) == ("purged", "rest", 0)
    with pytest.raises(ValidationError, match="arms 'b': copies must be 0"):
        config_of(arms=[{"name": "a", "copies": 0}, {"name": "b", "copies": 2}])
    with pytest.raises(ValidationError, match="prefix_tokens is 25: it must be below length, 20"):
        config_of(length=20)
    with pytest.raises(InputError, match="item '1': copies is 3; it must be 0"):
        items_of(context, [{"tokens": [5] * 30, "copies": 3}])


def test_stand_ins_and_expected_tokens_are_for_plans(context):
    plan = KindContext(context.folder, context.encoder, 5, 1000, sample=100)
    config = config_of(items={"stand_in": 1000, "tokens": 60}, length=50, expected_tokens="1.1B")
    items = KIND.make_items(config, plan)
    assert len(items) == 1000
    assert {len(item.variants[0]) for item in items} == {50}
    assert config.expected_tokens == 1_100_000_000
    assert KIND.inputs(config, context.folder) == []
    with pytest.raises(InputError, match="a build needs a file"):
        KIND.make_items(config, context)
    short = config_of(items={"stand_in": 1000, "tokens": 20})
    with pytest.raises(InputError, match="20 tokens; it must have at least 26"):
        KIND.make_items(short, plan)
