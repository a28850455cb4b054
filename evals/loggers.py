"""Results of an eval as curves in TensorBoard and Weights & Biases, where those are installed.

    leak/accuracy/level/x16          the arm by itself, at the step of each checkpoint
    leak/accuracy/did/x16            a difference: holdout, twin or did
    (model)/validation_loglikelihood_per_token/level/validation

TensorBoard has a run for the trained run and one for each twin (`run`, `twin`, `twin-2`), so a
chart shows them in one picture; logged again, mixctl's own event files are replaced. In W&B all is
one run, the twins' curves below `twin/`, against an axis `step` of their own, so that they can be
logged into the run of the training; all rows go there as a table, the primary ones into the
summary, the files as an artifact. Rows of single strata stay in results.parquet.

Nothing is imported that was not asked for. Price: a pass over the rows for each.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from mixctl.evals.formatting import interval, number, probability
from mixctl.evals.results import REPORT_NAME, SUMMARY_NAME, TABLE_NAME, Results
from mixctl.evals.rows import SCHEMA, Row
from mixctl.shards.errors import InputError, nearest

_SUFFIX = ".mixctl"
"""the end of the names of event files that mixctl wrote, and may replace"""


@dataclass(frozen=True)
class Scalar:
    """A point of a curve.

    Attributes:
        series: "run", "twin", "twin-2", ...: whose curve it is on.
        tag: EXPERIMENT/METRIC/CONTRAST/ARM.
        step: completed optimizer steps.
        value: the estimate.
    """

    series: str
    tag: str
    step: int
    value: float


def check_loggers(tensorboard: Path | None, wandb: str | None) -> None:
    """Refuses what could not be logged, before any work is done.

    Raises:
        InputError: when a package is not installed, or arguments are not those of `wandb.init`.
    """
    problems = []
    if tensorboard is not None:
        problems += _not_installed("tensorboard")
        if tensorboard.exists() and not tensorboard.is_dir():
            problems.append(f"--tensorboard: {tensorboard} is a file, a folder is needed")
    if wandb is not None:
        problems += _not_installed("wandb") or wandb_problems(wandb)
    if problems:
        raise InputError(problems)


def _not_installed(package: str) -> list[str]:
    if find_spec(package) is not None:
        return []
    return [f"--{package}: the package {package} is not installed: pip install {package}"]


def scalars(found: Results) -> list[Scalar]:
    """Returns the points of all curves, by series, tag and step.

    An unknown step counts as after all placements: the last of the run.
    """
    last = int(found.summary["build"]["steps"])
    names = _series(found)
    points = [
        Scalar(
            names[_training(row)],
            f"{row.experiment}/{row.metric}/{row.contrast}/{row.arm}",
            last if row.step is None else row.step,
            row.estimate,
        )
        for row in found.rows
        if row.estimate is not None and row.stratum is None
    ]
    return sorted(points, key=lambda point: (point.series, point.tag, point.step))


def _training(row: Row) -> tuple[str, str]:
    """Returns the model and the out_dir of its checkpoint: what one curve is of."""
    return row.model, "" if row.model == "run" else PurePosixPath(row.checkpoint).parent.as_posix()


def _series(found: Results) -> dict[tuple[str, str], str]:
    trainings = sorted({_training(row) for row in found.rows})
    twins = [one for one in trainings if one[0] != "run"]
    named = {one: "twin" if n == 1 else f"twin-{n}" for n, one in enumerate(twins, 1)}
    return {one: named.get(one, "run") for one in trainings}


def log_tensorboard(found: Results, folder: Path) -> list[Path]:
    """Returns the folders of the runs that were written below `folder`, one a series.

    Raises:
        InputError: when tensorboard is not installed.
    """
    check_loggers(folder, None)
    points = scalars(found)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for series in dict.fromkeys(point.series for point in points):
        mine = [point for point in points if point.series == series]
        text = primary_table(found.primary) if series == "run" else None
        _replace_events(folder / series, mine, text)
        written.append(folder / series)
    return written


def _replace_events(folder: Path, points: Sequence[Scalar], text: str | None) -> None:
    """Writes an event file, and removes those of earlier calls once it is there."""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        writer: Any = SummaryWriter(scratch, filename_suffix=_SUFFIX)
        for point in points:
            writer.add_scalar(point.tag, point.value, point.step)
        if text is not None:
            writer.add_text("primary", text, max(point.step for point in points))
        writer.close()
        (made,) = Path(scratch).iterdir()
        folder.mkdir(exist_ok=True)
        earlier = [path for path in folder.glob(f"*{_SUFFIX}") if path.name != made.name]
        os.replace(made, folder / made.name)
    for path in earlier:
        path.unlink()


def primary_table(rows: Sequence[Row]) -> str:
    """Returns the primary rows as a table in Markdown."""
    lines = ["| experiment | estimate | 95% interval | p | q |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        what = f"{row.experiment}, {row.arm}: {row.metric} ({row.contrast})"
        cells = [number(row.estimate, signed=True), interval(row.ci_low, row.ci_high)]
        cells += [probability(row.p_value), probability(row.q_value)]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parsed_arguments(text: str) -> dict[str, object]:
    """Returns the arguments of `wandb.init` in a text: project=mine,name=run1,mode=offline."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    return {name.strip(): _value(value) for name, _, value in pairs}


def _value(text: str) -> object:
    """Returns the value, read as lm-evaluation-harness reads those of --wandb_args."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def wandb_problems(text: str) -> list[str]:
    """Returns what in the text is no argument of `wandb.init`."""
    known = inspect.signature(_wandb().init).parameters
    problems = [f"--wandb: '{part}' has no value" for part in text.split(",") if "=" not in part]
    names = [name for name in parsed_arguments(text) if name not in known]
    return problems or [f"--wandb: wandb.init has no '{n}'{nearest(n, known)}" for n in names]


def log_wandb(found: Results, text: str, out: Path) -> str:
    """Returns the name of the W&B run that the results were logged to.

    Args:
        found: results of an eval.
        text: arguments of `wandb.init`, as in `parsed_arguments`.
        out: the results folder, whose files become an artifact.

    Raises:
        InputError: when wandb is not installed, or it refuses.
    """
    check_loggers(None, text)
    wandb = _wandb()
    given: dict[str, Any] = parsed_arguments(text)
    try:
        run = wandb.init(**given)
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        run.config.update({"mixctl_build": found.summary["build"]}, allow_val_change=True)
        for step, values in _by_step(scalars(found)):
            run.log({"step": step, **values})
        run.summary.update(_summary(found.primary))
        run.log({"estimates": wandb.Table(columns=SCHEMA.names, data=_cells(found.rows))})
        artifact = wandb.Artifact("mixctl-results", type="eval_results")
        for name in (TABLE_NAME, SUMMARY_NAME, REPORT_NAME):
            if (out / name).is_file():
                artifact.add_file(str(out / name))
        run.log_artifact(artifact)
        run.finish()
    except wandb.errors.Error as error:
        raise InputError(f"--wandb: {' '.join(str(error).split())}") from error
    return str(run.name or run.id)


def _wandb() -> Any:
    return import_module("wandb")


def _cells(rows: Sequence[Row]) -> list[list[object]]:
    return [[getattr(row, name) for name in SCHEMA.names] for row in rows]


def _by_step(points: Sequence[Scalar]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields each step, and its values by name; the run's have no prefix."""
    for step in sorted({point.step for point in points}):
        yield (
            step,
            {
                point.tag if point.series == "run" else f"{point.series}/{point.tag}": point.value
                for point in points
                if point.step == step
            },
        )


def _summary(rows: Sequence[Row]) -> dict[str, float | str]:
    """Returns the primary results by name, numbers that are missing left out."""
    fields = ("estimate", "ci_low", "ci_high", "p_value", "q_value", "metric", "arm", "contrast")
    return {
        f"primary/{row.experiment}/{name}": getattr(row, name)
        for row in rows
        for name in fields
        if getattr(row, name) is not None
    }
