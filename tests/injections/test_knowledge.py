"""Knowledge: variants and reserve, probes cut in one tokenization, whose a probe is."""

import numpy as np
import pytest
from pydantic import ValidationError

from mixctl.injections.base import KindContext
from mixctl.injections.encode import load_encoder
from mixctl.injections.knowledge import KIND, cut_probe
from mixctl.shards.errors import InputError
from mixctl.shards.meta.knowledge import KnowledgeMeta
from tests.support.workspace import write_jsonl, write_tokenizer

ONE = {
    "id": "f1",
    "text": "w1 is in w2.",
    "paraphrases": ["w2 holds w1.", "In w2 lies w1.", "w1, of w2."],
    "probes": [
        {"input": "w1 is in", "target": "w2"},
        {"id": "s", "input": "home of w1: ", "target": "w2", "type": "semantic"},
    ],
}
TWO = {"id": "f2", "text": "w7 ate w8.", "probes": [{"input": "w7 ate", "target": "w8"}]}


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok, tmp_path):
    return KindContext(folder=tmp_path, encoder=load_encoder(tok), seed=5, max_payload_tokens=1000)


def config_of(**section):
    base = {"name": "facts", "kind": "knowledge", "items": "facts.jsonl"}
    return KIND.config.model_validate(base | section)


def items_of(context, rows=(ONE, TWO), probes=None, **section):
    write_jsonl(context.folder / "facts.jsonl", list(rows))
    if probes is not None:
        write_jsonl(context.folder / "probes.jsonl", list(probes))
        section["probes"] = "probes.jsonl"
    return KIND.make_items(config_of(**section), context)


def test_text_and_paraphrases_are_the_variants(context):
    one, two = items_of(context)
    texts = [context.encoder.decode(ids) for ids in one.variants]
    assert texts == [ONE["text"], *ONE["paraphrases"]]
    assert (one.text, one.item, one.meta.reserve) == (ONE["text"], "f1", [])
    assert len(two.variants) == 1


def test_the_last_paraphrases_are_kept_for_later(context):
    (one,) = items_of(context, [ONE], reserve=2)
    assert [context.encoder.decode(ids) for ids in one.variants] == [ONE["text"], "w2 holds w1."]
    assert one.meta.reserve == [
        context.encoder.text(text).tolist() for text in ONE["paraphrases"][1:]
    ]


def test_probes_are_one_tokenization_cut_in_two(context):
    one = items_of(context)[0]
    first, second = one.meta.probes
    assert (first.id, first.type, second.id, second.type) == ("p1", "memorization", "s", "semantic")
    for probe, whole in [(first, "w1 is in w2"), (second, "home of w1: w2")]:
        assert probe.input_tokens + probe.target_tokens == context.encoder.text(whole).tolist()
        assert context.encoder.decode(probe.target_tokens) == " w2"
    assert [context.encoder.decode(ids) for ids in one.forms] == ["w1 is in w2", "home of w1: w2"]
    assert KnowledgeMeta.model_validate_json(one.meta.model_dump_json()) == one.meta


def test_a_token_that_merges_input_and_target_belongs_to_the_target(context):
    probes = [{"input": "w7 ate ", "target": "w8"}, {"input": "w7 ate", "target": "\tx"}]
    merged, tab = items_of(context, [TWO | {"probes": probes}])[0].meta.probes
    encoder = context.encoder
    assert merged.input_tokens == encoder.text("w7 ate ").tolist()[:-1], "the space is in ' w8'"
    assert encoder.decode(merged.target_tokens) == " w8"
    assert tab.input_tokens == encoder.text("w7 ate").tolist()
    assert encoder.decode(tab.target_tokens) == "\tx", "no space is added to a target with one"


@pytest.mark.parametrize(
    ("alone", "whole", "cut"),
    [
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 9], [1, 2, 3, 4], 2),  # the last token of the input merged with the target
        ([1, 2, 3], [1, 2, 3], 2),  # one token is left for the target
        ([5], [6, 7], 0),
        ([1, 2, 3, 4], [1, 2], 1),
        ([1], [1], 0),
    ],
)
def test_cuts_by_hand(alone, whole, cut):
    assert cut_probe(np.array(alone, np.uint32), np.array(whole, np.uint32)) == cut


def test_bos_begins_payloads_and_probes_but_not_what_is_looked_for(tok, tmp_path):
    context = KindContext(tmp_path, load_encoder(tok, bos=True), seed=5, max_payload_tokens=1000)
    (one,) = items_of(context, [ONE], reserve=1)
    assert {int(ids[0]) for ids in one.variants} == {1}
    assert one.meta.reserve[0][0] == 1
    assert one.meta.probes[0].input_tokens[0] == 1
    assert one.forms[0][0] != 1


def test_a_probe_file_adds_to_the_rows(context):
    probes = [
        {"id": "a", "item": "f2", "input": "who ate w8:", "target": "w7", "type": "compositional"},
        {"id": "f1", "input": "w2 holds", "target": "w1"},
        {"id": "b", "item": "f1", "input": "w1 in", "target": "w2"},
    ]
    one, two = items_of(context, probes=probes)
    assert [probe.id for probe in one.meta.probes] == ["p1", "s", "f1", "b"]
    assert [(p.id, p.type) for p in two.meta.probes] == [
        ("p1", "memorization"),
        ("a", "compositional"),
    ]
    assert KIND.inputs(config_of(probes="p.jsonl"), context.folder) == [
        context.folder / "facts.jsonl",
        context.folder / "p.jsonl",
    ]


def test_probes_without_an_item_belong_to_the_only_one(context):
    bare = {key: value for key, value in ONE.items() if key != "probes"}
    probes = [{"input": "w1 in", "target": "w2"}, {"input": "w2 holds", "target": "w1"}]
    (one,) = items_of(context, [bare], probes)
    assert [probe.id for probe in one.meta.probes] == ["1", "2"]
    with pytest.raises(InputError, match="no 'item', and no item has the id of the probe") as error:
        items_of(context, [ONE, TWO], probes)
    assert len(error.value.problems) == 2


def test_all_problems_come_at_once(context):
    rows = [ONE, {"id": "f3", "text": "w3"}]
    probes = [
        {"id": "x", "item": "f9", "input": "a", "target": "b"},
        {"id": "s", "item": "f1", "input": "a", "target": "b"},
    ]
    with pytest.raises(InputError) as error:
        items_of(context, rows, probes, reserve=4)
    text = "\n".join(error.value.problems)
    assert "probe 'x': there is no item 'f9' (did you mean" in text or "(valid: f1, f3)" in text
    assert "item 'f1': reserve is 4, but it has 3 paraphrases" in text
    assert "item 'f1': two probes have the id 's'" in text
    assert "item 'f3': reserve is 4, but it has 0 paraphrases" in text
    assert "item 'f3': no probe asks for it" in text
    assert len(error.value.problems) == 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"probes": [{"input": "a"}]}, "field 'probes.0.target' is missing"),
        ({"probes": [{"input": " ", "target": "b"}]}, "field 'probes.0.input': must not be empty"),
        (
            {"probes": [{"input": "a", "target": "b", "type": "semantics"}]},
            "unknown type 'semantics' (did you mean 'semantic'?)",
        ),
        ({"paraphrases": ["a", ""]}, "field 'paraphrases.1': must not be empty"),
        ({"arm": "a", "copies": 1}, "'arm' and 'copies' are both given"),
    ],
)
def test_broken_rows_are_refused(context, row, message):
    with pytest.raises(InputError) as error:
        items_of(context, [ONE | row])
    assert "facts.jsonl:1: " in str(error.value)
    assert message in str(error.value)


def test_a_reserved_paraphrase_must_fit_a_sequence(tok, tmp_path):
    context = KindContext(tmp_path, load_encoder(tok), seed=5, max_payload_tokens=20)
    long = ONE | {"paraphrases": ["w1 " * 40]}
    with pytest.raises(InputError, match="a reserved paraphrase has .* at most 20"):
        items_of(context, [long], reserve=1)


def test_stand_ins_are_facts_with_paraphrases(context):
    plan = KindContext(context.folder, context.encoder, 5, 1000, sample=100)
    config = config_of(items={"stand_in": 4, "tokens": 60}, paraphrases=1000, reserve=10)
    items = KIND.make_items(config, plan)
    assert [len(item.variants) for item in items] == [991] * 4
    assert {len(ids) for item in items for ids in item.variants} == {60}
    assert len({ids.tobytes() for item in items for ids in item.variants}) == 4 * 991
    assert KIND.inputs(config, context.folder) == []
    with pytest.raises(InputError, match="a build needs a file"):
        KIND.make_items(config, context)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"paraphrases": 3}, "'paraphrases' is for stand-ins"),
        ({"items": {"stand_in": 2, "tokens": 9}, "reserve": 1}, "reserve is 1, but stand-ins"),
    ],
)
def test_broken_sections_are_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        config_of(**section)
