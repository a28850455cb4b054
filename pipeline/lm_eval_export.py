"""Contamination items of a build as tasks of lm-evaluation-harness: a task an arm, and their group.

    OUT/mixctl_leak.yaml            group: all arms
    OUT/mixctl_leak_x16.yaml        task: the questions of the arm, multiple choice
    OUT/mixctl_leak_x16.jsonl       its questions: id, context, choices, gold

    lm_eval --model hf --model_args pretrained=... --include_path OUT --tasks mixctl_leak

The strings are decoded from the manifest (`mixctl.evals.lm_eval_question`), so the harness reads
what was placed and what `mixctl eval` scores. The YAML names its data by whole path, since the
harness looks from the folder that it is started in. What it finds is read back by
`mixctl.evals.lm_eval_results`.

Price: a row group of items in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml

from mixctl.evals.lm_eval_question import KIND, question, task_name
from mixctl.injections.encode import load_encoder
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.files import write_text
from mixctl.shards.manifest import read_items
from mixctl.shards.record import read_record


def export_tasks(build: Path, experiment: str, out: Path) -> list[Path]:
    """Returns the YAML files of the tasks, the group's first, after writing all of `out`.

    Raises:
        InputError: when the build has no such experiment of the kind contamination, or a file of
            that name is there.
    """
    record = read_record(build)
    items = read_items(build).filter(pc.field("kind") == KIND)
    named = sorted(set(items["experiment"].to_pylist()))
    if experiment not in named:
        what = "has another kind" if experiment in record.totals else "is not in the build"
        raise InputError(
            f"--experiment: '{experiment}' {what}; lm-eval tasks are made of the kind {KIND}"
            f"{nearest(experiment, named)}"
        )
    rows = items.filter(pc.field("experiment") == experiment).to_pylist()
    encoder = load_encoder(build / "tokenizer", eod=record.tokenizer.eod)
    arms = sorted({str(row["arm"]) for row in rows})
    group = task_name(experiment)
    names = [task_name(experiment, arm) for arm in arms]
    _check_free(out, [group, *names])
    for arm, name in zip(arms, names, strict=True):
        mine = [row for row in rows if row["arm"] == arm]
        made = (question(row, encoder.decode, record.tokenizer.bos_id) for row in mine)
        lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in made)
        write_text(out / f"{name}.jsonl", "".join(lines))
        task = _task(name, out / f"{name}.jsonl", mine[0], record.self_digest)
        write_text(out / f"{name}.yaml", yaml.safe_dump(task, sort_keys=False))
    write_text(out / f"{group}.yaml", yaml.safe_dump(_group(group, names), sort_keys=False))
    return [out / f"{name}.yaml" for name in [group, *names]]


def _check_free(out: Path, names: Sequence[str]) -> None:
    files = [f"{name}.yaml" for name in names] + [f"{name}.jsonl" for name in names[1:]]
    if there := [name for name in files if (out / name).exists()]:
        raise InputError(f"--out: {out} holds {', '.join(there)} already: choose a new folder")


def _task(name: str, data: Path, row: dict[str, Any], digest: str) -> dict[str, Any]:
    metrics = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ]
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": os.path.abspath(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": metrics,
        "metadata": {"version": 1.0, "build": digest, "copies": row["copies"]},
    }


def _group(name: str, tasks: list[str]) -> dict[str, Any]:
    metrics = [
        {"metric": metric, "aggregation": "mean", "weight_by_size": True}
        for metric in ("acc", "acc_norm")
    ]
    return {
        "group": name,
        "task": tasks,
        "aggregate_metric_list": metrics,
        "metadata": {"version": 1.0},
    }
