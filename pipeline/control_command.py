"""`mixctl control` on the command line, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixctl.shards.control_trace import Decision

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  mixctl control mix.yaml --out runs/facts             begin, or go on where it was stopped
  mixctl control mix.yaml --out runs/facts --device cuda
  mixctl control mix.yaml --out runs/base --off        measured, nothing placed
  mixctl eval runs/facts/build runs/facts/checkpoints --out results
"""
)
@click.argument("mix", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="For build/, checkpoints/ and train.log.")
@click.option("--control", "twin", is_flag=True, help="Write the control twin as well.")
@click.option("--off", is_flag=True, help="Measure and decide, but place nothing.")
@click.option("--device", help="To score the probes on.  [default: cuda where there is one]")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="How often in a row a trainer that ended too early is started again.",
)
@click.option("--workers", type=click.IntRange(1), help="Tasks at a time of the build.")
@click.option("--json", "as_json", is_flag=True, help="Print the trace as JSON at the end.")
def control(
    mix: Path,
    out: Path,
    twin: bool,
    off: bool,
    device: str | None,
    retries: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Trains on MIX in a closed loop: probes decide what the next steps hold.

    Builds MIX, then trains with a stock `litgpt pretrain`; every so many steps (`control:` in MIX)
    it is stopped, the probes are scored, each controller says how many texts follow, the build is
    amended, and the training resumes. Stopped or killed, the same command goes on.
    """
    from mixctl.pipeline.control import Settings
    from mixctl.pipeline.control import control as run
    from mixctl.pipeline.mixfile import read_mix

    settings = Settings(
        out=out, twin=twin, off=off, device=device, retries=retries, workers=workers
    )
    steps = read_mix(mix).topology.steps
    with ConsoleView(Console(highlight=False, soft_wrap=True, stderr=as_json), steps) as view:
        trace = run(mix, settings, view)
    if as_json:
        click.echo(trace.model_dump_json(indent=1))
        return
    click.echo(f"Score it:  mixctl eval {out / 'build'} {out / 'checkpoints'} --out RESULTS")


class ConsoleView:
    """Decisions as lines; on a terminal, a bar of the steps below them."""

    def __init__(self, console: Console, steps: int) -> None:
        """Takes where it is shown and the steps of the run."""
        self._console = console
        columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("train", total=steps)

    def __enter__(self) -> ConsoleView:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def said(self, sentence: str) -> None:
        """Shows a sentence."""
        self._bar.console.print(sentence, markup=False)

    def decided(self, decisions: Sequence[Decision]) -> None:
        """Shows set point, value and texts, a line an experiment."""
        for one in decisions:
            self.said(line(one))

    def trained(self, step: int) -> None:
        """Moves the bar."""
        if step:
            self._bar.update(self._task, completed=step)


def line(one: Decision) -> str:
    """Returns a decision as a line."""
    value = "not measured" if one.value is None else f"{one.value:.3g}"
    said = f"step {one.after_step}: {one.experiment}: set point {one.set_point:.3g}, value {value}"
    if one.until_step == one.after_step:
        return f"{said}: the end"
    return f"{said}: {one.texts} texts in steps {one.after_step + 1} to {one.until_step}"
