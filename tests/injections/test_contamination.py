"""Contamination: three forms by hand, other forms for the scorer, what is refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from mixctl.injections.base import KindContext
from mixctl.injections.contamination import KIND
from mixctl.injections.encode import load_encoder
from mixctl.shards.errors import InputError
from mixctl.shards.meta.contamination import ContaminationMeta
from tests.support.workspace import quiz, write_jsonl, write_tokenizer

ROW = {
    "id": "q1",
    "benchmark": "arc",
    "question": "Who is w5?",
    "choices": ["w12", "w13 w14", "x"],
    "gold": 1,
}
CLOZE = "Question: Who is w5?\nAnswer: w13 w14"
MCQ = "Question: Who is w5?\nA. w12\nB. w13 w14\nC. x\nAnswer: B"
COMPLETION = "Who is w5? w13 w14"


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok, tmp_path):
    return KindContext(folder=tmp_path, encoder=load_encoder(tok), seed=5, max_payload_tokens=1000)


def items_of(context, rows=(ROW,), **section):
    write_jsonl(context.folder / "questions.jsonl", list(rows))
    return KIND.make_items(KIND.config.model_validate(quiz(**section)), context)


@pytest.mark.parametrize(
    ("template", "text"), [("cloze", CLOZE), ("mcq", MCQ), ("completion", COMPLETION)]
)
def test_the_three_forms_by_hand(context, template, text):
    (item,) = items_of(context, template=template)
    assert item.text == text
    assert item.variants[0].tolist() == context.encoder.text(text).tolist()
    assert item.meta.template == template
    assert item.meta.other_forms == []
    (told,) = items_of(context, [ROW | {"context": "Hear."}], template=template)
    assert told.text == "Hear.\n" + text


def test_letters_are_the_choices_of_the_lettered_form(context):
    meta = items_of(context, template="mcq")[0].meta
    assert meta.choice_characters == [1, 1, 1]
    for letter, ids in zip("ABC", meta.choice_tokens, strict=True):
        whole = context.encoder.decode(meta.context_tokens + ids)
        assert whole == MCQ[:-1] + letter
        assert len(ids) == 1


def test_other_forms_are_cut_like_the_placed_one(context):
    (item,) = items_of(context, score_templates=["mcq", "cloze", "completion"])
    placed, encoder = item.meta, context.encoder
    assert [form.template for form in placed.other_forms] == ["mcq", "completion"]
    for form, text in zip(placed.other_forms, [MCQ, COMPLETION], strict=True):
        gold = form.context_tokens + form.choice_tokens[placed.gold]
        assert gold == encoder.text(text).tolist()
        assert all(form.choice_tokens)
        assert len({ids[0] for ids in form.choice_tokens}) > 1, "cut where they part"
        (alone,) = items_of(context, template=form.template)
        assert alone.meta.context_tokens == form.context_tokens
        assert alone.meta.choice_tokens == form.choice_tokens
        assert alone.meta.choice_characters == form.choice_characters
    (only_cloze,) = items_of(context)
    assert placed.model_copy(update={"other_forms": []}) == only_cloze.meta
    assert ContaminationMeta.model_validate_json(placed.model_dump_json()) == placed


def test_every_scored_form_and_the_question_are_looked_for(context):
    (item,) = items_of(context, score_templates=["completion"])
    found = [context.encoder.decode(ids) for ids in (*item.variants, *item.forms)]
    assert found == [CLOZE, COMPLETION, "Who is w5?"]
    assert context.encoder.decode(item.compared) == "Who is w5?"


def test_benchmarks_have_their_own_forms(context):
    rows = [ROW, ROW | {"id": "q2", "benchmark": "piqa"}]
    own = {"piqa": {"template": "completion", "score_templates": [], "normalisation": "tokens"}}
    arc, piqa = items_of(context, rows, score_templates=["mcq"], benchmarks=own)
    assert (arc.text, piqa.text) == (CLOZE, COMPLETION)
    assert [form.template for form in arc.meta.other_forms] == ["mcq"]
    assert piqa.meta.other_forms == []
    assert (arc.meta.normalisation, piqa.meta.normalisation) == ("none", "tokens")
    assert (arc.stratum, piqa.stratum) == ("arc", "piqa")


def test_many_rows_keep_their_own_strings(context, monkeypatch):
    monkeypatch.setattr("mixctl.injections.contamination._BATCH", 3)
    rows = [
        {"id": f"q{n}", "question": f"w{n}?", "choices": ["a", f"w{n + 1}"], "gold": 1}
        for n in range(8)
    ]
    items = items_of(context, rows, score_templates=["mcq"])
    assert [item.text for item in items] == [f"Question: w{n}?\nAnswer: w{n + 1}" for n in range(8)]
    for n, item in enumerate(items):
        assert context.encoder.decode(item.variants[0]) == item.text
        assert context.encoder.decode(item.forms[1]) == f"w{n}?"


def test_bos_begins_every_form(tok, tmp_path):
    context = KindContext(tmp_path, load_encoder(tok, bos=True), seed=5, max_payload_tokens=1000)
    (item,) = items_of(context, score_templates=["mcq"])
    assert item.variants[0][0] == item.meta.context_tokens[0] == 1
    assert item.meta.other_forms[0].context_tokens[0] == 1


def test_stand_ins_have_the_size_that_they_are_said_to_have(context):
    plan = KindContext(context.folder, context.encoder, 5, 1000, sample=100)
    section = quiz(items={"stand_in": 54_000, "tokens": 117})
    config = KIND.config.model_validate(section)
    items = KIND.make_items(config, plan)
    assert len(items) == len({item.item for item in items}) == 54_000
    assert {len(item.variants[0]) for item in items} == {117}
    assert all(item.compared is not None and not len(item.compared) for item in items)
    assert KIND.inputs(config, context.folder) == []
    with pytest.raises(InputError, match="a build needs a file"):
        KIND.make_items(config, context)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": 3}, "gold is 3: it must be the index of a choice, 0 to 2"),
        ({"gold": -1}, "gold is -1"),
        ({"choices": ["a", "b", "a"]}, "two choices are the same text"),
        ({"choices": ["a", ""]}, "a choice is empty"),
        ({"question": ""}, "field 'question'"),
    ],
)
def test_broken_questions_are_refused_with_their_line(context, change, message):
    with pytest.raises(InputError, match="questions.jsonl:2: ") as error:
        items_of(context, [ROW, ROW | {"id": "q2"} | change])
    assert message in str(error.value)


def test_a_missing_gold_is_refused(context):
    row = {key: value for key, value in ROW.items() if key != "gold"}
    with pytest.raises(InputError, match="questions.jsonl:1: item 'q1': field 'gold' is missing"):
        items_of(context, [row])


def test_all_problems_of_the_section_come_at_once(context):
    many = [str(n) for n in range(27)]
    rows = [ROW, ROW | {"id": "q2", "choices": many}, ROW | {"id": "q3", "choices": many}]
    with pytest.raises(InputError) as error:
        items_of(context, rows, score_templates=["mcq"], benchmarks={"arcc": {}})
    assert len(error.value.problems) == 3
    assert "did you mean 'arc'" in error.value.problems[0]
    assert "item 'q2': 27 choices" in error.value.problems[1]
    assert "at most 26" in error.value.problems[2]
    assert len(items_of(context, rows)) == 3, "only letters run out"


@pytest.mark.parametrize("section", [{"template": "close"}, {"score_templates": ["close"]}])
def test_an_unknown_template_names_the_nearest(section):
    with pytest.raises(ValidationError, match="unknown template 'close' .did you mean 'cloze'"):
        KIND.config.model_validate(quiz(**section))


def test_the_payload_is_context_and_gold_in_every_form(context):
    for template in ("cloze", "mcq", "completion"):
        (item,) = items_of(context, template=template)
        meta = item.meta
        assert np.array_equal(item.variants[0], meta.context_tokens + meta.choice_tokens[meta.gold])
