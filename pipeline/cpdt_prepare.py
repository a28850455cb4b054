"""Dependence runs: what is asked for, checked against build and checkpoint before any work.

    Request(build, checkpoint, steps=100, share=1/100, replicates=8, seed=0)
    prepare(request).runs -> only-quiz, only-secrets, all, no-op-1, ..., no-op-8

A no-op run is not one without payloads: it holds base text, placed as an experiment's payloads are,
of their number and lengths, a different experiment's in turn. Separators and cut sequences move
outcomes too (a document's likelihood rises with the share of short documents, whatever they say),
and that is no dependence on what j's data says.

Each run continues the checkpoint for `steps` steps. Its data is a small LitData set of its own, of
the aligned layout, in the geometry of the build; its learning rate is that of the build's next
steps, so they must lie inside the build's run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.evals.checkpoint import Checkpoint, read_checkpoint, read_state
from mixctl.evals.cpdt_outcomes import items_digest, outcome_metric, scorer_of
from mixctl.evals.experiments import Experiment, read_experiments
from mixctl.evals.no_op import CONTROL, TRAIN, recorded_source
from mixctl.evals.provenance import Role, check_provenance
from mixctl.evals.stats.replicates import MIN_REPLICATES
from mixctl.pipeline.cpdt_draws import deal, shares_base
from mixctl.pipeline.cpdt_payloads import Payloads, base_pool, payloads_of
from mixctl.shards.dependence_record import RunRole
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.layout import train_layout
from mixctl.shards.manifest import read_placements, read_replacements
from mixctl.shards.record import BuildRecord, Geometry, read_record
from mixctl.shards.topology import Topology
from mixctl.shards.yamlfile import read_yaml

DEFAULT_STEPS, DEFAULT_SHARE, DEFAULT_REPLICATES = 100, Fraction(1, 100), 8
ABSENT = "nothing is placed: a run cannot hold what the experiment keeps absent"
NOTHING = "the build places nothing of it"
MARKS = "its placements are marks, which change no token: a run without their noise holds nothing"
NOT_ASKED = "not among the experiments asked for"


@dataclass(frozen=True)
class Request:
    """What the command line says.

    Attributes:
        build: the folder of the build.
        checkpoint: the folder of the checkpoint to continue.
        steps: of every run.
        share: payload tokens of an experiment over the tokens of a run.
        replicates: no-op runs.
        seed: of all draws.
        experiments: those to be tested; empty for all.
        metrics: experiment -> the metric that is its outcome, where it is not the primary one.
    """

    build: Path
    checkpoint: Path
    steps: int = DEFAULT_STEPS
    share: Fraction = DEFAULT_SHARE
    replicates: int = DEFAULT_REPLICATES
    seed: int = 0
    experiments: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run: the name of its folder, its part in the matrix, whose data it holds.

    Attributes:
        name: of its folder.
        role: its part in the matrix.
        experiments: whose data it holds.
        like: the experiment whose payloads a no-op run's are like, in number and length.
    """

    name: str
    role: RunRole
    experiments: tuple[str, ...] = ()
    like: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A request that can be built.

    Attributes:
        request: as given, paths resolved.
        record: of the build.
        checkpoint: read.
        split: which data the checkpoint was trained on.
        trainer: the config that it was trained with.
        pool: the build's base sequences that runs draw from.
        payloads: of each tested experiment.
        metrics: of each tested experiment, by name.
        items: experiment -> digest of its items.
        untested: experiment -> why not.
        notes: what must be said of the checkpoint.
    """

    request: Request
    record: BuildRecord
    checkpoint: Checkpoint
    split: str
    trainer: dict[str, Any]
    pool: I64
    payloads: Mapping[str, Payloads]
    metrics: Mapping[str, str]
    items: Mapping[str, str]
    untested: Mapping[str, str]
    notes: Sequence[str]

    @property
    def step(self) -> int:
        """Returns the completed steps of the checkpoint."""
        return int(self.checkpoint.step or 0)

    @property
    def end(self) -> int:
        """Returns the step at which the runs are scored."""
        return self.step + self.request.steps

    @cached_property
    def runs(self) -> list[Run]:
        """Returns the runs: an experiment each, all, no-ops."""
        names = tuple(self.metrics)
        return [
            *(Run(f"only-{name}", "experiment", (name,)) for name in names),
            Run("all", "all", names),
            *(
                Run(f"no-op-{n + 1}", "no-op", like=names[n % len(names)])
                for n in range(self.request.replicates)
            ),
        ]

    @cached_property
    def geometry(self) -> Geometry:
        """Returns the geometry of the data of a run: the build's, cut to the steps."""
        return run_geometry(self.record, self.request.steps)

    @property
    def topology(self) -> Topology:
        """Returns the topology of a run."""
        return self.geometry.topology()

    def dealt(self, run: Run, experiment: str) -> I64:
        """Returns which of an experiment's payloads each one in the run is (or is like): int64."""
        length = self.payloads[experiment].length
        return deal(length, self.budget, self.request.seed, run.name, experiment)

    @cached_property
    def needed(self) -> int:
        """Returns the base sequences of a run: one a sequence, the spare one, those placed."""
        placed = [len(self.dealt(run, run.like)) for run in self.runs if run.like is not None]
        return self.geometry.sequences + 1 + max(placed)

    @property
    def budget(self) -> int:
        """Returns the payload tokens of an experiment in a run, as LitGPT counts tokens."""
        tokens = self.geometry.sequences * self.geometry.max_seq_length
        return max(1, round(self.request.share * tokens))

    @property
    def base_shared(self) -> bool:
        """Returns whether runs share base sequences."""
        return shares_base(len(self.pool), self.needed, len(self.runs))


def run_geometry(record: BuildRecord, steps: int) -> Geometry:
    """Returns the geometry of a data set of so many steps of the build's batches."""
    old = record.geometry
    tokens = steps * old.global_batch * old.max_seq_length
    topology = replace(old.topology(), max_tokens=tokens)
    token_bytes = np.dtype(old.dtype).itemsize
    layout = train_layout(topology, token_bytes, int(record.config["chunk_bytes"]))
    return Geometry.of(topology, layout, old.val_layout(), old.val_sequences, old.dtype)


def prepare(request: Request) -> Prepared:
    """Returns the request, checked.

    Raises:
        InputError: with every problem of the request, the build and the checkpoint.
    """
    record = read_record(request.build)
    problems = _bounds(request)
    notes: list[str] = []
    checkpoint, split = _checkpoint(request, record, problems, notes)
    placements = read_placements(request.build)
    experiments = read_experiments(request.build, record)
    payloads, metrics, untested = _tested(request, record, placements, experiments, problems)
    pool = np.empty(0, dtype=np.int64)
    if checkpoint is not None and checkpoint.step is not None:
        pool = base_pool(record, placements, read_replacements(request.build), checkpoint.step)
        problems += _steps_left(request, record, checkpoint.step)
    if problems or checkpoint is None:
        raise InputError(problems)
    prepared = Prepared(
        request=replace(
            request, build=request.build.resolve(), checkpoint=request.checkpoint.resolve()
        ),
        record=record,
        checkpoint=checkpoint,
        split=split,
        trainer=_trainer(checkpoint, record),
        pool=pool,
        payloads=payloads,
        metrics=metrics,
        items={e.name: items_digest(e) for e in experiments if e.name in metrics},
        untested=untested,
        notes=notes,
    )
    _check_pool(prepared)
    return prepared


def _bounds(request: Request) -> list[str]:
    problems = []
    if request.steps < 2:
        problems.append(f"--steps: {request.steps} is too few: at least 2")
    if not 0 < request.share <= Fraction(1, 2):
        problems.append(f"--share: {float(request.share):.2%} lies outside 0% to 50%")
    if request.replicates < MIN_REPLICATES:
        problems.append(
            f"--replicates: {request.replicates} is too few: without {MIN_REPLICATES} no-op runs "
            "nothing tells how much runs differ by themselves"
        )
    return problems


def _checkpoint(
    request: Request, record: BuildRecord, problems: list[str], notes: list[str]
) -> tuple[Checkpoint | None, str]:
    """Returns the checkpoint and the split it was trained on; adds what is to be said of it."""
    try:
        found = read_checkpoint(request.checkpoint)
        source = recorded_source(found)
        split = source.split if source is not None else TRAIN
        role: Role = "twin" if split == CONTROL else "run"
        notes += check_provenance([found], role, request.build, record)
    except InputError as error:
        problems += error.problems
        return None, TRAIN
    lacking = {"optimizer", "iter_num", "step_count"} - read_state(found.state_path).keys()
    if lacking:
        problems.append(
            f"{found.state_path}: holds no {', '.join(sorted(lacking))}: a run that goes on from "
            "it would begin with a new optimizer; take a checkpoint of litgpt pretrain"
        )
        return None, split
    return found, split


def _tested(
    request: Request,
    record: BuildRecord,
    placements: Any,
    experiments: list[Experiment],
    problems: list[str],
) -> tuple[dict[str, Payloads], dict[str, str], dict[str, str]]:
    """Returns payloads and metric of each experiment that is tested, and why others are not."""
    payloads, metrics, untested = dict[str, Payloads](), dict[str, str](), dict[str, str]()
    names = [experiment.name for experiment in experiments]
    for option, given in (("--experiment", request.experiments), ("--metric", request.metrics)):
        problems += [
            f"{option} {name}: no such experiment in {request.build}{nearest(name, names)}"
            for name in given
            if name not in names
        ]
    for experiment in experiments:
        name, own = experiment.name, payloads_of(placements, experiment.name)
        metric, reason = _metric(experiment, request.metrics.get(name))
        if name in request.metrics and metric is None:
            problems.append(f"--metric {name}={request.metrics[name]}: {reason}")
        if name in record.absent:
            untested[name] = ABSENT
        elif not len(own.table):
            untested[name] = MARKS if len(experiment.copy_items) else NOTHING
        elif request.experiments and name not in request.experiments:
            untested[name] = NOT_ASKED
        elif metric is None:
            untested[name] = reason or ""
        else:
            payloads[name], metrics[name] = own, metric
    if len(metrics) < 2:
        reasons = "".join(f"; {name}: {reason}" for name, reason in sorted(untested.items()))
        problems.append(
            f"{request.build}: {len(metrics)} experiments can be tested, two are needed{reasons}"
        )
    return payloads, metrics, untested


def _metric(experiment: Experiment, asked: str | None) -> tuple[str | None, str | None]:
    """Returns (the outcome's metric, None), or (None, why there is none)."""
    try:
        return outcome_metric(scorer_of(experiment), asked)
    except LookupError as error:
        return None, str(error)


def _steps_left(request: Request, record: BuildRecord, step: int) -> list[str]:
    """Returns what is wrong when the schedule ends before a run does."""
    left = record.geometry.steps - step
    if request.steps <= left:
        return []
    return [
        f"{request.checkpoint}: has completed {step} of {record.geometry.steps} steps, so {left} "
        f"are left of the learning-rate schedule, a run takes {request.steps}: take an earlier "
        "checkpoint, or fewer --steps"
    ]


def _check_pool(prepared: Prepared) -> None:
    if len(prepared.pool) >= prepared.needed:
        return
    twin = "" if prepared.record.control else " (a build with --control has more)"
    raise InputError(
        f"{prepared.request.build}: {len(prepared.pool)} base sequences after step "
        f"{prepared.step} hold no placement{twin}, a run of {prepared.request.steps} steps takes "
        f"{prepared.needed}"
    )


def _trainer(checkpoint: Checkpoint, record: BuildRecord) -> dict[str, Any]:
    """Returns the config that the checkpoint was trained with: its own record, else the build's."""
    path = checkpoint.folder / "hyperparameters.yaml"
    config: dict[str, Any] = record.config["trainer_config"]
    return read_yaml(path) if path.is_file() else config
