"""What an eval leaves behind, and reading it again.

    results.parquet   a row an estimate (mixctl.evals.rows)
    results.json      the build, the checkpoints, errors, notes, the schedule of every arm
    samples/*.parquet a row an item and checkpoint
    converted/        Hugging Face checkpoints as LitGPT folders; may be deleted
    report.html       written by `mixctl report`

results.json is written last: a folder without it holds an eval that was interrupted, and running it
again continues.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixctl.evals.checkpoint import Checkpoint
from mixctl.evals.experiments import Experiment, timeline
from mixctl.evals.reference import Reference
from mixctl.evals.results_summary import summary_problems
from mixctl.evals.rows import Row, from_table, to_table
from mixctl.shards.control_trace import read_trace
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_file, remove_leftovers, replacing, write_text
from mixctl.shards.jsonfile import read_json
from mixctl.shards.record import RECORD_NAME, BuildRecord

RESULTS_FORMAT = 1
TABLE_NAME = "results.parquet"
SUMMARY_NAME = "results.json"
REPORT_NAME = "report.html"
OWN_FILES = {TABLE_NAME, SUMMARY_NAME, REPORT_NAME, "samples", "converted"}


@dataclass(frozen=True)
class Results:
    """All that an eval found.

    Attributes:
        rows: the estimates, primary ones first within an experiment.
        errors: experiment -> why it could not be scored.
        notes: what must be said of the checkpoints.
        summary: the build, the checkpoints and the experiments, as in results.json.
    """

    rows: list[Row]
    errors: dict[str, str]
    notes: list[str]
    summary: dict[str, Any]

    @property
    def primary(self) -> list[Row]:
        """Returns the primary rows, one an experiment."""
        return [row for row in self.rows if row.primary]


def summary(
    build: Path,
    record: BuildRecord,
    experiments: Sequence[Experiment],
    runs: Sequence[Checkpoint],
    twins: Sequence[Checkpoint],
    reference: Reference | None = None,
) -> dict[str, Any]:
    """Returns what results.json says besides rows, errors and notes."""
    return {
        "results_format": RESULTS_FORMAT,
        "build": {
            "folder": build.as_posix(),
            "digest": digest_file(build / RECORD_NAME),
            "steps": record.geometry.steps,
            "global_batch": record.geometry.global_batch,
            "max_seq_length": record.geometry.max_seq_length,
        },
        "checkpoints": [_described(checkpoint) for checkpoint in runs],
        "baselines": [_described(checkpoint) for checkpoint in twins],
        "reference": reference and {**_described(reference.checkpoint), "digest": reference.digest},
        "experiments": {
            experiment.name: {
                "kind": experiment.kind,
                "items": len(experiment.items),
                "placements": len(experiment.copy_items),
                "arms": experiment.all_arms,
                "timeline": timeline(experiment, record.geometry.steps),
                **_steered(build, experiment.name),
            }
            for experiment in experiments
        },
    }


def _steered(build: Path, experiment: str) -> dict[str, Any]:
    """Returns what a closed loop decided on an experiment; nothing where it was not steered."""
    trace = read_trace(build)
    found = trace.of(experiment) if trace is not None else []
    return {"control": [one.model_dump() for one in found]} if found else {}


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "folder": checkpoint.name,
        "step": checkpoint.step,
        "step_source": checkpoint.step_source,
    }


def write_results(out: Path, found: Results, kept: Sequence[Path]) -> None:
    """Writes results.parquet and results.json, and removes samples that are not `kept`.

    results.json names those that are: the rows were made of just these.
    """
    remove_leftovers(out)
    with replacing(out / TABLE_NAME) as partial:
        pq.write_table(to_table(found.rows), partial, compression="zstd")
    for path in (out / "samples").glob("*.parquet"):
        if path not in kept:
            path.unlink()
    plain = {**as_json(found, with_rows=False), "samples": sorted(path.name for path in kept)}
    text = json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False)
    write_text(out / SUMMARY_NAME, text + "\n")


def as_json(found: Results, with_rows: bool = True) -> dict[str, Any]:
    """Returns the results as plain values; the rows are the primary ones."""
    plain: dict[str, Any] = {**found.summary, "errors": found.errors, "notes": found.notes}
    if with_rows:
        plain["primary"] = to_table(found.primary).to_pylist()
    return plain


def read_results(out: Path) -> Results:
    """Returns the results in a folder.

    Raises:
        InputError: when the folder holds no finished eval, or its files are broken.
    """
    summary_path, table_path = out / SUMMARY_NAME, out / TABLE_NAME
    missing = [path for path in (summary_path, table_path) if not path.is_file()]
    if missing:
        raise InputError([f"{path}: missing; {out} holds no finished eval" for path in missing])
    plain = read_json(summary_path)
    try:
        rows = from_table(pq.read_table(table_path))
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{table_path}: the results are broken ({' '.join(str(error).split())})"
        ) from error
    if plain.get("results_format") != RESULTS_FORMAT:
        raise InputError(
            f"{summary_path}: results_format is {plain.get('results_format')!r}, this mixctl reads "
            f"{RESULTS_FORMAT}"
        )
    if problems := summary_problems(plain, rows):
        raise InputError([f"{summary_path}: {problem}" for problem in problems])
    errors, notes = plain.pop("errors"), plain.pop("notes")
    return Results(rows=rows, errors=errors, notes=notes, summary=plain)
