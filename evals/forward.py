"""Log-probabilities of given tokens, batched.

A request is a token sequence and where scoring begins: log p(tokens[j] | tokens[:j]) for j >=
first. All requests of all scorers go through one call: what they share at their beginning is read
once (`mixctl.evals.prefixes`), rows are sorted by length, cut into the cheapest batches within a
budget of tokens and padded on the right (the model is causal, so padding changes nothing). The head
sees the scored positions only, some at a time; log-softmax is in float32.

    Request([eod, 5, 9, 2], first=2) -> [log p(9 | eod 5), log p(2 | eod 5 9)]

A row of several texts is read with a mask and positions of its own, which hooks hand to LitGPT's
blocks. Layers with a sliding window make their own mask, so models that have them read every text
alone; equal requests are still computed once.

A request may ask for the moments too: at every scored position, mean and standard deviation of
log p(z) for z drawn from the model's own p. Its result then has three rows instead of being one.

Price: a forward pass over the distinct tokens without the head, and the head at the scored ones.
Moments take two more passes over the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mixctl.evals import prefixes
from mixctl.evals.prefixes import Member, Row
from mixctl.shards.errors import InputError

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_LOGITS = 2**24
_BATCH_TOKENS = 16_384
_BATCH_COST = 512  # tokens that a GPU could read while a batch is launched, roughly
_CPU_BATCH_TOKENS = 2048  # more are slower, caches being small
_CPU_BATCH_COST = 64  # measured with 135M parameters: 70 ms of 1.5 ms a token


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
        batch_tokens: padded tokens in a batch; None: what is fast on the device.
        progress: called with the number of distinct tokens after each batch; their sum is
            `tokens_to_read`.

    Raises:
        InputError: when a request is too long for the model or holds an unknown token; all at once.
        ValueError: when the model gives log-probabilities that are not finite.
    """
    found = _scored(model, requests, batch_tokens, _logprobs, progress)
    pairs = zip(requests, found, strict=True)
    return [values if request.moments else values[0] for request, values in pairs]


def likeliest_tokens(
    model: torch.nn.Module,
    requests: Sequence[Request],
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[IntArray]:
    """Returns what the model holds likeliest in place of each request's scored tokens, int64.

    The arguments and the errors are those of `token_logprobs`.
    """
    found = _scored(model, requests, batch_tokens, _likeliest, progress)
    return [values[0].astype(np.int64) for values in found]


def tokens_to_read(requests: Sequence[Request], config: Any) -> int:
    """Returns how many tokens such a model reads for the requests: shared ones count once."""
    return sum(row.n_tokens for row in _rows(requests, config, config.block_size))


def _rows(requests: Sequence[Request], config: Any, most: int) -> list[Row]:
    forks = config.sliding_window_size is None and config.rope_indices is None
    return prefixes.rows_of([request.tokens[:-1] for request in requests], most, forks)


_Pick = Callable[["torch.Tensor", "_Scored"], "torch.Tensor"]
"""Takes logits in float32 (n, vocabulary) and what is scored there: (3, scored), float64."""


@dataclass(frozen=True)
class _Scored:
    """The scored tokens of a batch, request by request.

    Attributes:
        places: int64 (n,), which of the batch's tokens, counted row by row, predicts each.
        tokens: int64 (n,), the scored tokens.
        moments: bool (n,), where moments are wanted.
    """

    places: torch.Tensor
    tokens: torch.Tensor
    moments: torch.Tensor


def _logprobs(logits: torch.Tensor, scored: _Scored) -> torch.Tensor:
    """Returns log p of the tokens, and mean and standard deviation of log p where wanted."""
    import torch

    logprobs = logits.log_softmax(dim=-1)
    found = torch.zeros((3, len(scored.places)), dtype=torch.float64, device=logits.device)
    found[0] = logprobs[scored.places, scored.tokens].double()
    if bool(scored.moments.any()):
        wanted = scored.places[scored.moments]
        places, of_place = wanted.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        found[1:, scored.moments] = _moments(logprobs[places])[:, of_place]
    if not bool(torch.isfinite(found).all()):
        raise ValueError("the model gives log-probabilities that are not finite")
    return found


def _moments(logprobs: torch.Tensor) -> torch.Tensor:
    """Returns mean and standard deviation of log p under p, from log p (n, vocabulary)."""
    import torch

    shares = logprobs.exp()
    mean = (shares * logprobs).sum(dim=-1)
    spread = (shares * (logprobs - mean[:, None]) ** 2).sum(dim=-1).sqrt()
    return torch.stack([mean, spread]).double()


def _likeliest(logits: torch.Tensor, scored: _Scored) -> torch.Tensor:
    return logits.argmax(dim=-1)[scored.places].double()[None]


def _scored(
    model: torch.nn.Module,
    requests: Sequence[Request],
    batch_tokens: int | None,
    pick: _Pick,
    progress: Callable[[int], None] | None,
) -> list[FloatArray]:
    """Returns what `pick` makes of each request's scored tokens: (k, n_scored)."""
    import torch

    config: Any = model.config
    most = int(model.max_seq_length)  # type: ignore[arg-type]
    problems = request_problems(requests, most, config.padded_vocab_size)
    if problems:
        raise InputError(problems)
    device = next(model.parameters()).device
    on_cpu = device.type == "cpu"
    budget = batch_tokens or (_CPU_BATCH_TOKENS if on_cpu else _BATCH_TOKENS)
    batch_cost = _CPU_BATCH_COST if on_cpu else _BATCH_COST
    found: dict[int, FloatArray] = {}
    with torch.inference_mode():
        for batch in prefixes.batches(_rows(requests, config, most), budget, batch_cost):
            found.update(_of_batch(model, requests, batch, pick, device))
            if progress:
                progress(sum(row.n_tokens for row in batch))
    return [found[at] for at in range(len(requests))]


def _of_batch(
    model: Any, requests: Sequence[Request], batch: Sequence[Row], pick: _Pick, device: torch.device
) -> dict[int, FloatArray]:
    """Returns what `pick` makes of the requests in these rows, by request."""
    import torch

    width = max(row.n_tokens for row in batch)
    members = [
        (row * width, member) for row, of_row in enumerate(batch) for member in of_row.members
    ]
    scored = _what_is_scored(requests, members, device)
    places, of_place = scored.places.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    hidden = _hidden(model, requests, batch, width, device)[places]
    step = max(1, _LOGITS // model.config.padded_vocab_size)
    found = torch.zeros((3, len(of_place)), dtype=torch.float64, device=device)
    for start in range(0, len(places), step):
        here = ((of_place >= start) & (of_place < start + step)).nonzero()[:, 0]
        own = _Scored(of_place[here] - start, scored.tokens[here], scored.moments[here])
        found[:, here] = pick(_head(model, hidden[start : start + step]), own)
    cuts = np.cumsum([requests[member.text].n_scored for _, member in members])[:-1]
    values = np.split(found.cpu().numpy(), cuts, axis=1)
    return {member.text: own for (_, member), own in zip(members, values, strict=True)}


def _what_is_scored(
    requests: Sequence[Request], members: Sequence[tuple[int, Member]], device: torch.device
) -> _Scored:
    """Returns what is scored of texts whose rows begin at these places of the batch."""
    import torch

    asked = [(begin, member, requests[member.text]) for begin, member in members]
    places = [begin + member.places[request.first - 1 :] for begin, member, request in asked]
    tokens = [request.tokens[request.first :] for _, _, request in asked]
    moments = [np.full(request.n_scored, request.moments) for _, _, request in asked]
    return _Scored(
        *(torch.from_numpy(np.concatenate(part)).to(device) for part in (places, tokens, moments))
    )


def _hidden(
    model: Any, requests: Sequence[Request], batch: Sequence[Row], width: int, device: torch.device
) -> torch.Tensor:
    """Returns what the head would see of the batch: (rows x width, n_embd)."""
    import torch

    read = np.zeros((len(batch), width), dtype=np.int64)
    for at, row in enumerate(batch):
        for member in row.members:
            read[at, member.places] = requests[member.text].tokens[:-1]
    kept: list[torch.Tensor] = []

    def keep(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        kept.append(inputs[0].flatten(0, 1))
        return (inputs[0][:1, :1],)

    hook = model.lm_head.register_forward_pre_hook(keep)
    try:
        with _laid_out(model, batch, width, device):
            model(torch.from_numpy(read).to(device))
    finally:
        hook.remove()
    return kept[0]


def _head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Returns logits in float32 (n, vocabulary), as the end of LitGPT's forward makes them."""
    from litgpt.model import do_softcapping

    logits: torch.Tensor = model.lm_head(hidden)
    cap = model.config.final_logit_softcapping
    return (logits if cap is None else do_softcapping(logits, cap)).float()


@contextmanager
def _laid_out(model: Any, batch: Sequence[Row], width: int, device: torch.device) -> Iterator[None]:
    """Lets the blocks see rows with forks as trees: rotary positions and mask of their own."""
    import torch

    if not batch[0].forks:
        yield
        return
    positions = np.stack([prefixes.positions(row, width) for row in batch])
    seen = torch.from_numpy(np.stack([prefixes.seen(row, width) for row in batch])).to(device)
    at = torch.from_numpy(positions).to(device)
    cos, sin = model.cos[at], model.sin[at]
    mask = torch.zeros(seen.shape, dtype=next(model.parameters()).dtype, device=device)
    mask = mask.masked_fill_(~seen, float("-inf"))[:, None]

    def placed(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0], cos, sin, mask, *inputs[4:])

    hooks = [block.register_forward_pre_hook(placed) for block in model.transformer.h]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
