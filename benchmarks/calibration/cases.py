"""What is calibrated: experiments of a build with their scores under models that met no payload.

Scores are had by the product's own path (`evals.work`, `evals.scoring`, `evals.samples`) and kept
by its own digests. Then only the arms change: `dealt` gives the items to the arms anew by the rule
of the build (`pipeline.arms.assign_arms`): clusters whole, within strata, totals exact. Rows that
named their arm keep it, as in the build.

    holdout 2, x4 2; items a a b b, strata s s t t  ->  any of the 4 deals with one of each per arm
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixctl.evals import samples
from mixctl.evals.checkpoint import Checkpoint, model_config
from mixctl.evals.experiments import Experiment, read_experiments
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import AnyScorer
from mixctl.evals.scoring import Meter, score_checkpoint
from mixctl.evals.work import Work, gather
from mixctl.pipeline.arms import assign_arms
from mixctl.shards.draws import stream
from mixctl.shards.files import digest_file
from mixctl.shards.record import read_record

Say = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """A model that met no payload.

    Attributes:
        name: as the table calls it.
        role: "run" or "twin"; `did` pairs the two of the same step.
        checkpoint: its weights.
        step: the step that it is given.
    """

    name: str
    role: str
    checkpoint: Checkpoint
    step: int


@dataclass(frozen=True)
class Case:
    """An experiment and its scores under several models; `labels` are their names by (role, step).

    Attributes:
        experiment: as the build has it.
        scorer: of its items.
        runs: scores of the models in the role of a run.
        twins: scores of those in the role of a twin.
        labels: name of a model by its role and step.
    """

    experiment: Experiment
    scorer: AnyScorer
    runs: list[Scored]
    twins: list[Scored]
    labels: dict[tuple[str, int | None], str]

    def label(self, model: str, step: int | None, contrast: str) -> str:
        """Returns the name of the model of a row, or of the two that it compares."""
        own = self.labels[model, step]
        return f"{own} - {self.labels['twin', step]}" if contrast in ("did", "twin") else own


Wrap = Callable[[Experiment, AnyScorer], AnyScorer]


def scored_cases(
    build: Path,
    models: Sequence[Model],
    out: Path,
    say: Say,
    only: Sequence[str] | None = None,
    wrap: Wrap | None = None,
) -> list[Case]:
    """Returns a case an experiment.

    Args:
        build: the build whose items are scored.
        models: what scores them.
        out: where the scores are kept.
        say: is told what is scored.
        only: the experiments that are scored; None: all.
        wrap: puts another scorer in the place of an experiment's own; its scores are not kept
            apart, so `out` must be its own.

    Raises:
        RuntimeError: when an experiment cannot be scored.
    """
    record = read_record(build)
    prefix = [record.tokenizer.eod_id]
    experiments = read_experiments(build, record)
    chosen = [one for one in experiments if only is None or one.name in only]
    work = gather(chosen, prefix)
    if wrap is not None:
        for name, asked in work.asked.items():
            work.asked[name] = replace(asked, scorer=wrap(asked.experiment, asked.scorer))
    items = digest_file(build / "manifest/items.parquet")
    kept = [_scores(work, model, items, prefix, out, say) for model in models]
    failures = [f"{name}: {why}" for name, why in work.failures.items()]
    failures += [f"{name}: {why}" for one in kept for name, why in one.failures.items()]
    if failures:
        raise RuntimeError("; ".join(failures))
    return [_case(work, name, models, kept) for name in sorted(work.asked)]


def _scores(
    work: Work, model: Model, items: str, prefix: list[int], out: Path, say: Say
) -> samples.Samples:
    checkpoint = replace(model.checkpoint, step=model.step)
    key = samples.samples_key(checkpoint, items, prefix, "cpu")
    path = samples.samples_path(out, model.role, checkpoint, key)
    found = samples.read_samples(path, model.role, checkpoint)
    missing = samples.missing(found, work.scorers)
    if missing:
        n_tokens = work.cost(model_config(checkpoint.folder))
        say(f"scoring {len(missing)} experiments with {model.name}: {n_tokens} tokens")
        meter = Meter(n_tokens, 1, None)
        score_checkpoint(work, model.role, checkpoint, path, prefix, "cpu", meter, missing, found)
        found = samples.read_samples(path, model.role, checkpoint)
    if found is None:
        raise RuntimeError(f"{path}: scores that were just written cannot be read")
    return found


def _case(work: Work, name: str, models: Sequence[Model], kept: Sequence[samples.Samples]) -> Case:
    experiment, scorer = work.asked[name].experiment, work.asked[name].scorer
    by_role: dict[str, list[Scored]] = {"run": [], "twin": []}
    for model, found in zip(models, kept, strict=True):
        by_role[model.role].append(samples.scored(found, experiment, scorer))
    labels: dict[tuple[str, int | None], str] = {(m.role, m.step): m.name for m in models}
    return Case(experiment, scorer, by_role["run"], by_role["twin"], labels)


def dealt(experiment: Experiment, seed: int) -> Experiment:
    """Returns the experiment with its randomised items dealt to the arms anew.

    Its name carries the seed's twenties, so that the draws of Monte-Carlo tests and of bootstraps
    are new every twenty seeds. Copies are those of the arm.
    """
    free = np.flatnonzero(~experiment.given)
    names, arm = np.unique(experiment.arms[free], return_inverse=True)
    quotas = np.bincount(arm, minlength=len(names)).tolist()
    strata = np.unique(experiment.strata[free], return_inverse=True)[1].astype(np.int64)
    clusters = np.unique(experiment.clusters[free], return_inverse=True)[1].astype(np.int64)
    key = stream(seed, "arms", experiment.name)
    new = experiment.arms.copy()
    new[free] = names[assign_arms(strata, clusters, quotas, key)]
    copies = {arm: int(experiment.copies[experiment.arms == arm].max()) for arm in names}
    doses = experiment.copies.copy()
    doses[free] = [copies[one] for one in new[free]]
    return replace(experiment, name=f"{experiment.name}/{seed // 20}", arms=new, copies=doses)
