"""What an eval asks of a model: the requests and prompts of all scorers, gathered once.

A scorer that raises takes its own experiment out, with the reason; the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mixctl.evals.checkpoint import Checkpoint, model_config
from mixctl.evals.experiments import Experiment
from mixctl.evals.forward import Request, request_problems, tokens_to_read
from mixctl.evals.generation import Prompt, prompt_problems
from mixctl.evals.reference import Reference
from mixctl.evals.scorers.base import (
    AnyScorer,
    GeneratingScorer,
    MeasuringScorer,
    ReferencedScorer,
    ScorerOfMethods,
)
from mixctl.evals.scorers.registry import scorer_for


@dataclass(frozen=True)
class Asked:
    """What one experiment asks of a model: requests and prompts an item, in the items' order."""

    experiment: Experiment
    scorer: AnyScorer
    requests: list[list[Request]]
    prompts: list[list[Prompt]]
    known: list[list[Request]] = field(default_factory=list)
    """what the reference is asked, whatever the model writes; empty where it is not used"""


@dataclass
class Work:
    """What all experiments ask, and which experiments cannot be scored."""

    experiments: list[Experiment]
    reference: Reference | None = None
    asked: dict[str, Asked] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def fail(self, name: str, reason: str) -> None:
        """Takes the experiment out of the eval, with the reason."""
        self.failures.setdefault(name, reason)
        self.asked.pop(name, None)

    def named(self, name: str) -> Experiment:
        """Returns the experiment of this name."""
        return next(experiment for experiment in self.experiments if experiment.name == name)

    @property
    def scorers(self) -> dict[str, AnyScorer]:
        """Returns the scorer of each experiment that can be scored."""
        return {name: asked.scorer for name, asked in self.asked.items()}

    def cost(self, config: Any) -> int:
        """Returns the tokens that such a model reads, shared ones once, or generates at most."""
        asked = self.asked.values()
        requests = [r for one in asked for of_item in one.requests for r in of_item]
        prompts = [p for one in asked for of_item in one.prompts for p in of_item]
        known = [r for one in asked for of_item in one.known for r in of_item]
        again = [p for one in asked if one.known for of_item in one.prompts for p in of_item]
        return (
            tokens_to_read(requests, config)
            + sum(prompt.cost for prompt in prompts)
            + tokens_to_read(known, config)
            + sum(prompt.n_new for prompt in again)
        )


def gather(
    experiments: list[Experiment], prefix: Sequence[int], reference: Reference | None = None
) -> Work:
    """Returns what the scorers ask; `prefix` stands before every text."""
    work = Work(experiments, reference)
    for experiment in experiments:
        try:
            work.asked[experiment.name] = _ask(experiment, prefix, reference)
        except Exception as error:  # a scorer's own failure: listed, the others go on
            work.fail(experiment.name, reason(error))
    return work


def _ask(experiment: Experiment, prefix: Sequence[int], reference: Reference | None) -> Asked:
    scorer = scorer_for(experiment.kind)
    if isinstance(scorer, ScorerOfMethods):
        scorer = scorer.scorer_of(experiment.items)
    if reference is not None and isinstance(scorer, ReferencedScorer):
        scorer = scorer.with_reference(reference.digest)
    if isinstance(scorer, MeasuringScorer):
        return Asked(experiment, scorer, [], [])
    requests = [scorer.requests(item, prefix) for item in experiment.items]
    if not isinstance(scorer, GeneratingScorer):
        return Asked(experiment, scorer, requests, [])
    prompts = [scorer.prompts(item, prefix) for item in experiment.items]
    known = []
    if isinstance(scorer, ReferencedScorer) and scorer.reference is not None:
        known = [scorer.reference_requests(item, prefix, []) for item in experiment.items]
    return Asked(experiment, scorer, requests, prompts, known)


def reason(error: Exception) -> str:
    """Returns an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def check_lengths(work: Work, checkpoints: Sequence[Checkpoint]) -> None:
    """Takes out experiments with an item that a model cannot read."""
    limits = _limits(checkpoints)
    read_again = limits if work.reference is None else _limits([work.reference.checkpoint])
    for name, asked in list(work.asked.items()):
        requests = [request for of_item in asked.requests for request in of_item]
        prompts = [prompt for of_item in asked.prompts for prompt in of_item]
        known = [request for of_item in asked.known for request in of_item]
        problems = request_problems(requests, *limits) + prompt_problems(prompts, *limits)
        problems += [f"--reference: {why}" for why in request_problems(known, *read_again)]
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            work.fail(name, problems[0] + more)


def _limits(checkpoints: Sequence[Checkpoint]) -> tuple[int, int]:
    """Returns the longest text and the vocabulary that all of the models can read."""
    configs = [model_config(checkpoint.folder) for checkpoint in checkpoints]
    shortest = min(config.block_size for config in configs)
    return shortest, min(config.padded_vocab_size for config in configs)
