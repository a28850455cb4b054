"""The training loss that LitGPT logged: run against twin, step by step.

With `logger_name: csv`, `litgpt pretrain` writes `OUT_DIR/logs/csv/version_*/metrics.csv`: every
`log_interval` steps the mean loss of the step's micro-batches, those of the first device. The steps
that were logged up to the checkpoint's are the items of arm `training` of `(model)`.

    metric  training_loglikelihood_per_token    minus the logged loss: larger is better

The run is compared with its baselines on the steps that all of them logged. A resumed training
writes another version_*; of a step that was logged twice the later one counts. The run read
payloads where the twin read base text: the difference is of what was trained on, not on a common
text.

Price: reading the files.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixctl.evals import estimation
from mixctl.evals.checkpoint import Checkpoint
from mixctl.evals.experiments import unplaced
from mixctl.evals.rows import Row
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import IntArray, Item, Metric
from mixctl.evals.whole_model import KIND, MODEL, missing_row
from mixctl.shards.record import Geometry

TRAINING = "training"
TRAINING_METRIC = "training_loglikelihood_per_token"


class LoggedLoss:
    """Describes what is read from the logs."""

    kind = KIND
    version = 1
    metrics: tuple[Metric, ...] = (Metric(TRAINING_METRIC),)
    membership: str | None = None


@dataclass(frozen=True)
class Logged:
    """The losses that a training logged up to a checkpoint.

    Attributes:
        model: "run" or "twin".
        checkpoint: its folder, as given.
        step: its step; None when unknown: then all that was logged is taken.
        losses: step -> loss in nats a token.
    """

    model: str
    checkpoint: str
    step: int | None
    losses: dict[int, float]

    def values(self, steps: Sequence[int]) -> Scored:
        """Returns minus the losses at these steps; NaN where none was logged."""
        found = np.array([-self.losses.get(step, math.nan) for step in steps])
        said = f"mean of {int(np.isfinite(found).sum())} logged steps, the first device's batches"
        return Scored(
            model=self.model,
            checkpoint=self.checkpoint,
            step=self.step,
            values={TRAINING_METRIC: found},
            estimators={TRAINING_METRIC: said},
        )


def read_logged(model: str, checkpoint: Checkpoint, geometry: Geometry) -> Logged:
    """Returns what the training of a checkpoint logged; no losses where there are no logs.

    Raises:
        ValueError: when a log holds something that is no number.
    """
    devices = geometry.devices * geometry.nodes
    iterations = geometry.global_batch // (geometry.micro_batch * devices)
    losses: dict[int, float] = {}
    for path in _logs(checkpoint.given.parent):
        losses |= _losses(path, iterations)
    last = math.inf if checkpoint.step is None else checkpoint.step
    kept = {step: loss for step, loss in losses.items() if step <= last}
    return Logged(model, checkpoint.name, checkpoint.step, kept)


def _logs(out_dir: Path) -> list[Path]:
    """Returns the metrics files of an out_dir, in the order they were begun."""
    found = (out_dir / "logs" / "csv").glob("version_*/metrics.csv")
    numbered = [p for p in found if p.parent.name.removeprefix("version_").isdigit()]
    return sorted(numbered, key=lambda path: int(path.parent.name.removeprefix("version_")))


def _losses(path: Path, iterations: int) -> dict[int, float]:
    """Returns step -> loss of one file; a last line without its end was cut off and is left."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    found = {}
    for row in csv.DictReader(whole):
        if not row.get("loss") or not row.get("iter"):
            continue  # of another kind: validation
        try:
            iteration, loss = int(row["iter"]), float(row["loss"])
        except (TypeError, ValueError):
            raise ValueError(
                f"{path}: iter {row['iter']!r}, loss {row['loss']!r}: not numbers"
            ) from None
        if iteration % iterations == 0:
            found[iteration // iterations] = loss
    return found


def training_rows(trained: Sequence[Logged]) -> list[Row]:
    """Returns the rows on the logged losses of all checkpoints, the run's first."""
    steps = sorted({step for logged in trained for step in logged.losses})
    items = [_item(step) for step in steps]
    names = np.array([item.name for item in items])
    experiment = unplaced(MODEL, KIND, items, np.array([TRAINING] * len(items)), names)
    having = [logged.values(steps) for logged in trained if logged.losses]
    runs, twins = ([one for one in having if one.model == model] for model in ("run", "twin"))
    rows = estimation.estimate(experiment, LoggedLoss(), runs, twins) if items else []
    why = "no losses in logs/csv/version_*/metrics.csv beside the checkpoint (logger_name: csv)"
    lacking = [one for one in trained if not one.losses and one.model == "run"]
    return rows + [
        missing_row(one.model, one.checkpoint, one.step, TRAINING, TRAINING_METRIC, why)
        for one in lacking
    ]


def _item(step: int) -> Item:
    none: IntArray = np.zeros(0, np.int64)
    return Item(MODEL, f"step-{step:09d}", none, "{}")
