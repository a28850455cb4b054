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
  mixctl export lm-eval-results results --out harness
""",
)
def export_group() -> None:
    """Writes questions of a build, or results of an eval, for other tools."""


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


@export_group.command(
    name="lm-eval-results",
    epilog="""\b
Examples:
  mixctl export lm-eval-results results --out harness
  mixctl export lm-eval-results results --out harness --json
""",
)
@click.argument("results_dir", metavar="RESULTS_DIR", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The folder of the files.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths of the files as JSON.")
def export_lm_eval_results(results_dir: Path, out: Path, as_json: bool) -> None:
    """Writes RESULTS_DIR in the shape of lm-evaluation-harness's results, a file a checkpoint.

    A task is an arm; where the harness has a filter, `none` is the arm by itself, and holdout, twin
    and did are its differences.
    """
    from mixctl.evals.lm_eval_json import export_results
    from mixctl.evals.results import read_results

    paths = export_results(read_results(results_dir), out)
    if as_json:
        click.echo(json.dumps({"files": [str(path) for path in paths]}))
        return
    for path in paths:
        click.echo(str(path))


@click.group(
    name="import",
    epilog="""\b
Examples:
  mixctl import lm-eval arc_easy.yaml --data arc.parquet --out questions.jsonl
  mixctl import dataset --data quiz.parquet --question q --choices options --gold answer \\
      --out questions.jsonl
  mixctl import lm-eval-results out/run1 harness --out results
""",
)
def import_group() -> None:
    """Reads other tools' data: questions into item files, scores into results."""


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
    name="lm-eval-results",
    epilog="""\b
Examples:
  mixctl import lm-eval-results out/run1 harness --out results
  # the twin's too: differences of differences
  mixctl import lm-eval-results out/run1 harness/run --baseline harness/twin --out results
  # a model whose name says no step
  mixctl import lm-eval-results out/run1 harness/mine --step 1000 --out results --json
""",
)
@click.argument("directory", metavar="DIR", type=_PATH)
@click.argument("samples", metavar="SAMPLES...", nargs=-1, required=True, type=_PATH)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="Samples of a control twin. May be repeated, as that of mixctl eval.",
)
@click.option(
    "--step",
    type=click.IntRange(min=0),
    help="Completed steps of models whose folder does not say them (step-00001000).",
)
@click.option("--out", required=True, type=_PATH, metavar="RESULTS_DIR", help="Where results go.")
@click.option("--json", "as_json", is_flag=True, help="Print the primary results as JSON.")
def import_lm_eval_results(
    directory: Path,
    samples: tuple[Path, ...],
    baselines: tuple[Path, ...],
    step: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Puts scores of lm-evaluation-harness through mixctl's statistics: results and a report.

    DIR is the build whose tasks `mixctl export lm-eval` wrote. SAMPLES is what lm_eval wrote to its
    --output_path with --log_samples: the folder of a model, or of several. Every item must be there
    once, its question word for word that of the manifest.
    """
    from mixctl.evals.cli import print_results
    from mixctl.evals.lm_eval_results import import_results
    from mixctl.evals.report import write_report
    from mixctl.evals.results import as_json as plain

    found = import_results(directory, samples, out, baselines, step)
    report = write_report(out)
    if as_json:
        click.echo(json.dumps(plain(found), sort_keys=True, indent=1))
    else:
        print_results(found, report)


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
