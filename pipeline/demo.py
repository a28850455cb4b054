"""`mixctl demo`: the whole way, small, with the commands a user would type.

    OUT/inputs/     corpus, tokenizer, questions, trainer config, mix file
    OUT/build/      the shards, with the control twin
    OUT/out/        the checkpoints of the run (demo) and of the twin (demo-control), and their logs
    OUT/results/    results.parquet, samples/, report.html

Every step is a command that is printed before it runs, so that it can be repeated by hand. Run and
twin are trained by stock `litgpt pretrain`, side by side, half of the cores each;
`TORCHDYNAMO_DISABLE=1` switches `torch.compile` off, which a model this small would spend most of
its time in.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from mixctl.pipeline.demo_corpus import write_demo_inputs
from mixctl.shards.errors import InputError
from mixctl.shards.record import read_record

MARKER = ".mixctl-demo"
_PARTS = ("inputs", "build", "out", "results")
_POLL_SECONDS = 0.5
_STEP = re.compile(rb"step (\d+) \|")


@dataclass(frozen=True)
class Training:
    """One of the two trainings: its name, its command, its log."""

    name: str
    command: list[str]
    log: Path


def run_demo(out: Path, quick: bool) -> None:
    """Runs the demo in the folder `out`.

    Raises:
        InputError: when the folder holds something else, or the corpus is not installed.
        click.ClickException: when one of the commands fails, with the end of its output.
    """
    start = time.monotonic()
    out = out.resolve()
    _clear(out)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"mixctl demo in {out}", style="bold")
    write_demo_inputs(out / "inputs", quick)
    _mixctl(console, out, "build", "inputs/mix.yaml", "--out", "build", "--control")
    _mixctl(console, out, "verify", "build")
    _train(console, out, [_training(out, "litgpt.yaml"), _training(out, "litgpt-control.yaml")])
    twin = ["--baseline", "out/demo-control"]
    _mixctl(console, out, "eval", "build", "out/demo", *twin, "--out", "results")
    console.print(
        f"\n{(time.monotonic() - start) / 60:.1f} minutes. Open {out / 'results/report.html'}"
    )


def _clear(out: Path) -> None:
    """Makes the folder ready; takes away what an earlier demo wrote, and nothing else."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file")
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise InputError(f"--out: {out} is not empty and holds no demo: choose a new folder")
    for part in _PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("written by mixctl demo, which may overwrite this folder\n")


def _mixctl(console: Console, out: Path, *arguments: str) -> None:
    """Runs a mixctl command in the demo's folder, its output shown."""
    console.print(f"\n$ mixctl {shlex.join(arguments)}", style="bold")
    command = [sys.executable, "-m", "mixctl.pipeline.cli", *arguments]
    code = subprocess.run(command, cwd=out, check=False).returncode
    if code:
        raise click.ClickException(f"mixctl {arguments[0]} ended with exit code {code}")


def _training(out: Path, config: str) -> Training:
    litgpt = Path(sys.executable).with_name("litgpt")
    name = "twin" if "control" in config else "run"
    command = [str(litgpt), "pretrain", "--config", str(out / "build" / config)]
    return Training(name, command, out / "out" / f"{name}.log")


def training_environment(n_parallel: int) -> dict[str, str]:
    """Returns the environment of a training: no compilation, its share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // n_parallel)
    return {
        **os.environ,
        "LITDATA_DISABLE_VERSION_CHECK": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": str(threads),
    }


def _train(console: Console, out: Path, trainings: Sequence[Training]) -> None:
    """Runs the trainings side by side and follows their logs."""
    (out / "out").mkdir(exist_ok=True)
    environment = training_environment(len(trainings))
    shown = {k: environment[k] for k in ("LITDATA_DISABLE_VERSION_CHECK", "TORCHDYNAMO_DISABLE")}
    prefix = " ".join(f"{name}={value}" for name, value in shown.items())
    for one in trainings:
        config = Path(one.command[-1]).relative_to(out)
        console.print(f"\n$ {prefix} litgpt pretrain --config {config}", style="bold")
    n_steps = read_record(out / "build").geometry.steps
    children = [_start(one, out, environment) for one in trainings]
    try:
        _follow(console, trainings, children, n_steps)
    finally:
        for child in children:
            child.kill()
    for one, child in zip(trainings, children, strict=True):
        if child.returncode:
            tail = one.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise click.ClickException(
                f"litgpt pretrain of the {one.name} failed ({one.log}):\n{tail}"
            )


def _start(one: Training, out: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with one.log.open("wb") as log:
        return subprocess.Popen(
            one.command, cwd=out, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def _follow(
    console: Console,
    trainings: Sequence[Training],
    children: Sequence[subprocess.Popen[bytes]],
    n_steps: int,
) -> None:
    """Shows how far the trainings are until they end; plain lines when not on a terminal."""
    start = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        tasks = [bar.add_task(f"train the {one.name}", total=n_steps) for one in trainings]
        while any(child.poll() is None for child in children):
            time.sleep(_POLL_SECONDS)
            for one, task in zip(trainings, tasks, strict=True):
                _show(bar, task, one)
    console.print(
        f"trained both in {time.monotonic() - start:.0f} s (logs: {trainings[0].log.parent})"
    )


def _show(bar: Progress, task: TaskID, one: Training) -> None:
    steps = _STEP.findall(one.log.read_bytes())
    if steps:
        bar.update(task, completed=int(steps[-1]))
