"""A results folder made by hand: one experiment of every verdict, and what a report must survive.

`canaries` has scores of items, 150 of them in the holdout, and the AUC rows that belong to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixctl.evals.results import RESULTS_FORMAT, Results, write_results
from mixctl.evals.rows import PRIMARY_FAMILY, Row
from mixctl.evals.stats import ranks
from mixctl.evals.stats.arms import two_arms

NASTY = "<script>alert(1)</script>"
STEPS = (100, 200, 300)
DOSES = {"holdout": 0, "x4": 4, "x16": 16}
N_ITEMS = {"holdout": 150, "x4": 40, "x16": 40}
PERMUTATION = "arms exchangeable within strata, by cluster: permutation, Monte Carlo (9999 draws)"
UNPAIRED = "the items were never placed, so nothing was randomised"


def _row(experiment: str, kind: str, metric: str, **changes: object) -> Row:
    blank = Row(
        experiment=experiment,
        kind=kind,
        arm="x16",
        dose=16.0,
        stratum=None,
        metric=metric,
        model="run",
        checkpoint="out/step-00000300",
        step=300,
        contrast="holdout",
        n=40,
        n_holdout=150,
    )
    return replace(blank, **changes)  # type: ignore[arg-type]


def _primary(row: Row, p_value: float | None, q_value: float | None, **changes: object) -> Row:
    tested = {"p_value": p_value, "q_value": q_value}
    if p_value is not None:
        tested |= {"sided": "two", "test": PERMUTATION}  # type: ignore[dict-item]
    return replace(row, primary=True, family=PRIMARY_FAMILY, **tested, **changes)  # type: ignore[arg-type]


def _levels(experiment: str, kind: str, metric: str) -> list[Row]:
    return [
        _row(
            experiment,
            kind,
            metric,
            arm=arm,
            dose=dose * step / 300,
            model=model,
            checkpoint=f"out/{model}/step-{step:08d}",
            step=step,
            contrast="level",
            estimate=-20.0 + (model == "run") * dose * step / 300,
            ci_low=-21.0,
            ci_high=-1.0,
            n=N_ITEMS[arm],
            n_holdout=None,
        )
        for model in ("run", "twin")
        for step in STEPS
        for arm, dose in DOSES.items()
    ]


def _samples(model: str, shift: float) -> pa.Table:
    """Returns the scores of the items of `canaries`, in two strata of unlike difficulty."""
    rng = np.random.default_rng(len(model))
    arms = [arm for arm, n in N_ITEMS.items() for _ in range(n)]
    strata = [f"length-{place % 2}" for place in range(len(arms))]
    doses = np.array([DOSES[arm] for arm in arms])
    hard = np.array([stratum == "length-1" for stratum in strata])
    values = rng.normal(size=len(arms)) + shift * doses - 10 * hard
    n = len(arms)
    columns: dict[str, object] = {
        "experiment": ["canaries"] * n,
        "item": [f"i{place:03d}" for place in range(n)],
        "arm": arms,
        "stratum": strata,
        "copies": doses,
        "seen": doses,
        "checkpoint": ["out/step-00000300"] * n,
        "step": [300] * n,
        "model": [model] * n,
        "n_tokens": [8] * n,
        "loglikelihood": values,
        "exposure": rng.normal(size=n) + 3 * (model == "run") * (doses > 0),
    }
    return pa.table(columns)


def auc_of(table: pa.Table, minus: pa.Table | None = None) -> float:
    """Returns the AUC of x16 against the holdout within strata, as the eval computes it."""
    values = np.array(table["loglikelihood"])
    if minus is not None:
        values = values - np.array(minus["loglikelihood"])
    arms = np.array(table["arm"].to_pylist())
    inside = arms != "x4"
    strata = np.array(table["stratum"].to_pylist())[inside]
    return ranks.auc(
        two_arms(values[inside], arms[inside] == "x16", strata, np.arange(inside.sum()))
    )


def _canaries(run: pa.Table, twin: pa.Table) -> list[Row]:
    did = _primary(
        _row("canaries", "memorization", "loglikelihood", contrast="did"),
        0.0001,
        0.0003,
        estimate=9.5,
        ci_low=8.1,
        ci_high=10.9,
        mde=1.9,
    )
    rows = [did, *_levels("canaries", "memorization", "loglikelihood")]
    control = {"model": "twin", "checkpoint": "out/twin", "estimate": 0.2, "p_value": 0.4}
    rows.append(_row("canaries", "memorization", "loglikelihood", test=PERMUTATION, **control))
    test = "arm not above holdout (AUC 0.5) within strata, by cluster: Mann-Whitney, exact"
    for changes, auc in (
        ({}, auc_of(run)),
        ({"model": "twin", "checkpoint": "out/twin"}, auc_of(twin)),
        ({"contrast": "did"}, auc_of(run, minus=twin)),
    ):
        tested = {"estimate": auc, "p_value": 0.01, "sided": "greater", "test": test}
        rows.append(_row("canaries", "memorization", "auc", **{**tested, **changes}))
    note = "not resolvable: 150 holdout items, 1000 are needed"
    rows.append(_row("canaries", "memorization", "tpr_at_1pct_fpr", note=note))
    return rows


def _others() -> list[Row]:
    quiet = _row("quiet", "contamination", "accuracy", contrast="did", estimate=0.02)
    flat = _row("flat", "knowledge", "probability", contrast="did", estimate=0.0)
    never = _row("never", "verbatim", "exact", contrast="twin", estimate=-0.1, n_holdout=None)
    odd = _row(f"odd{NASTY}", f"kind{NASTY}", f"metric{NASTY}", arm=f"arm{NASTY}", estimate=-2.0)
    name = "validation_loglikelihood_per_token"
    losses = _row("(model)", "model", name, arm="validation", dose=0.0, n_holdout=None)
    return [
        replace(losses, contrast="twin", estimate=-0.01, note="no p-value: one pair of runs"),
        replace(losses, contrast="level", estimate=-3.2),
        replace(losses, contrast="level", estimate=-3.6, step=200),
        _primary(quiet, 0.4, 0.5, ci_low=-0.1, ci_high=0.14, mde=0.21),
        _primary(flat, 1.0, 1.0),
        _primary(never, None, None, note=UNPAIRED),
        _primary(odd, 0.001, 0.004, note=f"note{NASTY}", mde=1.0),
        _row("broken", "poison", "none", contrast="level", note="not scored: it fell over"),
    ]


def made_results(out: Path, more: Sequence[Row] = (), samples: bool = True) -> Path:
    """Returns the folder, with results of an eval that never was; `more` rows come last."""
    run, twin = _samples("run", 0.15), _samples("twin", 0.0)
    rows = [*_canaries(run, twin), *_others(), *more]
    out.mkdir(parents=True)
    errors = {"broken": f"it fell over {NASTY}"}
    notes = ["out/step-00000300: a note on a checkpoint"]
    kept = []
    if samples:
        (out / "samples").mkdir()
        for model, table in (("run", run), ("twin", twin)):
            kept.append(out / "samples" / f"{model}-00000300-abc.parquet")
            pq.write_table(table, kept[-1])
    write_results(out, Results(rows, errors, notes, _summary(rows)), kept)
    return out


def _summary(rows: Sequence[Row]) -> dict[str, object]:
    checkpoints = [
        {"folder": f"out/step-{step:08d}", "step": step, "step_source": "step_count"}
        for step in STEPS
    ]
    return {
        "results_format": RESULTS_FORMAT,
        "build": {
            "folder": f"builds/{'a-very-long-name-' * 5}{NASTY}",
            "digest": "0123456789abcdef" * 2,
            "steps": 300,
            "global_batch": 4,
            "max_seq_length": 256,
        },
        "checkpoints": checkpoints,
        "baselines": checkpoints,
        "experiments": {
            row.experiment: _about(row) for row in rows if row.kind != "model" or row.primary
        },
    }


def _about(row: Row) -> Mapping[str, object]:
    dosed = [arm for arm in DOSES if DOSES[arm]]
    arms = list(DOSES) if row.arm in DOSES else ["holdout", row.arm]
    return {
        "kind": row.kind,
        "items": 230,
        "placements": 800,
        "arms": arms,
        "timeline": {arm: [0] * 10 + [20] * 30 for arm in arms if arm in dosed or arm == row.arm},
    }
