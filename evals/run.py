"""An eval from end to end: checkpoints and manifest in, results on disk out.

    1. read the build and the checkpoints; refuse what does not fit, all problems at once
    2. gather the requests and prompts of all scorers, once (`mixctl.evals.work`)
    3. for each checkpoint: load the model once, one pass over all requests and one over all
       prompts, scores to samples/ (`mixctl.evals.scoring`)
    4. estimate every experiment from samples/, write results.parquet and results.json

A scorer that raises is an error of its experiment: the others are still reported, the failure is
listed, and the caller ends with exit code 1. It never becomes a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mixctl.evals import estimation, results, samples, whole_model
from mixctl.evals.baselines import distinct, training_problems
from mixctl.evals.checkpoint import Checkpoint, check_weights, find_checkpoints, model_config
from mixctl.evals.experiments import Experiment, read_experiments
from mixctl.evals.huggingface import FOLDER_NAME, Converter
from mixctl.evals.primary import with_q_values
from mixctl.evals.provenance import Role, check_provenance
from mixctl.evals.reference import Reference, find_reference
from mixctl.evals.rows import Row
from mixctl.evals.scored import Scored
from mixctl.evals.scoring import Meter, Progress, inputs_digest, scored_checkpoint
from mixctl.evals.shard_sample import check_shards
from mixctl.evals.training_loss import read_logged, training_rows
from mixctl.evals.whole_model import MODEL
from mixctl.evals.work import Work, check_lengths, gather, reason
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_file
from mixctl.shards.locks import LOCK_NAME, named, only_writer
from mixctl.shards.manifest import TABLES
from mixctl.shards.record import BuildRecord, Geometry, read_record

_Read = tuple[list[Scored], list[Scored]]
"""an experiment's scores under the run's checkpoints and the twins'"""


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        build: the folder of the build.
        checkpoints: of the run: checkpoint folders or out_dirs.
        baselines: of twins and no-op runs; several of one step are replicates.
        out: where results go.
        step: for checkpoints that do not say their step.
        device: where models run ("cpu", "cuda", ...); None: CUDA where there is one.
        reference: a checkpoint that reads answers again, to tell garbage by perplexity.
    """

    build: Path
    checkpoints: tuple[Path, ...]
    out: Path
    baselines: tuple[Path, ...] = ()
    step: int | None = None
    device: str | None = None
    reference: Path | None = None


def evaluate(settings: Settings, progress: Progress | None = None) -> results.Results:
    """Returns the results, after writing them to `settings.out`.

    Raises:
        InputError: when the build, a checkpoint or the output folder is not what it should be.
    """
    record = _record_of(settings)
    check_manifest(settings.build, record)
    experiments = [
        whole_model.model_experiment(settings.build, record),
        *read_experiments(settings.build, record),
    ]
    shard_notes = check_shards(settings.build, record)
    check_out(settings.out)
    with only_writer(settings.out), named(settings.out):
        return _evaluated(settings, record, experiments, shard_notes, progress)


def _evaluated(
    settings: Settings,
    record: BuildRecord,
    experiments: list[Experiment],
    shard_notes: list[str],
    progress: Progress | None,
) -> results.Results:
    """Returns the results of a build that was read, after writing them."""
    runs, twins, reference, notes = _checkpoints(settings, record)
    prefix = _prefix(record)
    work = gather(experiments, prefix, reference)
    check_lengths(work, [*runs, *twins])
    notes += _reference_notes(work)
    scored = _score_all(settings, work, prefix, runs, twins, progress)
    rows = _estimate(work, scored, record.geometry)
    found = results.Results(
        rows=rows,
        errors=dict(sorted(work.failures.items())),
        notes=shard_notes + notes + pairing_notes(runs, twins),
        summary=results.summary(settings.build, record, experiments, runs, twins, reference),
    )
    results.write_results(settings.out, found, [path for path, _ in scored])
    return found


def _record_of(settings: Settings) -> BuildRecord:
    """Returns the build's record; where there is none, other missing folders are named as well."""
    try:
        return read_record(settings.build)
    except InputError as error:
        given = [*settings.checkpoints, *settings.baselines]
        given += [settings.reference] if settings.reference else []
        missing = [f"{path}: no such checkpoint folder" for path in given if not path.is_dir()]
        raise InputError([*error.problems, *missing]) from None


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
    return name.startswith(".") and name.endswith(".partial") or name == LOCK_NAME


def _checkpoints(
    settings: Settings, record: BuildRecord
) -> tuple[list[Checkpoint], list[Checkpoint], Reference | None, list[str]]:
    """Returns the run's checkpoints, the twins', the reference and notes on them."""
    problems: list[str] = []
    notes: list[str] = []
    found: dict[Role, list[Checkpoint]] = {"run": [], "twin": []}
    paths: dict[Role, tuple[Path, ...]] = {"run": settings.checkpoints, "twin": settings.baselines}
    converter = Converter(settings.out / FOLDER_NAME)
    for role in found:
        try:
            found[role] = find_checkpoints(paths[role], settings.step, converter)
            notes += check_provenance(found[role], role, settings.build, record)
            check_weights(found[role])
        except InputError as error:
            problems += error.problems
    problems += repeated_steps(found["run"])
    reference = None
    if settings.reference is not None:
        try:
            reference = find_reference(
                settings.reference, converter, settings.build, record, found["run"]
            )
        except InputError as error:
            problems += error.problems
    problems = problems or training_problems(found["run"], found["twin"])
    if problems:
        converter.discard()
        raise InputError(problems)
    twins, repeated = distinct(found["twin"])
    notes += _given_twice(settings.baselines) + repeated
    return found["run"], twins, reference, notes


def _reference_notes(work: Work) -> list[str]:
    """Returns which experiments have answers read by the reference, where there is one."""
    if work.reference is None:
        return []
    used = ", ".join(sorted(name for name, asked in work.asked.items() if asked.known))
    said = f"reads the answers of {used}" if used else "no experiment has a use for it"
    return [f"--reference {work.reference.checkpoint.name}: {said}"]


def _given_twice(baselines: Sequence[Path]) -> list[str]:
    folders = [path.resolve() for path in baselines]
    twice = {path for path in folders if folders.count(path) > 1}
    return [f"--baseline {path}: given more than once, counted once" for path in sorted(twice)]


def repeated_steps(runs: Sequence[Checkpoint]) -> list[str]:
    """Returns where two checkpoints are of one step: a curve has one value a step."""
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


def pairing_notes(runs: Sequence[Checkpoint], twins: Sequence[Checkpoint]) -> list[str]:
    """Returns a note on each checkpoint that has no baseline of its step, if there are any."""
    steps = {twin.step for twin in twins}
    return [
        f"{run.name}: no baseline of step {run.step}: no difference to the twin"
        for run in runs
        if twins and run.step not in steps
    ]


def _prefix(record: BuildRecord) -> list[int]:
    """Returns what stands before every scored text: a payload has its own BOS, if any."""
    return [record.tokenizer.eod_id]


def _score_all(
    settings: Settings,
    work: Work,
    prefix: Sequence[int],
    runs: Sequence[Checkpoint],
    twins: Sequence[Checkpoint],
    progress: Progress | None,
) -> list[tuple[Path, samples.Samples]]:
    device = settings.device or default_device()
    inputs = inputs_digest(settings.build) + whole_model.tokens_digest(work.named(MODEL))
    todo = [("run", checkpoint) for checkpoint in runs] + [("twin", c) for c in twins]
    cost = work.cost(model_config(todo[0][1].folder)) if progress else 0
    meter = Meter(cost, len(todo), progress)
    return [
        scored_checkpoint(work, role, one, settings.out, inputs, prefix, device, meter)
        for role, one in todo
    ]


def default_device() -> str:
    """Returns "cuda" where there is one, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _estimate(
    work: Work, scored: Sequence[tuple[Path, samples.Samples]], geometry: Geometry
) -> list[Row]:
    for _, kept in scored:
        for name, why in kept.failures.items():
            work.fail(name, why)
    rows: list[Row] = []
    read: dict[str, _Read] = {}
    for experiment in work.experiments:
        if experiment.name in work.asked:
            rows += _rows_of(work, experiment, scored, read)
    rows += _rows_beside(work, read)
    rows += _training_rows(work, scored, geometry)
    rows += [_failed_row(work, name, scored) for name in sorted(work.failures)]
    rows = sorted(rows, key=lambda row: (row.experiment, not row.primary))
    return with_q_values(rows)


def _rows_of(
    work: Work,
    experiment: Experiment,
    scored: Sequence[tuple[Path, samples.Samples]],
    read: dict[str, _Read],
) -> list[Row]:
    """Returns the rows of an experiment, and adds its scores to what was read."""
    scorer = work.asked[experiment.name].scorer
    try:
        runs, twins = (
            [samples.scored(s, experiment, scorer) for _, s in scored if s.model == model]
            for model in ("run", "twin")
        )
        read[experiment.name] = (runs, twins)
        return estimation.estimate(experiment, scorer, runs, twins)
    except Exception as error:  # an estimate that cannot be had: listed, the others go on
        work.fail(experiment.name, reason(error))
        return []


def _rows_beside(work: Work, read: Mapping[str, _Read]) -> list[Row]:
    """Returns the rows of `(model)` that are gathered from other experiments."""
    if MODEL in work.failures:
        return []
    leaks = [experiment for experiment in work.experiments if experiment.kind == "contamination"]
    failed = [leak.name for leak in leaks if leak.name in work.failures]
    used = [(leak, *read[leak.name]) for leak in leaks if leak.name not in work.failures]
    return whole_model.other_rows(work.named(MODEL), read[MODEL][0], used, failed)


def _training_rows(
    work: Work, scored: Sequence[tuple[Path, samples.Samples]], geometry: Geometry
) -> list[Row]:
    """Returns the rows of `(model)` on the losses that the trainings logged."""
    if MODEL in work.failures:
        return []
    try:
        kept = [samples for _, samples in scored]
        return training_rows([read_logged(s.model, s.checkpoint, geometry) for s in kept])
    except (OSError, ValueError) as error:
        work.fail(MODEL, reason(error))
        return []


def _failed_row(work: Work, name: str, scored: Sequence[tuple[Path, samples.Samples]]) -> Row:
    """Returns the row of an experiment that could not be scored: no number, and the reason."""
    experiment = work.named(name)
    last = [kept for _, kept in scored if kept.model == "run"][-1].checkpoint
    arm = experiment.top_arm(last.step) or experiment.all_arms[-1]
    row = experiment.row(arm, "none", Scored("run", last.name, last.step, {}, {}))
    return replace(row, note=f"not scored: {work.failures[name]}")
