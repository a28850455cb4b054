"""The same questions, weights and token ids under mixctl and lm-evaluation-harness.

A choice is scored after the end-of-document token, the question and a line with "Answer:", cut at
the longest common prefix of the tokens, as the contamination scorer does it. The harness is its
class HFLM over the float32 weights of `transformers`, called with these very tokens
(`_loglikelihood_tokens`).

    compared("piqa", 20) -> Compared("piqa", 20, same_choices=20, largest_difference=2e-05)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import real_model
import torch
from tokenizers import Tokenizer

from mixctl.evals.checkpoint import load_model, read_checkpoint
from mixctl.evals.forward import Request, token_logprobs


@dataclass(frozen=True)
class Compared:
    """How far two programs agree on a benchmark.

    Attributes:
        benchmark: its name.
        n_questions: how many were asked.
        same_choices: on how many both pick the same choice, by summed log-probability.
        largest_difference: of the log-likelihood of a choice, in nats.
    """

    benchmark: str
    n_questions: int
    same_choices: int
    largest_difference: float


@cache
def mixctl_model(folder: Path) -> torch.nn.Module:
    """Returns the model as mixctl loads it."""
    return load_model(read_checkpoint(folder, step=0)).float()


@cache
def harness(folder: Path) -> Any:
    """Returns lm-evaluation-harness's model over the same weights."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)


def requests_of(folder: Path, benchmark: str, n_questions: int) -> list[list[Request]]:
    """Returns a request a choice, question by question."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text: str) -> list[int]:
        return [0, *tokenizer.encode(text, add_special_tokens=False).ids]

    found = []
    for question in real_model.questions(folder.parent, benchmark)[:n_questions]:
        asked = f"Question: {question.question}\nAnswer:"
        context = encode(asked)
        found.append([_request(context, encode(f"{asked} {c}")) for c in question.choices])
    return found


def _request(context: Sequence[int], whole: Sequence[int]) -> Request:
    pairs = enumerate(zip(context, whole, strict=False))
    shared = next((at for at, (a, b) in pairs if a != b), min(len(context), len(whole) - 1))
    return Request(np.array(whole), shared)


def mixctl_scores(model: torch.nn.Module, requests: Sequence[Request]) -> list[float]:
    """Returns the log-likelihood of each request's scored tokens."""
    return [float(values.sum()) for values in token_logprobs(model, requests)]


def harness_scores(model: Any, requests: Sequence[Request], batch_size: int) -> list[float]:
    """Returns what lm-evaluation-harness finds for the same tokens, sequences a batch as given."""
    asked = [
        ((str(at), ""), r.tokens[: r.first].tolist(), r.tokens[r.first :].tolist())
        for at, r in enumerate(requests)
    ]
    found = model._loglikelihood_tokens(asked, disable_tqdm=True, override_bs=batch_size)
    return [float(value) for value, _ in found]


def agreement(
    benchmark: str, asked: Sequence[Sequence[Request]], mine: list[float], theirs: list[float]
) -> Compared:
    """Returns how far scores of the same requests agree."""
    ends = np.cumsum([len(choices) for choices in asked])[:-1]
    picked = [
        [int(scores.argmax()) for scores in np.split(np.array(values), ends)]
        for values in (mine, theirs)
    ]
    same = sum(a == b for a, b in zip(*picked, strict=True))
    return Compared(benchmark, len(asked), same, float(np.abs(np.subtract(mine, theirs)).max()))


def compared(benchmark: str, n_questions: int, batch_size: int = 8) -> Compared:
    """Returns how far mixctl and the harness agree on the first questions of a benchmark."""
    folder = real_model.smollm2()
    asked = requests_of(folder, benchmark, n_questions)
    requests = [request for choices in asked for request in choices]
    mine = mixctl_scores(mixctl_model(folder), requests)
    theirs = harness_scores(harness(folder), requests, batch_size)
    return agreement(benchmark, asked, mine, theirs)
