"""One checkpoint, all experiments: the model is loaded once, scores go to samples/.

All requests are scored in one pass and all prompts continued in another; scorers that need the
model itself come last. Then the model goes, and where a reference is given it reads the answers of
the experiments that want it (`mixctl.evals.reference`). A scorer that raises is an error of its
experiment, never a zero. Where a pass itself fails (numbers that are not finite, memory that runs
out) each experiment goes through it alone, so that only those fail that cannot be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mixctl.evals import samples
from mixctl.evals.checkpoint import Checkpoint, load_model
from mixctl.evals.forward import token_logprobs
from mixctl.evals.generation import generate
from mixctl.evals.scorers.base import (
    FloatArray,
    GeneratingScorer,
    InspectingScorer,
    IntArray,
    Item,
    ItemScore,
    MeasuringScorer,
    ReferencedScorer,
)
from mixctl.evals.tokenizer import TOKENIZER_NAME
from mixctl.evals.work import Asked, Work, reason
from mixctl.shards.files import digest_file

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]
"""Called with what is being scored, tokens done and tokens in all."""
_Part = TypeVar("_Part")
_Found = TypeVar("_Found")
_Outputs = list[list[IntArray]]
"""what a model wrote for an item: samples per prompt"""


class Meter:
    """Counts tokens over all checkpoints for the progress bar."""

    def __init__(self, per_checkpoint: int, n_checkpoints: int, progress: Progress | None) -> None:
        """Knows the total from the start; a checkpoint takes so many tokens."""
        self.per_checkpoint = per_checkpoint
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


def inputs_digest(build: Path) -> str:
    """Returns what changes when an item, its doses or the tokenizer that decodes answers does."""
    names = ("manifest/items.parquet", "manifest/placements.parquet", TOKENIZER_NAME)
    return "".join(digest_file(build / n) if (build / n).is_file() else "none" for n in names)


def scored_checkpoint(
    work: Work,
    role: str,
    checkpoint: Checkpoint,
    out: Path,
    inputs: str,
    prefix: Sequence[int],
    device: str,
    meter: Meter,
) -> tuple[Path, samples.Samples]:
    """Returns where the scores of a checkpoint are, and the scores: kept, made anew where missing.

    Args:
        work: what is asked.
        role: "run" or "twin".
        checkpoint: the model.
        out: scores go to its folder samples/.
        inputs: the digest of what is scored.
        prefix: what stands before every text.
        device: where the model runs.
        meter: counts tokens.
    """
    key = samples.samples_key(checkpoint, inputs, prefix, device)
    path = samples.samples_path(out, role, checkpoint, key)
    kept = samples.read_samples(path, role, checkpoint)
    if missing := samples.missing(kept, work.scorers):
        score_checkpoint(work, role, checkpoint, path, prefix, device, meter, missing, kept)
        kept = samples.read_samples(path, role, checkpoint)
    if kept is None:
        raise RuntimeError(f"{path}: scores that were just written cannot be read")
    meter.finish_checkpoint()
    return path, kept


def score_checkpoint(
    work: Work,
    role: str,
    checkpoint: Checkpoint,
    path: Path,
    prefix: Sequence[int],
    device: str,
    meter: Meter,
    names: Sequence[str],
    kept: samples.Samples | None = None,
) -> None:
    """Loads the model once, scores the experiments that are named, writes samples to `path`.

    Args:
        work: what is asked.
        role: "run" or "twin".
        checkpoint: the model.
        path: where its samples go.
        prefix: what stands before every text: the end-of-document token, which also ends what is
            generated.
        device: where the model runs.
        meter: counts tokens.
        names: the experiments to score.
        kept: scores of the other experiments, from an earlier eval.
    """
    meter.label = f"{role} step {'?' if checkpoint.step is None else checkpoint.step}"
    asked = [work.asked[name] for name in sorted(names)]
    failures: dict[str, str] = {}
    scores, outputs = _own_scores(asked, checkpoint, prefix, device, meter, failures)
    again = [one for one in asked if one.known and one.experiment.name in scores]
    if work.reference is not None and again:
        reference = load_model(work.reference.checkpoint, device)
        for one in again:
            name = one.experiment.name
            own = scores.pop(name)
            try:
                scores[name] = _judged(one, reference, prefix, own, outputs[name], meter)
            except Exception as error:  # a scorer's own failure: listed, the others go on
                failures[name] = reason(error)
    table = samples.samples_table(
        role, checkpoint, work.experiments, scores, failures, work.scorers, kept
    )
    samples.write_samples(table, path)


def _own_scores(
    asked: Sequence[Asked],
    checkpoint: Checkpoint,
    prefix: Sequence[int],
    device: str,
    meter: Meter,
    failures: dict[str, str],
) -> tuple[dict[str, list[ItemScore]], dict[str, list[_Outputs]]]:
    """Returns the scores under the checkpoint and what it wrote, by experiment.

    The model is loaded and forgotten in here. What cannot be scored is added to the failures.
    """
    model = load_model(checkpoint, device)
    logprobs = _passed(
        {one.experiment.name: one.requests for one in asked},
        lambda requests: token_logprobs(model, requests, progress=meter.add),
        failures,
    )
    outputs = _passed(
        {one.experiment.name: one.prompts for one in asked},
        lambda prompts: generate(model, prompts, prefix[-1], progress=meter.add),
        failures,
    )
    scores: dict[str, list[ItemScore]] = {}
    for one in asked:
        name = one.experiment.name
        if name in failures:
            continue
        try:
            scores[name] = _item_scores(one, model, prefix, logprobs[name], outputs[name])
        except Exception as error:  # a scorer's own failure: listed, the others go on
            failures[name] = reason(error)
    return scores, outputs


def _judged(
    asked: Asked,
    model: torch.nn.Module,
    prefix: Sequence[int],
    scores: list[ItemScore],
    outputs: list[_Outputs],
    meter: Meter,
) -> list[ItemScore]:
    """Returns the scores of an experiment with what the reference says of the outputs."""
    items, scorer = asked.experiment.items, asked.scorer
    if not isinstance(scorer, ReferencedScorer):
        raise TypeError(f"the scorer of {asked.experiment.kind} takes no reference")
    requests = [
        scorer.reference_requests(item, prefix, of_item)
        for item, of_item in zip(items, outputs, strict=True)
    ]
    flat = [request for of_item in requests for request in of_item]
    found = iter(token_logprobs(model, flat, progress=meter.add))
    judged = scorer.judged(items, scores, outputs, _grouped(requests, found))
    _check_finite(items, judged)
    return judged


def _passed(
    asked: Mapping[str, Sequence[Sequence[_Part]]],
    compute: Callable[[list[_Part]], list[_Found]],
    failures: dict[str, str],
) -> dict[str, list[list[_Found]]]:
    """Returns what was found for each experiment by item, in one pass over all of them.

    An experiment that cannot be computed is added to the failures and left out.
    """
    flat = {name: [part for of_item in items for part in of_item] for name, items in asked.items()}
    try:
        everything = iter(compute([part for parts in flat.values() for part in parts]))
        return {name: _grouped(items, everything) for name, items in asked.items()}
    except Exception:  # of one experiment or more: find out which
        found = {}
        for name, items in asked.items():
            try:
                found[name] = _grouped(items, iter(compute(flat[name])))
            except Exception as error:
                failures[name] = reason(error)
        return found


def _grouped(asked: Sequence[Sequence[_Part]], found: Iterator[_Found]) -> list[list[_Found]]:
    """Returns what was found by item, as it was asked for."""
    return [[next(found) for _ in of_item] for of_item in asked]


def _item_scores(
    asked: Asked,
    model: torch.nn.Module,
    prefix: Sequence[int],
    logprobs: list[list[FloatArray]],
    outputs: list[list[list[IntArray]]],
) -> list[ItemScore]:
    """Returns a score an item; a value that is no number is the scorer's error."""
    items, scorer = asked.experiment.items, asked.scorer
    if isinstance(scorer, MeasuringScorer):
        scores = scorer.measure(model, items, prefix)
        if len(scores) != len(items):
            raise ValueError(f"{len(scores)} scores for {len(items)} items")
    elif isinstance(scorer, InspectingScorer):
        given = zip(items, logprobs, strict=True)
        scores = [scorer.inspect(model, *of_item) for of_item in given]
    elif isinstance(scorer, GeneratingScorer):
        of_items = zip(items, logprobs, outputs, strict=True)
        scores = [scorer.score_generated(*of_item) for of_item in of_items]
    else:
        scores = [scorer.score(*of_item) for of_item in zip(items, logprobs, strict=True)]
    _check_finite(items, scores)
    return scores


def _check_finite(items: Sequence[Item], scores: Sequence[ItemScore]) -> None:
    for item, score in zip(items, scores, strict=True):
        bad = [name for name, value in score.values.items() if not _finite(value)]
        if bad:
            raise ValueError(f"item {item.name}: {', '.join(bad)} is not a finite number")


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
