r"""Scores of lm-evaluation-harness under mixctl's statistics: a results folder like any other.

    mixctl export lm-eval out/run1 --experiment leak --out tasks
    lm_eval --model hf --model_args pretrained=step-00000300 --include_path tasks \
        --tasks mixctl_leak --log_samples --output_path harness
    mixctl import lm-eval-results out/run1 harness --out results

The harness's scores take the place of ours; estimates, intervals and tests are those of `mixctl
eval`. Metrics: `acc` and `acc_norm` as the harness counted them, and `gold_loglikelihood`. The
primary one is `acc_norm` where the mix normalises by characters, else `acc`. They have names of
their own since they are not quite ours: the harness cuts a question before the space in front of
its choices, mixctl where their tokens part (the sums differ by what the choices share, which ranks
them alike), and it puts nothing before a question unless its tokenizer begins texts with the
end-of-document token and it is told to (`add_bos_token=True`). What the models were trained on
cannot be checked here, and the results say so.

Price: reading the samples once, and the statistics.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from mixctl.evals import estimation, results, samples
from mixctl.evals.checkpoint import Checkpoint
from mixctl.evals.experiments import Experiment, read_experiments
from mixctl.evals.lm_eval_question import KIND, question
from mixctl.evals.lm_eval_samples import (
    HARNESS_METRICS,
    Answered,
    HarnessModel,
    Questions,
    find_models,
)
from mixctl.evals.primary import with_q_values
from mixctl.evals.rows import Row
from mixctl.evals.run import check_manifest, check_out, pairing_notes, repeated_steps
from mixctl.evals.scorers.base import ItemScore, Metric
from mixctl.evals.tokenizer import TOKENIZER_NAME, decoder
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes
from mixctl.shards.jsonfile import read_json
from mixctl.shards.locks import named, only_writer
from mixctl.shards.manifest import read_items
from mixctl.shards.meta.contamination import ContaminationMeta
from mixctl.shards.record import BuildRecord, read_record

SOURCE = "lm-evaluation-harness"


class HarnessScorer:
    """The metrics of the questions of an experiment that the harness has scored."""

    kind = KIND
    version = 1
    membership: str | None = None

    def __init__(self, primary: str) -> None:
        """Takes the metric that enters the family of primary tests."""
        accuracies = [Metric(name, name == primary, share=True) for name in HARNESS_METRICS]
        self.metrics: tuple[Metric, ...] = (*accuracies, Metric("gold_loglikelihood"))


def _scorer(experiment: Experiment) -> HarnessScorer:
    """Returns the scorer of an experiment, by how its questions are normalised."""
    metas = [ContaminationMeta.model_validate_json(item.meta) for item in experiment.items]
    by_characters = all(meta.normalisation == "characters" for meta in metas)
    return HarnessScorer("acc_norm" if by_characters else "acc")


@dataclass(frozen=True)
class _Model:
    """A model as the statistics see it, and what the harness found."""

    role: str
    found: HarnessModel

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.found.folder, self.found.step, self.found.step_source)


def import_results(
    build: Path,
    paths: Sequence[Path],
    out: Path,
    baselines: Sequence[Path] = (),
    step: int | None = None,
) -> results.Results:
    """Returns the results of the harness's scores, after writing them to `out`.

    Args:
        build: the folder of the build whose tasks the harness ran.
        paths: what it wrote of the run's checkpoints: folders of a model, or of several.
        out: the results folder; new, or of an earlier import.
        baselines: the same of control twins.
        step: completed steps of models whose folder does not say them.

    Raises:
        InputError: when the samples are not those of the build's items, all of them.
    """
    record = read_record(build)
    check_manifest(build, record)
    _check_own(out)
    experiments = [one for one in read_experiments(build, record) if one.kind == KIND]
    asked = _questions(build, record)
    runs, twins, notes = _models(paths, baselines, step, experiments, asked)
    used = [one for one in experiments if any(one.name in m.found.answers for m in runs)]
    _check_same_experiments(used, [*runs, *twins])
    with only_writer(out), named(out):
        kept = [_written(model, used, out) for model in [*runs, *twins]]
        scored_runs, scored_twins = (
            [s for _, s in kept if s.model == role] for role in ("run", "twin")
        )
        found = results.Results(
            rows=_rows(used, scored_runs, scored_twins),
            errors={},
            notes=notes,
            summary={
                **results.summary(
                    build, record, used, [m.checkpoint for m in runs], [m.checkpoint for m in twins]
                ),
                "scored_by": SOURCE,
            },
        )
        results.write_results(out, found, [path for path, _ in kept])
    return found


def _check_own(out: Path) -> None:
    """Refuses a folder with results or scores of `mixctl eval`: they would be lost."""
    check_out(out)
    summary = out / results.SUMMARY_NAME
    imported = summary.is_file() and read_json(summary).get("scored_by") == SOURCE
    if not imported and (summary.is_file() or (out / "samples").exists()):
        raise InputError(f"--out {out}: holds results of `mixctl eval`; choose another folder")


def _questions(build: Path, record: BuildRecord) -> Questions:
    """Returns experiment -> item -> the question as `mixctl export lm-eval` writes it.

    Raises:
        InputError: when there are none, or the build carries no tokenizer.
    """
    decode = decoder(build, record)
    rows = read_items(build).filter(pc.field("kind") == KIND).to_pylist()
    if not rows:
        raise InputError(f"{build}: has no experiment of the kind {KIND}")
    if decode is None:
        raise InputError(f"{build / TOKENIZER_NAME}: missing, the questions cannot be read")
    found: dict[str, dict[str, dict[str, object]]] = {}
    for row in rows:
        asked = question(row, decode, record.tokenizer.bos_id)
        found.setdefault(row["experiment"], {})[row["item"]] = asked
    return found


def _models(
    paths: Sequence[Path],
    baselines: Sequence[Path],
    step: int | None,
    experiments: Sequence[Experiment],
    asked: Questions,
) -> tuple[list[_Model], list[_Model], list[str]]:
    """Returns the run's models, the twins', and what must be said of them; all problems at once."""
    problems: list[str] = []
    found: dict[str, list[_Model]] = {"run": [], "twin": []}
    for role, given in (("run", paths), ("twin", baselines)):
        try:
            models = find_models(given, step, experiments, asked)
            found[role] = [_Model(role, model) for model in models]
        except InputError as error:
            problems += error.problems
    runs, twins = found["run"], found["twin"]
    problems += repeated_steps([run.checkpoint for run in runs])
    problems += _also_runs(runs, twins)
    if problems:
        raise InputError(problems)
    twins, notes = _distinct(twins)
    checkpoints = ([m.checkpoint for m in models] for models in (runs, twins))
    return runs, twins, [*_said([*runs, *twins]), *notes, *pairing_notes(*checkpoints)]


def _also_runs(runs: Sequence[_Model], twins: Sequence[_Model]) -> list[str]:
    own = {_content(run): run.found.folder for run in runs}
    return [
        f"{twin.found.folder}: its log-likelihoods are those of {own[_content(twin)]}: the same "
        "model cannot be the run and its baseline"
        for twin in twins
        if _content(twin) in own
    ]


def _distinct(twins: Sequence[_Model]) -> tuple[list[_Model], list[str]]:
    """Returns the baselines without repeats, and a note on each that was left out."""
    kept: dict[tuple[int | None, str], _Model] = {}
    notes = []
    for twin in twins:
        first = kept.setdefault((twin.found.step, _content(twin)), twin)
        if first is not twin:
            notes.append(
                f"{twin.found.folder}: its log-likelihoods are those of {first.found.folder}: the "
                "same training, counted once"
            )
    return list(kept.values()), notes


def _content(model: _Model) -> str:
    """Returns a digest of all log-likelihoods of a model."""
    plain = {
        name: {item: answered.loglikelihoods for item, answered in answers.items()}
        for name, answers in model.found.answers.items()
    }
    return digest_bytes(json.dumps(plain, sort_keys=True).encode())


def _said(models: Sequence[_Model]) -> list[str]:
    versions = sorted({m.found.version or "of unknown version" for m in models})
    notes = [
        f"log-likelihoods by {SOURCE} ({', '.join(versions)}); what the models were trained on was "
        "not checked"
    ]
    for model in models:
        where = model.found.folder
        if model.found.step is None:
            notes.append(f"{where}: no step in its name: counted as after all placements")
        if model.found.repeated:
            tasks = ", ".join(model.found.repeated)
            notes.append(f"{where}: run more than once, the newest counts: {tasks}")
        n_own = sum(a.own_prompt for of in model.found.answers.values() for a in of.values())
        if n_own:
            notes.append(
                f"{where}: {n_own} items were asked with more than the question before the answer "
                "(examples, a system prompt or a chat template): not as they were placed"
            )
    return notes


def _check_same_experiments(used: Sequence[Experiment], models: Iterable[_Model]) -> None:
    problems = [
        f"{model.found.folder}: has no samples of experiment '{one.name}', other models have"
        for one in used
        for model in models
        if one.name not in model.found.answers
    ]
    if problems:
        raise InputError(problems)


def _written(
    model: _Model, experiments: Sequence[Experiment], out: Path
) -> tuple[Path, samples.Samples]:
    """Returns where the scores of a model are kept, and the scores."""
    scores = {one.name: _scores(one, model.found.answers[one.name]) for one in experiments}
    scorers = {one.name: _scorer(one) for one in experiments}
    checkpoint = model.checkpoint
    table = samples.samples_table(model.role, checkpoint, experiments, scores, {}, scorers)
    path = samples.samples_path(out, model.role, checkpoint, _content(model))
    samples.write_samples(table, path)
    kept = samples.read_samples(path, model.role, checkpoint)
    if kept is None:
        raise RuntimeError(f"{path}: scores that were just written cannot be read")
    return path, kept


def _scores(experiment: Experiment, answers: Mapping[str, Answered]) -> list[ItemScore]:
    found = []
    for item in experiment.items:
        meta = ContaminationMeta.model_validate_json(item.meta)
        answered = answers[item.name]
        gold = answered.loglikelihoods[meta.gold]
        values = {**answered.metrics, "gold_loglikelihood": gold}
        found.append(ItemScore(len(meta.choice_tokens[meta.gold]), gold, values))
    return found


def _rows(
    experiments: Sequence[Experiment],
    runs: Sequence[samples.Samples],
    twins: Sequence[samples.Samples],
) -> list[Row]:
    rows: list[Row] = []
    for one in experiments:
        scorer = _scorer(one)
        scored = [[samples.scored(s, one, scorer) for s in models] for models in (runs, twins)]
        rows += estimation.estimate(one, scorer, scored[0], scored[1])
    rows = sorted(rows, key=lambda row: (row.experiment, not row.primary))
    return with_q_values(rows)
