"""What a scored set of dependence runs leaves behind.

    dependence.parquet   a row an entry of the matrix
    dependence.json      the runs, the outcomes after each of them, what was not tested
    samples/*.parquet    scores of items, a file a run
    report.html          written from these two

dependence.json is written last.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixctl.evals.cpdt import Scored
from mixctl.evals.stats.dependence import detectable
from mixctl.evals.stats.planning import ALPHA
from mixctl.shards.errors import InputError
from mixctl.shards.files import replacing, write_text

TABLE_NAME, SUMMARY_NAME, REPORT_NAME = "dependence.parquet", "dependence.json", "report.html"
OWN_FILES = {TABLE_NAME, SUMMARY_NAME, REPORT_NAME, "samples"}
FOUND, NOT_FOUND, NO_TEST = "found", "not found", "no test"
NO_SPREAD = "the no-op runs do not differ in it: nothing tells how much runs differ by themselves"

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("experiment", pa.string()),
        ("metric", pa.string()),
        ("role", pa.string()),
        ("outcome", pa.float64()),
        ("estimate", pa.float64()),
        ("se", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("joint_low", pa.float64()),
        ("joint_high", pa.float64()),
        ("p_value", pa.float64()),
        ("p_holm", pa.float64()),
        ("mde", pa.float64()),
        ("n_no_ops", pa.int64()),
        ("n_tests", pa.int64()),
        ("verdict", pa.string()),
        ("note", pa.string()),
    ]
)


def entries(found: Scored) -> list[dict[str, Any]]:
    """Returns the matrix as rows of dependence.parquet, run by run.

    `role` says what an entry is: `dependence` (in the family of tests), `own` (an experiment after
    its own data: did the runs have enough of it?) or `all`.
    """
    rows = []
    for at, run in enumerate(found.rows):
        for to, experiment in enumerate(found.columns):
            inside = bool(found.family[at, to])
            rows.append(_entry(found, at, to, run, experiment, inside))
    return rows


def _entry(
    found: Scored, at: int, to: int, run: str, experiment: str, inside: bool
) -> dict[str, Any]:
    of = found.matrix
    names = {"ci_low": of.low, "ci_high": of.high, "joint_low": of.joint_low}
    names |= {"joint_high": of.joint_high, "estimate": of.estimate, "se": of.se}
    names |= {"p_value": of.p_value, "p_holm": of.adjusted, "mde": of.mde}
    numbers = {name: _plain(float(array[at, to])) for name, array in names.items()}
    role = "dependence" if inside else "all" if run == "all" else "own"
    decisive = numbers["p_holm"] if inside else numbers["p_value"]
    verdict = NO_TEST if decisive is None else FOUND if decisive <= ALPHA else NOT_FOUND
    return {
        "run": run,
        "experiment": experiment,
        "metric": found.record.metrics[experiment],
        "role": role,
        "outcome": float(found.outcomes[at, to]),
        **numbers,
        "n_no_ops": len(found.no_ops),
        "n_tests": of.n_tests if inside else 1,
        "verdict": verdict,
        "note": NO_SPREAD if decisive is None else None,
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summary(found: Scored) -> dict[str, Any]:
    """Returns what dependence.json says."""
    record = found.record
    rows = entries(found)
    detected = [row for row in rows if row["role"] == "dependence" and row["verdict"] == FOUND]
    return {
        "format_version": 1,
        "set": record.model_dump(mode="json", exclude={"runs"}),
        "runs": {
            run.name: {"role": run.role, "tokens": run.tokens, "placements": run.placements}
            for run in record.runs
        },
        "rows": found.rows,
        "columns": found.columns,
        "outcomes": found.outcomes.tolist(),
        "no_ops": found.no_ops.tolist(),
        "n_tests": found.matrix.n_tests,
        "detectable_sd": detectable(len(found.no_ops), found.matrix.n_tests),
        "found": [[row["run"], row["experiment"]] for row in detected],
        "untested": record.untested,
    }


def write_results(out: Path, found: Scored) -> list[dict[str, Any]]:
    """Returns the entries, after writing dependence.parquet and dependence.json."""
    rows = entries(found)
    with replacing(out / TABLE_NAME) as partial:
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        pq.write_table(table, partial, compression="zstd")
    text = json.dumps(summary(found), sort_keys=True, indent=1, ensure_ascii=False)
    write_text(out / SUMMARY_NAME, text + "\n")
    return rows


def check_out(out: Path) -> None:
    """Refuses a results folder that is something else.

    Raises:
        InputError: when it is a file, or a folder with other files.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, a folder is needed")
    inside = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(name for name in inside - OWN_FILES if not name.startswith("."))
    if foreign:
        raise InputError(
            f"--out {out}: holds {', '.join(foreign[:3])}, which no scoring of dependence runs "
            "wrote; name an empty folder or one with earlier results"
        )
