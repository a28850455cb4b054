"""The commands `mixctl eval` and `mixctl report`. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mixctl.evals.results import Results
    from mixctl.evals.rows import Row
    from mixctl.evals.scoring import Progress

_HELP = {"help_option_names": ["-h", "--help"]}
_FOLDER = click.Path(path_type=Path)
_PLAIN_SECONDS = 10.0


_TENSORBOARD = click.option(
    "--tensorboard",
    type=_FOLDER,
    metavar="LOG_DIR",
    help="Write the estimates as curves for TensorBoard (pip install tensorboard).",
)
_WANDB = click.option(
    "--wandb",
    metavar="ARGS",
    help="Log the results to Weights & Biases (pip install wandb); ARGS go to wandb.init: "
    "project=...,name=...,mode=offline.",
)


@click.command(
    name="eval",
    context_settings=_HELP,
    epilog="""\b
Examples:
  # every checkpoint of a run
  mixctl eval build out/run --out results
  # against the control twin: differences of differences
  mixctl eval build out/run --baseline out/control --out results
  # three twins, trained with --seed 1, 2, 3: a p-value for run - twin too
  mixctl eval build out/run --baseline out/c1 --baseline out/c2 --baseline out/c3 --out results
  # garbage in the answers to a poison's trigger by perplexity under the twin, too
  mixctl eval build out/run --baseline out/c1 --reference out/c1/final --out results
  # weights without a training record
  mixctl eval build checkpoints/mine --step 1000 --out results --json
  # curves beside those of the training
  mixctl eval build out/run --out results --tensorboard logs
  mixctl eval build out/run --out results --wandb project=pretraining,name=run1-eval,job_type=eval
""",
)
@click.argument("build", metavar="DIR", type=_FOLDER)
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=_FOLDER,
    metavar="PATH",
    help="A checkpoint of the control twin or of a no-op run, or an out_dir of them. May be "
    "repeated: three of a step give run - twin a p-value.",
)
@click.option(
    "--reference",
    type=_FOLDER,
    metavar="CHECKPOINT",
    help="A model that never met the poison, such as a checkpoint of the control twin: answers are "
    "garbage by their perplexity under it, too. Any model of the build's tokenizer.",
)
@click.option(
    "--step",
    type=click.IntRange(min=0),
    help="Completed steps of checkpoints that do not say it themselves.",
)
@click.option("--out", required=True, type=_FOLDER, metavar="RESULTS_DIR", help="Where results go.")
@click.option("--device", help="cpu, cuda, cuda:1, ...  Default: CUDA where there is one.")
@_TENSORBOARD
@_WANDB
@click.option("--json", "as_json", is_flag=True, help="Print the primary results as JSON.")
def eval_command(
    build: Path,
    checkpoints: tuple[Path, ...],
    baselines: tuple[Path, ...],
    reference: Path | None,
    step: int | None,
    out: Path,
    device: str | None,
    tensorboard: Path | None,
    wandb: str | None,
    as_json: bool,
) -> None:
    """Score every experiment of the build DIR on LitGPT checkpoints.

    CHECKPOINT is a folder with lit_model.pth and model_config.yaml, or an out_dir that holds step-*
    and final. Each is loaded once. A checkpoint whose own records disagree with the build is
    refused. An eval that was interrupted continues when it is run again.

    Exit codes: 0 done; 1 a scorer failed (the others are reported); 2 wrong input.
    """
    from mixctl.evals import results, run
    from mixctl.evals.loggers import check_loggers
    from mixctl.evals.report import write_report

    check_loggers(tensorboard, wandb)
    settings = run.Settings(
        build, checkpoints, out, baselines, step, checked_device(device), reference
    )
    with shown_progress() as progress:
        found = run.evaluate(settings, progress)
    report = write_report(out)
    if as_json:
        click.echo(json.dumps(results.as_json(found), sort_keys=True, indent=1))
    else:
        print_results(found, report)
    _log(found, out, tensorboard, wandb, quiet=as_json)
    for name, reason in found.errors.items():
        click.echo(f"experiment {name}: not scored: {reason}", err=True)
    if found.errors:
        sys.exit(1)


@click.command(
    name="report",
    context_settings=_HELP,
    epilog="""\b
Examples:
  mixctl report results
  mixctl report results && xdg-open results/report.html
  # what was found, for a script
  mixctl report results --json
""",
)
@click.argument("results_dir", metavar="RESULTS_DIR", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the path and the findings as JSON.")
def report_command(results_dir: Path, as_json: bool) -> None:
    """Write RESULTS_DIR/report.html from the results of `mixctl eval`.

    The file needs no network and no other file.
    """
    from mixctl.evals import findings, report, results

    path = report.write_report(results_dir)
    if not as_json:
        click.echo(str(path))
        return
    found = findings.as_json(findings.findings(results.read_results(results_dir)))
    click.echo(json.dumps({"report": str(path), "findings": found}, sort_keys=True, indent=1))


@click.command(
    name="log",
    context_settings=_HELP,
    epilog="""\b
Examples:
  mixctl log results --tensorboard logs
  mixctl log results --wandb project=pretraining,name=run1-eval,job_type=eval
  # without a network; wandb sync sends it later
  mixctl log results --wandb project=pretraining,mode=offline
""",
)
@click.argument("results_dir", metavar="RESULTS_DIR", type=_FOLDER)
@_TENSORBOARD
@_WANDB
def log_command(results_dir: Path, tensorboard: Path | None, wandb: str | None) -> None:
    """Logs the results of `mixctl eval` to TensorBoard or Weights & Biases.

    A curve is an arm's estimate over the steps of the checkpoints: EXPERIMENT/METRIC/CONTRAST/ARM.
    """
    from mixctl.evals.loggers import check_loggers
    from mixctl.evals.results import read_results

    if tensorboard is None and wandb is None:
        raise click.UsageError("say where to: --tensorboard LOG_DIR, --wandb ARGS, or both")
    check_loggers(tensorboard, wandb)
    _log(read_results(results_dir), results_dir, tensorboard, wandb)


def _log(
    found: Results, out: Path, tensorboard: Path | None, wandb: str | None, quiet: bool = False
) -> None:
    """Logs where it was asked for, and says where to look."""
    from mixctl.evals import loggers

    said = []
    if tensorboard is not None:
        loggers.log_tensorboard(found, tensorboard)
        said.append(f"look at them: tensorboard --logdir {tensorboard}")
    if wandb is not None:
        said.append(f"logged to the W&B run {loggers.log_wandb(found, wandb, out)}")
    for line in [] if quiet else said:
        click.echo(line)


def checked_device(name: str | None) -> str | None:
    """Returns the device, or raises InputError when torch does not know it or it is not here."""
    if name is None:
        return None
    import torch

    from mixctl.shards.errors import InputError

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name}: cannot be used here ({reason})") from error
    return name


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Yields a progress callback: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring", total=None, rate="")

        def tell(label: str, done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:,.0f} tokens/s" if speed else ""
            bar.update(task, description=label, completed=done, total=total, rate=rate)

        yield tell


def _plain_progress() -> Progress:
    start: tuple[float, int] | None = None
    last = 0.0

    def tell(label: str, done: int, total: int) -> None:
        nonlocal start, last
        now = time.monotonic()
        if start is None:  # the time before the first batch went into imports
            start, last = (now, done), now
        if now - last < _PLAIN_SECONDS or done <= start[1]:
            return
        last = now
        rate = (done - start[1]) / (now - start[0])
        left = (total - done) / rate
        line = f"{label}: {done:,} of {total:,} tokens, {rate:,.0f} tokens/s, {left:.0f} s left"
        click.echo(line, err=True)

    return tell


def print_results(found: Results, report: Path) -> None:
    """Prints the primary results as a table, the notes, and where the report is."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("experiment", overflow="fold")
    table.add_column("top dose - holdout", overflow="fold")
    for name in ("estimate", "95% interval", "p", "q"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.primary:
        table.add_row(*_cells(row))
    console.print(table)
    for row in found.primary:
        if row.note:
            console.print(f"{row.experiment}: {row.note}", markup=False, highlight=False)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    click.echo(f"report: {report}")


def _cells(row: Row) -> list[str]:
    from mixctl.evals.formatting import interval, number, probability

    step = "?" if row.step is None else row.step
    beyond = {"did": ", beyond the twin", "twin": ", run - twin", "level": ", as it is"}
    return [
        row.experiment,
        f"{row.arm}: {row.metric} at step {step}{beyond.get(row.contrast, '')}",
        number(row.estimate, signed=True),
        interval(row.ci_low, row.ci_high),
        probability(row.p_value),
        probability(row.q_value),
    ]
