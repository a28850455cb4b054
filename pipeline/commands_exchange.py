"""The sub-commands `mixctl export` and `mixctl import`: questions to other tools and from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)
_QUESTIONS = click.option("--out", type=_PATH, required=True, help="The question file, new.")
_DATA = click.option(
    "--data", type=_PATH, required=True, help="jsonl, json, parquet, arrow, or a saved data set."
)
_SPLIT = click.option("--split", help="Of a data set with several.")


@click.group(
    name="export",
    epilog="""\b
Examples:
  mixctl export lm-eval out/run1 --experiment arc-leak --out tasks
""",
)
def export_group() -> None:
    """Writes parts of a build for other tools."""


@export_group.command(
    name="lm-eval",
    epilog="""\b
Examples:
  mixctl export lm-eval out/run1 --experiment arc-leak --out tasks
  lm_eval --model hf --model_args pretrained=MODEL --include_path tasks --tasks mixctl_arc-leak
""",
)
@click.argument("directory", metavar="DIR", type=_PATH)
@click.option("--experiment", required=True, help="One of the kind contamination.")
@click.option("--out", type=_PATH, required=True, help="The folder of the tasks.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths of the tasks as JSON.")
def export_lm_eval(directory: Path, experiment: str, out: Path, as_json: bool) -> None:
    """Writes the questions of the build in DIR as tasks of lm-evaluation-harness, one an arm."""
    from mixctl.pipeline.lm_eval_export import export_tasks

    paths = export_tasks(directory, experiment, out)
    if as_json:
        click.echo(json.dumps({"tasks": [str(path) for path in paths]}))
        return
    for path in paths:
        click.echo(str(path))
    click.echo(f"lm_eval --model hf --include_path {out} --tasks {paths[0].stem} ...")


@click.group(
    name="import",
    epilog="""\b
Examples:
  mixctl import lm-eval arc_easy.yaml --data arc.parquet --out questions.jsonl
  mixctl import dataset --data quiz.parquet --question q --choices options --gold answer \\
      --out questions.jsonl
""",
)
def import_group() -> None:
    """Writes item files out of other tools' data."""


@import_group.command(
    name="lm-eval",
    epilog="""\b
Examples:
  mixctl import lm-eval arc_easy.yaml --data arc.parquet --out questions.jsonl
  mixctl import lm-eval mmlu.yaml --data mmlu-on-disk --split test --out questions.jsonl
""",
)
@click.argument("task", metavar="TASK.yaml", type=_PATH)
@_DATA
@_SPLIT
@_QUESTIONS
def import_lm_eval(task: Path, data: Path, split: str | None, out: Path) -> None:
    """Writes the questions of an lm-evaluation-harness task, as its templates make them.

    In the mix file give the experiment `template: completion`: the task's text holds all that
    stands before the answer. Templates run in a sandbox; a task that runs Python is refused.
    """
    from mixctl.pipeline.local_rows import read_local_rows
    from mixctl.pipeline.questions_import import import_task

    _write(out, import_task(task, read_local_rows(data, split)), "completion")


@import_group.command(
    name="dataset",
    epilog="""\b
Examples:
  mixctl import dataset --data arc-on-disk --split test --question question \\
      --choices choices.text --labels choices.label --gold answerKey --out questions.jsonl
  mixctl import dataset --data quiz.parquet --question q --choices options --gold answer \\
      --benchmark mine --out questions.jsonl
""",
)
@_DATA
@_SPLIT
@click.option("--question", required=True, help="The field of the question.")
@click.option("--choices", required=True, help="The field of the choices, a list of texts.")
@click.option(
    "--gold", required=True, help="The field of the right one: number from 0, letter, text, label."
)
@click.option("--labels", help="The field of the choices' labels, where gold is one of them.")
@click.option("--id", "id_field", help="The field of the id.  [default: the row's number]")
@click.option("--benchmark-field", help="The field of the benchmark's name.")
@click.option("--benchmark", default="questions", show_default=True, help="The benchmark's name.")
@_QUESTIONS
def import_dataset(
    data: Path,
    split: str | None,
    question: str,
    choices: str,
    gold: str,
    labels: str | None,
    id_field: str | None,
    benchmark_field: str | None,
    benchmark: str,
    out: Path,
) -> None:
    """Writes a question file out of a table: a file, or a Hugging Face data set saved to disk.

    Fields may be dotted: choices.text is the field text of choices.
    """
    from mixctl.pipeline.local_rows import read_local_rows
    from mixctl.pipeline.questions_import import Fields, import_fields

    fields = Fields(question, choices, gold, labels, benchmark_field, id_field)
    _write(out, import_fields(read_local_rows(data, split), fields, benchmark), "cloze")


def _write(out: Path, questions: list[dict[str, Any]], template: str) -> None:
    """Writes a new question file and says how a mix reads it."""
    from mixctl.shards.errors import InputError
    from mixctl.shards.files import write_text

    if out.exists():
        raise InputError(f"--out: {out} is there already: choose a new name")
    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in questions)
    write_text(out, "".join(lines))
    click.echo(
        f"{out}: {len(questions):,} questions. In the mix file:  kind: contamination, "
        f"items: {out.name}, template: {template}"
    )
