"""watermark: green lists that a detector finds, strings exchangeable with their nulls, marks."""

import hashlib
import json
import random

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from mixctl.injections.base import BaseData, KindContext
from mixctl.injections.encode import load_encoder
from mixctl.injections.ngram_model import IMAGINED, NOTHING, fit
from mixctl.injections.watermark import KIND, WatermarkConfig
from mixctl.shards.errors import InputError
from mixctl.shards.green_list import (
    green_key,
    is_green,
    null_keys,
    score,
    score_tuples,
    tuples_of,
)
from tests.support.workspace import random_text, write_jsonl, write_tokenizer

MASK = 2**64 - 1


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok, tmp_path):
    return KindContext(
        folder=tmp_path,
        encoder=load_encoder(tok),
        seed=5,
        max_payload_tokens=1000,
        sequence_tokens=65,
        global_batch=8,
        steps=200,
    )


@pytest.fixture(scope="module")
def corpus(tok):
    """Documents of a language with habits: each token has 24 tokens that like to follow it."""
    chance = random.Random(3)
    words = load_encoder(tok).ordinary_ids[100:220].tolist()
    likes = {word: chance.sample(words, 24) for word in words}
    rows = []
    for n in range(40):
        ids = [chance.choice(words)]
        while len(ids) < 202:
            ids.append(chance.choice(likes[ids[-1]]))
        rows.append({"id": f"d{n}", "tokens": ids})
    return rows


def short(rows):
    """Returns the rows with their first 50 tokens: quick to re-sample."""
    return [row | {"tokens": row["tokens"][:50]} for row in rows]


def config(**section):
    return WatermarkConfig.model_validate({"name": "mark", "kind": "watermark", **section})


def make(context, **section):
    return KIND.make_items(config(**section), context)


def green(context, rows, **section):
    write_jsonl(context.folder / "documents.jsonl", rows)
    return make(context, method="green-list", items="documents.jsonl", **section)


# An independent evaluator of the green rule, in plain integers.


def scrambled(value):
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def drawn(key, counter):
    return scrambled((scrambled(((counter * 0x9E3779B97F4A7C15) & MASK) ^ key) + key) & MASK)


def plainly_green(context, token, key, gamma):
    for one in context:
        key = drawn(key, one)
    return drawn(key, token) / 2**64 < gamma


def test_green_is_what_plain_integers_say():
    rng = np.random.default_rng(1)
    contexts, tokens = rng.integers(0, 50_000, (300, 3)), rng.integers(0, 50_000, 300)
    key = green_key(5, "mark", None)
    found = is_green(contexts, tokens, key, 0.3)
    assert found.tolist() == [
        plainly_green(c, t, key, 0.3)
        for c, t in zip(contexts.tolist(), tokens.tolist(), strict=True)
    ]
    parts = [f"{type(n).__name__[0]}{n}".encode() for n in (5, "green-list", "mark")]
    whole = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    assert key == int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")
    assert green_key(5, "mark", "s") == green_key(6, "other", "s") != key
    assert len({key, *null_keys(key, 50)}) == 51


def test_a_share_gamma_is_green_whatever_the_context():
    rng = np.random.default_rng(2)
    for width in (0, 1, 4):
        contexts, tokens = rng.integers(0, 500, (40_000, width)), rng.integers(0, 500, 40_000)
        n = int(is_green(contexts, tokens, 9, 0.25).sum())
        if width:
            assert abs(n - 10_000) < 5 * np.sqrt(40_000 * 0.25 * 0.75)
        else:
            assert len(set(tokens[is_green(contexts, tokens, 9, 0.25)].tolist())) in range(80, 170)


def test_the_order_of_the_context_matters():
    one, other = np.array([[3, 4]]), np.array([[4, 3]])
    same = [
        is_green(one, np.array([t]), 1, 0.5)[0] == is_green(other, np.array([t]), 1, 0.5)[0]
        for t in range(200)
    ]
    assert 60 < sum(map(int, same)) < 140


def test_a_score_by_hand():
    text = np.array([7, 8, 9, 7, 8, 9, 7, 8], dtype=np.uint32)
    assert tuples_of(text, 2).tolist()[:2] == [[7, 8, 9], [8, 9, 7]]
    found = score(text, 1, 0.25, 2)
    expected = sum(
        plainly_green(row[:2], row[2], 1, 0.25) for row in ([7, 8, 9], [8, 9, 7], [9, 7, 8])
    )
    assert (found.n, found.green) == (3, expected), "distinct tuples only"
    assert found.z == pytest.approx((expected - 0.75) / np.sqrt(3 * 0.25 * 0.75))
    assert found.p_value == pytest.approx(stats.binomtest(expected, 3, 0.25, "greater").pvalue)
    assert score(text[:2], 1, 0.25, 2).p_value == 1.0
    rng = np.random.default_rng(4)
    long = score_tuples(rng.integers(0, 900, (500, 3)), 1, 0.25)
    exact = stats.binomtest(long.green, long.n, 0.25, alternative="greater").pvalue
    assert long.p_value == pytest.approx(exact)


def test_repeated_tuples_would_fool_a_test_that_counts_them():
    """A text of few distinct tuples: the score over all of them is far too wide under the null."""
    rng = np.random.default_rng(5)
    once, often = [], []
    for key in range(300):
        text = rng.integers(0, 4, 400)
        found = score(text, key, 0.25, 1)
        once.append(found.z)
        hits = is_green(text[:-1, None], text[1:], key, 0.25).sum()
        often.append((hits - 0.25 * 399) / np.sqrt(399 * 0.25 * 0.75))
    assert np.std(once) < 1.25
    assert np.std(often) > 3


def test_the_ngram_model_by_hand():
    model = fit([np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([2, 3])], 6)
    n, v, m = 8, 6, IMAGINED
    one = (2 + 1) / (n + v)  # the token 3 occurs twice
    two = (2 + m * one) / (3 + m)  # 2 is followed by something 3 times, by 3 twice
    three = (1 + m * two) / (2 + m)
    column = np.array([[1]]), np.array([[2]]), np.array([[3]])
    assert model.log_p(*column)[0, 0] == pytest.approx(np.log(three))
    front = np.array([[NOTHING]]), *column[1:]
    assert model.log_p(*front)[0, 0] == pytest.approx(np.log((0 + m * two) / (0 + m)))
    gone = (1 + m * ((1 + m * (1 + 1) / (n - 1 + v)) / (2 + m)) * 1 - 1) / (1 + m)
    assert model.log_p(*column, gone=column)[0, 0] == pytest.approx(np.log(gone))
    assert model.followers[2].tolist()[:3] == [3, 4, NOTHING]
    assert model.predecessors[3].tolist()[:2] == [2, NOTHING]
    assert set(model.followers[3].tolist()) == {NOTHING}, "nothing reaches over an end"


def test_probabilities_add_up_to_one():
    rng = np.random.default_rng(6)
    model = fit([rng.integers(0, 20, 50) for _ in range(5)], 20)
    tokens = np.arange(20)[None, :]
    for a, b in rng.integers(0, 20, (30, 2)).tolist():
        total = np.exp(model.log_p(np.array([[a]]), np.array([[b]]), tokens)).sum()
        assert total == pytest.approx(1.0)


def test_the_mark_is_found_in_200_tokens_and_not_in_the_control(context, corpus):
    items = green(context, corpus)
    marked, clean, wrong = [], [], []
    for item in items:
        meta = item.meta
        rule = (meta.key, meta.gamma, meta.context_width)
        assert rule[1:] == (0.25, 2)
        marked.append(score(item.variants[0][:200], *rule))
        clean.append(score(np.array(meta.clean_tokens[:200]), *rule))
        (null,) = null_keys(meta.key, 1)
        wrong.append(score(item.variants[0][:200], null, *rule[1:]))
    assert min(one.z for one in marked) > 4
    assert max(one.p_value for one in marked) < 1e-4
    for others in (clean, wrong):
        zs = [one.z for one in others]
        assert abs(np.mean(zs)) < 4 / np.sqrt(len(zs))
        assert np.std(zs) < 1.4
        assert stats.kstest([one.p_value for one in others], "uniform").pvalue > 1e-3


def plain_log_p(documents, a, b, c, vocab_size, m=IMAGINED):
    """Returns log p(c | a b) by walking through all documents."""
    ones = [t for ids in documents for t in ids]
    twos = [p for ids in documents for p in zip(ids, ids[1:], strict=False)]
    threes = [t for ids in documents for t in zip(ids, ids[1:], ids[2:], strict=False)]
    p = (ones.count(c) + 1) / (len(ones) + vocab_size)
    p = (twos.count((b, c)) + m * p) / (sum(x == b for x, _ in twos) + m)
    return np.log((threes.count((a, b, c)) + m * p) / (sum(t[:2] == (a, b) for t in threes) + m))


def test_tokens_are_replaced_by_ones_that_fit_nearly_as_well(context, corpus):
    """Judged by walking through the other documents alone, which share no trigram's place."""
    items = green(context, corpus[:8])
    documents = [row["tokens"] for row in corpus[:8]]
    ordinary, size = set(context.encoder.ordinary_ids.tolist()), context.encoder.vocab_size
    for item, ids in zip(items, documents, strict=True):
        new = item.variants[0].tolist()
        assert len(new) == len(ids)
        assert new[:2] == ids[:2], "no whole context, no change"
        assert item.meta.n_changed == sum(a != b for a, b in zip(new, ids, strict=True))
        assert 0.1 * len(ids) < item.meta.n_changed < 0.95 * len(ids)
        assert set(new) <= ordinary
        assert item.compared.tolist() == ids
    new, ids = items[0].variants[0].tolist(), documents[0]
    checked = 0
    for place in range(2, len(ids) - 1):
        known = [new[place - 2 : place], ids[place - 2 : place]]
        if new[place] == ids[place] or checked == 25:
            continue
        before, after = (new[place - 2], new[place - 1]), ids[place + 1]
        if known[0][1] == known[1][1] or ids.count(ids[place]) > 1:
            continue  # the occurrence itself would have to be taken out by hand
        fits = []
        for token in (new[place], ids[place]):
            learnt = [*documents[1:], ids]
            if token == ids[place]:  # all its n-grams of this document are this occurrence
                learnt = [*documents[1:], ids[:place], ids[place + 1 :]]
            one = plain_log_p(learnt, *before, token, size)
            fits.append(one + plain_log_p(learnt, before[1], token, after, size))
        checked += 1
        assert fits[0] > fits[1] - 1.0 - 0.1, place
    assert checked > 10


def test_a_smaller_tolerance_changes_less(context, corpus):
    changed = [
        sum(item.meta.n_changed for item in green(context, short(corpus[:20]), tolerance=tolerance))
        for tolerance in (0.0, 1.0, 4.0)
    ]
    assert changed == sorted(changed)
    assert changed[0] < 0.95 * changed[2]


def test_the_key_is_in_the_secret_and_the_draws_in_the_item(context, corpus):
    one, two = green(context, short(corpus[:20])), green(context, short(corpus[:20]), secret="s")
    assert one[0].meta.clean_tokens == two[0].meta.clean_tokens, "delta 0 knows no key"
    assert one[0].variants[0].tolist() != two[0].variants[0].tolist()
    again = green(context, short(corpus[:20]))
    assert [i.variants[0].tolist() for i in one] == [i.variants[0].tolist() for i in again]
    write_jsonl(context.folder / "learnt.jsonl", corpus[20:])
    few, many = (
        green(context, short(corpus[:n]), ngrams="learnt.jsonl", delta=4.0) for n in (3, 9)
    )
    assert [i.variants[0].tolist() for i in few] == [i.variants[0].tolist() for i in many[:3]]


def test_documents_that_carry_the_mark_stay_as_they_are(context, corpus):
    marked = green(context, corpus[:12], secret="shared")
    rows = [{"id": i.item, "tokens": i.variants[0].tolist(), "copies": 2} for i in marked]
    given = green(context, rows, already=True, secret="shared", name="other")
    for a, b in zip(marked, given, strict=True):
        assert a.variants[0].tolist() == b.variants[0].tolist()
        assert (b.meta.key, b.meta.delta, b.meta.clean_tokens) == (a.meta.key, None, None)
        assert b.copies == 2
    whole = np.concatenate([tuples_of(i.variants[0], 2) for i in given])
    assert score_tuples(whole, given[0].meta.key, 0.25).z > 10


def test_documents_made_from_ngrams_carry_the_mark(context, corpus):
    write_jsonl(context.folder / "learnt.jsonl", corpus)
    section = {"method": "green-list", "ngrams": "learnt.jsonl", "tokens_each": 200}
    items = make(context, count=4, **section)
    for item in items:
        assert len(item.variants[0]) == len(item.meta.clean_tokens) == 200
        assert score(item.variants[0], item.meta.key, 0.25, 2).z > 4
        assert abs(score(np.array(item.meta.clean_tokens), item.meta.key, 0.25, 2).z) < 4
    fewer = make(context, count=3, **section)
    assert [i.variants[0].tolist() for i in fewer] == [i.variants[0].tolist() for i in items[:3]]
    plan = KindContext(context.folder, context.encoder, 5, 1000, sample=3)
    sized = make(plan, count=500, **section)
    assert [len(i.variants[0]) for i in sized] == [200] * 500
    assert sized[2].variants[0].tolist() == items[2].variants[0].tolist()
    with pytest.raises(InputError, match="no document has the 2 tokens"):
        write_jsonl(context.folder / "learnt.jsonl", [{"tokens": [300]}])
        make(context, count=3, **section)


def test_short_documents_and_bos_are_left_alone(tok, tmp_path):
    context = KindContext(tmp_path, load_encoder(tok, bos=True), seed=5, max_payload_tokens=1000)
    texts = [{"id": f"t{n}", "text": "w1 w2 w3 w4 w5"} for n in range(5)]
    items = green(context, [*texts, {"id": "short", "tokens": [1, 300]}])
    assert items[-1].variants[0].tolist() == [1, 300]
    assert all(item.variants[0][0] == 1 for item in items)
    assert all(1 not in item.variants[0][1:] for item in items)


def test_a_plan_takes_the_documents_as_they_are(context, corpus):
    plan = KindContext(context.folder, context.encoder, 5, 1000, sample=10)
    items = green(plan, corpus)
    assert items[7].variants[0].tolist() == corpus[7]["tokens"]
    rows = make(plan, method="green-list", items={"stand_in": 9, "tokens": 50})
    assert [len(row.variants[0]) for row in rows] == [50] * 9


# strings

COLLECTIONS = [
    {"id": "a1", "collection": "a", "text": "w1 w2.", "cluster": "k", "copies": 4},
    {"id": "b1", "collection": "b", "text": "w9 w7"},
    {"id": "a2", "collection": "a", "text": "w3 w4!  \n", "cluster": "k", "copies": 4},
]


def strings(context, rows=None, **section):
    write_jsonl(context.folder / "collections.jsonl", rows or COLLECTIONS)
    return make(context, method="strings", items="collections.jsonl", **section)


@pytest.mark.parametrize("made_of", ["characters", "tokens"])
def test_every_document_of_a_collection_ends_in_its_string(context, made_of):
    a, b = strings(context, made_of=made_of, n_null=50)
    assert (a.item, a.cluster, a.copies, a.meta.n_documents) == ("a", "k", 4, 2)
    assert a.meta.string_tokens != b.meta.string_tokens
    for item, texts in ((a, ["w1 w2.", "w3 w4!"]), (b, ["w9 w7"])):
        placed = item.meta.string_tokens
        assert len(item.variants) == len(texts)
        for ids, text in zip(item.variants, texts, strict=True):
            joint = "" if made_of == "tokens" else "\n"
            head = context.encoder.text(text + joint).tolist()
            assert ids.tolist() == head + placed
            assert head[len(head) - len(item.meta.context_tokens) :] == item.meta.context_tokens
        assert item.forms[0].tolist() == placed
        nulls = item.meta.null_strings
        assert len({tuple(ids) for ids in [placed, *nulls]}) == 51
        assert {len(ids) for ids in nulls} == {len(placed)}
        if made_of == "tokens":
            assert len(placed) == 20
            assert set(placed) <= set(context.encoder.ordinary_ids.tolist())
        else:
            assert {len(context.encoder.decode(ids)) for ids in [placed, *nulls]} == {20}


def test_the_rank_of_the_string_is_uniform_where_nothing_was_learnt(context):
    """The 'loss' of a model that knows nothing: fixed random numbers, one for each token."""
    loss = np.random.default_rng(8).gamma(2.0, size=context.encoder.vocab_size)
    rows = [{"collection": f"c{n}", "text": "w1"} for n in range(120)]
    ranks = []
    for item in strings(context, rows, n_null=9, length=8):
        mine = loss[item.meta.string_tokens].sum()
        ranks.append(sum(loss[ids].sum() < mine for ids in item.meta.null_strings))
    counts = np.bincount(ranks, minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_string_depends_on_the_collection_alone(context):
    a, _ = strings(context, n_null=60)
    (same,) = strings(context, [COLLECTIONS[0]], n_null=60)
    assert a.meta.string_tokens == same.meta.string_tokens
    assert a.meta.null_strings == same.meta.null_strings
    other = strings(context, n_null=60, name="other")[0]
    assert other.meta.string_tokens != a.meta.string_tokens


def test_problems_of_collections_are_reported_together(context):
    rows = [
        {"collection": "a", "text": "x", "arm": "p"},
        {"collection": "a", "text": "y", "arm": "q"},
        {"collection": "A", "text": "z"},
    ]
    with pytest.raises(InputError) as raised:
        strings(context, rows)
    assert "collection 'a': its rows give the field 'arm' as 'p' and 'q'" in str(raised.value)
    assert "must differ by more than case" in str(raised.value)
    with pytest.raises(InputError, match="only 94 different strings of length 1 .* 1001 are need"):
        strings(context, COLLECTIONS[:1], length=1)


def test_a_plan_draws_nulls_for_a_sample(context):
    plan = KindContext(context.folder, context.encoder, 5, 1000, sample=1)
    a, b = strings(plan)
    assert (len(a.meta.null_strings), len(b.meta.null_strings)) == (1000, 0)
    assert len(make(plan, method="strings", items={"stand_in": 4, "tokens": 9})) == 4


# gaussian


def test_a_mark_places_nothing_and_records_its_seeds(context):
    items = make(context, method="gaussian", count=30)
    seeds = [seed for i in items for seed in (i.meta.noise_seed, *i.meta.null_seeds)]
    assert len(seeds) == len(set(seeds)) == 30 * 101
    assert all(0 <= seed < 2**63 for seed in seeds)
    for item in items:
        assert item.variants == ()
        assert item.base == BaseData(n_sequences=8, mark=True)
        assert (item.meta.unit, item.meta.n_sequences, item.meta.sigma) == ("batch", 8, 0.075)
    few = make(context, method="gaussian", count=2, n_null=3, unit="sequence", sigma=0.1)
    assert [i.meta.noise_seed for i in few] == [i.meta.noise_seed for i in items[:2]]
    assert few[0].meta.null_seeds == items[0].meta.null_seeds[:3]
    assert few[0].base == BaseData(n_sequences=1, mark=True)


def test_marks_are_placed_as_marks():
    one = config(method="gaussian", count=3)
    assert one.placement == "mark"
    assert WatermarkConfig.model_validate(one.model_dump(mode="json")) == one
    assert config(method="strings", items="x").placement == "overwrite"


def test_the_noise_of_the_docstring_can_be_made(context):
    (item,) = make(context, method="gaussian", count=1)
    key = np.array([item.meta.noise_seed, 3], dtype=np.uint64)
    noise = np.random.Generator(np.random.Philox(key=key)).standard_normal((64, 16), "float32")
    assert noise.dtype == np.float32
    assert abs(float(noise.mean())) < 0.2


def test_meta_is_json(context, corpus):
    (a, *_), (b, *_), (c, *_) = (
        green(context, short(corpus[:3])),
        strings(context, n_null=9),
        make(context, method="gaussian", count=1),
    )
    assert (a.meta.method, b.meta.method, c.meta.method) == ("green-list", "strings", "gaussian")
    for item in (a, b, c):
        again = type(item.meta).model_validate(json.loads(item.meta.model_dump_json()))
        assert again == item.meta


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "strings"}, "needs 'items'"),
        ({"method": "gaussian"}, "needs 'count'"),
        ({"method": "gaussian", "count": 2, "gamma": 0.5}, "'gamma' is for method green-list"),
        ({"method": "gaussian", "count": 2, "placement": "overwrite"}, "must be 'mark'"),
        ({"method": "strings", "items": "x", "placement": "mark"}, "changes bytes"),
        ({"method": "green-list"}, "exactly one of 'items'"),
        ({"method": "green-list", "count": 3}, "needs 'ngrams'"),
        ({"method": "green-list", "items": "x", "already": True}, "the 'secret'"),
        ({"method": "green-list", "items": "x", "gamma": 1.0}, "gamma"),
    ],
)
def test_a_wrong_section_is_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        config(**section)


def test_random_text_without_habits_is_marked_too(context):
    chance = random.Random(0)
    rows = [{"text": random_text(chance, 110)} for _ in range(6)]
    zs = [score(i.variants[0][:200], i.meta.key, 0.25, 2).z for i in green(context, rows)]
    assert min(zs) > 4
