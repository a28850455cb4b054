"""An eval from end to end: checkpoints and manifest in, results on disk out.

    1. read the build and the checkpoints; refuse what does not fit, all problems at once
    2. gather the requests of all scorers, once
    3. for each checkpoint: load the model once, one pass over all requests, scores to samples/
    4. estimate every experiment from samples/, write results.parquet and results.json

A scorer that raises is an error of its experiment: the others are still reported, the failure is
listed, and the caller ends with exit code 1. It never becomes a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mixctl.evals import estimation, results, samples
from mixctl.evals.checkpoint import (
    Checkpoint,
    check_weights,
    find_checkpoints,
    load_model,
    model_config,
)
from mixctl.evals.experiments import Experiment, read_experiments
from mixctl.evals.forward import Request, request_problems, token_logprobs
from mixctl.evals.provenance import Role, check_provenance
from mixctl.evals.rows import Row
from mixctl.evals.scorers.base import FloatArray, ItemScore, Scorer
from mixctl.evals.scorers.registry import scorer_for
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_file
from mixctl.shards.manifest import TABLES
from mixctl.shards.record import BuildRecord, read_record

Progress = Callable[[str, int, int], None]
"""Called with what is being scored, tokens done and tokens in all."""


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        build: the folder of the build.
        checkpoints: of the run: checkpoint folders or out_dirs.
        baselines: of twins.
        out: where results go.
        step: for checkpoints that do not say their step.
        device: "cpu", "cuda", ...; None: CUDA where there is one.
    """

    build: Path
    checkpoints: tuple[Path, ...]
    out: Path
    baselines: tuple[Path, ...] = ()
    step: int | None = None
    device: str | None = None


@dataclass
class _Work:
    """The requests of all experiments, and which experiments cannot be scored."""

    experiments: list[Experiment]
    scorers: dict[str, Scorer] = field(default_factory=dict)
    requests: dict[str, list[list[Request]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def fail(self, name: str, reason: str) -> None:
        """Takes the experiment out of the eval, with the reason."""
        self.failures.setdefault(name, reason)
        self.scorers.pop(name, None)
        self.requests.pop(name, None)


def evaluate(settings: Settings, progress: Progress | None = None) -> results.Results:
    """Returns the results, after writing them to `settings.out`.

    Raises:
        InputError: when the build, a checkpoint or the output folder is not what it should be.
    """
    record = read_record(settings.build)
    check_manifest(settings.build, record)
    experiments = read_experiments(settings.build)
    check_out(settings.out)
    runs, twins, notes = _checkpoints(settings, record)
    prefix = _prefix(record)
    work = _gather(experiments, prefix)
    _check_lengths(work, [*runs, *twins])
    scored = _score_all(settings, work, prefix, runs, twins, progress)
    rows = _estimate(work, scored)
    found = results.Results(
        rows=rows,
        errors=dict(sorted(work.failures.items())),
        notes=notes + _pairing_notes(runs, twins),
        summary=results.summary(settings.build, record, experiments, runs, twins),
    )
    results.write_results(settings.out, found, [path for path, _ in scored])
    return found


def check_manifest(build: Path, record: BuildRecord) -> None:
    """Refuses a manifest that is not the one that the build was sealed with.

    Raises:
        InputError: when a table's content does not match its digest in mix.json.
    """
    changed = [
        f"{build / name}: does not match its digest in mix.json; see: mixctl verify {build}"
        for name in TABLES
        if name in record.files
        and (build / name).is_file()
        and digest_file(build / name) != record.files[name].digest
    ]
    if changed:
        raise InputError(changed)


def check_out(out: Path) -> None:
    """Refuses a results folder that is something else.

    Raises:
        InputError: when it is a file, a build, or a folder with other files.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, a folder is needed")
    inside = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(name for name in inside - results.OWN_FILES if not _left_over(name))
    if foreign:
        raise InputError(
            f"--out {out}: holds {', '.join(foreign[:3])}, which no eval wrote; name an empty "
            "folder or one with earlier results"
        )


def _left_over(name: str) -> bool:
    """Returns whether an interrupted write left the file behind."""
    return name.startswith(".") and name.endswith(".partial")


def _checkpoints(
    settings: Settings, record: BuildRecord
) -> tuple[list[Checkpoint], list[Checkpoint], list[str]]:
    """Returns the run's checkpoints, the twins' and notes on them."""
    problems: list[str] = []
    notes: list[str] = []
    found: dict[Role, list[Checkpoint]] = {"run": [], "twin": []}
    paths: dict[Role, tuple[Path, ...]] = {"run": settings.checkpoints, "twin": settings.baselines}
    for role in found:
        try:
            found[role] = find_checkpoints(paths[role], settings.step)
            notes += check_provenance(found[role], role, settings.build, record)
            check_weights(found[role])
        except InputError as error:
            problems += error.problems
    problems += _repeated_steps(found["run"])
    if problems:
        raise InputError(problems)
    return found["run"], found["twin"], notes


def _repeated_steps(runs: Sequence[Checkpoint]) -> list[str]:
    by_step: dict[int | None, Checkpoint] = {}
    problems = []
    for checkpoint in runs:
        first = by_step.setdefault(checkpoint.step, checkpoint)
        if first is not checkpoint:
            step = "an unknown step" if checkpoint.step is None else f"step {checkpoint.step}"
            problems.append(
                f"{checkpoint.name}: {step} is also that of {first.name}; score one run at a time"
                + (" or give --step" if checkpoint.step is None else "")
            )
    return problems


def _pairing_notes(runs: Sequence[Checkpoint], twins: Sequence[Checkpoint]) -> list[str]:
    steps = {twin.step for twin in twins}
    return [
        f"{run.name}: no baseline of step {run.step}: no difference to the twin"
        for run in runs
        if twins and run.step not in steps
    ]


def _prefix(record: BuildRecord) -> list[int]:
    """Returns what stands before every scored text: a payload has its own BOS, if any."""
    return [record.tokenizer.eod_id]


def _gather(experiments: list[Experiment], prefix: Sequence[int]) -> _Work:
    work = _Work(experiments)
    for experiment in experiments:
        try:
            scorer = scorer_for(experiment.kind)
            work.scorers[experiment.name] = scorer
            work.requests[experiment.name] = [
                scorer.requests(item, prefix) for item in experiment.items
            ]
        except Exception as error:  # a scorer's own failure: listed, the others go on
            work.fail(experiment.name, _reason(error))
    return work


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def _check_lengths(work: _Work, checkpoints: Sequence[Checkpoint]) -> None:
    """Takes out experiments with an item that a model cannot read."""
    configs = [model_config(checkpoint.folder) for checkpoint in checkpoints]
    shortest = min(config.block_size for config in configs)
    vocabulary = min(config.padded_vocab_size for config in configs)
    for name, of_items in list(work.requests.items()):
        flat = [request for of_item in of_items for request in of_item]
        problems = request_problems(flat, shortest, vocabulary)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            work.fail(name, problems[0] + more)


def _score_all(
    settings: Settings,
    work: _Work,
    prefix: Sequence[int],
    runs: Sequence[Checkpoint],
    twins: Sequence[Checkpoint],
    progress: Progress | None,
) -> list[tuple[Path, samples.Samples]]:
    device = settings.device or _default_device()
    items_digest = digest_file(settings.build / "manifest" / "items.parquet")
    placed = digest_file(settings.build / "manifest" / "placements.parquet")
    todo = [("run", checkpoint) for checkpoint in runs] + [("twin", c) for c in twins]
    meter = _Meter(work, len(todo), progress)
    scored = []
    for model, checkpoint in todo:
        key = samples.samples_key(checkpoint, items_digest + placed, prefix, work.scorers, device)
        path = samples.samples_path(settings.out, model, checkpoint, key)
        kept = samples.read_samples(path, model, checkpoint)
        if kept is None or kept.failures:
            _score_one(work, model, checkpoint, path, device, meter)
            kept = samples.read_samples(path, model, checkpoint)
        if kept is None:
            raise RuntimeError(f"{path}: scores that were just written cannot be read")
        meter.finish_checkpoint()
        scored.append((path, kept))
    return scored


class _Meter:
    """Counts tokens over all checkpoints for the progress bar."""

    def __init__(self, work: _Work, n_checkpoints: int, progress: Progress | None) -> None:
        lists = [r for of_items in work.requests.values() for r in of_items]
        self.per_checkpoint = sum(request.n_read for requests in lists for request in requests)
        self.total = self.per_checkpoint * n_checkpoints
        self.progress = progress
        self.finished = 0
        self.current = 0
        self.label = ""

    def add(self, n_tokens: int) -> None:
        """Counts tokens of the current checkpoint."""
        self.current += n_tokens
        self._tell()

    def finish_checkpoint(self) -> None:
        """Counts a checkpoint as done, scored or kept."""
        self.finished, self.current = self.finished + self.per_checkpoint, 0
        self._tell()

    def _tell(self) -> None:
        if self.progress:
            self.progress(self.label, self.finished + self.current, self.total)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _score_one(
    work: _Work, model_name: str, checkpoint: Checkpoint, path: Path, device: str, meter: _Meter
) -> None:
    """Loads the model once, scores every request in one pass, writes samples."""
    meter.label = f"{model_name} step {'?' if checkpoint.step is None else checkpoint.step}"
    names = sorted(work.requests)
    flat = [r for name in names for of_item in work.requests[name] for r in of_item]
    model = load_model(checkpoint, device)
    logprobs = iter(token_logprobs(model, flat, progress=meter.add))
    scores: dict[str, list[ItemScore]] = {}
    failures: dict[str, str] = {}
    for name in names:
        grouped = [[next(logprobs) for _ in of_item] for of_item in work.requests[name]]
        try:
            scores[name] = _item_scores(_named(work, name), work.scorers[name], grouped)
        except Exception as error:  # a scorer's own failure: listed, the others go on
            failures[name] = _reason(error)
    table = samples.samples_table(model_name, checkpoint, work.experiments, scores, failures)
    samples.write_samples(table, path)


def _named(work: _Work, name: str) -> Experiment:
    return next(experiment for experiment in work.experiments if experiment.name == name)


def _item_scores(
    experiment: Experiment, scorer: Scorer, grouped: Sequence[Sequence[FloatArray]]
) -> list[ItemScore]:
    """Returns a score an item; a value that is no number is the scorer's error."""
    scores = []
    for item, logprobs in zip(experiment.items, grouped, strict=True):
        score = scorer.score(item, logprobs)
        bad = [name for name, value in score.values.items() if not _finite(value)]
        if bad:
            raise ValueError(f"item {item.name}: {', '.join(bad)} is not a finite number")
        scores.append(score)
    return scores


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _estimate(work: _Work, scored: Sequence[tuple[Path, samples.Samples]]) -> list[Row]:
    for _, kept in scored:
        for name, reason in kept.failures.items():
            work.fail(name, reason)
    rows: list[Row] = []
    for experiment in work.experiments:
        if experiment.name in work.scorers:
            rows += _rows_of(work, experiment, scored)
    rows += [_failed_row(work, name, scored) for name in sorted(work.failures)]
    rows = sorted(rows, key=lambda row: (row.experiment, not row.primary))
    return estimation.with_q_values(rows)


def _rows_of(
    work: _Work, experiment: Experiment, scored: Sequence[tuple[Path, samples.Samples]]
) -> list[Row]:
    scorer = work.scorers[experiment.name]
    try:
        values: Mapping[str, list[estimation.Scored]] = {
            model: [samples.scored(s, experiment, scorer) for _, s in scored if s.model == model]
            for model in ("run", "twin")
        }
        return estimation.estimate(experiment, scorer, values["run"], values["twin"])
    except Exception as error:  # an estimate that cannot be had: listed, the others go on
        work.fail(experiment.name, _reason(error))
        return []


def _failed_row(work: _Work, name: str, scored: Sequence[tuple[Path, samples.Samples]]) -> Row:
    """Returns the row of an experiment that could not be scored: no number, and the reason."""
    experiment = _named(work, name)
    last = [kept for _, kept in scored if kept.model == "run"][-1]
    step = last.checkpoint.step
    arm = experiment.top_arm(step) or experiment.all_arms[-1]
    return replace(
        Row(
            experiment=name,
            kind=experiment.kind,
            arm=arm,
            dose=experiment.dose(arm, step),
            stratum=None,
            metric="none",
            model="run",
            checkpoint=last.checkpoint.name,
            step=step,
            contrast="level",
        ),
        note=f"not scored: {work.failures[name]}",
    )
