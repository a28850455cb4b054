"""Gaussian watermarks: does the loss fall towards the noise that the model was trained with?

A marked sequence is trained with noise w ~ N(0, sigma^2) on its input embeddings e. At the clean
embeddings,

    x = <grad_e log-likelihood(e), w> / (sigma |grad_e log-likelihood|)

is N(0, 1) for any model that never met w, exactly: given the gradient it is a weighted sum of
independent normal numbers. A model that was trained at e + w is likelier there, so x is above 0. It
is the statistic of the reference study with the gradient of the log-likelihood in place of that of
the loss, which is minus it: larger is better known. The loss is LitGPT's: cross-entropy over all
tokens of the sequence, which is read as it is trained, with no token before it. A mark of several
sequences is one vector: its inner products are added up, and so are the squares of the norms.

A mark that was held out has a noise, but no sequences of its own where the build gave it none. It
borrows those of the marks that were placed, in turn: noise that was never met, on sequences that
were; x is N(0, 1), and independent of every other mark's, since its noise is.

- `noise_alignment` (primary): x.
- `detected`: whether x exceeds the 99% point of N(0, 1); its mean is the TPR at exactly 1% FPR.
- `control_alignment`: the mean of x over at most 16 seeds that were never used, on the first
  sequence of the mark; 0 in expectation for every model.

AUC and TPR against the holdout are computed on noise_alignment. Over the marks of an arm, their sum
is a z-test of its own (`noise_test`), which needs no holdout.

Price: a forward and a backward pass to the embeddings a sequence, and 10 ns a number of the noise.
Source: Pawelczyk et al., "Machine unlearning fails to remove data poisoning attacks", arXiv
2406.17216 (Gaussian poisons).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixctl.evals.scorers.base import FloatArray, IntArray, Item, ItemScore, Metric, Pooled
from mixctl.shards.marks import noise_of
from mixctl.shards.meta import GaussianMeta

if TYPE_CHECKING:
    import torch

ONE_PERCENT = 2.3263478740408408
"""the 99% point of N(0, 1)"""
MOST_NULLS = 16
_MAX_BATCH_TOKENS = 4096
_LOGITS = 2**26
_TEST = "noise never met, so every mark's x is N(0, 1): z-test of the mean"


@dataclass(frozen=True)
class _Gradient:
    """Of one sequence: its summed log-likelihood and its gradient, float64 (inputs, n_embd)."""

    loglikelihood: float
    slope: FloatArray

    @cached_property
    def square(self) -> float:
        """Returns the squared norm of the gradient."""
        return float((self.slope**2).sum())


class GaussianScorer:
    """Scores marks by the slope of the log-likelihood along their noise."""

    kind = "watermark"
    version = 1
    alone = "noise_test"
    metrics: tuple[Metric, ...] = (
        Metric("noise_alignment", primary=True),
        Metric("detected", share=True),
        Metric("control_alignment"),
    )
    membership: str | None = "noise_alignment"

    def measure(
        self, model: torch.nn.Module, items: Sequence[Item], prefix: Sequence[int]
    ) -> list[ItemScore]:
        """Returns the score of each mark; the prefix stands before no sequence.

        Raises:
            ValueError: when no mark has sequences.
        """
        found: dict[int, ItemScore] = {}
        for owner, borrowers in _owners(items).items():
            chosen = [owner, *borrowers]
            scores = _scores(model, [items[at] for at in chosen])
            found.update(zip(chosen, scores, strict=True))
        return [found[at] for at in range(len(items))]

    def pooled(self, values: Mapping[str, FloatArray]) -> list[Pooled]:
        """Returns the z-test over the marks."""
        from scipy import stats

        x = values["noise_alignment"][np.isfinite(values["noise_alignment"])].tolist()
        if not x:
            return []
        p_value = float(stats.norm.sf(math.fsum(x) / math.sqrt(len(x))))
        return [Pooled("noise_test", math.fsum(x) / len(x), p_value, _TEST, len(x))]


def _owners(items: Sequence[Item]) -> dict[int, list[int]]:
    """Returns the marks that have sequences, and which marks without any borrow theirs, in turn."""
    own = [bool(len(item.tokens)) for item in items]
    owners = [at for at, has in enumerate(own) if has]
    if items and not owners:
        raise ValueError("no mark has sequences to take a gradient of: none was placed")
    without = [at for at, has in enumerate(own) if not has]
    return {owner: without[turn :: len(owners)] for turn, owner in enumerate(owners)}


def _scores(model: torch.nn.Module, marks: Sequence[Item]) -> list[ItemScore]:
    """Returns the scores of a mark and of those that borrow its sequences."""
    metas = [GaussianMeta.model_validate_json(mark.meta) for mark in marks]
    sequences = _sequences(marks[0], metas[0], int(model.max_seq_length))  # type: ignore[arg-type]
    along, controls = [0.0] * len(marks), [0.0] * len(marks)
    squares = loglikelihood = 0.0
    for row, found in enumerate(_gradients(model, sequences)):
        loglikelihood += found.loglikelihood
        squares += found.square
        for at, meta in enumerate(metas):
            along[at] += _along(found.slope, meta.noise_seed, row)
            if row == 0:
                controls[at] = _control(found, meta)
    if not squares > 0:
        raise ValueError(f"item {marks[0].name}: the model's gradient is zero")
    return [
        _score(meta, sum_of / math.sqrt(squares), control, (sequences[:, 1:].size, loglikelihood))
        for meta, sum_of, control in zip(metas, along, controls, strict=True)
    ]


def _score(meta: GaussianMeta, x: float, control: float, read: tuple[int, float]) -> ItemScore:
    values = {"noise_alignment": x, "detected": float(x > ONE_PERCENT)}
    if meta.null_seeds:
        values["control_alignment"] = control
    return ItemScore(*read, values)


def _sequences(item: Item, meta: GaussianMeta, longest: int) -> IntArray:
    """Returns the sequences of a mark, a row each.

    Raises:
        ValueError: when the item's tokens are not so many sequences, or too long for the model.
    """
    tokens, length = item.tokens, item.sequence_tokens
    where = f"experiment {item.experiment}, item {item.name}"
    if length < 2 or len(tokens) != meta.n_sequences * length:
        raise ValueError(
            f"{where}: {len(tokens)} tokens are not {meta.n_sequences} sequences of {length}"
        )
    if length - 1 > longest:
        raise ValueError(f"{where}: {length - 1} tokens to read, the model's limit is {longest}")
    return tokens.reshape(meta.n_sequences, length)


def _along(slope: FloatArray, seed: int, row: int) -> float:
    """Returns the inner product of a gradient and a noise at sigma 1."""
    return float((slope * noise_of(seed, row, (slope.shape[0], slope.shape[1]))).sum())


def _control(found: _Gradient, meta: GaussianMeta) -> float:
    """Returns the mean x of a sequence over seeds that were never used; 0 where it has no slope."""
    seeds = meta.null_seeds[:MOST_NULLS]
    if not seeds or not found.square:
        return 0.0
    mean = math.fsum(_along(found.slope, seed, 0) for seed in seeds) / len(seeds)
    return mean / math.sqrt(found.square)


def _gradients(model: torch.nn.Module, sequences: IntArray) -> Iterator[_Gradient]:
    """Yields the gradient of each sequence's log-likelihood at its input embeddings."""
    vocabulary = int(model.config.padded_vocab_size)  # type: ignore[union-attr, arg-type]
    budget = min(_MAX_BATCH_TOKENS, _LOGITS // vocabulary)
    rows = max(1, budget // (sequences.shape[1] - 1))
    for begin in range(0, len(sequences), rows):
        yield from _batch_gradients(model, sequences[begin : begin + rows])


def _batch_gradients(model: torch.nn.Module, sequences: IntArray) -> Iterator[_Gradient]:
    """Yields the gradients of a few sequences; rows of a batch do not see each other."""
    import torch

    tokens = torch.from_numpy(sequences).to(next(model.parameters()).device)
    embedded: list[torch.Tensor] = []

    def take(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().clone().requires_grad_(True))
        return embedded[-1]

    hook = model.transformer.wte.register_forward_hook(take)  # type: ignore[union-attr]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logits = model(tokens[:, :-1]).float()
            losses = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
            (slope,) = torch.autograd.grad(-losses.sum(), embedded)
    finally:
        hook.remove()
    if not torch.isfinite(slope).all():
        raise ValueError("the model gives gradients that are not finite")
    sums = losses.detach().double().sum(dim=1).tolist()
    for loss, one in zip(sums, slope.double().cpu().numpy(), strict=True):
        yield _Gradient(-loss, one)
