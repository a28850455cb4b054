"""Log-probabilities of given tokens, batched.

A request is a token sequence and where scoring begins: log p(tokens[j] | tokens[:j]) for j >=
first. All requests of all scorers go through one call: sorted by length, cut into batches by a
token budget, padded on the right (the model is causal, so padding changes nothing), log-softmax in
float32 over the scored positions only.

    Request([eod, 5, 9, 2], first=2) -> [log p(9 | eod 5), log p(2 | eod 5 9)]

A request may ask for the moments too: at every scored position, mean and standard deviation of
log p(z) for z drawn from the model's own p. Its result then has three rows instead of being one.

Price: logits of a batch take tokens x vocabulary x 4 bytes; the budget keeps them below half a
gigabyte. Moments take two more passes over the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mixctl.shards.errors import InputError

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Values = TypeVar("Values", FloatArray, IntArray)
_LOGITS = 2**27
_MAX_BATCH_TOKENS = 16_384


@dataclass(frozen=True)
class Request:
    """Tokens to score.

    Attributes:
        tokens: int64 (n,), everything the model reads, and the last token.
        first: the first scored token, at least 1 (the first token of a text has no prediction).
        label: what it is, for error messages.
        moments: whether mean and standard deviation of log p(z), z ~ p, are wanted as well.
    """

    tokens: npt.NDArray[np.int64]
    first: int
    label: str = ""
    moments: bool = False

    @property
    def n_read(self) -> int:
        """Returns the number of tokens that the model reads."""
        return len(self.tokens) - 1

    @property
    def n_scored(self) -> int:
        """Returns the number of tokens that are scored."""
        return len(self.tokens) - self.first


def request_problems(requests: Sequence[Request], max_length: int, vocabulary: int) -> list[str]:
    """Returns what keeps requests from being scored by such a model, a sentence each."""
    problems = []
    for request in requests:
        if not 1 <= request.first < len(request.tokens):
            problems.append(f"{request.label}: nothing to score")
        elif request.n_read > max_length:
            problems.append(
                f"{request.label}: {request.n_read} tokens to read, "
                f"the model's limit is {max_length}"
            )
        elif int(request.tokens.max()) >= vocabulary or int(request.tokens.min()) < 0:
            problems.append(
                f"{request.label}: token {int(request.tokens.max())} is outside the model's "
                f"vocabulary of {vocabulary} (another tokenizer?)"
            )
    return problems


def token_logprobs(
    model: torch.nn.Module,
    requests: Sequence[Request],
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[FloatArray]:
    """Returns the log-probabilities of each request's scored tokens, in nats, float64, in order.

    A result has shape (n_scored,), or (3, n_scored) where moments are asked for: log-probabilities,
    means, standard deviations.

    Args:
        model: a `litgpt.GPT` in evaluation mode.
        requests: what to score.
        batch_tokens: padded tokens in a batch; None: as many as the logits allow.
        progress: called with the number of tokens after each batch.

    Raises:
        InputError: when a request is too long for the model or holds an unknown token; all at once.
    """
    return _picked(model, requests, batch_tokens, _logprobs, progress)


def likeliest_tokens(
    model: torch.nn.Module,
    requests: Sequence[Request],
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[IntArray]:
    """Returns what the model holds likeliest in place of each request's scored tokens, int64.

    The arguments and the errors are those of `token_logprobs`.
    """
    return _picked(model, requests, batch_tokens, _likeliest, progress)


def _logprobs(
    logits: torch.Tensor, targets: torch.Tensor, batch: Sequence[Request]
) -> list[FloatArray]:
    logprobs = logits.log_softmax(dim=-1)
    found = logprobs.gather(1, targets[:, None])[:, 0].double().cpu().numpy()
    if not np.isfinite(found).all():
        raise ValueError("the model gives log-probabilities that are not finite")
    values: list[FloatArray] = np.split(found, _cuts(batch))
    firsts = [0, *_cuts(batch).tolist()]
    for at, (first, request) in enumerate(zip(firsts, batch, strict=True)):
        if request.moments:
            own = logprobs[first : first + request.n_scored]
            values[at] = np.stack([values[at], *_moments(own)])
    return values


def _moments(logprobs: torch.Tensor) -> tuple[FloatArray, FloatArray]:
    """Returns mean and standard deviation of log p under p, from log p (n, vocabulary)."""
    shares = logprobs.exp()
    mean = (shares * logprobs).sum(dim=-1)
    spread = (shares * (logprobs - mean[:, None]) ** 2).sum(dim=-1).sqrt()
    return mean.double().cpu().numpy(), spread.double().cpu().numpy()


def _likeliest(
    logits: torch.Tensor, targets: torch.Tensor, batch: Sequence[Request]
) -> list[IntArray]:
    found: list[IntArray] = np.split(logits.argmax(dim=-1).cpu().numpy(), _cuts(batch))
    return found


def _cuts(batch: Sequence[Request]) -> IntArray:
    """Returns where the scored positions of each request after the first begin."""
    return np.cumsum([request.n_scored for request in batch])[:-1]


def _picked(
    model: torch.nn.Module,
    requests: Sequence[Request],
    batch_tokens: int | None,
    pick: Callable[[torch.Tensor, torch.Tensor, Sequence[Request]], list[Values]],
    progress: Callable[[int], None] | None,
) -> list[Values]:
    """Returns what `pick` makes of the logits at each request's scored positions."""
    import torch

    config: Any = model.config
    problems = request_problems(requests, int(model.max_seq_length), config.padded_vocab_size)  # type: ignore[arg-type]
    if problems:
        raise InputError(problems)
    budget = batch_tokens or max(1, min(_MAX_BATCH_TOKENS, _LOGITS // config.padded_vocab_size))
    device = next(model.parameters()).device
    found: dict[int, Values] = {}
    with torch.inference_mode():
        for members in _batches([request.n_read for request in requests], budget):
            batch = [requests[i] for i in members]
            found.update(zip(members, pick(*_read(model, batch, device), batch), strict=True))
            if progress:
                progress(sum(request.n_read for request in batch))
    return [found[i] for i in range(len(requests))]


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yields indices of requests, longest first, such that padded batches fit the budget."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def _read(
    model: torch.nn.Module, batch: Sequence[Request], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the logits of the scored positions in float32 (n, vocabulary), and their tokens."""
    import torch

    read = np.zeros((len(batch), max(request.n_read for request in batch)), dtype=np.int64)
    for row, request in enumerate(batch):
        read[row, : request.n_read] = request.tokens[:-1]
    rows = np.repeat(np.arange(len(batch)), [request.n_scored for request in batch])
    columns = np.concatenate([np.arange(r.first - 1, r.n_read) for r in batch])
    targets = torch.from_numpy(np.concatenate([r.tokens[r.first :] for r in batch])).to(device)
    logits = model(torch.from_numpy(read).to(device))
    scored = logits[torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)]
    return scored.float(), targets
