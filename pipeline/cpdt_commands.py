"""`mixctl cpdt`: plan, build, run and score dependence tests."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from mixctl.pipeline.cpdt_prepare import Request

_PATH = click.Path(path_type=Path)
_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(
    context_settings=_HELP,
    epilog="""\b
Examples:
  mixctl cpdt plan  out/run1 out/run1-ckpt/step-00050000
  mixctl cpdt build out/run1 out/run1-ckpt/step-00050000 --out cpdt1
  mixctl cpdt run   cpdt1                     or cpdt1/train-all.sh, or: sbatch cpdt1/slurm.sh
  mixctl cpdt score cpdt1 --out cpdt1-results
""",
)
def cpdt() -> None:
    """Tests whether experiments disturb one another, by short runs from one checkpoint.

    For every experiment a run whose base data carries that experiment's payloads alone (1% of its
    tokens), one run with those of all, and replicated no-op runs. Stock litgpt pretrain goes on
    from the checkpoint, its optimizer and its learning-rate schedule. After each run every
    experiment is scored; what the no-op runs do by themselves is the null.
    """


def _asking(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with the arguments and options of plan and build."""
    for decorate in reversed(_ASKED):
        command = decorate(command)
    return command


_ASKED = (
    click.argument("build", metavar="DIR", type=_PATH),
    click.argument("checkpoint", metavar="CHECKPOINT", type=_PATH),
    click.option("--steps", type=int, default=100, show_default=True, help="Of every run."),
    click.option(
        "--share", default="1%", show_default=True, help="Tokens of a run that payloads take."
    ),
    click.option(
        "--replicates", type=int, default=8, show_default=True, help="No-op runs, 3 or more."
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option("--experiment", "experiments", multiple=True, help="Only these.  [default: all]"),
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        metavar="EXPERIMENT=METRIC",
        help="The outcome of an experiment.  [default: its kind's primary metric]",
    ),
)


@cpdt.command(
    "plan",
    context_settings=_HELP,
    epilog="""\b
Examples:
  mixctl cpdt plan out/run1 out/run1-ckpt/step-00050000
  mixctl cpdt plan out/run1 out/run1-ckpt/step-00050000 --replicates 12 --step-time 1.9
  mixctl cpdt plan out/run1 out/run1-ckpt/step-00050000 --metric quiz=gold_logprob --json
""",
)
@_asking
@click.option("--step-time", type=float, help="Seconds of a step: the time is printed too.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan_command(step_time: float | None, as_json: bool, **asked: Any) -> None:
    """Shows the runs, what they cost, and what they would find. Writes nothing.

    DIR is a build, CHECKPOINT one of its training (or of its twin's) that holds the optimizer.
    """
    from mixctl.pipeline.cpdt_plan import print_plan, summarise
    from mixctl.pipeline.cpdt_prepare import prepare

    found = summarise(prepare(_request(**asked)), step_time)
    if as_json:
        click.echo(json.dumps(found, indent=1, sort_keys=True))
    else:
        print_plan(found)


@cpdt.command(
    "build",
    context_settings=_HELP,
    epilog="""\b
Examples:
  mixctl cpdt build out/run1 out/run1-ckpt/step-00050000 --out cpdt1
  mixctl cpdt build out/run1 out/run1-ckpt/step-00050000 --out cpdt1 --steps 50 --share 0.5%
""",
)
@_asking
@click.option("--out", required=True, type=_PATH, help="The folder of the runs; stays there.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def build_command(out: Path, as_json: bool, **asked: Any) -> None:
    """Builds the data and trainer configs of all runs, and scripts that train them anywhere."""
    from mixctl.pipeline.cpdt_build import build_runs
    from mixctl.pipeline.cpdt_prepare import prepare

    record = build_runs(prepare(_request(**asked)), out, _say(as_json))
    if as_json:
        click.echo(record.model_dump_json(indent=1))
        return
    for name, why in sorted(record.untested.items()):
        click.echo(f"{name}: not tested: {why}")
    click.echo(f"Train them:  mixctl cpdt run {out}     (elsewhere: {out}/train-all.sh, slurm.sh)")
    click.echo(f"Then:        mixctl cpdt score {out} --out RESULTS_DIR")


@cpdt.command(
    "run",
    context_settings=_HELP,
    epilog="""\b
Examples:
  mixctl cpdt run cpdt1
  mixctl cpdt run cpdt1 --run only-quiz --run no-op-1
  TORCHDYNAMO_DISABLE=1 mixctl cpdt run cpdt1 --jobs 2      a tiny model: compiling takes longest
""",
)
@click.argument("directory", metavar="SET", type=_PATH)
@click.option("--run", "names", multiple=True, help="Only this run.  [default: all]")
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Trainings at a time."
)
def run_command(directory: Path, names: tuple[str, ...], jobs: int) -> None:
    """Trains the runs of SET that are not trained yet, on this machine.

    Stock litgpt pretrain saves at the last step of a run and is ended then. Stopped or killed, the
    same command goes on; a run that was interrupted begins again.
    """
    from mixctl.pipeline.cpdt_run import train_runs

    train_runs(directory, names, jobs, lambda line: click.echo(line, err=True))


@cpdt.command(
    "score",
    context_settings=_HELP,
    epilog="""\b
Examples:
  mixctl cpdt score cpdt1 --out cpdt1-results
  mixctl cpdt score cpdt1 --out cpdt1-results --json
""",
)
@click.argument("directory", metavar="SET", type=_PATH)
@click.option("--out", required=True, type=_PATH, metavar="RESULTS_DIR", help="Where results go.")
@click.option("--device", help="cpu, cuda, cuda:1, ...  Default: CUDA where there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print the matrix as JSON.")
def score_command(directory: Path, out: Path, device: str | None, as_json: bool) -> None:
    """Scores every experiment after every run, tests the matrix, writes report.html."""
    from mixctl.evals.cli import checked_device, shown_progress
    from mixctl.evals.cpdt import score
    from mixctl.evals.cpdt_report import write_report
    from mixctl.evals.cpdt_results import check_out, write_results
    from mixctl.evals.run import default_device
    from mixctl.pipeline.cpdt_plan import print_matrix

    check_out(out)
    with shown_progress() as progress:
        found = score(directory, out, checked_device(device) or default_device(), progress)
    rows = write_results(out, found)
    report = write_report(out)
    if as_json:
        click.echo(json.dumps({"entries": rows, "report": str(report)}, indent=1, sort_keys=True))
        return
    print_matrix(found, rows)
    click.echo(f"report: {report}")


def _say(quiet: bool) -> Callable[[str], None]:
    return lambda line: None if quiet else click.echo(line, err=True)


def _request(
    build: Path,
    checkpoint: Path,
    steps: int,
    share: str,
    replicates: int,
    seed: int,
    experiments: tuple[str, ...],
    metrics: tuple[str, ...],
) -> Request:
    """Returns what the options ask for.

    Raises:
        InputError: when one of them cannot be read.
    """
    from mixctl.injections.quantities import parse_share
    from mixctl.pipeline.cpdt_prepare import Request
    from mixctl.shards.errors import InputError

    problems, fraction = [], Fraction(0)
    try:
        fraction = parse_share(share)
    except ValueError as error:
        problems.append(f"--share: {error}")
    pairs = [text.partition("=") for text in metrics]
    problems += [
        f"--metric {name}{sign}{metric}: is not of the form EXPERIMENT=METRIC"
        for name, sign, metric in pairs
        if not (name and metric)
    ]
    if problems:
        raise InputError(problems)
    chosen = {name: metric for name, _, metric in pairs}
    return Request(build, checkpoint, steps, fraction, replicates, seed, experiments, chosen)
