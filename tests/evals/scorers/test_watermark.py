"""Green lists and strings: by hand, against naive loops, calibrated unseen and found where met."""

from __future__ import annotations

import json
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy import stats

from mixctl.evals.forward import token_logprobs
from mixctl.evals.scorers.base import Item
from mixctl.evals.scorers.watermark import WatermarkScorer
from mixctl.evals.scorers.watermark_gaussian import GaussianScorer
from mixctl.evals.scorers.watermark_green import GreenListScorer, _greens
from mixctl.evals.scorers.watermark_strings import StringsScorer
from mixctl.shards.green_list import is_green, null_keys
from mixctl.shards.meta import GaussianMeta, GreenListMeta, StringsMeta
from tests.evals import tiny

GAMMA = 0.25


def _item(name, tokens, meta):
    return Item("mark", name, np.array(tokens, dtype=np.int64), meta.model_dump_json())


def _scorer(items):
    return WatermarkScorer().scorer_of(items)


# green lists


def _green_meta(key, clean=None, width=2, gamma=GAMMA):
    return GreenListMeta(
        key=key,
        gamma=gamma,
        delta=2.0,
        context_width=width,
        clean_tokens=None if clean is None else [int(token) for token in clean],
    )


@lru_cache(maxsize=2)
def _colours(key, width, vocabulary):
    """Returns for each context the tokens, green ones first, and how many are green."""
    grid = np.indices((vocabulary,) * (width + 1))
    green = is_green(np.moveaxis(grid[:-1], 0, -1), grid[-1], key, GAMMA)
    return np.argsort(~green, axis=-1, kind="stable"), green.sum(axis=-1)


def _marked(rng, key, length, width=2, vocabulary=tiny.VOCABULARY):
    """Returns random tokens, each green three times in four or more."""
    greens_first, n_greens = _colours(key, width, vocabulary)
    tokens = rng.integers(1, vocabulary, width).tolist()
    for kept, place in rng.random((length - width, 2)):
        context = tuple(tokens[len(tokens) - width :])
        most = int(n_greens[context]) if kept < 0.75 else 0
        tokens.append(int(greens_first[context][int(place * (most or vocabulary))]))
    return tokens


def _documents(n, key, length=24, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(_marked(rng, key, length), rng.integers(1, 64, length)) for _ in range(n)]
    return [
        _item(f"d{i:03d}", ids, _green_meta(key, clean)) for i, (ids, clean) in enumerate(pairs)
    ]


def test_green_values_equal_a_naive_loop():
    items, model = _documents(6, key=5), tiny.tiny_model(2)
    scores = _scorer(items).measure(model, items, [0])
    met: set[tuple[int, int]] = set()
    for item, score in zip(items, scores, strict=True):
        tokens = item.tokens.tolist()
        clean = json.loads(item.meta)["clean_tokens"]
        logs = [model(torch.tensor([[0, *ids]])).log_softmax(-1)[0] for ids in (tokens, clean)]
        own, other = (
            float(np.mean([log[at, token].item() for at, token in enumerate(ids)]))
            for log, ids in zip(logs, (tokens, clean), strict=True)
        )
        assert score.values["loglikelihood_per_token"] == pytest.approx(own, abs=1e-5)
        assert score.values["preference"] == pytest.approx(own - other, abs=1e-5)
        assert (score.n_tokens, score.loglikelihood) == (24, pytest.approx(24 * own, abs=1e-3))
        colours = {5: [], null_keys(5, 1)[0]: []}
        for at in range(2, len(tokens)):
            context = (tokens[at - 2], tokens[at - 1])
            if context not in met:
                met.add(context)
                said = int(logs[0][at].argmax())
                for key, found in colours.items():
                    found.append(bool(is_green(np.array([context]), np.array([said]), key, GAMMA)))
        green, control = colours.values()
        assert score.values["green_tuples"] == len(green) > 10
        assert score.values["green_fraction"] == pytest.approx(np.mean(green))
        assert score.values["control_fraction"] == pytest.approx(np.mean(control))


def _copied(tokens, width):
    """Returns what a model says that knows nothing but to repeat what it just read."""
    said = np.zeros(len(tokens), dtype=np.int64)
    followers: dict[tuple[int, ...], int] = {}
    for at in range(len(tokens)):
        context = tuple(tokens[max(0, at - width) : at])
        said[at] = followers.get(context, (7 * sum(context) + at) % 64)
        if len(context) == width:
            followers[context] = tokens[at]
    return said


def test_a_model_that_copies_its_context_is_not_radioactive():
    """Over 300 keys: counted over distinct tuples it would look marked, over new contexts not."""
    rng, p_values, over_tuples = np.random.default_rng(4), [], []
    for key in range(300):
        docs = [_marked(rng, key, 60, width=1, vocabulary=32) for _ in range(4)]
        items = [_item(f"d{i}", ids, _green_meta(key, width=1)) for i, ids in enumerate(docs)]
        said = [_copied(ids, 1) for ids in docs]
        metas = [_green_meta(key, width=1) for _ in docs]
        greens = list(_greens(items, metas, said))
        n, green = sum(g.n for g in greens), sum(g.green for g in greens)
        assert n == len({token for ids in docs for token in ids[:-1]})
        p_values.append(stats.binom.sf(green - 1, n, GAMMA))
        pairs = {(a, int(b)) for ids, s in zip(docs, said, strict=True)
                 for a, b in zip(ids, s[1:], strict=False)}  # fmt: skip
        tuples = np.array(sorted(pairs))
        over_tuples.append(is_green(tuples[:, :1], tuples[:, 1], key, GAMMA).mean())
    for level in (0.01, 0.05, 0.2):
        spread = 3 * math.sqrt(level * (1 - level) / 300)
        assert np.mean(np.array(p_values) <= level) <= level + spread
    assert np.mean(over_tuples) > GAMMA + 0.1


def test_a_model_that_was_taught_marked_documents_is_found():
    items = _documents(24, key=11)
    clean = tiny.tiny_model(5)
    taught = tiny.teach(tiny.tiny_model(5), [(i.tokens.tolist(), 1) for i in items], rounds=50)
    scorer, p_values = _scorer(items), {}
    for name, model in (("clean", clean), ("taught", taught)):
        scores = scorer.measure(model, items, [0])
        values = {m.name: np.array([s.values[m.name] for s in scores]) for m in scorer.metrics}
        tests = scorer.pooled(values)
        assert [test.metric for test in tests[:2]] == ["radioactivity", "radioactivity_control"]
        p_values[name] = [test.p_value for test in tests[:2]]
        preference = values["preference"].mean()
        assert preference > 1 if name == "taught" else abs(preference) < 0.2
    assert p_values["taught"][0] < 1e-8
    assert min(p_values["taught"][1], *p_values["clean"]) > 0.01


def test_radioactivity_by_hand():
    scorer = GreenListScorer([GAMMA, GAMMA], with_controls=True)
    values = {
        "green_tuples": np.array([4.0, 0.0, 6.0]),
        "green_fraction": np.array([0.5, np.nan, 2 / 3]),
        "control_fraction": np.array([0.25, np.nan, 1 / 6]),
    }
    green, control, z = scorer.pooled(values)
    exact = sum(math.comb(10, k) * GAMMA**k * (1 - GAMMA) ** (10 - k) for k in range(6, 11))
    assert (green.estimate, green.n) == (0.6, 10) and green.p_value == pytest.approx(exact)
    assert control.estimate == 0.2 and control.p_value == pytest.approx(0.7559748)
    assert "Binomial(n, 0.25)" in green.test
    # Kirchenbauer et al.: (6 - 10/4) / sqrt(10 x 1/4 x 3/4) = 3.5 / sqrt(1.875)
    assert (z.metric, z.n, z.p_value, z.test) == ("radioactivity_z", 10, None, None)
    assert z.estimate == pytest.approx(2.5560386) and "exact" in z.note


def test_where_radioactivity_cannot_be_had():
    (mixed,) = GreenListScorer([0.25, 0.5], with_controls=True).pooled({})
    assert mixed.p_value is None and "gammas differ" in mixed.note
    items = [_item("d0", [1, 2, 3, 4], _green_meta(3, [1, 2, 3, 5], width=0))]
    (score,) = _scorer(items).measure(tiny.tiny_model(), items, [0])
    assert score.values["green_tuples"] == 0 and "green_fraction" not in score.values
    values = {"green_tuples": np.array([0.0]), "green_fraction": np.array([np.nan])}
    (none,) = _scorer(items).pooled(values)
    assert none.p_value is None and none.estimate is None and "context_width 0" in none.note


def test_documents_that_came_marked_have_no_control():
    items = [_item("d0", [1, 2, 3, 4], _green_meta(3)), *_documents(1, 3)]
    scorer = _scorer(items)
    assert scorer.metrics[0].name == scorer.membership == "loglikelihood_per_token"
    assert [metric.primary for metric in scorer.metrics] == [True, False, False, False]
    first, second = scorer.measure(tiny.tiny_model(), items, [0])
    assert "preference" not in first.values and "preference" in second.values
    assert _scorer(items[1:]).metrics[0].name == "preference"


# strings


def _collection(string, nulls, context=()):
    meta = StringsMeta(
        n_documents=2, context_tokens=list(context), string_tokens=string, null_strings=nulls
    )
    return _item("diary", [9, *context, *string], meta)


def _strings(sums):
    return [np.array([value / 2, value / 2]) for value in sums]


def test_a_rank_by_hand():
    item = _collection([1, 2], [[3, 4], [5, 6], [7, 8]], [9])
    scorer = _scorer([item])
    requests = scorer.requests(item, [0])
    assert [r.tokens.tolist() for r in requests] == [[0, 9, a, a + 1] for a in (1, 3, 5, 7)]
    assert {r.first for r in requests} == {2}
    values = scorer.score(item, _strings([-3.0, -4.0, -5.0, -3.0])).values
    assert values["minus_log10_p"] == pytest.approx(-math.log10(2 / 4))
    assert values["rank_score"] == pytest.approx(stats.norm.ppf((2 + 0.5 + 0.5) / 4))
    assert values["standardised"] == pytest.approx((-3 + 4) / 1.0)
    assert values["loglikelihood_per_token"] == -1.5
    best = scorer.score(item, _strings([-1.0, -4.0, -5.0, -3.0])).values
    worst = scorer.score(item, _strings([-9.0, -4.0, -5.0, -3.0])).values
    assert best["minus_log10_p"] == pytest.approx(math.log10(4)) and worst["minus_log10_p"] == 0
    assert best["rank_score"] == -worst["rank_score"] > 1


def test_strings_without_a_spread_have_no_standard_score():
    item = _collection([1, 2], [[3, 4], [5, 6]])
    values = _scorer([item]).score(item, _strings([-2.0, -2.0, -2.0])).values
    assert "standardised" not in values and values["rank_score"] == 0
    alone = _collection([1, 2], [])
    scorer = _scorer([item, alone])
    assert scorer.metrics[0].name == scorer.membership == "loglikelihood_per_token"
    assert dict(scorer.score(alone, _strings([-2.0])).values) == {"loglikelihood_per_token": -1.0}
    assert scorer.pooled({"loglikelihood_per_token": np.array([-1.0])}) == []


def test_strings_of_other_lengths_are_refused():
    item = _collection([1, 2], [[3, 4], [5, 6, 7]])
    with pytest.raises(ValueError, match="item diary: strings of 2 and of 3 tokens"):
        _scorer([item]).requests(item, [0])


def _score_all(model, items):
    scorer = _scorer(items)
    of_items = [token_logprobs(model, scorer.requests(item, [0])) for item in items]
    return [scorer.score(*both).values for both in zip(items, of_items, strict=True)]


def test_ranks_are_uniform_where_strings_are_new_and_extreme_where_taught():
    rng = np.random.default_rng(8)
    drawn = rng.integers(1, 64, (60, 20, 6)).tolist()
    items = [_collection(strings[0], strings[1:]) for strings in drawn]
    unseen = _score_all(tiny.tiny_model(6), items)
    ranks = np.array([10 ** -v["minus_log10_p"] * 20 for v in unseen]).round().astype(int)
    assert stats.chisquare(np.bincount((ranks - 1) // 5, minlength=4)).pvalue > 0.05
    taught = tiny.teach(tiny.tiny_model(6), [(s[0], 1) for s in drawn[:20]], rounds=40)
    values = _score_all(taught, items)
    assert min(v["minus_log10_p"] for v in values[:20]) == pytest.approx(math.log10(20))
    assert np.mean([v["standardised"] for v in values[:20]]) > 4
    assert abs(np.mean([v["rank_score"] for v in values[20:]])) < 3 / math.sqrt(40)


def _ranked(ranks, n_null=19):
    p_values = np.array(ranks) / (n_null + 1)
    return {
        "minus_log10_p": np.array([*-np.log10(p_values), np.nan]),
        "rank_score": np.array([*stats.norm.isf(p_values - 0.5 / (n_null + 1)), np.nan]),
    }


def _together(ranks, n_null=19):
    (found,) = StringsScorer(n_null).pooled(_ranked(ranks, n_null))
    return found


def test_collections_together_by_hand():
    found = _together([1, 2], 3)  # products of ranks up to 2: (1, 1), (1, 2), (2, 1)
    assert (found.metric, found.n) == ("rank_test", 2)
    assert found.p_value == pytest.approx(3 / 16)
    assert found.estimate == pytest.approx(stats.norm.ppf([7 / 8, 5 / 8]).mean())
    alone = _together([1], 19)
    assert alone.p_value == pytest.approx(0.05) and "exact rank" in alone.test
    assert _together([1] * 16).p_value == pytest.approx(20.0**-16)


def test_collections_need_equally_many_null_strings():
    items = [_collection([1, 2], [[3, 4]] * n_null) for n_null in (2, 3)]
    with pytest.raises(ValueError, match="2 to 3 null strings"):
        _scorer(items)


def test_collections_together_reject_as_often_as_they_say():
    """Fisher's chi^2 would reject 0.003 at 0.05: ranks of 20 are not continuous."""
    rng = np.random.default_rng(3)
    ranks = rng.integers(1, 21, (400, 16))
    p_values = np.array([_together(row).p_value for row in ranks])
    for level in (0.05, 0.2):
        assert stats.binomtest(int((p_values <= level).sum()), 400, level).pvalue > 0.01
    chi2 = stats.chi2.sf(-2 * np.log(ranks / 20).sum(axis=1), 32)
    assert (chi2 <= 0.05).mean() < 0.01 and (p_values <= chi2 * 1.05).all()


# methods


def test_the_method_chooses_the_scorer():
    gaussian = GaussianMeta(
        unit="sequence", n_sequences=1, sigma=1.0, noise_seed=1, null_seeds=[2, 3]
    )
    items = [_item("m", [1, 2], gaussian), _collection([1], [[2], [3]]), *_documents(1, 3)]
    kinds = [GaussianScorer, StringsScorer, GreenListScorer]
    for item, kind in zip(items, kinds, strict=True):
        assert type(_scorer([item])) is kind
        assert sum(metric.primary for metric in _scorer([item]).metrics) == 1
    with pytest.raises(ValueError, match="gaussian and strings; it must be one of"):
        _scorer(items[:2])
    with pytest.raises(ValueError, match="None; it must be one of"):
        _scorer([Item("mark", "x", np.array([1]), "{}")])
