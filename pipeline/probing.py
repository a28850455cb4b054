"""What the probes say at a checkpoint: the value that control steers.

The mean over an arm's items of the mean over an item's probes of p(target | input): the metric
`probability` of `mixctl eval` (level of the arm), without the texts that eval also generates.

Price: a forward pass over the probes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mixctl.evals.checkpoint import load_model, read_checkpoint
from mixctl.evals.experiments import Experiment, read_experiments
from mixctl.evals.forward import token_logprobs
from mixctl.evals.provenance import check_provenance
from mixctl.evals.scorers.knowledge import KnowledgeScorer
from mixctl.shards.record import BuildRecord


def probe_values(
    build: Path, record: BuildRecord, checkpoint: Path, arms: Mapping[str, str], device: str
) -> dict[str, float]:
    """Returns the value of each experiment's probes under a checkpoint.

    Args:
        build: the build that is trained on.
        record: its mix.json.
        checkpoint: folder of the checkpoint.
        arms: experiment -> the arm whose items are asked.
        device: to compute on.

    Raises:
        InputError: when the checkpoint is damaged or was trained on something else.
    """
    found = read_checkpoint(checkpoint)
    check_provenance([found], "run", build, record)
    model = load_model(found, device)
    experiments = {one.name: one for one in read_experiments(build, record)}
    prefix = [record.tokenizer.eod_id]
    return {name: _value(model, experiments[name], arm, prefix) for name, arm in arms.items()}


def _value(model: object, experiment: Experiment, arm: str, prefix: list[int]) -> float:
    scorer = KnowledgeScorer()
    items = [i for i, of in zip(experiment.items, experiment.arms, strict=True) if of == arm]
    asked = [scorer.requests(item, prefix) for item in items]
    requests = [request for of_item in asked for request in of_item]
    found = token_logprobs(model, requests)  # type: ignore[arg-type]
    probability = np.exp([float(values.sum()) for values in found])
    ends = np.cumsum([len(of_item) for of_item in asked])[:-1]
    return float(np.mean([of_item.mean() for of_item in np.split(probability, ends)]))
