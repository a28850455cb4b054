"""Tests of an arm alone, end to end: rows, what is primary without a holdout, several methods."""

from __future__ import annotations

import numpy as np
import pytest

from mixctl.evals.run import Settings, evaluate
from mixctl.shards.meta import GaussianMeta, GreenListMeta, StringsMeta
from tests.evals import tiny

RNG = np.random.default_rng(12)


def _collections(arms):
    for arm, (n, copies) in arms.items():
        for number in range(n):
            strings = RNG.integers(1, 64, (20, 6)).tolist()
            meta = StringsMeta(
                n_documents=1,
                context_tokens=[],
                string_tokens=strings[0],
                null_strings=strings[1:],
            )
            steps = list(range(1, copies + 1))
            yield tiny.TinyItem(f"{arm}-{number}", arm, strings[0], meta.model_dump_json(), steps)


def _documents(n):
    for number in range(n):
        tokens, clean = RNG.integers(1, 64, (2, 20)).tolist()
        meta = GreenListMeta(key=3, gamma=0.25, delta=2.0, context_width=1, clean_tokens=clean)
        yield tiny.TinyItem(f"d{number}", "all", tokens, meta.model_dump_json(), [1])


def _marks(arms):
    for arm, (n, copies) in arms.items():
        for number in range(n):
            tokens = RNG.integers(1, 64, 33).tolist()
            meta = GaussianMeta(
                unit="sequence",
                n_sequences=1,
                sigma=0.075,
                noise_seed=int(RNG.integers(2**62)),
                null_seeds=[1, 2, 3],
            )
            steps = list(range(1, copies + 1))
            yield tiny.TinyItem(f"{arm}-{number}", arm, tokens, meta.model_dump_json(), steps)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Returns the rows of a run that was taught the strings and met no other mark."""
    folder = tmp_path_factory.mktemp("pooled")
    experiments = {
        "alone": ("watermark", list(_collections({"placed": (6, 4)}))),
        "both": ("watermark", list(_collections({"holdout": (6, 0), "placed": (6, 4)}))),
        "green": ("watermark", list(_documents(8))),
        "noise": ("watermark", list(_marks({"holdout": (5, 0), "placed": (5, 1)}))),
    }
    build = tiny.make_build(folder / "build", experiments)
    placed = [i for name in ("alone", "both") for i in experiments[name][1] if i.steps]
    taught = tiny.teach(tiny.tiny_model(), [(item.tokens, 1) for item in placed])
    for name, model, split in (
        ("run", taught, "train"),
        ("twin", tiny.tiny_model(), "control/train"),
    ):
        tiny.make_checkpoint(folder / name / "step-00000010", model, build, 10, split=split)
    found = evaluate(Settings(build, (folder / "run",), folder / "out", (folder / "twin",)))
    assert not found.errors
    return found.rows


def _row(rows, experiment, metric, arm, model="run"):
    at = (experiment, metric, arm, model, "level", None)
    (row,) = (
        r for r in rows if (r.experiment, r.metric, r.arm, r.model, r.contrast, r.stratum) == at
    )
    return row


def test_an_arm_without_a_holdout_is_primary_by_its_own_test(rows):
    primary = {row.experiment: row for row in rows if row.primary}
    alone = primary["alone"]
    assert alone == _row(rows, "alone", "rank_test", "placed")
    assert (alone.contrast, alone.family, alone.sided, alone.n) == (
        "level", "primary", "greater", 6,
    )  # fmt: skip
    assert alone.p_value <= alone.q_value < 2e-3
    assert primary["green"].metric == "radioactivity" and primary["green"].p_value > 1e-3
    for name, metric in (("both", "standardised"), ("noise", "noise_alignment")):
        assert (primary[name].metric, primary[name].contrast) == (metric, "did")
    assert sum(row.primary for row in rows) == 4


def test_holdout_and_twin_are_negative_controls(rows):
    assert _row(rows, "both", "rank_test", "placed").p_value < 2e-3
    for arm, model in (("holdout", "run"), ("holdout", "twin"), ("placed", "twin")):
        row = _row(rows, "both", "rank_test", arm, model)
        assert row.p_value > 0.01 and row.q_value is None and row.family == "exploratory"
    for arm in ("holdout", "placed"):
        row = _row(rows, "noise", "noise_test", arm)
        assert row.p_value > 1e-3 and abs(row.estimate) < 2 and row.n == 5
        assert _row(rows, "noise", "control_alignment", arm).estimate is not None
    assert _row(rows, "noise", "noise_test", "placed").dose == 1
    control = _row(rows, "green", "radioactivity_control", "all")
    assert control.p_value > 0.01 and 20 < control.n < 8 * 19
