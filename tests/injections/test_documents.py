"""Documents: steps of every copy, minimal pairs and their controls, stand-ins, large files."""

import random

import numpy as np
import pytest

from mixctl.injections.base import KindContext
from mixctl.injections.documents import KIND, DocumentsConfig, read_documents
from mixctl.injections.encode import load_encoder
from mixctl.shards.errors import InputError
from tests.support.workspace import EOD, documents, random_text, write_jsonl, write_tokenizer


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok, tmp_path):
    return KindContext(tmp_path, load_encoder(tok), 5, 60, global_batch=8, steps=200)


def items_of(rows, context, **changes):
    write_jsonl(context.folder / "documents.jsonl", rows)
    return KIND.make_items(DocumentsConfig.model_validate(documents(**changes)), context)


def problems_of(rows, context):
    with pytest.raises(InputError) as error:
        items_of(rows, context)
    return error.value.problems


def test_steps_are_the_copies(context):
    rows = [
        {"id": "a", "text": "w1", "steps": [100, 20]},
        {"id": "b", "text": "w2", "steps": [7], "copies": 1},
        {"id": "c", "text": "w3", "copies": 3},
        {"id": "d", "text": "w4", "arm": "late"},
    ]
    found = [(i.item, i.copies, i.steps, i.arm) for i in items_of(rows, context)]
    assert found == [
        ("a", 2, (100, 20), None),
        ("b", 1, (7,), None),
        ("c", 3, None, None),
        ("d", None, None, "late"),
    ]


def test_wrong_steps_are_all_named(context):
    found = problems_of(
        [
            {"text": "x", "steps": [1, 2], "copies": 3},
            {"text": "x", "steps": [1], "arm": "a"},
            {"text": "x", "steps": [0]},
            {"text": "x", "steps": []},
        ],
        context,
    )
    for part in (
        ":1: 'copies' is 3, but 'steps' gives the steps of 2",
        ":2: 'arm' and 'steps' are both given",
        ":3: field 'steps.0': Input should be greater than or equal to 1",
        ":4: field 'steps': List should have at least 1 item",
    ):
        assert any(part in message for message in found), (part, found)
    found = problems_of([{"id": "a", "text": "x", "steps": [200, 201, 999]}], context)
    assert found == [
        f"experiment 'docs': item 'a': steps: step {step} is outside the run, which has steps "
        "1 to 200"
        for step in (201, 999)
    ]


def test_a_minimal_pair_is_one_cluster_with_its_controls_beside(context):
    rows = [
        {"id": "a", "text": "w1 w2", "pair": "p", "control_text": f"w1 w3 {EOD}"},
        {"id": "b", "tokens": [9, 8], "pair": "p"},
        {"id": "c", "tokens": [9, 7], "control_tokens": [9, 6], "pair": 3},
        {"id": "d", "text": "w4", "cluster": "p"},
    ]
    a, b, c, d = items_of(rows, context)
    assert a.cluster == b.cluster == "pair p"
    assert len({a.cluster, c.cluster, d.cluster}) == 3
    control = context.encoder.text(f"w1 w3 {EOD}").tolist()
    assert [i.meta.control_tokens for i in (a, b, c, d)] == [control, [], [9, 6], []]
    assert [i.meta.pair for i in (a, b, c, d)] == ["p", "p", "3", None]
    assert [ids.tolist() for ids in a.forms] == [control], "the base corpus is searched for it"
    assert [ids.tolist() for ids in a.variants] == [context.encoder.text("w1 w2").tolist()]
    assert b.forms == d.forms == ()


def test_controls_begin_like_their_documents(tok, context):
    bos = KindContext(context.folder, load_encoder(tok, bos=True), 5, 60, steps=200)
    (item,) = items_of([{"text": "w1", "control_text": "w2"}], bos)
    assert item.variants[0][0] == item.meta.control_tokens[0] == 1
    assert item.meta.control_tokens[1:] == context.encoder.text("w2").tolist()


def test_wrong_pairs_are_all_named(context):
    found = problems_of(
        [
            {"text": "x", "pair": "p", "cluster": "c"},
            {"text": "x", "control_text": "y", "control_tokens": [5]},
            {"text": "x", "control_tokens": []},
            {"text": "x", "control_tokens": [5, -1]},
            {"text": "x", "control_tokens": [5, True]},
        ],
        context,
    )
    for part in (
        ":1: 'pair' and 'cluster' are both given",
        ":2: 'control_text' and 'control_tokens' are both given",
        ":3: field 'control_tokens': must be a list of token ids",
        ":4: field 'control_tokens': must hold token ids, 0 to 4294967295; -1 is none",
        ":5: field 'control_tokens': must hold token ids, 0 to 4294967295; True is none",
    ):
        assert any(part in message for message in found), (part, found)
    found = problems_of(
        [
            {"id": "far", "text": "x", "control_tokens": [600]},
            {"id": "end", "text": "x", "control_tokens": [5, 0]},
            {"id": "same", "tokens": [5, 6], "control_tokens": [5, 6]},
        ],
        context,
    )
    for part in (
        "item 'far': control: token 600 is outside the vocabulary",
        "item 'end': control: holds the end-of-document token 0",
        "item 'same': control: is the document itself",
    ):
        assert any(part in message for message in found), (part, found)
    (lonely,) = problems_of([{"id": "a", "text": "x", "pair": "p"}], context)
    assert "item 'a': pair 'p' has no other row, and this one no control_text" in lonely


def test_texts_are_tokenized_the_same_in_batches(context):
    chance = random.Random(3)
    rows = [{"text": random_text(chance, 4)} for _ in range(2100)]
    rows[1000:1000] = [{"tokens": [9, 8, 7]}]
    items = items_of(rows, context)
    for row, item in zip(rows, items, strict=True):
        whole = row.get("tokens") or context.encoder.text(row["text"]).tolist()
        assert item.variants[0].tolist() == whole


def test_other_kinds_read_plain_rows_alone(context):
    path = write_jsonl(context.folder / "a.jsonl", [{"text": "w1", "control_text": "w2"}])
    with pytest.raises(InputError, match="unknown field 'control_text'"):
        read_documents(path, context.encoder)


def test_stand_ins_are_for_the_plan_alone(context):
    section = documents(items={"stand_in": 50, "tokens": 30})
    config = DocumentsConfig.model_validate(section)
    assert KIND.inputs(config, context.folder) == []
    with pytest.raises(InputError, match="mixctl plan alone"):
        KIND.make_items(config, context)
    plan = KindContext(context.folder, context.encoder, 5, 60, steps=200, sample=10)
    items = KIND.make_items(config, plan)
    assert len({item.variants[0].tobytes() for item in items}) == 50
    assert all(item.variants[0].dtype == np.uint32 for item in items)
    assert {len(item.variants[0]) for item in items} == {30}
