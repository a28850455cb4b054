"""Continuations of given prompts, batched, with LitGPT's own cache of keys and values.

A prompt is a token sequence and how many tokens should follow it: the likeliest ones (n_samples =
1, greedy), or several samples from the softmax at a temperature. All prompts of all scorers go
through one call. A continuation ends before the end-of-document token, after n_new tokens, or
where the model's context ends.

    Prompt([eod, 5, 9], n_new=2) -> [[array([2, 7])]]

Equal prompts in a batch, such as the samples of one, are read once, their keys and values copied.
Prompts of different lengths share a batch: they are padded on the right, every row goes on at its
own position, and the mask hides what lies behind it. So the padding's keys are overwritten before
anyone looks at them. LitGPT's cache does not fit models with a sliding window (its ring buffer
takes the padding in) or capped attention scores (its boolean mask is added as a number): these are
computed again in full for every token.

Samples are drawn by inverting the cumulative softmax at uniform numbers of a `torch.Generator` that
is seeded with the prompt's seed, its tokens and the number of the sample. So they depend neither on
the batch nor on what else is generated.

Price: a forward pass of the batch for the prompts and one a token; only the last position's logits
are computed. Sequences in a batch that are finished wait for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mixctl.shards.draws import stream
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.int64]
_MAX_BATCH_TOKENS = 16_384
_LOGITS = 2**27


@dataclass(frozen=True)
class Prompt:
    """A text to be continued.

    Attributes:
        tokens: int64 (n,), all that the model reads first.
        n_new: how many tokens to generate at most.
        n_samples: 1: the greedy continuation; more: so many samples.
        temperature: of the samples.
        seed: of the samples.
        label: what it is, for error messages.
    """

    tokens: IntArray
    n_new: int
    n_samples: int = 1
    temperature: float = 1.0
    seed: int = 0
    label: str = ""

    @property
    def cost(self) -> int:
        """Returns the number of tokens that are read, once, and generated at most."""
        return len(self.tokens) + self.n_samples * self.n_new


@dataclass(frozen=True)
class _Row:
    """A continuation to be made: a sample of a prompt."""

    prompt: int
    sample: int
    tokens: IntArray
    n_new: int


def prompt_problems(prompts: Sequence[Prompt], max_length: int, vocabulary: int) -> list[str]:
    """Returns what keeps prompts from being continued by such a model, a sentence each."""
    problems = []
    for prompt in prompts:
        if not len(prompt.tokens):
            problems.append(f"{prompt.label}: an empty prompt")
        elif min(prompt.n_new, prompt.n_samples) < 1 or not prompt.temperature > 0:
            problems.append(
                f"{prompt.label}: {prompt.n_samples} samples of {prompt.n_new} new tokens at "
                f"temperature {prompt.temperature} cannot be made: all must be above 0"
            )
        elif len(prompt.tokens) > max_length:
            problems.append(
                f"{prompt.label}: a prompt of {len(prompt.tokens)} tokens, the model's limit is "
                f"{max_length}"
            )
        elif int(prompt.tokens.max()) >= vocabulary or int(prompt.tokens.min()) < 0:
            problems.append(
                f"{prompt.label}: token {int(prompt.tokens.max())} is outside the model's "
                f"vocabulary of {vocabulary} (another tokenizer?)"
            )
    return problems


def generate(
    model: torch.nn.Module,
    prompts: Sequence[Prompt],
    eod_id: int | None = None,
    progress: Callable[[int], None] | None = None,
    batch_tokens: int = _MAX_BATCH_TOKENS,
) -> list[list[IntArray]]:
    """Returns the samples of each prompt, in order: the new tokens alone, int64.

    Args:
        model: a `litgpt.GPT` in evaluation mode.
        prompts: what to continue.
        eod_id: where a continuation ends; the token itself is not returned.
        progress: called with the number of tokens after each batch.
        batch_tokens: padded tokens in a batch, new ones included.

    Raises:
        InputError: when a prompt does not fit the model; all at once.
        ValueError: when the model gives logits that are not finite.
    """
    import torch

    config: Any = model.config
    most = int(model.max_seq_length)  # type: ignore[arg-type]
    problems = prompt_problems(prompts, most, config.padded_vocab_size)
    if problems:
        raise InputError(problems)
    found: list[list[IntArray]] = [[np.zeros(0, np.int64)] * p.n_samples for p in prompts]
    rows = _rows(prompts, most)
    most_rows = max(1, _LOGITS // (4 * config.padded_vocab_size))
    with torch.inference_mode():
        for batch in _batches(rows, batch_tokens, most_rows):
            for row, tokens in zip(batch, _continue(model, batch, prompts, eod_id), strict=True):
                found[row.prompt][row.sample] = tokens
            if progress:
                progress(sum(_cost(row, prompts[row.prompt]) for row in batch))
    return found


def _cost(row: _Row, prompt: Prompt) -> int:
    """Returns the row's share of its prompt's cost: the first sample reads the prompt."""
    return prompt.n_new + (0 if row.sample else len(row.tokens))


def _rows(prompts: Sequence[Prompt], most: int) -> list[_Row]:
    """Returns a row a sample; the last new token is not read, so it may lie beyond the context."""
    rows = []
    for at, prompt in enumerate(prompts):
        tokens = np.ascontiguousarray(prompt.tokens, dtype=np.int64)
        n_new = min(prompt.n_new, most + 1 - len(tokens))
        rows += [_Row(at, sample, tokens, n_new) for sample in range(prompt.n_samples)]
    return rows


def _batches(rows: Sequence[_Row], budget: int, most_rows: int) -> Iterator[list[_Row]]:
    """Yields batches of rows alike in their number of new tokens, then in length, longest first.

    Rows of the same tokens stand together.
    """

    def place(row: _Row) -> tuple[int, int, bytes, int, int]:
        return (-row.n_new, -len(row.tokens), row.tokens.tobytes(), row.prompt, row.sample)

    order = sorted(rows, key=place)
    batch: list[_Row] = []
    width = 0
    for row in order:
        wider = max(width, len(row.tokens) + row.n_new)
        if batch and (wider * (len(batch) + 1) > budget or len(batch) == most_rows):
            yield batch
            batch, wider = [], len(row.tokens) + row.n_new
        batch.append(row)
        width = wider
    if batch:
        yield batch


def _continue(
    model: torch.nn.Module, batch: Sequence[_Row], prompts: Sequence[Prompt], eod_id: int | None
) -> list[IntArray]:
    """Returns the new tokens of each row of a batch."""
    import torch

    device = next(model.parameters()).device
    n_new = max(row.n_new for row in batch)
    choose = _Chooser([prompts[row.prompt] for row in batch], [r.sample for r in batch], device)
    lengths = torch.tensor([len(row.tokens) for row in batch], device=device)
    limits = torch.tensor([row.n_new for row in batch], device=device)
    made = torch.zeros((len(batch), n_new), dtype=torch.long, device=device)
    done = torch.zeros(len(batch), dtype=torch.bool, device=device)
    ends = limits.clone()
    with _stepper(model, batch, device) as step:
        for at in range(n_new):
            tokens = choose(step(lengths + at, made[:, at - 1] if at else None), at)
            made[:, at] = tokens
            if eod_id is not None:
                stops = (tokens == eod_id) & ~done
                ends = torch.where(stops, torch.clamp(limits, max=at), ends)
                done |= stops
            done |= limits <= at + 1
            if bool(done.all()):
                break
    kept = zip(made.cpu().numpy(), ends.tolist(), strict=True)
    return [np.array(tokens[:end], dtype=np.int64) for tokens, end in kept]


class _Chooser:
    """Picks the next token of every row: the likeliest, or one drawn with the row's own stream."""

    def __init__(
        self, prompts: Sequence[Prompt], samples: Sequence[int], device: torch.device
    ) -> None:
        """Draws all uniform numbers of the rows that are sampled."""
        import torch

        self.sampled = [at for at, prompt in enumerate(prompts) if prompt.n_samples > 1]
        chosen = [(prompts[at], samples[at]) for at in self.sampled]
        longest = max((prompt.n_new for prompt, _ in chosen), default=0)
        uniform = torch.zeros((len(chosen), longest), dtype=torch.float64)
        for at, (prompt, sample) in enumerate(chosen):
            uniform[at, : prompt.n_new] = _uniform(prompt, sample)
        self.uniform = uniform.to(device)
        heat = [prompt.temperature for prompt, _ in chosen]
        self.temperature = torch.tensor(heat, device=device)[:, None]

    def __call__(self, logits: torch.Tensor, at: int) -> torch.Tensor:
        """Returns the tokens of the rows from their logits (rows, vocabulary), float32."""
        import torch

        if not bool(torch.isfinite(logits).all()):
            raise ValueError("the model gives logits that are not finite")
        tokens = logits.argmax(dim=-1)
        if self.sampled and at < self.uniform.shape[1]:
            shares = torch.softmax(logits[self.sampled] / self.temperature, dim=-1).double()
            sums = shares.cumsum(dim=-1)
            wanted = self.uniform[:, at : at + 1] * sums[:, -1:]
            drawn = torch.searchsorted(sums, wanted, right=True)[:, 0]
            tokens[self.sampled] = drawn.clamp(max=logits.shape[-1] - 1)
        return tokens


def _uniform(prompt: Prompt, sample: int) -> torch.Tensor:
    """Returns the uniform numbers of a sample: float64 (n_new,)."""
    import torch

    text = digest_bytes(np.ascontiguousarray(prompt.tokens, dtype="<i8").tobytes())
    generator = torch.Generator().manual_seed(stream("generation", prompt.seed, text, sample))
    return torch.rand(prompt.n_new, dtype=torch.float64, generator=generator)


_Step = Callable[["torch.Tensor", "torch.Tensor | None"], "torch.Tensor"]
"""Takes how many tokens each row has, and the newest (None at first): the next token's logits."""


@contextmanager
def _stepper(model: Any, batch: Sequence[_Row], device: torch.device) -> Iterator[_Step]:
    """Yields the function that reads one more token of every row, and puts the model in order."""
    import torch

    longest = max(len(row.tokens) for row in batch)
    width = longest + max(row.n_new for row in batch) - 1
    width = min(width, int(model.max_seq_length))
    read = torch.zeros((len(batch), width), dtype=torch.long)
    for at, row in enumerate(batch):
        read[at, : len(row.tokens)] = torch.from_numpy(row.tokens)
    read = read.to(device)
    if not _fits_cache(model.config):
        yield lambda lengths, newest: _full(model, read, lengths, newest)
        return
    dtype = next(model.parameters()).dtype
    model.set_kv_cache(len(batch), width, device=device, dtype=dtype)
    try:
        yield lambda lengths, newest: _cached(model, read[:, :longest], lengths, newest, width)
    finally:
        model.clear_kv_cache()


def _fits_cache(config: Any) -> bool:
    return config.sliding_window_size is None and config.attention_logit_softcapping is None


def _full(
    model: Any, read: torch.Tensor, lengths: torch.Tensor, newest: torch.Tensor | None
) -> torch.Tensor:
    """Returns logits by reading everything again; a finished row writes past the others' ends."""
    import torch

    last = (lengths - 1).clamp(max=read.shape[1] - 1)
    if newest is not None:
        read[torch.arange(len(read), device=read.device), last] = newest
    with _only(model, last):
        logits: torch.Tensor = model(read[:, : int(last.max()) + 1])
    return logits[:, 0].float()


def _cached(
    model: Any,
    prompts: torch.Tensor,
    lengths: torch.Tensor,
    newest: torch.Tensor | None,
    width: int,
) -> torch.Tensor:
    """Returns logits by reading the prompts at first, then one token a row at its own place."""
    if newest is None:
        return _prefilled(model, prompts, lengths)
    place = (lengths - 1).clamp(max=width - 1)
    logits = model(newest[:, None], place[:, None], input_pos_maxp1=int(place.max()) + 1)
    found: torch.Tensor = logits[:, 0].float()
    return found


def _prefilled(model: Any, prompts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Returns logits by reading each distinct prompt once; the cache has the keys of every row."""
    import torch

    labelled = torch.cat([lengths[:, None], prompts], dim=1)
    distinct, of_row = labelled.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    longest = prompts.shape[1]
    positions = torch.arange(longest, device=prompts.device)
    with _only(model, distinct[:, 0] - 1):
        logits = model(distinct[:, 1:], positions, input_pos_maxp1=longest)
    for block in model.transformer.h:
        cache = block.attn.kv_cache
        for kept in (cache.k, cache.v):
            kept[:, :, :longest] = kept[of_row, :, :longest]
    found: torch.Tensor = logits[of_row, 0].float()
    return found


@contextmanager
def _only(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Lets the head see one position a row, so that no other logits are computed."""
    import torch

    def chosen(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0]
        rows = torch.arange(len(hidden), device=hidden.device)
        return (hidden[rows, positions][:, None],)

    hook = model.lm_head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        hook.remove()
