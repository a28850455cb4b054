"""A whole eval of the kinds that generate, that are base data, and that are never placed."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from mixctl.evals import report, run
from mixctl.evals.findings import effect
from mixctl.evals.results import Results
from mixctl.evals.scorers import registry
from mixctl.evals.scorers.base import ItemScore, Metric
from mixctl.evals.verdicts import verdict_of
from mixctl.shards.meta import (
    ForgettingMeta,
    KnowledgeMeta,
    MathematicsMeta,
    Probe,
    UnlearningMeta,
    VerbatimMeta,
)
from tests.evals import tiny

ANSWER, ZERO = 63, 40


def _tokenizer(build: Path) -> None:
    """Token 40 + k is the number k, 63 is "Answer:", others are words."""
    words = [f"w{i}" for i in range(ZERO)] + [str(k) for k in range(23)] + ["Answer:"]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0")
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    (build / "tokenizer").mkdir()
    tokenizer.save(str(build / "tokenizer/tokenizer.json"))


def _items(arms, make, low=1, high=40, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for arm, (n_items, copies) in arms.items():
        for number in range(n_items):
            tokens, meta = make(rng.integers(low, high, 66).tolist())
            steps = [copy % tiny.STEPS + 1 for copy in range(copies)]
            found.append(tiny.TinyItem(f"{arm}-{number:03d}", arm, tokens, meta, steps))
    return found


def _fact(ids):
    probes = [
        Probe(id="a", type="memorization", input_tokens=ids[:3], target_tokens=ids[3:5]),
        Probe(id="b", type="semantic", input_tokens=ids[10:13], target_tokens=ids[3:5]),
    ]
    return ids[:5], KnowledgeMeta(probes=probes).model_dump_json()


def _article(ids):
    return ids[:12], UnlearningMeta(prefix_lengths=[3, 6], suffix_length=4).model_dump_json()


def _string(ids):
    return ids[:9], VerbatimMeta(prefix_length=4, suffix_length=5).model_dump_json()


def _batch(ids):
    return ids[:66], ForgettingMeta().model_dump_json()


def _sequence(ids):
    return ids[:33], '{"source": "spare"}'


def _sums():
    """Returns test problems whose answer is a function of the prompt, and training problems."""
    items = []
    for number in range(60):
        answer, op = number % 23, 1 + number % 2
        solution = [30 + op, ANSWER, ZERO + answer]
        prompt = [1 + answer, 25 + number // 23]
        if number < 30:
            meta = MathematicsMeta(
                op=op, answer=answer, prompt_tokens=prompt, solution_tokens=solution
            )
            arm, steps = "test", []
        else:
            meta, arm, steps = MathematicsMeta(op=op, answer=answer), "train", [1, 2]
        name = f"{arm}-{number:03d}"
        item = tiny.TinyItem(name, arm, prompt + solution, meta.model_dump_json(), steps)
        item.stratum = f"op{op}"
        items.append(item)
    return items


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    two = {"holdout": (10, 0), "x4": (10, 4)}
    experiments = {
        "batches": ("forgetting", _items({"fresh": (3, 2), "holdout": (3, 0)}, _batch, seed=1)),
        "facts": ("knowledge", _items(two, _fact, seed=2)),
        "iid": ("iid", _items(two, _sequence, seed=3)),
        "news": ("unlearning", _items({"retain": (8, 0), "whole-x4": (8, 4)}, _article, seed=4)),
        "sums": ("mathematics", _sums()),
        "unseen": ("verbatim", _items({"purged": (12, 0)}, _string, seed=5)),
    }
    folder = tiny.make_build(tmp_path_factory.mktemp("kinds") / "build", experiments)
    texts = [(i.tokens, len(i.steps)) for _, items in experiments.values() for i in items]
    asked = [i for i in experiments["sums"][1] if i.arm == "test"]
    texts = [(tokens[:32], copies) for tokens, copies in texts]
    texts += [(item.tokens, 6) for item in asked]  # this run solves the test problems
    strings = [(item.tokens, 6) for item in experiments["unseen"][1]]
    tiny.into_shards(folder, "batches")
    _tokenizer(folder)
    model = tiny.teach(tiny.tiny_model(), texts, rounds=120)
    tiny.make_checkpoint(folder.parent / "run", model, folder, 10)
    twin = tiny.teach(tiny.tiny_model(), strings, rounds=80)  # the twin saw the strings
    tiny.make_checkpoint(folder.parent / "twin", twin, folder, 10, split="control/train")
    return folder


def _evaluate(build: Path, out: Path, *, twin: bool) -> Results:
    twins = (build.parent / "twin",) if twin else ()
    found = run.evaluate(run.Settings(build, (build.parent / "run",), out, twins))
    assert found.errors == {}
    return found


@pytest.fixture(scope="module")
def results(build, tmp_path_factory) -> tuple[Results, Path]:
    out = tmp_path_factory.mktemp("out")
    return _evaluate(build, out, twin=True), out


def _rows(found, **wanted):
    return [r for r in found.rows if all(getattr(r, n) == v for n, v in wanted.items())]


def _row(found, **wanted):
    (row,) = _rows(found, **{"model": "run", "stratum": None, **wanted})
    return row


def test_what_was_placed_is_found(results):
    found, _ = results
    placed = {row.experiment: row for row in found.primary if row.contrast == "did"}
    assert sorted(placed) == ["batches", "facts", "iid", "news"]
    metrics = {name: row.metric for name, row in placed.items()}
    assert metrics.pop("facts") == "probability"
    assert set(metrics.values()) == {"loglikelihood_per_token"}
    for name in ("facts", "iid", "news"):
        assert placed[name].estimate > 0 and placed[name].p_value < 0.01
    assert placed["batches"].estimate > 0


def test_extraction_and_probes_by_arm(results):
    found, _ = results
    at = {"contrast": "level"}
    for metric in ("exact_3", "exact_6", "rouge_l_3"):
        assert _row(found, arm="whole-x4", metric=metric, **at).estimate > 0.7
        assert _row(found, arm="retain", metric=metric, **at).estimate < 0.3
    known = _row(found, arm="x4", metric="accuracy_memorization", **at)
    assert known.estimate > 0.7 and "text, whatever the case" in known.note
    assert _row(found, arm="x4", metric="accuracy_semantic", **at).estimate < 0.3
    assert not _rows(found, metric="probability_compositional")
    for ending in ("", "_min_k", "_min_k_plus_plus", "_zlib_ratio"):
        auc = _row(found, experiment="news", metric=f"auc{ending}", contrast="holdout")
        assert auc.estimate > 0.8
    assert _rows(found, experiment="iid", metric="auc") and not _rows(found, metric="auc_exact_3")


def test_strings_that_are_never_placed_have_levels_and_differences_and_no_test(results):
    found, out = results
    rows = _rows(found, experiment="unseen", stratum=None)
    assert {(r.model, r.contrast) for r in rows} == {
        ("run", "level"),
        ("run", "twin"),
        ("twin", "level"),
    }
    assert _row(found, experiment="unseen", metric="exact", contrast="level").estimate < 0.3
    twin = _row(found, experiment="unseen", metric="exact", contrast="level", model="twin")
    assert twin.estimate > 0.9
    (primary,) = _rows(found, experiment="unseen", primary=True)
    assert (primary.contrast, primary.metric, primary.p_value) == ("twin", "exact", None)
    assert primary.estimate < -0.6 and "nothing was randomised" in primary.note
    assert verdict_of(primary) == "no test" and "run vs twin" in effect(primary)
    assert "nothing was randomised" in report.write_report(out).read_text()


def test_problems_that_are_asked_are_compared_with_guessing_and_the_twin(results):
    found, _ = results
    (primary,) = _rows(found, experiment="sums", primary=True)
    assert (primary.arm, primary.contrast, primary.p_value) == ("test", "twin", None)
    assert primary.estimate > 0.6
    level = _row(found, experiment="sums", arm="test", metric="accuracy", contrast="level")
    assert level.estimate > 0.9 and level.p_value < 1e-12 and "exact binomial" in level.test
    at = {"experiment": "sums", "arm": "test", "metric": "accuracy", "contrast": "level"}
    assert {row.stratum for row in _rows(found, **at)} == {None, "op1", "op2"}
    twin = _row(found, **at, model="twin")
    assert twin.estimate < 0.2 and twin.p_value > 0.05
    train = _row(found, experiment="sums", arm="train", metric="accuracy", contrast="level")
    assert train.estimate is None and "no item of this arm has a value" in train.note


def test_without_a_twin_the_level_is_primary_and_scores_are_the_same(build, results, tmp_path):
    found = _evaluate(build, tmp_path / "out", twin=False)
    (again,) = (tmp_path / "out").glob("samples/run-*.parquet")
    assert again.read_bytes() == (results[1] / "samples" / again.name).read_bytes()
    by_name = {row.experiment: row for row in found.primary}
    assert by_name["unseen"].contrast == "level" and by_name["unseen"].p_value is None
    assert by_name["sums"].contrast == "level" and by_name["sums"].q_value < 1e-9
    assert verdict_of(by_name["sums"]) == "found"
    assert by_name["iid"].contrast == "holdout"


class _Norm:
    """Measures the model itself."""

    kind, version, membership = "haiku", 1, None
    metrics = (Metric("norm", primary=True),)

    def measure(self, model, items, prefix):
        norm = model.lm_head.weight.norm().item()
        return [ItemScore(len(item.tokens), 0.0, {"norm": norm}) for item in items]


def test_a_scorer_may_measure_the_model(build, tmp_path, monkeypatch):
    point = EntryPoint("haiku", f"{__name__}:_Norm", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    arms = {"holdout": (4, 0), "x1": (4, 1)}
    other = tiny.make_build(tmp_path / "build", {"poems": ("haiku", tiny.documents(arms))})
    made = tiny.make_checkpoint(tmp_path / "c", tiny.tiny_model(), other, 10)
    found = run.evaluate(run.Settings(other, (made,), tmp_path / "out"))
    expected = tiny.tiny_model().lm_head.weight.norm().item()
    assert _row(found, arm="x1", contrast="level").estimate == pytest.approx(expected)
    monkeypatch.setattr(_Norm, "measure", lambda *a: [])
    monkeypatch.setattr(_Norm, "version", 2)
    found = run.evaluate(run.Settings(other, (made,), tmp_path / "out2"))
    assert "0 scores for 8 items" in found.errors["poems"]


def test_a_prompt_that_does_not_fit_is_an_error_of_its_experiment(build, tmp_path):
    probe = Probe(id="a", type="semantic", input_tokens=[1] * 40, target_tokens=[2])
    facts = _items({"holdout": (2, 0), "x1": (2, 1)}, _fact)
    facts[0].meta = KnowledgeMeta(probes=[probe]).model_dump_json()
    texts = tiny.documents({"holdout": (3, 0), "x1": (3, 1)})
    other = tiny.make_build(
        tmp_path / "build", {"facts": ("knowledge", facts), "good": ("documents", texts)}
    )
    made = tiny.make_checkpoint(tmp_path / "c", tiny.tiny_model(), other, 10)
    found = run.evaluate(run.Settings(other, (made,), tmp_path / "out"))
    assert "item holdout-000" in found.errors["facts"] and len(found.errors) == 1
    assert "limit is 32" in found.errors["facts"]


def test_a_changed_tokenizer_is_refused(build, tmp_path):
    from mixctl.evals.tokenizer import TOKENIZER_NAME, decoder
    from mixctl.shards.errors import InputError
    from mixctl.shards.files import digest_file
    from mixctl.shards.record import FileRecord, read_record

    record, path = read_record(build), build / TOKENIZER_NAME
    assert decoder(build, record)([ANSWER, ZERO + 12]) == "Answer: 12"
    for digest, fits in ((digest_file(path), True), ("0" * 32, False)):
        sealed = {TOKENIZER_NAME: FileRecord(bytes=1, digest=digest)}
        changed = record.model_copy(update={"files": sealed})
        if fits:
            assert decoder(build, changed) is not None
        else:
            with pytest.raises(InputError, match="does not match its digest"):
                decoder(build, changed)
    assert decoder(tmp_path, record) is None
