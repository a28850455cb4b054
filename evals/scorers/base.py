"""What a scorer is: requests out of an item, values out of their log-probabilities.

A scorer sees an item's tokens and its meta, never its arm or its dose. So it cannot treat arms
differently, and all statistics are shared (`mixctl.evals.estimation`). Nothing is ever tokenized
again; generated tokens may be turned into text (`Item.decode`).

    class Length:                                   # a scorer in full
        kind, version = "length", 1
        metrics = (Metric("loglikelihood", primary=True),)
        membership = None
        def requests(self, item, prefix): return [request(item, prefix, item.tokens)]
        def score(self, item, logprobs): return of_text(logprobs[0], {"loglikelihood": ...})

A scorer may instead ask the model to continue prompts (`GeneratingScorer`), or be handed the model
itself (`MeasuringScorer`, or with requests besides, `InspectingScorer`). One that generates may
have the answers read by another model (`ReferencedScorer`). Requests and prompts of all scorers are
computed in one pass.

A third party registers one under the entry-point group `mixctl.scorers`, by the name of its kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mixctl.evals.forward import Request
from mixctl.evals.generation import Prompt

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Item:
    """An item as a scorer sees it.

    Attributes:
        experiment: its experiment, for error messages.
        name: the item's name.
        tokens: int64 (n,), the payload without separators. Base data is whole training sequences,
            one after the other, as the shards hold them.
        meta: JSON, as the kind wrote it.
        sequence_tokens: tokens of a training sequence, into which base data is cut.
        decode: token ids -> text, by the tokenizer of the build; None where it carries none.
    """

    experiment: str
    name: str
    tokens: IntArray
    meta: str
    sequence_tokens: int = 0
    decode: Decode | None = field(default=None, repr=False, compare=False)

    def text_of(self, tokens: Sequence[int]) -> str:
        """Returns the tokens as text.

        Raises:
            ValueError: when the build carries no tokenizer.
        """
        if self.decode is None:
            raise ValueError(
                f"experiment {self.experiment}, item {self.name}: the build carries no tokenizer "
                "(tokenizer/tokenizer.json) to read generated tokens with"
            )
        return self.decode(tokens)


@dataclass(frozen=True)
class Metric:
    """A number per item, larger when the payload is better known.

    Attributes:
        name: as it stands in results.parquet. A name that ends with * stands for all values whose
            name begins like it, `exact_*` for `exact_25` and `exact_50`: what items have in common
            depends on how the experiment was set up.
        primary: whether it enters the family of primary tests; one metric of a kind does.
        share: whether its values are 0 or 1, so that means are shares.
        chance: the share that guessing reaches; the level is then tested against it.
        membership: whether AUC and TPR at 1% FPR are computed on it too, as auc_<name> and
            tpr_at_1pct_fpr_<name>, besides those on the scorer's own `membership` metric.
    """

    name: str
    primary: bool = False
    share: bool = False
    chance: float | None = None
    membership: bool = False


@dataclass(frozen=True)
class ItemScore:
    """What a scorer found for one item.

    Attributes:
        n_tokens: scored tokens of the item itself.
        loglikelihood: their summed log-probability in nats.
        values: metric -> value; a metric that the item does not have is left out.
        estimators: metric -> how its values were had, where there is more than one way.
    """

    n_tokens: int
    loglikelihood: float
    values: Mapping[str, float]
    estimators: Mapping[str, str] = field(default_factory=dict)


class Described(Protocol):
    """What every scorer says of itself.

    Attributes:
        kind: the kind it scores.
        version: raise it when values change, so that stored samples are not reused.
        metrics: what it returns for an item.
        membership: the metric on which AUC and TPR at 1% FPR are computed, or None.
    """

    kind: str
    version: int
    metrics: tuple[Metric, ...]
    membership: str | None


class Scorer(Described, Protocol):
    """A scorer of one experiment kind, by the log-probabilities of given tokens."""

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns what the model must score for an item; `prefix` stands before every text."""
        ...

    def score(self, item: Item, logprobs: Sequence[FloatArray]) -> ItemScore:
        """Returns the item's values from the log-probabilities of its requests, in their order."""
        ...


@runtime_checkable
class GeneratingScorer(Described, Protocol):
    """A scorer that reads what the model writes, besides the log-probabilities of given tokens."""

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns what the model must score for an item; may be empty."""
        ...

    def prompts(self, item: Item, prefix: Sequence[int]) -> list[Prompt]:
        """Returns what the model must continue for an item; `prefix` begins every prompt."""
        ...

    def score_generated(
        self, item: Item, logprobs: Sequence[FloatArray], outputs: Sequence[Sequence[IntArray]]
    ) -> ItemScore:
        """Returns the item's values from its log-probabilities and, per prompt, its samples."""
        ...


@runtime_checkable
class ReferencedScorer(Described, Protocol):
    """A generating scorer that has what was written read by another model too (`--reference`).

    Attributes:
        reference: the digest of that model; None where there is none.
    """

    reference: str | None

    def with_reference(self, digest: str) -> AnyScorer:
        """Returns the scorer with a reference; itself where a reference is of no use to it."""
        ...

    def reference_requests(
        self, item: Item, prefix: Sequence[int], outputs: Sequence[Sequence[IntArray]]
    ) -> list[Request]:
        """Returns what the reference must score for an item.

        `outputs` are the samples per prompt. Without any: what the reference must score whatever a
        model writes, and texts as long as the longest that it may.
        """
        ...

    def judged(
        self,
        items: Sequence[Item],
        scores: Sequence[ItemScore],
        outputs: Sequence[Sequence[Sequence[IntArray]]],
        logprobs: Sequence[Sequence[FloatArray]],
    ) -> list[ItemScore]:
        """Returns the scores with what the reference adds, from the results of its requests."""
        ...


def reference_of(scorer: Described) -> str | None:
    """Returns the digest of the reference that a scorer uses; None: it uses none."""
    return scorer.reference if isinstance(scorer, ReferencedScorer) else None


@runtime_checkable
class MeasuringScorer(Described, Protocol):
    """A scorer that needs the model itself, for gradients or activations.

    It must leave the model as it was: same weights, no hooks, no gradients.
    """

    def measure(
        self, model: torch.nn.Module, items: Sequence[Item], prefix: Sequence[int]
    ) -> list[ItemScore]:
        """Returns a score an item, in their order."""
        ...


@runtime_checkable
class InspectingScorer(Described, Protocol):
    """A scorer that looks at the model, besides the log-probabilities of given tokens.

    It must leave the model as it was.
    """

    def requests(self, item: Item, prefix: Sequence[int]) -> list[Request]:
        """Returns what the model must score for an item; may be empty."""
        ...

    def inspect(
        self, model: torch.nn.Module, item: Item, logprobs: Sequence[FloatArray]
    ) -> ItemScore:
        """Returns the item's values from the model and the log-probabilities of its requests."""
        ...


AnyScorer = Scorer | GeneratingScorer | MeasuringScorer | InspectingScorer


@dataclass(frozen=True)
class Pooled:
    """A number over all items of an arm, with a test that needs no other arm.

    Attributes:
        metric: as it stands in results.parquet; no metric of the items has this name.
        estimate: the number.
        p_value: one-sided, small where the payloads are known; None where there is no test.
        test: the null and how the p-value was found.
        n: what was counted: marks, tuples, collections.
        note: what must be said beside the number.
    """

    metric: str
    estimate: float | None
    p_value: float | None
    test: str | None
    n: int
    note: str | None = None


@runtime_checkable
class PooledScorer(Described, Protocol):
    """A scorer whose secret was drawn at random, so that its null is known without a holdout.

    Attributes:
        alone: the number that is primary where there is no holdout to compare with.
    """

    alone: str

    def pooled(self, values: Mapping[str, FloatArray]) -> list[Pooled]:
        """Returns numbers over the items of one arm under one checkpoint.

        Args:
            values: metric -> float64 (n_items,), NaN where an item has none.
        """
        ...


@runtime_checkable
class TrajectoryScorer(Described, Protocol):
    """A scorer that has something to say of all checkpoints together.

    Attributes:
        trajectory: the metric, a log-probability, whose rise after each copy is told
            (`mixctl.evals.trajectories`).
    """

    trajectory: str


@runtime_checkable
class RunLevelScorer(Described, Protocol):
    """A scorer whose question is what the run learnt, not what tells placed items from others.

    Attributes:
        run_level: the items of whose difference to replicated twins the primary test is, where
            there are enough of them: "placed", or "held out" for what reaches items never placed.
    """

    run_level: Literal["placed", "held out"]


@runtime_checkable
class ScorerOfMethods(Protocol):
    """What is registered for a kind whose experiments are scored in several ways."""

    kind: str

    def scorer_of(self, items: Sequence[Item]) -> AnyScorer:
        """Returns the scorer of an experiment with these items."""
        ...


def expanded(metrics: Sequence[Metric], names: Iterable[str]) -> list[Metric]:
    """Returns the metrics, those that end with * replaced by one for each name that fits.

    A name that is a metric of its own fits no other.
    """
    own = {metric.name for metric in metrics}
    found = []
    for metric in metrics:
        if not metric.name.endswith("*"):
            found.append(metric)
            continue
        begin = metric.name[:-1]
        fitting = sorted({name for name in names if name.startswith(begin)} - own, key=_natural)
        found += [replace(metric, name=name) for name in fitting]
    return found


def _natural(name: str) -> tuple[str, int]:
    """Returns a key that puts exact_25 before exact_100."""
    word = name.rstrip("0123456789")
    return word, int(name[len(word) :] or -1)


def request(
    item: Item,
    prefix: Sequence[int],
    scored: Sequence[int],
    context: Sequence[int] = (),
    moments: bool = False,
) -> Request:
    """Returns the request to score `scored` after the prefix and the context.

    Raises:
        ValueError: when there is nothing to score.
    """
    if not len(scored):
        raise ValueError(f"experiment {item.experiment}, item {item.name}: nothing to score")
    tokens = np.array([*prefix, *context, *scored], dtype=np.int64)
    label = f"experiment {item.experiment}, item {item.name}"
    return Request(tokens, len(prefix) + len(context), label, moments)


def total(logprobs: FloatArray) -> float:
    """Returns the summed log-probability in nats, exactly rounded."""
    return math.fsum(logprobs.tolist())
