"""Results of an eval in the shape of lm-evaluation-harness's: what reads its files reads these.

    OUT/run__step-00000300/results_2026-01-31T12-00-00.123456.json       one a checkpoint
    {"results": {"mixctl_leak_x16": {"alias": "leak x16", "sample_len": 40,
                                     "accuracy,none": 0.9, "accuracy_stderr,none": 0.05,
                                     "accuracy,holdout": 0.6, ...}}, ...}

A task is an arm, a group an experiment. Where the harness names a filter, levels have `none` and
differences their contrast: `holdout`, `twin` or `did`. Metrics keep mixctl's names, since they are
mixctl's. P-values and intervals stay in results.parquet: the harness has no place for them.

Price: one pass over the rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixctl.evals.lm_eval_question import task_name
from mixctl.evals.results import Results
from mixctl.evals.rows import Row
from mixctl.shards.errors import InputError
from mixctl.shards.files import write_text

SOURCE = "mixctl"
_UNFIT = re.compile(r'["<>:/|\\?*\[\]]+')
"""what the harness replaces in the names of models"""


def export_results(found: Results, out: Path, now: datetime | None = None) -> list[Path]:
    """Returns the files written to `out`, one for each checkpoint that has numbers.

    Args:
        found: results of an eval.
        out: the folder; others' files in it stay.
        now: the time in the names; None: the present.

    Raises:
        InputError: when no row has a number.
    """
    moment = now or datetime.now()
    rows = [row for row in found.rows if row.estimate is not None and row.stratum is None]
    if not rows:
        raise InputError("no row of the results has a number: there is nothing to export")
    paths = []
    for checkpoint in dict.fromkeys(row.checkpoint for row in rows):
        own = [row for row in rows if row.checkpoint == checkpoint]
        name = _UNFIT.sub("__", checkpoint)
        path = out / name / f"results_{moment.isoformat().replace(':', '-')}.json"
        plain = as_harness(found.summary, checkpoint, own, moment)
        write_text(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
        paths.append(path)
    return paths


def as_harness(
    summary: Mapping[str, Any], checkpoint: str, rows: Iterable[Row], moment: datetime
) -> dict[str, Any]:
    """Returns what the harness would have written of a model, in plain values.

    Args:
        summary: what results.json says.
        checkpoint: the model.
        rows: its rows, with a number each, of all strata.
        moment: when.
    """
    results: dict[str, dict[str, Any]] = {}
    of_task: dict[str, Row] = {}
    for row in rows:
        name = task_name(row.experiment, row.arm)
        of_task.setdefault(name, row)
        task = results.setdefault(name, _task(row))
        task["sample_len"] = max(task["sample_len"], row.n)
        kind = "none" if row.contrast == "level" else row.contrast
        task[f"{row.metric},{kind}"] = row.estimate
        task[f"{row.metric}_stderr,{kind}"] = "N/A" if row.se is None else row.se
    groups: dict[str, list[str]] = {}
    for name, row in of_task.items():
        groups.setdefault(task_name(row.experiment), []).append(name)
    return {
        "results": results,
        "group_subtasks": groups,
        "configs": {name: _config(name, row, results[name]) for name, row in of_task.items()},
        "versions": dict.fromkeys([*results, *groups], version("mixctl")),
        "n-shot": dict.fromkeys(results, 0),
        "higher_is_better": {name: _better(results[name]) for name in results},
        "n-samples": {name: _counts(results[name]["sample_len"]) for name in results},
        "config": {"model": SOURCE, "model_args": f"pretrained={checkpoint}", "limit": None},
        "date": moment.timestamp(),
        "model_source": SOURCE,
        "model_name": checkpoint,
        "model_name_sanitized": _UNFIT.sub("__", checkpoint),
        "build": summary["build"]["digest"],
    }


def _task(row: Row) -> dict[str, Any]:
    return {
        "name": task_name(row.experiment, row.arm),
        "alias": f"{row.experiment} {row.arm}",
        "sample_len": 0,
    }


def _config(name: str, row: Row, task: Mapping[str, Any]) -> dict[str, Any]:
    metrics = [
        {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in _better(task)
    ]
    return {
        "task": name,
        "group": task_name(row.experiment),
        "num_fewshot": 0,
        "metric_list": metrics,
        "metadata": {"kind": row.kind, "model": row.model, "dose": row.dose, "step": row.step},
    }


def _better(task: Mapping[str, Any]) -> dict[str, bool | None]:
    """Returns the metrics of a task: larger is better known, but norms of weights say neither."""
    names = dict.fromkeys(key.partition(",")[0] for key in task if "," in key)
    metrics = [name for name in names if not name.endswith("_stderr")]
    return {name: None if name.startswith("weight_norm") else True for name in metrics}


def _counts(n_items: int) -> dict[str, int]:
    return {"original": n_items, "effective": n_items}
