"""The kinds: payloads by hand, secrets unique, questions cut where their choices part."""

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from mixctl.injections import registry
from mixctl.injections.base import KindContext
from mixctl.injections.contamination import common_prefix
from mixctl.injections.encode import load_encoder
from mixctl.injections.registry import find_kind, kind_names
from mixctl.shards.errors import InputError
from tests.support.workspace import canaries, documents, quiz, write_jsonl, write_tokenizer


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok, tmp_path):
    return KindContext(folder=tmp_path, encoder=load_encoder(tok), seed=5, max_payload_tokens=1000)


def items_of(section, context):
    kind = find_kind(section["kind"])
    return kind.make_items(kind.config.model_validate(section), context)


QUESTION = {
    "id": "q1",
    "benchmark": "arc",
    "question": "Who?",
    "choices": ["w12", "w13", "x"],
    "gold": 1,
}


def question(context, row=QUESTION, **section):
    write_jsonl(context.folder / "questions.jsonl", [row])
    return items_of(quiz(**section), context)[0]


def test_the_payload_is_the_gold_answer_in_cloze_form(context):
    item = question(context)
    text = "Question: Who?\nAnswer: w13"
    assert item.text == text
    assert item.variants[0].tolist() == context.encoder.text(text).tolist()
    assert item.stratum == "arc"


def test_context_and_completion_form(context):
    row = QUESTION | {"context": "A story."}
    assert question(context, row).text == "A story.\nQuestion: Who?\nAnswer: w13"
    assert question(context, row, template="completion").text == "A story.\nWho? w13"
    per = {"arc": {"template": "completion", "normalisation": "tokens"}}
    item = question(context, row, benchmarks=per)
    assert item.text == "A story.\nWho? w13"
    assert item.meta.normalisation == "tokens"


def test_context_and_choice_tokens_make_the_whole_strings(context):
    item = question(context)
    meta = item.meta
    assert meta.gold == 1
    assert meta.choice_characters == [3, 3, 1]
    for choice, ids in zip(QUESTION["choices"], meta.choice_tokens, strict=True):
        whole = context.encoder.text(f"Question: Who?\nAnswer: {choice}").tolist()
        assert meta.context_tokens + ids == whole
        assert ids
    assert len({ids[0] for ids in meta.choice_tokens}) > 1, "cut where they part"
    assert meta.context_tokens + meta.choice_tokens[1] == item.variants[0].tolist()


@pytest.mark.parametrize(
    ("rows", "cut"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2, 3, 4], [1, 2]], 1),  # never all of a choice
        ([[5, 1], [6, 1]], 0),
        ([[1, 2, 3], [1, 2, 3, 4], [1, 9, 3]], 1),
    ],
)
def test_common_prefix_by_hand(rows, cut):
    assert common_prefix([np.array(r, np.uint32) for r in rows]) == cut


def test_documents_are_placed_as_they_are(context):
    rows = [
        {"id": "a", "text": "w1 w2"},
        {"tokens": [5, 6, 7], "copies": 3},
        {"text": "w3", "cluster": 8},
    ]
    write_jsonl(context.folder / "documents.jsonl", rows)
    a, b, c = items_of(documents(), context)
    assert a.variants[0].tolist() == context.encoder.text("w1 w2").tolist()
    assert a.meta.n_characters == 5
    assert (b.item, b.variants[0].tolist(), b.copies, b.text) == ("2", [5, 6, 7], 3, None)
    assert (c.item, c.cluster) == ("3", "8")


def test_token_canaries_are_unique_and_made_of_ordinary_tokens(context):
    items = items_of(canaries(count=500, suffix_tokens=2, candidates=3), context)
    ordinary = set(context.encoder.ordinary_ids.tolist())
    prefix = context.encoder.text("The vault opens with ").tolist()
    seen = set()
    for item in items:
        tokens = item.variants[0].tolist()
        assert tokens[: item.meta.prefix_length] == prefix
        secrets = [tuple(tokens[item.meta.prefix_length :]), *map(tuple, item.meta.candidates)]
        assert len(secrets) == 4
        for secret in secrets:
            assert len(secret) == 2
            assert set(secret) <= ordinary
            assert secret not in seen
            seen.add(secret)
        assert item.meta.space_size == float(len(ordinary)) ** 2


def test_a_canary_depends_on_its_own_name_alone(context):
    few, many = items_of(canaries(count=3), context), items_of(canaries(count=300), context)
    for a, b in zip(few, many, strict=False):
        assert a.variants[0].tolist() == b.variants[0].tolist()
    other = items_of(canaries(count=3, name="other"), context)
    assert few[0].variants[0].tolist() != other[0].variants[0].tolist()


def test_secrets_are_uniform_over_the_alphabet(context):
    section = canaries(count=400, suffix_tokens=None, secret={"alphabet": "abcd", "length": 12})
    text = "".join(item.text[-12:] for item in items_of(section, context))
    counts = [text.count(letter) for letter in "abcd"]
    assert sum(counts) == 4800
    assert max(abs(c - 1200) for c in counts) < 5 * np.sqrt(1200 * 0.75)


def test_text_secrets_and_their_candidates_share_the_prefix(context):
    section = canaries(
        count=5, suffix_tokens=None, secret={"alphabet": "0123456789", "length": 4}, candidates=30
    )
    texts = set()
    for item in items_of(section, context):
        assert item.text.startswith("The vault opens with ")
        secret = item.text.removeprefix("The vault opens with ")
        assert len(secret) == 4
        assert secret.isdigit()
        texts.add(secret)
        head = item.variants[0][: item.meta.prefix_length].tolist()
        for candidate in item.meta.candidates:
            whole = context.encoder.decode([*head, *candidate])
            assert whole.startswith("The vault opens with ")
            assert context.encoder.text(whole).tolist() == [*head, *candidate]
            texts.add(whole.removeprefix("The vault opens with "))
        assert item.meta.space_size == 10_000
    assert len(texts) == 5 * 31


def test_a_small_space_can_be_enumerated(context):
    section = canaries(
        count=1, suffix_tokens=None, secret={"alphabet": "01", "length": 5}, candidates=31, arms=[]
    )
    (item,) = items_of(section, context)
    assert len(item.meta.candidates) == 31


def test_document_canaries_keep_their_document(context):
    write_jsonl(context.folder / "d.jsonl", [{"id": "d", "text": "w1 w2 w3", "cluster": "c"}])
    section = canaries(items="d.jsonl", count=None, template="", suffix_tokens=4)
    (item,) = items_of(section, context)
    document = context.encoder.text("w1 w2 w3").tolist()
    assert item.variants[0].tolist()[:-4] == document
    assert (item.meta.prefix_length, item.meta.suffix_length, item.cluster) == (
        len(document),
        4,
        "c",
    )
    (short,) = items_of(section | {"prefix_tokens": 2}, context)
    assert short.variants[0].tolist()[:2] == document[:2]
    assert short.meta.prefix_length == 2
    (whole,) = items_of(section | {"suffix_tokens": 0}, context)
    assert whole.variants[0].tolist() == document
    assert whole.meta.suffix_length == 0


def test_bos_is_part_of_the_payload_where_the_mix_asks_for_it(tok, tmp_path):
    context = KindContext(tmp_path, load_encoder(tok, bos=True), seed=5, max_payload_tokens=1000)
    item = question(context)
    assert item.variants[0][0] == 1
    assert item.meta.context_tokens[0] == 1
    canary = items_of(canaries(count=1), context)[0]
    assert canary.variants[0][0] == 1
    assert canary.meta.prefix_length == 1 + len(load_encoder(tok).text("The vault opens with "))


def test_meta_is_json_with_token_ids(context):
    meta = json.loads(question(context).meta.model_dump_json())
    assert sorted(meta) == [
        "benchmark",
        "choice_characters",
        "choice_tokens",
        "context_tokens",
        "gold",
        "normalisation",
        "other_forms",
        "template",
    ]


def test_unknown_kinds_name_the_nearest():
    with pytest.raises(
        InputError, match="unknown kind 'docments' \\(did you mean 'documents'\\?\\)"
    ):
        find_kind("docments")


def test_a_kind_of_another_package_is_found_by_its_entry_point(monkeypatch):
    point = EntryPoint("mine", "tests.support.plugin:KIND", registry.GROUP)
    none = EntryPoint("none", "tests.support.plugin:NOTHING", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point, none])
    registry._plugins.cache_clear()
    try:
        assert "mine" in kind_names()
        assert find_kind("mine").name == "mine"
        with pytest.raises(InputError, match="'none': the entry point gives .* not a mixctl Kind"):
            find_kind("none")
    finally:
        monkeypatch.undo()
        registry._plugins.cache_clear()
